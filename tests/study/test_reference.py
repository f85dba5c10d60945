"""Records are kept for reference as a whole study or not at all."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

STUDY: dict[str, Any] = {
    "study": "small",
    "chapters": ["low_dim", "distillation", "cost"],
    "seeds": [0, 1],
    "run": {"data": {"name": "digits"}},
    "experiments": {
        "low_dim": {"variants": {"cosine": {}}},
        "distillation": {"seeds": [0], "variants": {"student": {}}},
        "high_dim": {"variants": {"of_a_chapter_that_is_left_out": {}}},
    },
}
RUNS = ("low_dim/cosine/seed_0", "low_dim/cosine/seed_1", "distillation/student/seed_0")


def put(path: Path, content: str = "new") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """The Makefile, a finished study with an unfinished run that it does not name, and older reference records of it."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("lsc", "workflow"):
        (tmp_path / name).symlink_to(ROOT / name)
    results = tmp_path / "results" / "small"
    put(results / "study.yaml", yaml.safe_dump(STUDY, sort_keys=False))
    for run in RUNS:
        for name in ("config.yaml", "metrics.jsonl", "summary.json", "embeddings.npz", "encoder.safetensors"):
            put(results / "runs" / run / name)
    put(results / "runs" / "low_dim" / "another" / "seed_0" / "metrics.jsonl")
    for name in ("step", "decode", "hnsw", "workflow"):
        put(results / "cost" / f"{name}.jsonl")
    put(tmp_path / "results" / "reference" / "small" / "runs" / "old.txt", "old")
    return tmp_path


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = ["make", "reference", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_the_records_of_the_runs_that_a_study_names_take_the_place_of_the_old_ones(house: Path) -> None:
    done = make(house, "STUDY=small")
    assert done.returncode == 0, done.stderr
    kept = house / "results" / "reference" / "small"
    wanted = {f"runs/{run}/{name}" for run in RUNS for name in ("config.yaml", "metrics.jsonl", "summary.json")}
    wanted |= {f"runs/{run}/embeddings.npz" for run in RUNS if run.startswith("low_dim")}
    wanted |= {f"cost/{name}.jsonl" for name in ("step", "decode", "hnsw", "workflow")}
    assert files(kept) == wanted
    assert [path.name for path in kept.parent.iterdir()] == ["small"]


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("runs", "results/small/runs: there is no such folder"),
        (f"runs/{RUNS[1]}/summary.json", f"results/small/runs/{RUNS[1]}/summary.json: is missing"),
        ("cost/step.jsonl", "results/small/cost/step.jsonl: is missing"),
        ("study.yaml", "results/small/study.yaml: is missing"),
    ],
)
def test_what_is_not_finished_leaves_the_old_records_as_they_were(gone: str, said: str, house: Path) -> None:
    path = house / "results" / "small" / gone
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    done = make(house, "STUDY=small")
    assert done.returncode == 2
    first, *rest = done.stderr.strip().splitlines()
    assert first.startswith(f"lsc: error: {said}")
    assert "; first: snakemake --cores all --configfile " in first
    assert all(line.startswith("make: ") for line in rest)
    assert files(house / "results" / "reference") == {"small/runs/old.txt"}
    assert [path.name for path in (house / "results" / "reference").iterdir()] == ["small"]


@pytest.mark.parametrize("name", ["", "../small", "reference/small"])
def test_a_name_that_is_none_of_a_study_is_refused(name: str, house: Path) -> None:
    done = make(house, f"STUDY={name}")
    assert done.returncode == 2
    assert f"lsc: error: STUDY={name}: no name of a study" in done.stderr
    assert files(house / "results" / "reference") == {"small/runs/old.txt"}
