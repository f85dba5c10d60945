"""The code in the documents runs as it stands, and they count runs rightly."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from lsc.cli import app
from lsc.cli.settings import changed
from lsc.study.configuration import read_study
from lsc.training.run import run_from
from tests.conftest import ROOT

# The blocks of own_images.md belong together: tests/docs/test_own_images.py.
ALONE = [path for path in (ROOT / "docs").glob("*.md") if path.name != "own_images.md"]
DOCUMENTS = sorted([ROOT / "README.md", *ALONE, *(ROOT / "config").glob("*.md")])
BLOCKS = [
    pytest.param(code, id=f"{path.stem}-{number}")
    for path in DOCUMENTS
    for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE))
]

COMMANDED = sorted({*DOCUMENTS, *(ROOT / "docs").glob("*.md"), ROOT / "CONTRIBUTING.md"})


def words_of_calls(path: Path) -> list[list[str]]:
    """The words of each ``lsc ...`` that a document has in a block, or as a whole piece of code in a line."""
    text = path.read_text()
    blocks = "\n".join(re.findall(r"^```(?:sh)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)).replace("\\\n", " ")
    lines = re.findall(r"(?:^|\| )(lsc [^|\n]*)", blocks, re.MULTILINE)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return [shlex.split(call, comments=True)[1:] for call in lines + re.findall(r"`(lsc [a-z][^`]*)`", prose)]


def called(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words begin with, and the rest of them."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and words:
        assert words[0] in command.commands, words
        command, words = command.commands[words[0]], words[1:]
    return command, words


def test_there_are_blocks_to_run() -> None:
    assert BLOCKS
    assert any(words_of_calls(path) for path in COMMANDED)


@pytest.mark.parametrize("path", COMMANDED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_command_has_the_options_that_it_is_given(path: Path) -> None:
    for words in words_of_calls(path):
        command, rest = called(words)
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        given = {word.partition("=")[0] for word in rest if word.startswith("-") and word != "-"}
        assert given <= known | {"--help"}, words


@pytest.mark.parametrize("path", COMMANDED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_run_of_a_study_that_is_trained_is_there_with_its_settings(path: Path) -> None:
    for words in words_of_calls(path):
        if words[0] == "train" and "--study" in words and (name := words[words.index("--run") + 1]) != "RUN":
            run = read_study(ROOT / words[words.index("--study") + 1]).run_of(name)
            changes = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
            run_from(changed(run.plain(), changes), "--set")


def test_installations_name_extras_that_there_are_and_export_where_it_is_used() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for path in COMMANDED:
        text = path.read_text()
        named = [set(found.split(",")) for found in re.findall(r"pip install '\.\[([a-z,]+)\]'", text)]
        assert set().union(*named) <= set(extras), path
        if "lsc export" in text:
            assert "export" in named[0], f"{path}: its first installation does without"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_runs_of_one_document_go_to_folders_of_their_own(path: Path) -> None:
    folders = [
        words[words.index("--out") + 1]
        for words in words_of_calls(path)
        if words[0] in ("fit", "train") and "--out" in words and words[words.index("--out") + 1] != "again"
    ]
    assert len(folders) == len(set(folders))


@pytest.mark.parametrize("code", BLOCKS)
def test_a_python_block_runs_as_it_stands(code: str, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


def test_the_paper_study_has_as_many_runs_as_its_budget_says() -> None:
    text = (ROOT / "docs" / "cluster.md").read_text()
    study = read_study(ROOT / "config" / "paper.yaml")
    said = {name: int(count) for name, count in re.findall(r"^\| `?(\w+)`? \| (\d+) \|", text, flags=re.MULTILINE)}
    counted = {name: len(study.run_names(name)) for name in study.experiments}
    assert said == counted | {"all": sum(counted.values())}
    assert f"CINIC-10 and ImageNet-1K: {sum(counted.values())} runs" in text
