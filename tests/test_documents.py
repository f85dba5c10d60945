"""The code in the documents runs as it stands, and they count runs rightly."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lsc.study.configuration import read_study
from tests.conftest import ROOT

# The blocks of own_images.md belong together: tests/docs/test_own_images.py.
ALONE = [path for path in (ROOT / "docs").glob("*.md") if path.name != "own_images.md"]
DOCUMENTS = sorted([ROOT / "README.md", *ALONE, *(ROOT / "config").glob("*.md")])
BLOCKS = [
    pytest.param(code, id=f"{path.stem}-{number}")
    for path in DOCUMENTS
    for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE))
]


def test_there_are_blocks_to_run() -> None:
    assert BLOCKS


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
