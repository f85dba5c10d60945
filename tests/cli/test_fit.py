"""``lsc fit`` as somebody types it who has a folder of images and has read nothing."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from lsc.cli import main
from lsc.training import records
from lsc.training.run import read_run
from tests.conftest import assert_refused
from tests.own_images import write_glyphs, write_spirals

NARROW = ("--set", "encoder.width=4", "--device", "cpu", "--threads", "1")
SHORT = (*NARROW, "--set", "training.duration=6 steps")


@pytest.fixture(scope="module")
def spirals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_spirals(tmp_path_factory.mktemp("spirals") / "images", train=10, test=4)


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Run ``lsc`` as it is typed, within this process: to import torch for every command takes seconds each."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr("sys.argv", ["lsc", *words])
        with pytest.raises(SystemExit) as ending:
            main()
        output = capfd.readouterr()
        return subprocess.CompletedProcess(words, ending.value.code or 0, output.out, output.err)  # type: ignore[arg-type]

    return call


@pytest.fixture
def images(spirals: Path, tmp_path: Path) -> Path:
    shutil.copytree(spirals, tmp_path / "images")
    return tmp_path / "images"


def test_signs_are_learned_with_no_setting_at_all(typed: Any, tmp_path: Path) -> None:
    """A smaller version of what the rules were measured on: 5 of the 20 classes."""
    write_glyphs(tmp_path / "signs", classes=5, train=20, test=10)
    smaller = (
        "--set",
        "training.duration=80 steps",
        "--set",
        "encoder.width=16",
        "--set",
        "data.min_area=0.8",
        "--threads",
        "1",
    )
    done = typed("fit", "signs", "--out", "run", *smaller)
    assert done.returncode == 0, done.stderr
    assert (
        "signs: 5 classes, 100 training images (20 each), grey, about 64 pixels, on a plain ground; also test"
        in done.stderr
    )
    assert "data.valid_share=0.2" in done.stderr
    assert re.search(r"epoch \d+ .*top1", done.stderr)
    right = re.search(r"^([\d.]+)% of 50 test images are classified right", done.stdout, re.MULTILINE)
    assert right is not None, done.stdout
    assert float(right[1]) >= 90
    settings = yaml.safe_load((tmp_path / "run" / records.CONFIG).read_text())
    assert settings["data"]["flip"] is False
    assert settings["data"]["min_area"] == 0.8
    assert settings["readout"]["sums"] == "running"
    page = (tmp_path / "run" / "page.html").read_text()
    assert 'src="data:image/png;base64,' in page
    assert "http" not in page
    # What is said to be next works.
    command = re.search(r"^  lsc (predict .*?)  #", done.stdout, re.MULTILINE)
    assert command is not None
    words = command[1].replace("'", "").split()
    predicted = typed(*words)
    assert predicted.returncode == 0, predicted.stderr
    assert predicted.stdout.split("\t")[1].strip() in settings_classes(tmp_path / "signs")
    evaluated = typed("evaluate", "run")
    assert json.loads(evaluated.stdout)["top1"] == pytest.approx(float(right[1]) / 100, abs=0.001)


def settings_classes(root: Path) -> set[str]:
    return {folder.name for folder in (root / "train").iterdir()}


def test_it_goes_on_and_refuses_what_is_not_its_own(typed: Any, images: Path, tmp_path: Path) -> None:
    first = typed("fit", "images", "--out", "run", *SHORT)
    assert first.returncode == 0, first.stderr
    again = typed("fit", "images", "--out", "run", *SHORT)
    assert again.returncode == 0, again.stderr
    assert "resumed at step 6 of 6" in again.stderr
    assert again.stdout.splitlines()[0] == first.stdout.splitlines()[0]
    summary = (tmp_path / "run" / records.SUMMARY).read_text()
    other = typed("fit", "images", "--out", "run", *SHORT, "--set", "encoder.width=8")
    assert other.returncode == 2
    assert "another configuration" in other.stderr.splitlines()[-1]
    assert (tmp_path / "run" / records.SUMMARY).read_text() == summary


def test_a_run_is_evaluated_on_what_judged_it(typed: Any, images: Path, tmp_path: Path) -> None:
    """Without test images these are the ones that were held out."""
    assert typed("fit", "images/train", "--out", "run", *SHORT).returncode == 0
    summary = records.read_json(tmp_path / "run" / records.SUMMARY)
    found = json.loads(typed("evaluate", "run").stdout)
    assert found["split"] == summary["final_on"] == "valid"
    assert found["images"] == summary["final_images"] > 0
    assert found["top1"] == pytest.approx(summary["final_top1"])


def test_a_time_is_kept_and_a_run_that_goes_on_keeps_its_duration(typed: Any, images: Path, tmp_path: Path) -> None:
    short = (*NARROW, "--time", "6s", "--set", "training.warmup=5 steps", "--set", "training.evaluate_every=3")
    first = typed("fit", "images", "--out", "run", *short)
    assert first.returncode == 0, first.stderr
    assert re.search(r"time: [\d.]+ s for a step here, so [\d,]+ steps", first.stderr)
    assert records.read_json(tmp_path / "run" / records.SUMMARY)["seconds"] < 20
    training = read_run(tmp_path / "run" / records.CONFIG).training
    assert (str(training.warmup), training.evaluate_every) == ("5 steps", 3)
    again = typed("fit", "images", "--out", "run", *short)
    assert again.returncode == 0, again.stderr
    assert "that it began with" in again.stderr


def test_a_trained_encoder_serves_other_classes_without_training(typed: Any, images: Path, tmp_path: Path) -> None:
    done = typed("fit", "images", "--out", "first", *NARROW, "--set", "training.duration=40 steps")
    assert done.returncode == 0, done.stderr
    write_spirals(tmp_path / "more", classes=5, seed=7, train=12, test=6)
    done = typed("fit", "more", "--out", "second", "--encoder", "first", "--frozen", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    summary = records.read_json(tmp_path / "second" / records.SUMMARY)
    assert summary["steps"] == 0
    assert summary["final_top1"] > 0.5
    (row,) = records.read_rows(tmp_path / "second" / records.METRICS)
    assert row["examples"] == 48
    # The second run is whole: the first is not needed to use it.
    shutil.rmtree(tmp_path / "first")
    assert typed("predict", "second", "more/test/turns 1/000.png").returncode == 0


def test_mistakes_are_one_line_and_leave_no_folder(
    typed: Any, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    one = tmp_path / "one" / "cats"
    one.mkdir(parents=True)
    shutil.copy(images / "train" / "turns 1" / "000.png", one)
    (tmp_path / "file").write_text("")
    cases: list[tuple[list[str], list[str]]] = [
        (["empty", "--out", "out"], ["empty"]),
        (["nowhere", "--out", "out"], ["nowhere"]),
        (["one", "--out", "out"], ["one class only, cats"]),
        (["images", "--out", "file"], ["--out file: is a file"]),
        (["images", "--out", "x" * 300], ["--out x", "cannot be looked at (File name too long)"]),
        (["images", "--out", "out", "--encoder", "x" * 300], ["--encoder x", "cannot be looked at"]),
        (["images", "--out", "images/run"], ["lies in the folder of images"]),
        (["images", "--out", "out", "--time", "soon"], ["--time soon", "10m"]),
        (["images", "--out", "out", "--encoder", "resnet99"], ["--encoder resnet99", "small_cnn"]),
        (["images", "--out", "out", "--frozen"], ["untrained network would stay untrained"]),
        (["images", "--out", "out", "--encoder", "torchvision/resnet18"], ["resnet18-f37072fd.pth is not there"]),
        (["images", "--out", "out", "--set", "training.batch_size=1000"], ["batch_size 1000 exceeds"]),
        (["images", "--out", "out", "--set", "training.batchsize=8"], ["training.batchsize", "unknown key"]),
        (["images", "--out", "out", "--set", "data.name=digits"], ["images are those of images"]),
        (["images", "--out", "out", "--set", "objective=cosine"], ["--set objective", "{name: ...}, got 'cosine'"]),
        (["images", "--out", "out", "--set", "encoder=resnet18", "--frozen"], ["--set encoder", "got 'resnet18'"]),
        (["images", "--out", "out", "--set", "centers=V22"], ["--set centers", "{dim: 64}, got 'V22'"]),
        (["images", "--out", "out", "--set", "training=5"], ["--set training", "{duration: 20 epochs}, got 5"]),
        (["images", "--out", "out", "--set", "data=x"], ["--set data", "got 'x'"]),
        (["images", "--out", "out", "--set", "encoder=null", "--frozen"], ["untrained network would stay untrained"]),
        (
            ["images", "--out", "out", "--time", "9s", "--set", "training.duration=5 epochs"],
            ["--time", "leave one of them"],
        ),
    ]
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no cache"))
    for words, parts in cases:
        done = typed("fit", *words, "--device", "cpu")
        lines = done.stderr.strip().splitlines()
        assert done.returncode == 2, (words, done.stderr)
        assert lines[-1].startswith("lsc: error: "), words
        for part in parts:
            assert part in lines[-1], (words, lines[-1])
        assert not (tmp_path / "out").exists(), words
    assert_refused(typed("fit", "images", "--out", "out", "--device", "tpu"), "tpu")
