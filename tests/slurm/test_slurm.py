"""A small study as jobs of a real SLURM: what the jobs were given, and what becomes of those that are disturbed.

One Snakemake command submits all runs, so that their waiting times overlap; the tests look at what it left behind.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from lsc.study.configuration import Study, study_from
from lsc.training import records
from tests.conftest import ROOT, link_tree
from tests.slurm.cluster import Cluster

STUDY: dict[str, Any] = {
    "study": "small",
    "chapters": ["low_dim"],
    "seeds": [0],
    "run": {
        "data": {"name": "digits", "image_size": 8},
        "encoder": {"width": 4, "norm": "group"},
        "objective": {"name": "cosine"},
        "training": {"duration": "300 epochs", "batch_size": 256, "learning_rate": 0.01, "evaluate_every": 100},
        "resources": {"gpu": 1, "cpus_per_task": 1, "mem_mb": 1500, "runtime": 10},
    },
    "experiments": {
        "low_dim": {
            "variants": {
                "broken": {"training": {"learning_rate": 1.0e30, "clip_norm": None}},
                "undisturbed": {"resources": {"mem_mb": 1700, "runtime": 20}},
                "signalled": {},
                "cancelled": {},
                "limited": {"resources": {"runtime": 2, "warning": 0}},
                "warned": {"resources": {"runtime": 3}},
                "two_gpus": {"resources": {"gpu": 2, "cpus_per_task": 3}},
                "two_nodes": {"resources": {"gpu": 2, "nodes": 2}},
            }
        }
    },
}
DISTURBED = ("signalled", "cancelled", "limited", "warned", "two_nodes")


@dataclass
class Outcome:
    """What the one Snakemake command left behind."""

    folder: Path
    code: int
    said: str
    jobs: dict[str, list[dict[str, str]]] = field(default_factory=dict)  # by variant, in order of submission

    def out(self, variant: str) -> Path:
        return self.folder / "results" / "small" / "runs" / "low_dim" / variant / "seed_0"


class Disturber:
    """Does to the first job of each disturbed run what its name says, once the run is under way."""

    def __init__(self, cluster: Cluster, folder: Path):
        self._cluster, self._folder = cluster, folder
        self._left: dict[str, Callable[[str, str], bool]] = {
            "signalled": self._send_warning,
            "two_nodes": self._send_warning,
            "cancelled": self._cancel,
            "limited": self._stall,
            "warned": self._stall,
        }

    def look(self) -> None:
        for variant, disturb in list(self._left.items()):
            rows = records.read_rows(self._folder / "results/small/runs/low_dim" / variant / "seed_0" / records.METRICS)
            if len(rows) >= 2 and disturb(variant, self._job(variant)):
                del self._left[variant]

    def _job(self, variant: str) -> str:
        return next(job["JobId"] for job in self._cluster.jobs().values() if variant_of(job) == variant)

    def _send_warning(self, _variant: str, job: str) -> bool:
        self._cluster.call("scancel", "--signal=USR1", job)
        return True

    def _cancel(self, _variant: str, job: str) -> bool:
        self._cluster.call("scancel", job)
        return True

    def _stall(self, variant: str, _job: str) -> bool:
        """Time passes without progress, until a signal of SLURM wakes the training: a warning or the limit itself."""
        os.kill(training_of(variant), signal.SIGSTOP)
        return True


def training_of(variant: str) -> int:
    """The process that trains a run, now."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"train" in words and f"low_dim/{variant}/seed_0".encode() in words:
            return int(path.parent.name)
    raise LookupError(variant)


def variant_of(job: dict[str, str]) -> str:
    return job["Comment"].removeprefix("rule_train_wildcards_low_dim_").removesuffix("_0")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    folder = tmp_path_factory.mktemp("house")
    link_tree(folder)
    (folder / "small.yaml").write_text(yaml.safe_dump(STUDY))
    variants = STUDY["experiments"]["low_dim"]["variants"]
    command = [
        *("snakemake", "--cores", "all", "--profile", "slurm", "--configfile", "small.yaml"),
        # A cluster without accounting; and one retry is all that these runs need.
        *("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "5"),
        *("--retries", "1", "--latency-wait", "20"),
        *(f"results/small/runs/low_dim/{variant}/seed_0/summary.json" for variant in variants),
    ]
    with Cluster() as cluster, open(folder / "said", "w+") as said:
        environment = cluster.environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        snakemake = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT)
        disturber = Disturber(cluster, folder)
        ends = time.monotonic() + 420
        while snakemake.poll() is None and time.monotonic() < ends:
            disturber.look()
            time.sleep(0.1)
        snakemake.terminate()
        snakemake.wait()
        said.seek(0)
        result = Outcome(folder, snakemake.returncode, said.read())
        for _, job in sorted(cluster.jobs().items(), key=lambda item: int(item[0])):
            result.jobs.setdefault(variant_of(job), []).append(job)
        yield result


@pytest.fixture(scope="module")
def study() -> Study:
    return study_from(STUDY)


def same_weights(outcome: Outcome, one: str, other: str) -> bool:
    first, second = (load_file(outcome.out(variant) / records.ENCODER) for variant in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def measured(outcome: Outcome, variant: str) -> list[dict[str, Any]]:
    rows = records.read_rows(outcome.out(variant) / records.METRICS)
    return [{key: value for key, value in row.items() if key not in records.TIMINGS} for row in rows]


def test_every_job_was_given_what_its_run_asks_for(outcome: Outcome, study: Study) -> None:
    names = study.run_names("low_dim")
    assert len(outcome.jobs) == len(names)
    for name in names:
        run = study.run_of(name)
        wanted = run.resources
        for attempt, job in enumerate(outcome.jobs[run.variant], start=1):
            hours, minutes = divmod(wanted.runtime_of(attempt), 60)
            assert job["TresPerJob"] == f"gres:gpu:{wanted.gpu}", job
            assert job["CPUs/Task"] == str(wanted.cpus_per_task), job
            assert job["MinMemoryNode"] == f"{wanted.mem_mb}M", job
            assert job["TimeLimit"] == f"{hours:02}:{minutes:02}:00", job
            assert job["NumNodes"] == str(wanted.nodes), job
            if wanted.nodes > 1:
                assert job["TresPerNode"] == f"gres:gpu:{wanted.gpu // wanted.nodes}", job


@pytest.mark.parametrize("variant", DISTURBED)
def test_a_disturbed_run_is_submitted_again_and_resumes(outcome: Outcome, variant: str) -> None:
    first, second = outcome.jobs[variant]
    assert second["JobState"] == "COMPLETED", outcome.said
    if variant == "limited":
        assert first["JobState"] == "TIMEOUT"
    elif variant == "cancelled":
        assert first["JobState"] == "CANCELLED"
    else:
        assert first["JobState"] == "FAILED"
    log = (outcome.folder / f"results/small/logs/train/low_dim/{variant}/seed_0.log").read_text()
    step = re.search(r"resumed at step (\d+) of 1500", log)
    assert step is not None, log
    assert int(step[1]) > 5


@pytest.mark.parametrize("variant", ["signalled", "cancelled", "limited", "warned"])
def test_a_disturbed_run_ends_as_if_it_had_not_been(outcome: Outcome, variant: str) -> None:
    assert same_weights(outcome, "undisturbed", variant)
    assert measured(outcome, "undisturbed") == measured(outcome, variant)


@pytest.mark.parametrize("variant", ["signalled", "warned", "two_nodes"])
def test_a_warned_run_says_where_it_stopped(outcome: Outcome, variant: str) -> None:
    assert f"Logfile results/small/logs/train/low_dim/{variant}/seed_0.log" in outcome.said
    assert re.search(
        r"stopped by SIGUSR1 at step \d+ of 1500; the same command, without --restart, resumes there", outcome.said
    )


def test_several_gpus_are_several_processes_on_one_node_and_on_two(outcome: Outcome) -> None:
    for variant in ("two_gpus", "two_nodes"):
        assert records.read_json(outcome.out(variant) / records.SUMMARY)["processes"] == 2
    assert same_weights(outcome, "two_gpus", "two_nodes")
    assert measured(outcome, "two_gpus") == measured(outcome, "two_nodes")


def test_a_failing_job_is_named_with_its_log_and_the_others_go_on(outcome: Outcome) -> None:
    assert outcome.code == 1
    assert [job["JobState"] for job in outcome.jobs["broken"]] == ["FAILED", "FAILED"]
    assert "log: results/small/logs/train/low_dim/broken/seed_0.log" in outcome.said
    assert "not finite; lower training.learning_rate" in outcome.said
    finished = {variant for variant in outcome.jobs if (outcome.out(variant) / records.SUMMARY).exists()}
    assert finished == set(outcome.jobs) - {"broken"}
