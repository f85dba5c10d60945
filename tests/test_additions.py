"""What CONTRIBUTING.md says of additions, done word by word: from outside of the package, and as part of it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torchvision.io import write_png

from tests.conftest import ROOT, assert_refused

TEXT = (ROOT / "CONTRIBUTING.md").read_text()
FILES = dict(re.findall(r"In `(\w+\.\w+)`[^\n]*:\n\n```\w+\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE))
COMMANDS = re.search(r"^```sh\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)[1].splitlines()  # type: ignore[index]
LINES = re.findall(r"^\| `(lsc/\S+)` \| `(lsc/\S+)` \| `(\".+\",)` \|$", TEXT, re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files of the walk-through and nothing else."""
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    return tmp_path


def call(command: str, folder: Path, package: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A command line as the reader types it; ``package`` is where ``lsc`` lies."""
    # The program itself, and not python -m lsc: that would find modules in the current folder anyhow.
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PYTHONPATH": str(package), "PATH": programs, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=200
    )


def score(done: subprocess.CompletedProcess[str]) -> float:
    assert done.returncode == 0, done.stderr
    return float(yaml.safe_load(done.stdout)["top1"])


def test_the_walk_through_has_its_parts() -> None:
    assert set(FILES) == {"angle.py", "mixer.py", "gratings.py", "run.yaml"}
    assert [command.split()[:2] for command in COMMANDS] == [["lsc", "data"], ["lsc", "train"], ["lsc", "evaluate"]]
    assert {Path(file).name for file, _, _ in LINES} == {"angle.py", "mixer.py", "gratings.py"}


def test_files_of_ones_own_train_evaluate_and_predict(folder: Path) -> None:
    for command in COMMANDS:
        done = call(command, folder)
        assert done.returncode == 0, (command, done.stderr)
    assert score(done) > 0.8  # of six classes
    sys.path.append(str(folder))
    try:
        from gratings import Gratings  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(folder))
    images = Gratings(name="gratings:Gratings", num_classes=6).open().images("test", torch.arange(12))
    for number, image in enumerate(images):
        write_png(image, str(folder / f"{number:02}.png"))
    done = call("lsc predict my_gratings [0-9]*.png", folder)
    assert done.returncode == 0, done.stderr
    predicted = [int(line.split("\t")[1]) for line in done.stdout.splitlines()]
    assert sum(label == number % 6 for number, label in enumerate(predicted)) >= 9


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ("objective.free=120", ("objective.free", "less than 90", "120")),
        ("encoder.widht=8", ("encoder.widht", "did you mean width")),
        ("encoder.patch=5", ("encoder.patch 5", "must divide")),
        ("data.num_classes=1", ("data.num_classes", "greater than or equal to 2")),
        ("data.noise=loud", ("data.noise", "valid number")),
    ],
)
def test_a_wrong_setting_of_ones_own_is_named_with_its_key(folder: Path, change: str, parts: tuple[str, ...]) -> None:
    assert_refused(call(f"lsc train --config run.yaml --out my_gratings --set {change}", folder), *parts)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("angel:Angle", ("objective", "'angel:Angle'", "angel.py")),
        ("angle:Angel", ("objective", "'angle:Angel'", "angle has no 'Angel'")),
        ("angle.py:Angle", ("objective", "'angle.py:Angle'", "without its ending: angle:Angle")),
        ("angle", ("objective", "unknown objective 'angle'", "module:attribute")),
    ],
)
def test_a_name_that_leads_nowhere_is_named(folder: Path, name: str, parts: tuple[str, ...]) -> None:
    done = call(f"lsc train --config run.yaml --out my_gratings --set objective='{{name: \"{name}\"}}'", folder)
    assert_refused(done, *parts)


def test_one_file_and_one_line_make_them_part_of_the_library(folder: Path, tmp_path: Path) -> None:
    package = tmp_path / "tree"
    shutil.copytree(ROOT / "lsc", package / "lsc", ignore=shutil.ignore_patterns("__pycache__"))
    settings = FILES["run.yaml"]
    for file, registry, line in LINES:
        (folder / Path(file).name).rename(package / file)
        content = (package / registry).read_text()
        changed, count = re.subn(r"(= Registry\(\n    \".+\",\n    \{\n)", rf"\1        {line}\n", content)
        assert count == 1
        (package / registry).write_text(changed)
        name, target = re.findall(r'"(.+?)"', line)
        settings = settings.replace(f'"{Path(file).stem}:{target.partition(":")[2]}"', name)
    assert ":Angle" not in settings
    (folder / "run.yaml").write_text(settings)
    for command in COMMANDS:
        done = call(command.replace("gratings:Gratings", "gratings"), folder, package)
        assert done.returncode == 0, (command, done.stderr)
    assert score(done) > 0.8
    listed = call("lsc data list", folder, package).stdout
    assert "gratings: Stripes in noise" in listed
    assert "directions, evenly spread" in listed
