"""CINIC-10 from archive to batch, on a small tree of the same layout, with everything that can go wrong on the way."""

import errno
import io
import os
import re
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torchvision.io import read_image

from lsc.data import cinic10, open_dataset
from lsc.data.cinic10 import CLASS_NAMES, PACKED, fetch_cinic10
from lsc.data.download import download
from lsc.data.trees import write_archive, write_cinic10_tree
from lsc.errors import UserError
from lsc.files import md5_of, save_tensors

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")


class Server(ThreadingHTTPServer):
    """Gives away one file, with ranges; can break off, or refuse ranges."""

    content = b""
    break_after: int | None = None
    ranges = True
    requests: list[str | None]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.requests.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        whole = self.server.content
        if self.path != "/file":
            self.send_error(404)
            return
        if start >= len(whole):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(whole)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(whole) - start))
        self.end_headers()
        rest = whole[start:]
        self.wfile.write(rest if self.server.break_after is None else rest[: self.server.break_after])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server(("127.0.0.1", 0), Handler)
    served.requests = []
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield served
    served.shutdown()
    served.server_close()


def url(server: Server, path: str = "file") -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/{path}"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    write_cinic10_tree(root, per_class=3)
    return root


@pytest.fixture(scope="module")
def archive(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "CINIC-10.tar.gz"
    write_archive(tree, path)
    return path


@pytest.fixture(scope="module")
def packed(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("packed")
    fetch_cinic10(root, archive=archive, md5=md5_of(archive))
    return root


def test_from_archive_to_batch(tree: Path, packed: Path) -> None:
    dataset = open_dataset("cinic10", root=str(packed))
    assert dataset.splits == ("train", "valid", "test")
    assert (dataset.size("train"), dataset.image_shape, dataset.class_names) == (30, (3, 32, 32), CLASS_NAMES)
    assert dataset.labels("test").tolist() == [label for label in range(10) for _ in range(3)]
    first = read_image(str(tree / "test" / "frog" / "fractal-test-00001.png"))
    assert torch.equal(dataset.images("test", torch.tensor([6 * 3 + 1]))[0], first)
    batches = list(dataset.train_batches(10, seed=0, epoch=0))
    assert [batch.images.shape for batch in batches] == [(10, 3, 32, 32)] * 3


def test_training_on_train_and_valid_leaves_no_valid(packed: Path) -> None:
    dataset = open_dataset("cinic10", root=str(packed), train_on="train+valid")
    assert dataset.splits == ("train", "test")
    assert dataset.size("train") == 60


def test_some_classes(packed: Path) -> None:
    dataset = open_dataset("cinic10", root=str(packed), classes=[9, 0])
    assert dataset.class_names == ["truck", "airplane"]
    assert dataset.labels("train").tolist() == [1, 1, 1, 0, 0, 0]


def test_the_extracted_folder_serves_as_well(tree: Path, packed: Path, tmp_path: Path) -> None:
    fetch_cinic10(tmp_path, archive=tree)
    one, two = (open_dataset("cinic10", root=str(root)) for root in (packed, tmp_path))
    assert torch.equal(one.images("train", torch.arange(30)), two.images("train", torch.arange(30)))


def test_a_download_is_packed_and_a_second_fetch_does_nothing(server: Server, archive: Path, tmp_path: Path) -> None:
    server.content = archive.read_bytes()
    fetch_cinic10(tmp_path, url=url(server), md5=md5_of(archive))
    fetch_cinic10(tmp_path, url=url(server), md5=md5_of(archive))
    assert len(server.requests) == 1
    assert open_dataset("cinic10", root=str(tmp_path)).size("test") == 30


def test_a_broken_download_is_resumed_where_it_broke_off(server: Server, tmp_path: Path) -> None:
    server.content = os.urandom(300_000)
    server.break_after = 70_000
    target = tmp_path / "file"
    (tmp_path / "good").write_bytes(server.content)
    with pytest.raises(UserError, match="run the same command again to resume"):
        download(url(server), target, md5=md5_of(tmp_path / "good"), attempts=2, pause=0)
    assert not target.exists()
    assert (tmp_path / "file.part").stat().st_size == 140_000
    server.break_after = None
    download(url(server), target, md5=md5_of(tmp_path / "good"), pause=0)
    assert target.read_bytes() == server.content
    assert server.requests == [None, "bytes=70000-", "bytes=140000-"]
    assert not (tmp_path / "file.part").exists()


def test_a_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.content, server.ranges = os.urandom(50_000), False
    (tmp_path / "file.part").write_bytes(b"x" * 1000)
    (tmp_path / "good").write_bytes(server.content)
    download(url(server), tmp_path / "file", md5=md5_of(tmp_path / "good"))
    assert (tmp_path / "file").read_bytes() == server.content


@pytest.mark.parametrize("length", [50_000, 60_000])
def test_a_part_that_is_whole_or_too_long_is_understood(server: Server, tmp_path: Path, length: int) -> None:
    server.content = os.urandom(50_000)
    (tmp_path / "good").write_bytes(server.content)
    (tmp_path / "file.part").write_bytes((server.content + b"x" * 10_000)[:length])
    download(url(server), tmp_path / "file", md5=md5_of(tmp_path / "good"), pause=0)
    assert (tmp_path / "file").read_bytes() == server.content


def test_a_wrong_checksum_names_both_sums_and_leaves_the_good_file_alone(server: Server, tmp_path: Path) -> None:
    server.content = b"something else"
    (tmp_path / "file").write_bytes(b"good")
    with pytest.raises(UserError, match="has md5 6c7ba9c5a141421e1c03cb9807c97c74 instead of 1234"):
        download(url(server), tmp_path / "file", md5="1234")
    assert (tmp_path / "file").read_bytes() == b"good"
    assert not (tmp_path / "file.part").exists()


def test_servers_that_do_not_answer_are_named(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="answers 404"):
        download(url(server, "other"), tmp_path / "file", md5="", pause=0)
    with pytest.raises(UserError, match="should be an http or https address"):
        download("file:///etc/hostname", tmp_path / "file", md5="", pause=0)
    port = server.server_address[1]
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match=r"cannot fetch .*--archive"):
        download(f"http://127.0.0.1:{port}/file", tmp_path / "file", md5="", attempts=2, pause=0)


def test_an_archive_of_the_wrong_sum_is_refused_before_it_is_read(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"has md5 {md5_of(archive)} instead of {cinic10.MD5}"):
        fetch_cinic10(tmp_path, archive=archive)
    assert not (tmp_path / PACKED).exists()


def test_a_truncated_archive_is_refused(archive: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.tar.gz"
    broken.write_bytes(archive.read_bytes()[:-20_000])
    with pytest.raises(UserError, match=r"broken\.tar\.gz is truncated"):
        fetch_cinic10(tmp_path, archive=broken, md5=md5_of(broken))
    assert not (tmp_path / PACKED).exists()


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "train/../../evil.png", "link", "hard"])
def test_an_archive_that_leaves_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "evil.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo(name)
        if name in ("link", "hard"):
            member.type = tarfile.SYMTYPE if name == "link" else tarfile.LNKTYPE
            member.linkname = "/etc/passwd"
        tar.addfile(member, io.BytesIO(b""))
    with pytest.raises(UserError, match=rf"is not safe: {re.escape(name)} leaves"):
        fetch_cinic10(tmp_path / "root", archive=path, md5=md5_of(path))
    assert not (tmp_path / "evil.png").exists()
    assert not (tmp_path / "root" / PACKED).exists()


def test_an_image_that_does_not_decode_or_has_another_size_is_named(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    write_cinic10_tree(copy, per_class=1)
    victim = copy / "train" / "cat" / "fractal-train-00000.png"
    victim.write_bytes(victim.read_bytes()[:40])
    with pytest.raises(UserError, match=r"train/cat/fractal-train-00000\.png does not decode"):
        fetch_cinic10(tmp_path, archive=copy)
    victim.unlink()
    with pytest.raises(UserError, match="has no images of train/cat"):
        fetch_cinic10(tmp_path, archive=copy)
    assert not (tmp_path / PACKED).exists()


def test_missing_and_damaged_files_are_named(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing: make it with `lsc data fetch cinic10"):
        open_dataset("cinic10", root=str(tmp_path))
    with pytest.raises(UserError, match=r"nothing\.tar\.gz is missing"):
        fetch_cinic10(tmp_path, archive=tmp_path / "nothing.tar.gz")
    (tmp_path / PACKED).write_bytes((packed / PACKED).read_bytes()[:5000])
    with pytest.raises(UserError, match=r"cinic10\.safetensors is damaged .*delete it"):
        open_dataset("cinic10", root=str(tmp_path))


def test_a_full_disk_leaves_the_old_file_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.safetensors"
    save_tensors(path, {"a": torch.zeros(3)})
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"the disk is full while writing .*file\.safetensors"):
        save_tensors(path, {"a": torch.ones(3)})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.safetensors"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_disk_that_is_really_full(server: Server, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=64k none {disk} 2>/dev/null") != 0:
        pytest.skip("this machine lets nobody mount")
    try:
        with pytest.raises(UserError, match="the disk is full"):
            save_tensors(disk / "file.safetensors", {"a": torch.zeros(100_000)})
        assert list(disk.iterdir()) == []
        server.content = os.urandom(300_000)
        with pytest.raises(UserError, match="the disk is full"):
            download(url(server), disk / "file", md5="", pause=0)
        assert not (disk / "file").exists()
    finally:
        os.system(f"umount {disk}")
