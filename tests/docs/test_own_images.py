"""docs/own_images.md as it stands: its blocks one after another, in one folder."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lsc.data.trees import write_cinic10_tree
from lsc.trained import advice
from tests.conftest import ROOT, Called

pytest.importorskip("onnxruntime")

PAGE = (ROOT / "docs" / "own_images.md").read_text()
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
# In place of the page's published network and of its time, on a machine without a GPU.
SMALL, INSTEAD = (
    "mobilenet_v3_small",
    {"resnet50": "mobilenet_v3_small", "--time 2h": "--set training.duration='5 epochs'"},
)
NEW, OLD = ("ship", "truck", "horse"), ("airplane", "cat", "frog")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Seven classes to begin with, three that come later, and photographs of all."""
    write_cinic10_tree(tmp_path / "all_images", per_class=8)
    shutil.copytree(tmp_path / "all_images", tmp_path / "my_images")
    for split in ("train", "valid", "test"):
        for name in NEW:
            shutil.rmtree(tmp_path / "my_images" / split / name)
    for name in NEW:
        shutil.copytree(tmp_path / "all_images" / "train" / name, tmp_path / "new_images" / name)
    shutil.copytree(tmp_path / "all_images" / "test", tmp_path / "new_test_images")
    (tmp_path / "photos").mkdir()
    for number, name in enumerate(OLD + NEW):
        shutil.copy(next((tmp_path / "all_images" / "test" / name).iterdir()), tmp_path / "photos" / f"{number}.png")
    return tmp_path


@pytest.fixture
def weights_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights in torchvision's cache, as if they had been fetched: random ones, of the small network."""
    import torch
    from torchvision import models

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    file = models.get_model_weights(SMALL).DEFAULT.url.rpartition("/")[2]
    (tmp_path / "torch" / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(models.get_model(SMALL).state_dict(), tmp_path / "torch" / "hub" / "checkpoints" / file)


@pytest.mark.slow
@pytest.mark.usefixtures("weights_here")
def test_every_block_runs_in_turn(
    place: Path, lsc_here: Called, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advice, "LEAST_STEPS", (60, 60))  # what it learns is not the question here
    assert [kind for kind, _ in BLOCKS].count("python") == 2
    text = ""
    for kind, code in BLOCKS:
        if kind == "python":
            exec(code, {})
            text += capfd.readouterr().out
            continue
        for line in code.splitlines():
            for said, done in INSTEAD.items():
                line = line.replace(said, done)
            text += run_line(line, place, lsc_here)
    assert "10 classes, 3 of them new" in text
    assert "mine 11" in text
    runs = {"my_run", *(f"my_run_{end}" for end in ("frozen", "tuned", "2", "3", "4"))}
    made = runs | {"classes.jsonl", "embeddings.parquet", "exported"}
    assert made <= {path.name for path in place.iterdir()}


def run_line(line: str, place: Path, lsc_here: Called) -> str:
    """A line of a shell block: of lsc alone within this process, which saves the imports, any other by a shell."""
    if line.startswith("lsc ") and "|" not in line:
        done = lsc_here(*shlex.split(line, comments=True)[1:])
    else:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        line = re.sub(r"^python ", f"{sys.executable} ", line.replace("| lsc ", f"| {sys.executable} -m lsc "))
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", line],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, (line, done.stderr)
    return done.stdout
