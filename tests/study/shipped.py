"""The demo's reference records under another study: variants renamed, added or left out."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import yaml

from lsc.study.shown import Shown
from lsc.study.tables import Records
from tests.conftest import ROOT

REFERENCE = ROOT / "results" / "reference" / "demo"


def demo() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())


def opened(folder: Path, study: dict[str, Any]) -> Records:
    """The reference records, read as those of ``study``."""
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    runs = folder / "runs"
    return Records(folder, runs if runs.exists() else REFERENCE / "runs")


def renamed(folder: Path, name: Callable[[str, int], str]) -> Records:
    """The demo with every variant called ``name`` of its old name and its place in the alphabet."""
    study = demo()
    new = {
        (experiment, old): name(old, place)
        for experiment, block in study["experiments"].items()
        for place, old in enumerate(sorted(block["variants"]))
    }
    for (experiment, old), variant in new.items():
        place = folder / "runs" / experiment / variant
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(REFERENCE / "runs" / experiment / old)
    for experiment, block in study["experiments"].items():
        for settings in block["variants"].values():
            if "teacher" in settings:
                taught_by = tuple(settings["teacher"]["run"].split("/"))
                settings["teacher"]["run"] = f"{taught_by[0]}/{new[taught_by]}"
        block["variants"] = {new[experiment, old]: settings for old, settings in block["variants"].items()}
    return opened(folder, study)


def pieces(notebook: str, records: Records) -> list[Shown]:
    """What the cells of a notebook show of ``records``, without a kernel."""
    names: dict[str, Any] = {}
    found = []
    for cell in nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", as_version=4).cells:  # type: ignore[no-untyped-call]
        if cell.cell_type != "code":
            continue
        body = ast.parse(cell.source).body
        last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), notebook, "exec"), names)
        if "parameters" in cell.metadata.get("tags", ()):
            names |= {"study": records.study.study, "runs": str(records.runs), "results": str(records.results)}
        if isinstance(last, ast.Expr):
            found.append(eval(compile(ast.Expression(last.value), notebook, "eval"), names))
    return found
