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
from lsc.files import (
    folder_written_whole,
    read_regular,
    refuse_file,
    refuse_unwritable,
    refuse_unwritable_folder,
    save_tensors,
    write_bytes,
    written_out,
    written_whole,
)
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


def test_links_are_followed_and_devices_stay(tmp_path: Path) -> None:
    old, link, ahead = tmp_path / "old", tmp_path / "link", tmp_path / "ahead"
    old.write_text("old")
    link.symlink_to("old")
    ahead.symlink_to("folder/new")
    for path in (link, ahead):
        refuse_unwritable(path)
        _write_out(path, b"new")
        assert path.is_symlink()
    assert old.read_text() == (tmp_path / "folder" / "new").read_text() == "new"
    pipe, nothing, full = tmp_path / "pipe", tmp_path / "null", tmp_path / "full"
    os.mkfifo(pipe)
    nothing.symlink_to("/dev/null")
    full.symlink_to("/dev/full")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for path in (pipe, nothing):
        refuse_unwritable(path)
        _write_out(path, b"new")
    assert os.read(reader, 9) == b"new"
    os.close(reader)
    with pytest.raises(UserError, match=f"the disk is full while writing {full}"):
        _write_out(full, b"new")
    assert pipe.is_fifo()
    assert nothing.is_symlink()
    assert nothing.is_char_device()
    assert full.is_char_device()
    (tmp_path / "circle").symlink_to("circle")
    for write in (refuse_unwritable, lambda path: _write_out(path, b"")):
        with pytest.raises(UserError, match="Too many levels of symbolic links"):
            write(tmp_path / "circle")
    assert not list(tmp_path.rglob(".*"))


def test_an_open_file_is_not_written_to_by_another_way(tmp_path: Path) -> None:
    """Whoever has it open goes on where it stood, over what would have been written."""
    with (tmp_path / "file").open("w+b") as stream:
        stream.write(b"old, ")
        stream.flush()
        (tmp_path / "link").symlink_to(f"/dev/fd/{stream.fileno()}")
        for path in (tmp_path / "link", Path(f"/proc/self/fd/{stream.fileno()}")):
            for write in (refuse_unwritable, lambda path: _write_out(path, b"new")):
                with pytest.raises(UserError, match="is a file that is open already"):
                    write(path)
        stream.seek(0)
        assert stream.read() == b"old, "
    assert len(list(tmp_path.iterdir())) == 2


def test_what_a_program_writes_by_itself_follows_no_link(tmp_path: Path) -> None:
    """A folder of links to another run is made that of a new one, and the other run stays as it is."""
    (tmp_path / "old").write_text("old")
    (tmp_path / "link").symlink_to("old")
    write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "old").read_text() == "old"
    assert not (tmp_path / "link").is_symlink()


def _write_out(path: Path, content: bytes) -> None:
    with written_out(path) as temporary:
        temporary.write_bytes(content)


def test_what_cannot_be_written_is_one_line_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "here").mkdir()
    (tmp_path / "used" / "x").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    long = "x" * 300
    for refuse, names, kind in (
        (refuse_unwritable, ("..", "../used", "../file/y", long, f"new/{long}", "/proc/new/x"), "file"),
        (refuse_unwritable_folder, ("../used", "../file", "../file/y", ".", long, f"new/{long}", "/proc/x"), "folder"),
    ):
        for name in names:
            with pytest.raises(UserError, match=rf"--to {name[:20]}") as caught:
                refuse(Path(name), "--to")
            assert "\n" not in str(caught.value)
        for name in ("y", "new/er/y"):
            refuse(Path(name), "--to")
        assert not list(tmp_path.rglob("new")), kind
    refuse_file(tmp_path / "here")
    assert not list(tmp_path.rglob(".*"))
    assert not list((tmp_path / "here").iterdir())


def test_a_folder_takes_the_place_of_an_empty_one_or_of_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    (tmp_path / "ahead").symlink_to("a/b")
    for name, real in (("link", "empty"), ("ahead", "a/b"), ("new", "new")):
        with folder_written_whole(tmp_path / name) as folder:
            (folder / "x").write_text("new")
        assert (tmp_path / real / "x").read_text() == "new"
        assert not (tmp_path / real).is_symlink()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "ahead").is_symlink()


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
