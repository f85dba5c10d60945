"""``lsc doctor`` says what the machine is and estimates what studies take, from runs whose images are counted right."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from lsc.cli.doctor import spoken
from lsc.cost import doctor
from lsc.cost.doctor import estimates, images_of, write_rate
from lsc.errors import UserError
from lsc.study.configuration import read_study
from lsc.training.phases import plan_phases
from lsc.training.run import Run
from tests.conftest import ROOT, assert_refused, tiny_run

STUDY = {
    "study": "small",
    "chapters": ["low_dim"],
    "run": {
        "data": {"name": "digits", "image_size": 8, "classes": 6},
        "encoder": {"name": "small_cnn", "width": 4},
        "training": {"duration": "2 epochs", "batch_size": 128},
    },
    "experiments": {
        "low_dim": {"variants": {"cosine": {"objective": {"name": "cosine"}}, "cross_entropy": {"centers": {"dim": 4}}}}
    },
}


def test_the_command_names_machine_and_times(lsc_command: Any, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(STUDY))
    done = lsc_command("doctor", "--study", "small.yaml", "--seconds", "1", "--threads", "1")
    assert done.returncode == 0, done.stderr
    for word in ("processor", "memory", "GPU", "disk here", "JPEG files", "SLURM", "extras", "study small: estimated"):
        assert word in done.stdout
    line = next(line for line in done.stdout.splitlines() if "low_dim" in line)
    assert "2 runs  about" in line
    assert_refused(lsc_command("doctor", "--study", "missing.yaml"), "missing.yaml")


def test_an_estimate_is_the_images_over_a_measured_rate(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(STUDY))
    study = read_study(tmp_path / "small.yaml")
    (found,) = estimates(study, torch.device("cpu"), 1.0)
    assert found.runs == 2
    assert found.images == 2 * images_of(study.run_of("low_dim/cosine/seed_0"))
    assert found.seconds is not None
    assert 0.01 < found.seconds < 600


def test_a_device_that_takes_as_long_for_a_few_images_as_for_many_is_estimated_by_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, now = [], [0.0]

    def step(run: Run, shape: object, classes: int, rows: int, device: torch.device, budget: float) -> float:
        asked.append(rows)
        now[0] += 0.02
        return 0.03

    monkeypatch.setattr(doctor, "time", SimpleNamespace(monotonic=lambda: now[0]))

    monkeypatch.setattr(doctor, "step_seconds", step)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(STUDY))
    (found,) = estimates(read_study(tmp_path / "small.yaml"), torch.device("cuda"), 10.0)
    assert max(asked) == 128  # the batch
    assert found.seconds == pytest.approx(found.images * 0.03 / 128)
    asked.clear()
    (found,) = estimates(read_study(tmp_path / "small.yaml"), torch.device("cuda"), 0.1)
    assert max(asked) == 4  # there was no time for more
    assert found.seconds == pytest.approx(found.images * 0.03 / 4)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"training": {"duration": "500 steps"}},
        {"lifelong": {"groups": 3, "replay": 0}},
        {"training": {"duration": "1000 examples"}},
    ],
)
def test_images_are_those_of_the_steps_that_are_planned(changes: dict[str, Any]) -> None:
    run = tiny_run(**changes)
    planned = plan_phases(run, run.data.open())[-1].end * run.training.batch_size
    assert images_of(run) == pytest.approx(planned, rel=0.3)


def test_sets_that_are_not_here_are_counted_as_published() -> None:
    study = read_study(ROOT / "config" / "paper.yaml")
    run = study.run_of("low_dim/cosine/seed_0")
    assert images_of(run) == 200 * (90_000 // 256) * 256
    run = study.run_of("million_classes/cosine_1281167/seed_0")
    assert images_of(run) == 90 * (1_281_167 // 1024) * 1024


def test_times_are_spoken_and_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    assert [spoken(s) for s in (20, 80, 600, 7200, 400_000)] == [
        "20 seconds",
        "80 seconds",
        "10 minutes",
        "2.0 hours",
        "4.6 days",
    ]
    with pytest.raises(UserError, match="run lsc doctor in a folder"):
        write_rate(tmp_path / "missing")
