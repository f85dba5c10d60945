"""Files: whole or not there, of equal bytes for equal content, and one line where that cannot be."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from lsc.errors import UserError
from lsc.files import read_regular, save_tensors, written_whole
from lsc.training.loop import train
from tests.conftest import tiny_run


@settings(max_examples=30, deadline=None)
@given(metadata=st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), st.text(max_size=8), max_size=8))
def test_equal_tensors_and_metadata_make_equal_bytes(
    metadata: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    metadata = {k: v for k, v in metadata.items() if all(t.isprintable() for t in (k, v))}
    path = tmp_path_factory.mktemp("tensors") / "x.safetensors"
    tensors = {"b": torch.arange(3.0), "a": torch.zeros(2, 2)}
    contents = set()
    for _ in range(4):
        save_tensors(path, tensors, metadata or None)
        contents.add(path.read_bytes())
        with safe_open(path, framework="pt") as file:
            assert (file.metadata() or {}) == metadata
            assert torch.equal(file.get_tensor("b"), tensors["b"])
    assert len(contents) == 1


def test_two_equal_runs_leave_equal_weights_byte_by_byte(tmp_path: Path) -> None:
    for name in "xy":
        train(tiny_run(training={"duration": "2 steps"}), tmp_path / name)
    for file in ("encoder.safetensors", "objective.safetensors"):
        assert (tmp_path / "x" / file).read_bytes() == (tmp_path / "y" / file).read_bytes()
    header = (tmp_path / "x" / "encoder.safetensors").read_bytes()
    about = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"]
    assert list(about) == sorted(about)


def test_an_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")

    def fail() -> None:
        with written_whole(path) as temporary:
            temporary.write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null"), tmp_path, tmp_path / "nowhere"):
        with pytest.raises(OSError, match=r"no regular file|Is a directory|No such file"):
            read_regular(path)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder of a finished run that nobody can write, as another user's."""
    folder = tmp_path / "theirs"
    train(tiny_run(training={"duration": "2 steps"}), folder)
    mounted = subprocess.run(["mount", "--bind", folder, folder], capture_output=True).returncode == 0
    if not mounted or subprocess.run(["mount", "-o", "remount,ro,bind", folder], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_another_users_folder_is_one_line(read_only: Path, tmp_path: Path) -> None:
    run = tiny_run(training={"duration": "2 steps"})
    theirs = read_only / "checkpoints"
    for out, checkpoints, restart in (
        (read_only, None, False),
        (read_only, None, True),
        (read_only / "sub", None, False),
        (tmp_path / "mine", theirs, True),
    ):
        with pytest.raises(UserError, match=rf"{read_only}.*Read-only file system") as caught:
            train(run, out, checkpoints=checkpoints, restart=restart)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "mine").exists()


def test_a_folder_without_leave_to_write_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny_run(training={"duration": "2 steps"})
    train(run, tmp_path)
    plain = os.unlink

    def unlink(path: object, *rest: object, **more: object) -> None:
        if str(path).endswith(("last.ckpt", "summary.json")):
            raise PermissionError(13, "Permission denied", path)
        plain(path, *rest, **more)

    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(UserError, match=r"summary\.json: Permission denied"):
        train(run, tmp_path)
    with pytest.raises(UserError, match=r"last\.ckpt: Permission denied; give a folder"):
        train(run, tmp_path, restart=True)
    with pytest.raises(PermissionError):
        (tmp_path / "summary.json").unlink()
