"""Errors in one line: what is said where memory runs out, whoever says so."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from lsc import cli
from lsc.errors import out_of_memory
from tests.conftest import assert_refused, tiny_run


def test_a_full_memory_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(2**58, dtype=torch.uint8)
    assert "the memory of the machine is full (288,230,376.2 GB more" in str(out_of_memory(of_torch.value))
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(2**58, dtype=np.uint8)
    assert "the memory of the machine is full (256. PiB" in str(out_of_memory(of_numpy.value)) or (
        "the memory of the machine is full: take" in str(out_of_memory(of_numpy.value))
    )
    of_card = torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1 GiB is free."
    )
    assert "the memory of the GPU is full (2.50 GiB more were asked for)" in str(out_of_memory(of_card))
    assert out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None


def test_the_command_line_says_it_in_a_line(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(cli, "app", lambda: torch.empty(2**58, dtype=torch.uint8))
    with pytest.raises(SystemExit) as ending:
        cli.main()
    assert ending.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lsc: error: the memory of the machine is full")


def test_an_error_of_the_system_that_names_a_file_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*names: Any) -> None:
        raise PermissionError(13, "Permission denied", *names)

    monkeypatch.setattr(cli, "DEVELOPING", False)
    monkeypatch.delenv("PYTHONDEVMODE", raising=False)

    for names, words in (
        (("a\nb",), r"a\nb"),
        ((b"x" * 300,), "x" * 200 + "..."),
        (("from", None, "to"), "from -> to"),
    ):
        monkeypatch.setattr(cli, "app", lambda names=names: fail(*names))
        with pytest.raises(SystemExit) as ending:
            cli.main()
        assert ending.value.code == 2
        assert capsys.readouterr().err == f"lsc: error: {words}: Permission denied\n"
    # Without a file there is nothing to mend by, and a developer wants to know where.
    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(PermissionError):
        cli.main()
    shown = f"from lsc import cli; cli.app = lambda: open({'x' * 300!r}); cli.main()"
    for flags, code in (([], 2), (["-X", "dev"], 1)):
        done = subprocess.run([sys.executable, *flags, "-c", shown], capture_output=True, text=True, timeout=120)
        assert (done.returncode, "Traceback" in done.stderr) == (code, code == 1)


def test_a_layer_that_does_not_fit_is_refused_before_it_is_made(lsc_here: Any, tmp_path: Path) -> None:
    data = {
        "name": "fractals",
        "num_classes": 1_000_000,
        "train_per_class": 1,
        "test_images": 8,
        "image_size": 8,
        "endless": True,
    }
    for objective in ("cross_entropy", "partial_fc"):
        run = tiny_run(objective={"name": objective}, centers={"dim": 100_000}).plain() | {"data": data}
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
        done = lsc_here("train", "--config", "run.yaml", "--out", "out", "--device", "cpu")
        assert_refused(done, f"a layer of {objective} for 1,000,000 classes in 100000 dimensions takes", "GB are free")
        assert not (tmp_path / "out" / "config.yaml").exists()
