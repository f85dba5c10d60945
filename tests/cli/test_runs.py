"""``lsc runs``, and the refusal of what was not planned."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lsc.study.code import outdated, reminder, run_states, runs_folder
from lsc.study.configuration import Study, study_from
from lsc.study.plan import plan_of
from lsc.training.code import code_digest
from tests.conftest import ROOT, assert_refused

STUDY: dict[str, Any] = {
    "study": "small",
    "chapters": ["low_dim"],
    "run": {"data": {"name": "digits"}},
    "experiments": {
        "low_dim": {"variants": {"finished": {}, "missing": {}, "damaged": {}, "settings": {}, "code": {}, "old": {}}}
    },
}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study with a run in every state."""
    study = study_from(STUDY)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    for variant, change in {
        "finished": {},
        "damaged": {},
        "settings": {"digest": "0"},
        "code": {"code": "0"},
        "old": {},
    }.items():
        run = study.run_of(f"low_dim/{variant}/seed_0")
        summary = {
            "digest": run.digest,
            "code": code_digest(run),
            "commit": "abc",
            "finished": "2026-01-02T03:04:05+00:00",
        }
        if variant == "old":  # of a version that did not write it
            del summary["code"]
        folder = runs_folder(study) / run.name
        folder.mkdir(parents=True)
        text = json.dumps(summary | change)
        (folder / "summary.json").write_text(text[:20] if variant == "damaged" else text)
    return study


def test_every_run_has_its_state(study: Study) -> None:
    plan, runs = plan_of(study), runs_folder(study)
    states = {found.run.split("/")[1]: found.state for found in run_states(plan, runs)}
    assert states == {
        "finished": "finished",
        "missing": "missing",
        "damaged": "missing",
        "settings": "other settings",
        "code": "other code",
        "old": "other code",
    }
    assert outdated(plan, runs) == ["low_dim/code/seed_0", "low_dim/old/seed_0"]
    line = reminder(plan, runs, "small.yaml")
    assert line is not None
    assert line.startswith("lsc: 2 of 6 runs ")
    assert "\n" not in line
    assert reminder(plan, Path("nowhere"), "small.yaml") is None


def test_runs_are_listed_and_those_of_other_code_by_path(study: Study, lsc_here: Any) -> None:
    done = lsc_here("runs", "--study", "small.yaml")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["low_dim/finished/seed_0", "finished", "abc", "2026-01-02"]
    assert lines[1] == ["low_dim/missing/seed_0", "missing"]
    assert lines[3][1:] == ["other", "settings", "abc", "2026-01-02"]
    done = lsc_here("runs", "--study", "small.yaml", "--outdated", "--paths")
    assert done.stdout.split() == [f"results/small/runs/low_dim/{name}/seed_0/summary.json" for name in ("code", "old")]
    assert_refused(lsc_here("runs"), "config/demo.yaml")


def test_runs_that_are_kept_for_reference_have_their_own_folder() -> None:
    assert runs_folder(study_from(STUDY | {"records": "reference"})) == Path("results/reference/small/runs")


def test_what_was_not_planned_is_refused(lsc_here: Any, tmp_path: Path) -> None:
    demo = ROOT / "config" / "demo.yaml"
    words = ("train", "--study", demo, "--run", "low_dim/cosine/seed_0", "--out", "out", "--digest", "123456789abc")
    assert_refused(lsc_here(*words), "--digest 123456789abc", "low_dim/cosine/seed_0", "other settings")
    assert not (tmp_path / "out").exists()
    words = ("cost", "step", "--study", demo, "--output", "step.jsonl", "--digest", "123456789abc")
    assert_refused(lsc_here(*words), "--digest 123456789abc", "cost.step", "other settings")
    assert not (tmp_path / "step.jsonl").exists()
