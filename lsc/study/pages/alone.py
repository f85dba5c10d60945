"""One figure drawn again by itself, from the records: of its chapter's notebook only what this figure needs is run."""

import ast
from pathlib import Path
from typing import Any

import nbformat
import yaml

from lsc.errors import UserError
from lsc.study.code import runs_folder
from lsc.study.configuration import Study, read_study
from lsc.study.pages.contents import read_contents
from lsc.study.tables import STUDY_FILE
from lsc.training.records import SUMMARY, write_text

# What calls of the notebooks show something, by the name under which they import lsc.study.shown.
_SHOWS = "shown"


def draw_alone(name: str, file: Path, notebooks: Path = Path("notebooks")) -> list[Path]:
    """Draw a figure of a study into its results.

    The records are the study's own if its runs are finished, or else those that are kept for reference.

    Args:
        name: of the figure, without ending.
        file: the study's configuration.

    Returns:
        the files that were written.

    Raises:
        UserError: no chapter has such a figure, or there are no records to draw it from.
    """
    study = read_study(file)
    chapters = [
        chapter
        for chapter in read_contents(chosen=study.chapters)
        if name in [item.name for item in chapter.items if item.kind == "figure"]
    ]
    if not chapters:
        raise UserError(
            f"{name}: no chapter of study {study.study} has such a figure; workflow/chapters.yaml names them"
        )
    results, runs = _place(study, file)
    values: dict[str, Any] = {}
    path = notebooks / f"{chapters[0].file}.ipynb"
    cells = nbformat.read(path, as_version=4).cells  # type: ignore[no-untyped-call]
    for cell in cells:
        if cell.cell_type == "code":
            code = compile(_needed(ast.parse(cell.source), name), str(path), "exec")
            exec(code, values)  # our own notebook
        if "parameters" in cell.metadata.get("tags", ()):
            values |= {"study": study.study, "runs": str(runs), "results": str(results)}
    return [results / "figures" / f"{name}.{kind}" for kind in ("png", "pdf")]


def _needed(cell: ast.Module, name: str) -> ast.Module:
    """A cell without what shows something else than the figure."""
    kept = [statement for statement in cell.body if not _shows_another(statement, name)]
    return ast.Module(kept, cell.type_ignores)


def _shows_another(statement: ast.stmt, name: str) -> bool:
    """Whether a statement is nothing but a call of lsc.study.shown, for anything but the figure."""
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Call):
        return False
    call = statement.value
    if not isinstance(call.func, ast.Attribute) or ast.unparse(call.func.value) != _SHOWS:
        return False
    named = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    return call.func.attr != "figure" or name not in named


def _place(study: Study, file: Path) -> tuple[Path, Path]:
    """The results that a figure goes to, and the runs that it is drawn from."""
    own = runs_folder(study)
    finished = (own.parent / STUDY_FILE).exists() and all(
        (own / run / SUMMARY).exists() for experiment in study.experiments for run in study.run_names(experiment)
    )
    if finished:
        return own.parent, own
    kept = runs_folder(study.model_copy(update={"records": "reference"}))
    if not kept.exists():
        raise UserError(f"{file}: the study is not finished, and there are no reference records of it in {kept}")
    results = Path("results") / f"{study.study}-reference"
    settings = yaml.safe_load(file.read_text(encoding="utf-8")) | {"records": "reference"}
    write_text(results / STUDY_FILE, yaml.safe_dump(settings, sort_keys=False))
    return results, kept
