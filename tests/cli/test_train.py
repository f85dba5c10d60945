"""``lsc train`` as a user types it, right and wrong."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from lsc.training import records
from tests.conftest import ROOT, Called, assert_refused, tiny_run

DEMO = ROOT / "config" / "demo.yaml"


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tiny_run().plain()))
    return tmp_path / "run.yaml"


def test_a_run_of_a_study(lsc_here: Any, tmp_path: Path) -> None:
    done = lsc_here(
        *("train", "--study", DEMO, "--run", "low_dim/cosine/seed_0", "--out", "out"),
        *("--set", "training.duration=20 steps", "--set", "encoder.width=4", "--tensorboard"),
    )
    assert done.returncode == 0, done.stderr
    assert "low_dim/cosine/seed_0: test top1" in done.stdout
    assert sorted(records.RUN_FILES) == sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_file())
    assert list((tmp_path / "out" / "tensorboard").iterdir())
    settings = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert settings["training"]["duration"] == "20 steps"
    # The log holds a plain line per epoch.
    assert "epoch 1  step 20/20" in done.stderr


def test_mistakes_are_one_line_and_leave_no_folder(lsc_here: Called, tmp_path: Path, run_file: Path) -> None:
    cases = [
        (["--study", DEMO, "--run", "low_dim/cosinus/seed_0"], ["low_dim", "cosinus", "cosine"]),
        (["--study", "none.yaml", "--run", "a/b/seed_0"], ["none.yaml"]),
        (["--study", DEMO], ["--run"]),
        (["--config", run_file, "--set", "data.name=digitz"], ["digitz", "digits"]),
        (["--config", run_file, "--set", "training.batchsize=3"], ["training.batchsize", "unknown key"]),
        (["--config", run_file, "--set", "training.batch_size"], ["key=value"]),
        (["--config", run_file, "--processes", "3"], ["batch_size 128", "multiple of 3"]),
        (["--config", run_file, "--device", "cuda"], ["--device cuda"]),
        (["--config", run_file, "--device", "tpu"], ["tpu"]),
        (["--config", run_file, "--teacher", "nowhere"], ["--teacher"]),
        (["--config", run_file, "--set", "training.batch_size=100000"], ["batch_size 100000"]),
        (["--config", run_file, "--set", "centers.dim=2"], ["3 dimensions"]),
        (["--config", run_file, "--set", "centers={system: V33, dim: 4096}"], ["64-bit"]),
        (["--config", run_file, "--set", "seed=9223372036854775808"], ["seed"]),
        (["--config", run_file, "--processes", "0", "--nodes", "2", "--rendezvous", "h:1"], ["--processes 0"]),
    ]
    for words, parts in cases:
        assert_refused(lsc_here("train", *words, "--out", "out"), *parts)
        assert not (tmp_path / "out").exists(), words


def test_an_output_folder_that_is_a_file_is_refused(lsc_here: Any, tmp_path: Path, run_file: Path) -> None:
    (tmp_path / "out").write_text("precious")
    assert_refused(lsc_here("train", "--config", run_file, "--out", "out"), "--out out", "file")
    assert_refused(lsc_here("train", "--config", run_file, "--out", "x" * 300), "--out x", "File name too long")
    assert (tmp_path / "out").read_text() == "precious"


def test_checkpoints_of_each_state_of_the_code_have_their_own_folder(lsc_here: Any, tmp_path: Path) -> None:
    short = {"training": {"duration": "1 steps"}}
    (tmp_path / "teacher.yaml").write_text(yaml.safe_dump(tiny_run(**short).plain()))
    student = tiny_run(**short, teacher={"run": "own/own"})
    (tmp_path / "student.yaml").write_text(yaml.safe_dump(student.plain()))
    words = ("--checkpoints", "kept", "--by-code")
    done = lsc_here("train", "--config", "teacher.yaml", "--out", "teacher", *words)
    assert done.returncode == 0, done.stderr
    code = records.read_json(tmp_path / "teacher" / records.SUMMARY)["code"]
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [code]
    # A student of another teacher's code is another training.
    for taught_by in (code, "unknown"):
        done = lsc_here("train", "--config", "student.yaml", "--out", "out", "--teacher", "teacher", *words)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "kept" / f"{code}-{taught_by}" / "last.ckpt").exists()
        (tmp_path / "out" / records.SUMMARY).unlink()  # as a workflow does before it trains a run again
        summary = records.read_json(tmp_path / "teacher" / records.SUMMARY)
        summary.pop("code", None)
        records.write_json(tmp_path / "teacher" / records.SUMMARY, summary)
