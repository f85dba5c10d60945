"""Checkpoints: whole or not at all, and the good one survives whatever befalls the new one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lsc.errors import UserError
from lsc.training.checkpoints import (
    LAST,
    PREVIOUS,
    discard,
    read_checkpoint,
    read_whole,
    refuse_other_configuration,
    write_checkpoint,
)
from lsc.training.loop import train
from tests.conftest import tiny_run


def state(step: int) -> dict:
    return {"step": step, "weights": torch.full((1000,), float(step)), "settings": {"a": {"b": step}}}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "new" / "folder", state(3))
    found = read_checkpoint(tmp_path / "new" / "folder")
    assert found is not None
    assert found["step"] == 3
    assert torch.equal(found["weights"], state(3)["weights"])


def test_there_may_be_none(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path) is None


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text"])
def test_a_damaged_one_is_named_and_the_previous_taken(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_checkpoint(tmp_path, state(1))
    write_checkpoint(tmp_path, state(2))
    last = tmp_path / LAST
    content = bytearray(last.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        place = content.index(bytes(torch.tensor([2.0]).numpy().tobytes() * 8)) + 400
        content[place] ^= 1
    else:
        content = bytearray(b"" if damage == "empty" else b"not a checkpoint")
    last.write_bytes(content)
    found = read_checkpoint(tmp_path)
    assert found is not None
    assert found["step"] == 1
    assert LAST in capsys.readouterr().err


def test_when_all_are_damaged_that_is_said(tmp_path: Path) -> None:
    for name in (LAST, PREVIOUS):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match="no whole checkpoint"):
        read_checkpoint(tmp_path)


def test_a_crash_between_the_renames_leaves_the_previous(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, state(1))
    os.replace(tmp_path / LAST, tmp_path / PREVIOUS)
    found = read_checkpoint(tmp_path)
    assert found is not None
    assert found["step"] == 1


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    torch.save({"harm": os.system}, tmp_path / LAST)
    with pytest.raises(UserError, match="damaged or unreadable"):
        read_whole(tmp_path / LAST)


@pytest.mark.parametrize("content", [{"state_dict": {}}, [1, 2], {"settings": 3}, torch.zeros(2), {}])
def test_a_file_of_another_program_is_refused_and_never_removed(content: object, tmp_path: Path) -> None:
    run = tiny_run(training={"duration": "6 steps"})
    last = tmp_path / "checkpoints" / LAST
    last.parent.mkdir()
    torch.save(content, last)
    before = last.read_bytes()
    for restart in (False, True):
        with pytest.raises(UserError, match=r"last\.ckpt was not written by lsc: choose another --checkpoints folder"):
            train(run, tmp_path, restart=restart)
    assert last.read_bytes() == before
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["checkpoints", LAST]


def test_another_configuration_is_refused_with_the_keys_that_differ(tmp_path: Path) -> None:
    refuse_other_configuration(state(1), {"a": {"b": 1}}, tmp_path)
    with pytest.raises(UserError, match=r"a\.b: 1 there, 2 here"):
        refuse_other_configuration(state(1), {"a": {"b": 2}}, tmp_path)


def test_discarding_leaves_nothing(tmp_path: Path) -> None:
    for step in range(3):
        write_checkpoint(tmp_path, state(step))
    discard(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_older_checkpoint(tmp_path: Path) -> None:
    """On a real file system of 200 KiB, where the machine lets us mount one; elsewhere on a file-size limit."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = (
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", small], capture_output=True).returncode == 0
    )
    script = f"""
import resource, signal, sys, torch
from pathlib import Path
from lsc.training.checkpoints import read_checkpoint, write_checkpoint
from lsc.errors import UserError
from lsc.training.loop import train
from tests.conftest import tiny_run
folder = Path({str(small)!r})
write_checkpoint(folder, {{"settings": {{}}, "step": 1, "weights": torch.zeros(10_000)}})
if not {mounted}:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_checkpoint(folder, {{"step": 2, "weights": torch.zeros(100_000)}})
except UserError as error:
    assert "last.ckpt" in str(error) and "\\n" not in str(error), error
else:
    sys.exit("the full disk went unnoticed")
assert read_checkpoint(folder)["step"] == 1
assert sorted(path.name for path in folder.iterdir()) == ["last.ckpt"], list(folder.iterdir())
"""
    try:
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    finally:
        if mounted:
            subprocess.run(["umount", small], check=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("part", [("progress", "rows"), ("class_means",)])
def test_a_checkpoint_of_another_version_is_one_clear_line(part: tuple[str, ...], tmp_path: Path) -> None:
    run = tiny_run(training={"duration": "6 steps"})
    train(run, tmp_path)
    state = read_checkpoint(tmp_path / "checkpoints")
    assert state is not None
    inner = state["progress"] if len(part) == 2 else state
    del inner[part[-1]]
    write_checkpoint(tmp_path / "checkpoints", state)
    with pytest.raises(UserError, match=r"another version of lsc.*--restart"):
        train(run, tmp_path)
    assert train(run, tmp_path, restart=True)["starts"] == 1
