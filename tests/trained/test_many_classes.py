"""A folder of so many classes that their centers are made to fit the network: all that can be done with such a run."""

import json
import shutil
from pathlib import Path

import pytest

from lsc.trained import advice
from tests.conftest import Called, assert_refused
from tests.own_images import write_glyphs


def test_a_run_with_fitted_centers_serves_as_any_other(
    lsc_here: Called, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advice, "MANY", 6)
    write_glyphs(tmp_path / "all", classes=8, train=6, valid=3, test=3)
    names = sorted(path.name for path in (tmp_path / "all" / "train").iterdir())
    shutil.copytree(tmp_path / "all", tmp_path / "images")
    for split in ("train", "valid", "test"):
        for name in names[6:]:
            shutil.rmtree(tmp_path / "images" / split / name)
    done = lsc_here("fit", "images", "--out", "run", "--set", "training.duration=150 steps")
    assert done.returncode == 0, done.stderr
    assert "made anew to fit the network" in done.stdout + done.stderr
    found = json.loads(lsc_here("evaluate", "run").stdout)
    assert found["top1"] > 0.5
    assert_refused(lsc_here("predict", "run", "images/test", "--vacant"), "--vacant", "use --unknown")
    for how in (["--scores"], ["--unknown", "0.2"], ["-k", "3", "--format", "jsonl"]):
        done = lsc_here("predict", "run", "images/test", *how)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 18
    (tmp_path / "new").mkdir()
    for name in names[6:]:
        shutil.copytree(tmp_path / "all" / "train" / name, tmp_path / "new" / name)
    done = lsc_here("extend", "run", "new", "--out", "run_2")
    assert done.returncode == 0, done.stderr
    wider = json.loads(lsc_here("evaluate", "run_2", "--images", "all/test").stdout)
    assert wider["top1"] > 0.4
    pytest.importorskip("onnxruntime")
    done = lsc_here("export", "run", "--out", "exported")
    assert done.returncode == 0, done.stderr
