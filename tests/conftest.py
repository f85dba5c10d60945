"""What several tests share: a tiny run that trains in a second, and the command line as a user types it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lsc.settings import merge
from lsc.training.run import Run, run_from

ROOT = Path(__file__).resolve().parent.parent


# One thread, so that tests that run side by side do not fight for the cores.
torch.set_num_threads(1)

# Commands are as a user types them though `make test` runs them: a `make` would take its options, and say "make[1]:".
for name in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES"):
    os.environ.pop(name, None)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """One thread again after a command within this process, which takes as many as it finds. A forked process that begins
    with more waits for ever for OpenMP's threads, which a fork leaves behind."""
    yield
    torch.set_num_threads(1)


# Set in the process that runs the tests marked `apart`.
APART = "LSC_TESTS_APART"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the tests marked `apart` to tests/test_apart.py, unless they are all that was asked for; long ones begin."""
    apart = [item for item in items if item.get_closest_marker("apart")]
    if APART not in os.environ and len(apart) < len(items):
        config.hook.pytest_deselected(items=apart)
        items[:] = [item for item in items if item not in apart]
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def tiny_run(**changes: Any) -> Run:
    """Six digits, 18 steps, a few thousand weights; ``changes`` are laid over it."""
    settings = {
        "data": {"name": "digits", "image_size": 8, "classes": 6},
        "encoder": {"name": "small_cnn", "width": 4, "norm": "group"},
        "centers": {"system": "A"},
        "objective": {"name": "cosine"},
        "training": {"duration": "3 epochs", "batch_size": 128, "learning_rate": 0.01},
    }
    return run_from(merge(settings, changes))


@pytest.fixture
def lsc_command(tmp_path: Path) -> Any:
    """Run ``lsc`` with words as a user types them, in an empty folder, on a machine without GPUs."""

    def call(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "lsc", *map(str, words)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120, cwd=tmp_path, env=environment, **options
        )

    return call


def link_tree(folder: Path, *left_out: str) -> None:
    """The tree without results, in a folder where a workflow may write; ``left_out`` are names that a test puts there itself."""
    for name in {"Snakefile", "workflow", "profiles", "slurm", "config", "notebooks", "lsc", "envs"} - {*left_out}:
        (folder / name).symlink_to(ROOT / name)


Called = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def lsc_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Called:
    """``lsc`` with words as a user types them, within this process, which saves seconds of imports; in an empty folder.

    With one thread, as for the other fixture: where tests run side by side several would wait for each other at every step.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def call(*words: str | Path) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["lsc", *map(str, words)])
        capfd.readouterr()
        from lsc.cli import main

        try:
            main()
            code: Any = 0
        except SystemExit as ending:
            code = ending.code or 0
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(["lsc", *map(str, words)], code, out, err)

    return call


def assert_refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """A user's mistake: exit code 2 and one line that holds all ``parts``."""
    assert done.returncode == 2, (done.returncode, done.stderr)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("lsc: error: ")
    for part in parts:
        assert part in lines[0]


@pytest.fixture(scope="module", params=["cheapest", "no product"])
def every_way_to_the_nearest(request: pytest.FixtureRequest) -> Iterator[None]:
    """Once as it is, where few classes are multiplied with, and once by listing and looking at all, however few they are."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "no product":
            patch.setattr("lsc.systems.effort.matrix_may_be_kept", lambda *_: False)
        yield
