"""A run of the workflow trains what was planned when it began, whatever is edited meanwhile; parsing writes nothing."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, link_tree

STUDY: dict[str, Any] = {
    "study": "small",
    "chapters": ["low_dim"],
    "seeds": [0, 1],
    "run": {
        "data": {"name": "digits", "image_size": 8, "classes": 6},
        "encoder": {"width": 4},
        "objective": {"name": "patient:Patient"},
        "training": {"duration": "2 epochs", "batch_size": 64},
        "resources": {"mem_mb": 1000},
    },
    "experiments": {"low_dim": {"variants": {"cosine": {}}}},
}
EDITED = STUDY | {"run": STUDY["run"] | {"training": {"duration": "1 epochs", "batch_size": 32}}}
# A loss that waits until it may go on, so that what happens meanwhile is no matter of time.
PATIENT = """
import time
from pathlib import Path

from lsc.objectives import Cosine


class Patient(Cosine):
    def loss(self, embeddings, labels):
        Path("waiting").touch()
        while not Path("go").exists():
            time.sleep(0.02)
        return super().loss(embeddings, labels)
"""
RUNS = [f"results/small/runs/low_dim/cosine/seed_{seed}" for seed in (0, 1)]
COMMAND = ("--cores", "1", *(f"{run}/summary.json" for run in RUNS), "--configfile", "small.yaml")


@pytest.fixture
def house(tmp_path: Path) -> Path:
    link_tree(tmp_path)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(STUDY))
    (tmp_path / "patient.py").write_text(PATIENT)
    return tmp_path


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    paths = [*filter(None, [os.environ.get("PYTHONPATH")]), str(ROOT)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        ["snakemake", *words],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def snakemake(folder: Path, *words: str) -> tuple[int, str]:
    process = start(folder, *words)
    output = process.communicate(timeout=300)[0]
    return process.returncode, output


@pytest.fixture
def begun(house: Path) -> Iterator[subprocess.Popen[str]]:
    """A run of two trainings, the first of which waits in its first step; the second is still to come."""
    process = start(house, *COMMAND)
    while not (house / "waiting").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    yield process
    (house / "go").touch()
    process.communicate(timeout=300)


def test_parsing_writes_nothing(house: Path) -> None:
    code, output = snakemake(house, "-n", *COMMAND)
    assert code == 0, output
    assert not (house / "results").exists()
    assert not (house / "work").exists()


def test_a_study_that_was_parsed_before_is_parsed_without_torch(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (house / "small.yaml").write_text(yaml.safe_dump(STUDY | {"run": STUDY["run"] | {"objective": {"name": "cosine"}}}))
    (house / "without" / "torch").mkdir(parents=True)
    (house / "without" / "torch" / "__init__.py").write_text("raise RuntimeError('torch is imported')")
    monkeypatch.setenv("XDG_CACHE_HOME", str(house / "cache"))
    words = ("-n", *COMMAND)
    code, first = snakemake(house, *words)
    assert code == 0, first
    with monkeypatch.context() as context:
        context.setenv("PYTHONPATH", str(house / "without"))
        code, output = snakemake(house, *words)
        assert (code, output.count("rule train")) == (0, first.count("rule train")), output
        # What is given on the command line is part of the study.
        code, output = snakemake(house, *words, "--config", "seeds=[0,1,2]")
        assert code != 0
        assert "torch is imported" in output
    code, output = snakemake(house, *words, "--config", "seeds=[0,1,2]")
    assert code == 0, output


@pytest.mark.slow
def test_a_study_that_is_edited_while_a_run_goes_on_is_for_the_next_run(
    house: Path, begun: subprocess.Popen[str]
) -> None:
    planned = (house / "results" / "small" / "study.yaml").read_text()
    assert yaml.safe_load(planned) == STUDY
    (house / "small.yaml").write_text(yaml.safe_dump(EDITED))
    # Another process parses the edited study, and a third one would run it.
    code, output = snakemake(house, "-n", *COMMAND)
    assert code == 0, output
    code, output = snakemake(house, *COMMAND)
    assert code != 0
    assert "locked" in output
    assert (house / "results" / "small" / "study.yaml").read_text() == planned
    (house / "go").touch()
    output = begun.communicate(timeout=300)[0]
    assert begun.returncode == 0, output
    for run in RUNS:
        training = yaml.safe_load((house / run / "config.yaml").read_text())["training"]
        assert (training["duration"], training["batch_size"]) == ("2 epochs", 64)
    # Afterwards the edit is noticed.
    code, output = snakemake(house, "-n", *COMMAND)
    assert code == 0, output
    assert "train 2" in " ".join(output.split())
    assert "params have changed" in output.lower()
    (house / "small.yaml").write_text(yaml.safe_dump(STUDY))
    assert "Nothing to be done" in snakemake(house, "-n", *COMMAND)[1]


@pytest.mark.slow
def test_a_job_refuses_a_run_that_was_not_planned(house: Path, begun: subprocess.Popen[str]) -> None:
    """As where the study's file is changed by hand, or by another run with --nolock, after the run began."""
    (house / "results" / "small" / "study.yaml").write_text(yaml.safe_dump(EDITED))
    (house / "go").touch()
    output = begun.communicate(timeout=300)[0]
    assert begun.returncode != 0, output
    # Snakemake chooses which of the two begins.
    finished = [run for run in RUNS if (house / run / "summary.json").exists()]
    assert len(finished) == 1
    seed = RUNS[1 - RUNS.index(finished[0])][-1]
    logs = house / "results" / "small" / "logs" / "train" / "low_dim" / "cosine"
    refused = (logs / f"seed_{seed}.log").read_text().strip().splitlines()
    assert len(refused) == 1
    assert refused[0].startswith("lsc: error: --digest ")
    assert f"low_dim/cosine/seed_{seed}" in refused[0]


@pytest.mark.slow
def test_after_ctrl_c_the_same_command_goes_on(house: Path, begun: subprocess.Popen[str]) -> None:
    os.killpg(begun.pid, signal.SIGINT)  # as a terminal sends it, to all processes of the command
    (house / "go").touch()
    begun.communicate(timeout=300)
    assert begun.returncode != 0
    assert not any((house / run / "summary.json").exists() for run in RUNS)
    code, output = snakemake(house, *COMMAND)
    assert code == 0, output
