"""What has the workflow train a run again: settings by themselves, code when it is asked for, words never."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, link_tree

STUDY = {
    "study": "small",
    "chapters": ["low_dim"],
    "run": {
        "data": {"name": "digits", "image_size": 8, "classes": 6},
        "encoder": {"width": 4},
        "training": {"duration": "2 epochs", "batch_size": 128},
        "resources": {"mem_mb": 1000},
    },
    "experiments": {
        "low_dim": {"variants": {"cosine": {"objective": {"name": "cosine"}}, "cross_entropy": {"centers": {"dim": 4}}}}
    },
}
COSINE, CROSS_ENTROPY = (
    f"results/small/runs/low_dim/{variant}/seed_0/summary.json" for variant in ("cosine", "cross_entropy")
)
COMMAND = ("--cores", "2", COSINE, CROSS_ENTROPY, "--configfile", "small.yaml")

WORDS = [
    ("training/options.py", "matrices only", "matrices alone"),
    ("training/options.py", "batch_size: int = Field(64, ge=1)", "batch_size: int | None = Field(64, gt=0)"),
    ("training/building.py", "these {dim}", "but these have {dim}"),
    ("training/monitoring.py", "s left", "seconds left"),
    ("training/optimization.py", '"""', '"""Changed. '),
    ("objectives/euclidean.py", "return", "return 0 *"),
    ("study/plots.py", "return", "return 0 *"),
]


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """The tree with a copy of the library, which a test may edit."""
    link_tree(tmp_path, "lsc")
    shutil.copytree(ROOT / "lsc", tmp_path / "lsc", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(STUDY))
    return tmp_path


def call(folder: Path, *words: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def edit(folder: Path, name: str, old: str, new: str) -> None:
    path = folder / "lsc" / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


@pytest.mark.slow
def test_words_retrain_and_list_nothing_and_a_computation_is_listed_and_retrained_when_asked_for(house: Path) -> None:
    lsc = (sys.executable, "-m", "lsc", "runs", "--study", "small.yaml")
    call(house, "snakemake", *COMMAND)
    for change in WORDS:
        edit(house, *change)
    said = call(house, "snakemake", "-n", *COMMAND)
    assert "Nothing to be done" in said
    assert "lsc:" not in said
    assert call(house, *lsc, "--outdated") == ""
    # Another computation of one run is listed, and kept.
    made = json.loads((house / COSINE).read_text())
    edit(house, "objectives/cosine.py", "(1 - cosines).mean()", "(1 - cosines).sum()")
    for words in (("-n",), ()):
        said = call(house, "snakemake", *words, *COMMAND)
        assert "Nothing to be done" in said
        assert said.count("lsc: 1 of 2 runs were made by other code") == 1
        assert "--forcerun $(lsc runs --study small.yaml --outdated --paths)" in said
    assert json.loads((house / COSINE).read_text()) == made
    states = {line.split()[0]: line.split()[1:3] for line in call(house, *lsc).splitlines()}
    assert states["low_dim/cosine/seed_0"] == ["other", "code"]
    assert states["low_dim/cross_entropy/seed_0"][0] == "finished"
    # When it is asked for, it is trained anew, and not from the checkpoint of the other code.
    assert call(house, *lsc, "--outdated", "--paths").split() == [COSINE]
    kept = (house / CROSS_ENTROPY).read_text()
    call(house, "snakemake", *COMMAND, "--forcerun", COSINE)
    again = json.loads((house / COSINE).read_text())
    assert again["code"] != made["code"]
    assert again["digest"] == made["digest"]
    assert again["starts"] == 1
    assert (house / CROSS_ENTROPY).read_text() == kept
    assert "lsc:" not in call(house, "snakemake", "-n", *COMMAND)


def code_of() -> Callable[[str], list[str]]:
    """The function of the workflow that lists the code of a chapter."""
    rules = (ROOT / "workflow" / "rules" / "common.smk").read_text()
    known: dict[str, Any] = {"Path": Path}
    exec(rules[rules.index("def code_of") : rules.index("def category_of")], known)
    return lambda chapter: known["code_of"](chapter)


def test_a_chapter_is_made_again_for_all_code_that_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lists of the workflow hold whatever its notebook imports, and what that imports of words, numbers and drawings."""
    monkeypatch.chdir(ROOT)
    listed = code_of()
    # The files named __init__ of chapters and of measurements hold no more than their purpose.
    shows = re.compile(
        r"lsc/(study/(analysis|bounds|plots|shown|tables|selection|variants|looks|wording|claims|judging)"
        r"|(study/chapters|cost)/(?!__)\w+|(systems|centers|objectives)/\w+)\.py"
    )
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        found: set[str] = set()
        while code:
            for node in ast.walk(ast.parse(re.sub(r"^%.*$", "", code.pop(), flags=re.MULTILINE))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lsc."):
                    place = str(node.module).replace(".", "/")
                    for name in {
                        f"{place}.py",
                        f"{place}/__init__.py",
                        *(f"{place}/{each.name}.py" for each in node.names),
                    } - found:
                        if shows.fullmatch(name) and (ROOT / name).exists():
                            found.add(name)
                            # What is computed or measured is listed as far as pages call it, not what it calls in its turn.
                            if re.match(r"lsc/(study|cost/(interval|measured|report|figures))", name):
                                code.append((ROOT / name).read_text())
        chapter = path.stem.partition("_")[2]
        assert found
        assert found <= set(listed(chapter)), (chapter, found - set(listed(chapter)))
        assert "lsc/study/pages/style.css" in listed(chapter)


@pytest.mark.parametrize(
    ("chapter", "shown"),
    [
        ("centers", ["lsc/systems/orbit.py", "lsc/centers/perturbation.py"]),
        ("low_dim", ["lsc/objectives/cosine.py", "lsc/objectives/cross_entropy.py"]),
        ("claims", ["lsc/objectives/cosine.py"]),
        ("cost", ["lsc/objectives/partial_fc.py", "lsc/cost/rivals.py"]),
    ],
)
def test_a_chapter_is_made_again_for_what_it_computes_and_for_labels_and_colours(
    chapter: str, shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert set(shown) <= set(code_of()(chapter))


def test_how_runs_are_made_stands_in_the_part_of_a_command_that_is_not_compared(house: Path) -> None:
    """A new option of the command, or other resources, must retrain nothing; Snakemake compares the text of ``shell``."""
    rule = (ROOT / "workflow" / "rules" / "train.smk").read_text()
    assert '"exec lsc train {params.words:q} > {log:q} 2>&1"' in rule
    for name in (COSINE, CROSS_ENTROPY):
        folder = (house / name).parent
        folder.mkdir(parents=True)
    planned = call(house, "snakemake", "-n", "-p", *COMMAND)
    assert planned.count("exec lsc train --by-code --study results/small/study.yaml --run low_dim/") == 2
