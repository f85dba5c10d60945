"""Images in archives: the same as those in a folder, to the last bit, and archives that are damaged in every way."""

import io
import itertools
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lsc.data import open_dataset
from lsc.data.archives import Member, list_archive, reading
from lsc.data.base import Dataset
from lsc.data.file_index import load_index, save_index
from lsc.data.folder import FolderOptions
from lsc.data.imagenet import ARCHIVES, DEVKIT, ImagenetOptions, check_imagenet
from lsc.data.trees import write_imagenet_archives, write_imagenet_tree
from lsc.errors import UserError
from tests.data.conftest import Lsc
from tests.data.images import tree, two_classes

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")


def tar_of(folder: Path, path: Path, top: str = "") -> Path:
    """What ``tar --create`` makes of a folder's content, or of the folder as ``top``."""
    with tarfile.open(path, "w") as tar:
        for entry in sorted(folder.iterdir()):
            tar.add(entry, arcname=f"{top}{entry.name}")
    return path


def zip_of(folder: Path, path: Path, method: int = zipfile.ZIP_DEFLATED, top: str = "") -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, f"{top}{file.relative_to(folder)}")
    return path


def of(root: Path, workers: int = 0, name: str = "folder", **options: object) -> Dataset:
    return open_dataset(name, root=str(root), image_size=16, workers=workers, **options)


def assert_same(found: Dataset, expected: Dataset) -> None:
    assert found.fingerprint == expected.fingerprint
    assert found.class_names == expected.class_names
    assert found.splits == expected.splits
    for split in expected.splits:
        assert torch.equal(found.labels(split), expected.labels(split))
    pairs = zip(found.train_batches(4, seed=1, epoch=0), expected.train_batches(4, seed=1, epoch=0), strict=True)
    assert all(torch.equal(a, b) for pair in pairs for a, b in zip(*pair, strict=True))
    everything = torch.arange(expected.size("test"))
    assert torch.equal(found.images("test", everything), expected.images("test", everything))


@pytest.mark.parametrize("top", ["", "./", "photos/", "./photos/of 2026/"])
@pytest.mark.parametrize("kind", ["tar", "stored", "deflated"])
def test_an_archive_of_a_folder_is_as_good_as_the_folder(tmp_path: Path, kind: str, top: str) -> None:
    root = two_classes(tmp_path / "images", 6)
    (root / "README.txt").write_text("Beside the folders, and no image.")
    if kind == "tar":
        path = tar_of(root, tmp_path / "photos.tar", top)
    else:
        method = zipfile.ZIP_STORED if kind == "stored" else zipfile.ZIP_DEFLATED
        path = zip_of(root, tmp_path / "photos.zip", method, top)
    assert_same(of(path), of(root))
    assert_same(of(path, workers=2, valid_every=3), of(root, valid_every=3))


@pytest.mark.parametrize("top", ["", "photos/"])
def test_classes_alone_and_folders_below_them(tmp_path: Path, top: str) -> None:
    names = ["cat/1.png", "cat/more/2.png", "cat/more/still/3.png", "dög/1.png", "dög/2.png"]
    root = tree(tmp_path / "images", names)
    (root / "cat" / "notes.txt").write_text("no image")
    (root / "cat" / "._1.png").write_text("what a Mac leaves behind")
    for path in (tar_of(root, tmp_path / "a.tar", top), zip_of(root, tmp_path / "a.zip", top=top)):
        index = FolderOptions(root=str(path)).list_files()
        whole = FolderOptions(root=str(root)).list_files()
        assert index.fingerprint == whole.fingerprint
        assert [note.replace(str(path), "R") for note in index.notes] == [
            n.replace(str(root), "R") for n in whole.notes
        ]
        assert len(index.notes) == 2


@given(names=st.lists(st.text("ab/. ", min_size=1, max_size=8), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_an_archive_holds_is_listed_as_the_folder_or_refused(tmp_path: Path, names: list[str]) -> None:
    """Against unpacking: the same list, or a line for what cannot be unpacked."""
    root, path = tmp_path / "unpacked", tmp_path / "some.tar"
    shutil.rmtree(root, ignore_errors=True)
    with tarfile.open(path, "w") as tar:
        for name in ["train/a/1.png", "train/b/1.png", *(f"train/{name}.png" for name in names)]:
            tar.addfile(tarfile.TarInfo(name))
    try:
        index = FolderOptions(root=str(path)).list_files()
    except UserError:
        return
    with tarfile.open(path) as tar:
        tar.extractall(root, filter="data")
    assert index.fingerprint == FolderOptions(root=str(root)).list_files().fingerprint


def test_a_frozen_list_knows_the_places(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "images", 4)
    path = tar_of(root, tmp_path / "photos.tar", "photos/")
    index = FolderOptions(root=str(path)).list_files()
    save_index(index, tmp_path / "index.parquet")
    loaded = load_index(tmp_path / "index.parquet")
    assert loaded.fingerprint == index.fingerprint
    assert loaded.packed is not None
    assert index.packed is not None
    assert loaded.packed.archives == index.packed.archives
    assert np.array_equal(loaded.packed.files, index.packed.files)
    assert np.array_equal(loaded.packed.places, index.packed.places)
    assert_same(of(path, index=str(tmp_path / "index.parquet")), of(root))
    moved = path.rename(tmp_path / "moved.tar")
    assert_same(of(moved, index=str(tmp_path / "index.parquet")), of(root))
    with moved.open("ab") as stream:
        stream.write(bytes(512))
    with pytest.raises(
        UserError, match=r"moved\.tar has changed since it was looked through: write the list .*lsc data index"
    ):
        of(moved, index=str(tmp_path / "index.parquet"))
    moved.unlink()
    with pytest.raises(UserError, match=r"moved\.tar cannot be read \(No such file.*: restore it, or write the list"):
        of(moved, index=str(tmp_path / "index.parquet"))


@pytest.mark.parametrize("top", ["", "./"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_links_are_the_files_that_they_lead_to(tmp_path: Path, kind: str, top: str) -> None:
    root = two_classes(tmp_path / "images", 3)
    os.link(root / "train/a/00.png", root / "train/a/hard.png")
    (root / "train/b/soft.png").symlink_to("../a/01.png")
    (root / "train/b/softer.png").symlink_to("soft.png")
    (root / "train/c").symlink_to("a")
    (root / "train/b/dead.png").symlink_to("../../../elsewhere.png")
    if kind == "tar":
        path = tar_of(root, tmp_path / "photos.tar", top)
    else:
        path = tmp_path / "photos.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(root.rglob("*")):
                name = f"{top}{file.relative_to(root)}"
                if file.is_symlink():
                    link = zipfile.ZipInfo(name)
                    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
                    archive.writestr(link, os.readlink(file))
                else:
                    archive.write(file, name)
    index, whole = (FolderOptions(root=str(where)).list_files() for where in (path, root))
    assert index.fingerprint == whole.fingerprint
    assert index.class_names == ["a", "b", "c"]
    assert [n.replace(str(path), "R") for n in index.notes] == [n.replace(str(root), "R") for n in whole.notes]
    read = reading(path, index.packed)
    for name in index.files["train"].tolist():
        assert read(name.decode()) == (root / name.decode()).read_bytes()


def test_links_that_lead_nowhere_or_in_a_circle_end(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, target in (("x", "y"), ("y", "x"), ("z", "nowhere"), ("h", "h")):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.LNKTYPE if name == "h" else tarfile.SYMTYPE, target
            tar.addfile(entry)
    found = list_archive(tmp_path / "a.tar")
    assert not found.files
    assert found.lost == {"x", "y", "z", "h"}


def linked(path: Path, entries: dict[str, str | None]) -> Path:
    """A tar of empty files, and of links where a target is given, in this order."""
    with tarfile.open(path, "w") as tar:
        for name, target in entries.items():
            entry = tarfile.TarInfo(name)
            if target is not None:
                entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return path


@pytest.mark.parametrize(
    "entries",
    [
        {"a": "b", "b/1.png": None, "b/2.png": "1.png", "c/1.png": None},
        {"a": "b", "b/1.png": "../../pool/1.png", "b/2.png": "../../pool/2.png", "c/1.png": None},
        {"a": "b", "b": "c", "c/1.png": "more/2.png", "c/more": "../d/e", "d/1.png": None, "d/e/2.png": None},
        {"a/1.png": "../b/more/2.png", "b/more": "../d", "b/1.png": None, "d/2.png": None},
        {"a/1.png": None, "a/x": "../b", "b/1.png": None, "b/y": "../a", "b/z": ".", "c": "b"},
        {"a/1.png": None, "a/up": "../..", "b/1.png": None, "b/up": "../../train", "c/1.png": None, "c/self": "self"},
    ],
)
@pytest.mark.parametrize("backwards", [False, True])
def test_links_to_folders_hold_what_those_hold(tmp_path: Path, entries: dict[str, str | None], backwards: bool) -> None:
    """Against unpacking: links to folders with links in them, before and after what they lead to, and in circles."""
    named = {f"train/{name}": target for name, target in list(entries.items())[:: -1 if backwards else 1]}
    path, root = linked(tmp_path / "a.tar", named | {"pool/1.png": None, "pool/2.png": None}), tmp_path / "unpacked"
    with tarfile.open(path) as tar:
        tar.extractall(root, filter="fully_trusted")
    index, whole = (FolderOptions(root=str(where)).list_files() for where in (path, root))
    assert index.files["train"].tolist() == whole.files["train"].tolist()
    assert index.fingerprint == whole.fingerprint


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcd"), st.sampled_from(["x", "y", "1.png"]), st.sampled_from("abcd."), st.booleans()
        ),
        max_size=5,
    )
)
@settings(max_examples=60, deadline=None)
def test_whatever_leads_where_is_listed_as_unpacked(found: list[tuple[str, str, str, bool]]) -> None:
    entries: dict[str, str | None] = {f"train/{label}/0.png": None for label in "abcd"}
    for label, name, other, deep in found:
        entries[f"train/{label}/{name}"] = f"../{other}/{name}" if deep else f"../{other}"
    with tempfile.TemporaryDirectory() as folder:
        path, root = linked(Path(folder) / "a.tar", entries), Path(folder) / "unpacked"
        with tarfile.open(path) as tar:
            tar.extractall(root, filter="fully_trusted")
        index, whole = (FolderOptions(root=str(where)).list_files() for where in (path, root))
        assert index.files["train"].tolist() == whole.files["train"].tolist()


def test_a_long_chain_of_links_ends(tmp_path: Path) -> None:
    named = {f"{n}": f"{n + 1}" for n in range(5000)}
    assert len(list_archive(linked(tmp_path / "a.tar", named | {"5000": None})).lost) > 4900


def test_of_one_path_the_last_counts_and_a_hard_link_is_what_it_was_made_of(tmp_path: Path) -> None:
    """Against unpacking, for every order of files and hard links on three paths."""
    root, path = tmp_path / "unpacked", tmp_path / "some.tar"
    names = [f"train/{name}.png" for name in ("a/1", "a/2", "b/1")]
    words = [None, *names]
    for order in itertools.product(itertools.product(names, words), repeat=2):
        shutil.rmtree(root, ignore_errors=True)
        with tarfile.open(path, "w") as tar:
            for number, (name, target) in enumerate([(name, None) for name in names] + list(order)):
                entry = tarfile.TarInfo(name)
                if target is None:
                    entry.size = 1
                elif target == name:
                    continue
                else:
                    entry.type, entry.linkname = tarfile.LNKTYPE, target
                tar.addfile(entry, io.BytesIO(bytes([number])))
        root.mkdir()
        subprocess.run(["tar", "-C", root, "-xf", path], check=True)
        index = FolderOptions(root=str(path)).list_files()
        read = reading(path, index.packed)
        assert {name: read(name) for name in names} == {name: (root / name).read_bytes() for name in names}, order


def test_sparse_files_are_refused(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "images", 2)
    with (root / "train/a/holes.bmp").open("wb") as stream:
        stream.truncate(1 << 20)
    for form in ("gnu", "posix"):
        subprocess.run(["tar", "-C", root, "-Scf", tmp_path / "a.tar", f"--format={form}", "."], check=True)
        with pytest.raises(
            UserError, match=r"a\.tar has train/a/holes\.bmp as a sparse file: pack it without --sparse"
        ):
            of(tmp_path / "a.tar")


def test_a_class_is_not_taken_for_the_folder_of_all(tmp_path: Path) -> None:
    root = tree(tmp_path / "images", ["cat/indoor/1.png", "cat/outdoor/1.png"])
    (root / "dog").mkdir()
    (root / "dog" / "1.heic").write_bytes(b"a format that is not read")
    for path in (tar_of(root, tmp_path / "a.tar"), zip_of(root, tmp_path / "a.zip")):
        with pytest.raises(UserError, match="dog is a class without images"):
            of(path)
    (root / "dog" / "1.heic").unlink()
    for path in (tar_of(root, tmp_path / "a.tar"), zip_of(root, tmp_path / "a.zip")):
        with pytest.raises(UserError, match="dog is a class without images"):
            of(path)


def test_a_list_is_of_the_archive_that_was_looked_through(tmp_path: Path) -> None:
    """Of the same size, with other images at the same places."""
    root = tree(tmp_path / "images", [f"{label}/{number}.bmp" for label in "ab" for number in range(4)])
    path, index = tmp_path / "a.tar", tmp_path / "index.parquet"
    tar_of(root, path)
    save_index(FolderOptions(root=str(path)).list_files(), index)
    of(path, index=str(index))
    size = path.stat().st_size
    with tarfile.open(path, "w") as tar:
        for file in sorted(root.rglob("*.bmp"), reverse=True):
            tar.add(file, arcname=str(file.relative_to(root)))
    if path.stat().st_size != size:
        os.truncate(path, size)
    with pytest.raises(UserError, match="has changed since it was looked through"):
        of(path, index=str(index))
    with pytest.raises(UserError, match="is a folder, and the list of its images is one of an archive"):
        of(root, index=str(index))
    save_index(FolderOptions(root=str(root)).list_files(), index)
    with pytest.raises(UserError, match="is an archive, and the list of its images is one of a folder"):
        of(path, index=str(index))


def test_an_image_that_was_left_out_and_removed_keeps_its_place(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "images", 4)
    whole = of(tar_of(root, tmp_path / "a.tar"))
    (root / "train/a/02.png").unlink()
    (tmp_path / "gone.txt").write_text("train/a/02.png\n")
    without = of(tar_of(root, tmp_path / "a.tar"), leave_out=str(tmp_path / "gone.txt"))
    assert without.fingerprint == whole.fingerprint
    assert sum(len(batch.labels) for batch in without.train_batches(8, seed=0, epoch=0)) == 8


@given(share=st.floats(0, 1, exclude_max=True))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_archive_that_is_cut_off_is_refused(tmp_path: Path, share: float) -> None:
    if not (tmp_path / "a.tar").exists():
        root = two_classes(tmp_path / "images", 2)
        tar_of(root, tmp_path / "a.tar")
        zip_of(root, tmp_path / "a.zip")
    for name in ("a.tar", "a.zip"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / "cut").write_bytes(whole[: int(share * len(whole))])
        try:
            found = list_archive(tmp_path / "cut")
        except UserError:
            continue
        else:  # of a tar the last zeros may be missing
            assert name == "a.tar"
            assert found == list_archive(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no tar or zip archive"),
        (b"\x1f\x8b" + bytes(600), "photos.tar is compressed: uncompress it"),
        (b"words " * 300, "is no tar or zip archive"),
        (b"PK\x03\x04" + bytes(600), "is damaged"),
    ],
)
def test_what_is_no_archive_is_said(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "photos.tar").write_bytes(content)
    with pytest.raises(UserError, match=said):
        of(tmp_path / "photos.tar")


def test_a_tar_that_breaks_off_in_the_middle_is_no_shorter_tar(tmp_path: Path) -> None:
    path = tar_of(two_classes(tmp_path / "images", 2), tmp_path / "photos.tar")
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        fourth = [entry for entry in tar if entry.isreg()][3]
    for hole in (b"\xff", b"\0"):  # as downloads have that are not at their end
        content[fourth.offset : fourth.offset + 512] = hole * 512
        path.write_bytes(content)
        with pytest.raises(UserError, match="is cut off or damaged after 3 files"):
            of(path)


def test_paths_that_lead_out_or_are_two_things_are_refused(tmp_path: Path) -> None:
    for names, said in ((["train/../../a.png"], "leads out of it"), (["a", "a/b.png"], "a file and a folder")):
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            for name in names:
                tar.addfile(tarfile.TarInfo(name))
        with pytest.raises(UserError, match=said):
            of(tmp_path / "a.tar")


def test_names_in_zips(tmp_path: Path) -> None:
    """Some programs write UTF-8 and do not say so; a Mac adds a folder of its own."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("träin/ä.png", b"x")
        archive.writestr("__MACOSX/train/._a.png", b"y")
    silent = (tmp_path / "a.zip").read_bytes()
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content = bytearray(silent)
        place = content.find(signature)
        content[place + flags + 1] &= ~0x08  # the bit that says UTF-8
        silent = bytes(content)
    (tmp_path / "a.zip").write_bytes(silent)
    assert list(list_archive(tmp_path / "a.zip").files) == ["träin/ä.png"]


def test_a_zip_with_a_password_is_said(tmp_path: Path) -> None:
    path = zip_of(two_classes(tmp_path / "images", 1), tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    content[content.rfind(b"PK\x01\x02") + 8] |= 1  # of the last member
    path.write_bytes(content)
    with pytest.raises(UserError, match="locked with a password: unpack it"):
        of(path)


@pytest.mark.parametrize("pack", [tar_of, zip_of])
@pytest.mark.parametrize("top", ["", "photos/"])
@pytest.mark.parametrize("inside", ["", "part{}/", "images/202{}/"])
def test_a_table_in_an_archive_is_refused(tmp_path: Path, pack: Any, top: str, inside: str) -> None:
    """Unpacked it would say the classes; the folders that the images lie in are none."""
    names = [f"{inside.format(1 + number // 2)}{number}.png" for number in range(4)]
    root = tree(tmp_path / "images", names)
    (root / "labels.csv").write_text(
        "path,class\n" + "".join(f"{name},{'cat' if '0' in name else 'dog'}\n" for name in names)
    )
    path = pack(root, tmp_path / "a", top=top)
    with pytest.raises(
        UserError, match=r"/a(/photos)? holds labels\.csv, and a table is read beside files: unpack the archive"
    ):
        of(path)
    with pytest.raises(UserError, match="is an archive: unpack it"):
        of(path, labels="labels.csv")


@pytest.mark.parametrize("top", ["", "photos/"])
def test_a_table_beside_splits_in_an_archive_is_said_not_to_be_read(tmp_path: Path, top: str) -> None:
    root = two_classes(tmp_path / "images", 2)
    (root / "labels.csv").write_text("path,class\ntrain/a/00.png,x\ntrain/b/00.png,y\n")
    path = zip_of(root, tmp_path / "a.zip", top=top)
    index, whole = (FolderOptions(root=str(where)).list_files() for where in (path, root))
    assert index.class_names == ["a", "b"]
    assert index.fingerprint == whole.fingerprint
    assert [note.startswith(f"{path}/{top}labels.csv is not read, since {path}") for note in index.notes] == [True]


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_a_broken_image_is_named_and_left_out(tmp_path: Path, lsc: Lsc, pack) -> None:  # type: ignore[no-untyped-def]
    root = two_classes(tmp_path / "images", 4)
    (root / "train/a/02.png").write_bytes(b"no picture")
    path = pack(root, tmp_path / "photos")
    printed = lsc("data", "check", "folder", "--root", path, "--leave-out", tmp_path / "broken.txt")
    assert f"{path}/train/a/02.png does not decode" in printed
    assert (tmp_path / "broken.txt").read_text().splitlines()[1].startswith("train/a/02.png\t")
    batches = of(path, leave_out=str(tmp_path / "broken.txt")).train_batches(8, seed=0, epoch=0)
    assert sum(len(batch.labels) for batch in batches) == 8
    with pytest.raises(UserError, match=r"train/a/02\.png"):
        list(of(path).train_batches(8, seed=0, epoch=0))


def test_damaged_bytes_in_a_zip_are_said(tmp_path: Path) -> None:
    path = zip_of(two_classes(tmp_path / "images", 2), tmp_path / "a.zip")
    member = list_archive(path).files["train/a/00.png"]
    content = bytearray(path.read_bytes())
    content[member.offset + 44 : member.offset + 60] = b"\xff" * 16
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"train/a/00\.png cannot be read \(its compressed bytes are damaged\)"):
        of(path).images("train", torch.tensor([0]))


def test_one_trains_on_an_archive(tmp_path: Path, lsc: Lsc) -> None:
    root = two_classes(tmp_path / "images", 8)
    path = tar_of(root, tmp_path / "photos.tar", "photos/")
    printed = lsc("fit", path, "--out", tmp_path / "run", "--set", "training.duration=2 steps")
    assert "images are classified right" in printed
    assert f"lsc predict {tmp_path / 'run'} picture.png" in printed
    assert "a" in lsc("predict", tmp_path / "run", root / "test/a/00.png")


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """ImageNet's layout unpacked, and as it is given away."""
    path = tmp_path_factory.mktemp("imagenet")
    write_imagenet_tree(path / "tree", num_classes=3, train_per_class=5, val_per_class=2, image_size=32)
    (path / "archives").mkdir()
    write_imagenet_archives(path / "archives", path / "tree")
    return path / "tree", path / "archives"


def test_imagenet_is_read_from_its_archives(imagenet: tuple[Path, Path], tmp_path: Path) -> None:
    unpacked, archives = (of(root, name="imagenet") for root in imagenet)
    assert {split: archives.size(split) for split in archives.splits} == {"train": 15, "test": 6}
    assert archives.class_names == unpacked.class_names
    pairs = zip(archives.train_batches(4, seed=1, epoch=0), unpacked.train_batches(4, seed=1, epoch=0), strict=True)
    assert all(torch.equal(a, b) for pair in pairs for a, b in zip(*pair, strict=True))

    def by_class(dataset: Dataset) -> list[tuple[int, bytes]]:
        views = dataset.images("test", torch.arange(6))
        return sorted(
            (int(label), view.numpy().tobytes()) for label, view in zip(dataset.labels("test"), views, strict=True)
        )

    # The images of val have other names in the tree, since theirs tell the class.
    assert by_class(archives) == by_class(unpacked)
    save_index(ImagenetOptions(root=str(imagenet[1])).list_files(), tmp_path / "index.parquet")
    frozen = of(imagenet[1], name="imagenet", index=str(tmp_path / "index.parquet"), workers=2)
    assert torch.equal(
        next(iter(frozen.train_batches(4, seed=1, epoch=0))).images,
        next(iter(unpacked.train_batches(4, seed=1, epoch=0))).images,
    )


def test_imagenet_archives_are_checked(
    imagenet: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "archives"
    shutil.copytree(imagenet[1], root)
    with pytest.raises(UserError, match="has 3 classes instead of 1000"):
        check_imagenet(root)
    monkeypatch.setattr("lsc.data.imagenet.NUM_CLASSES", 3)
    monkeypatch.setattr("lsc.data.imagenet.COUNTS", {"train": 15, "test": 6})
    assert len(check_imagenet(root).files["train"]) == 15
    train, devkit = root / ARCHIVES["train"][0], root / DEVKIT[0]
    whole = train.read_bytes()
    train.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged"):
        check_imagenet(root)
    train.write_bytes(whole)
    kit = devkit.read_bytes()
    flipped = [kit[:place] + bytes([kit[place] ^ 0x55]) + kit[place + 1 :] for place in range(60, 120, 7)]
    for content in (b"", kit[: len(kit) // 2], kit[:100] + bytes(len(kit) - 100), *flipped):
        devkit.write_bytes(content)
        with pytest.raises(UserError, match=r"is damaged or another archive .*compare it with md5 fa75699e"):
            check_imagenet(root)
    devkit.unlink()
    with pytest.raises(UserError, match=r"devkit_t12\.tar\.gz is missing, which tells the classes"):
        check_imagenet(root)
    (root / ARCHIVES["test"][0]).unlink()
    with pytest.raises(UserError, match=r"ILSVRC2012_img_val\.tar is missing: .*or put it into .* as it is beside"):
        check_imagenet(root)


def test_imagenet_archives_go_without_images_that_are_named(imagenet: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "gone.txt").write_text("train/n10000000/gone.JPEG\n")
    found = of(imagenet[1], name="imagenet", leave_out=str(tmp_path / "gone.txt"))
    assert found.size("train") == 16
    assert sum(len(batch.labels) for batch in found.train_batches(4, seed=0, epoch=0)) == 16


def test_a_class_that_has_lost_its_end_is_named(imagenet: tuple[Path, Path], tmp_path: Path) -> None:
    """The tar of a class without its zeros runs into the next one's header."""
    root = tmp_path / "archives"
    shutil.copytree(imagenet[1], root)
    path = root / ARCHIVES["train"][0]
    with tarfile.open(path) as tar:
        contents = {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]
    inner = contents["n10000001.tar"]
    with tarfile.open(fileobj=io.BytesIO(inner)) as tar:
        last = tar.getmembers()[-1]
    contents["n10000001.tar"] = inner[: last.offset_data + -(-last.size // 512) * 512]
    with tarfile.open(path, "w") as tar:
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    with pytest.raises(UserError, match=r"n10000001\.tar is cut off or damaged"):
        of(root, name="imagenet")


def test_small_archives_of_imagenet_by_command(tmp_path: Path, lsc: Lsc) -> None:
    lsc(
        "data",
        "tree",
        "imagenet",
        "--root",
        tmp_path / "tree",
        "--classes",
        2,
        "--per-class",
        3,
        "--archives",
        tmp_path / "as",
    )
    printed = lsc("data", "index", "imagenet", "--root", tmp_path / "as", "--out", tmp_path / "index.parquet")
    assert "2 classes, 6 train, 4 test" in printed
    assert "--archives: cinic10" in lsc(
        "data", "tree", "cinic10", "--root", tmp_path / "c", "--archives", tmp_path / "as", code=2
    )


def test_a_member_is_where_it_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.png").write_bytes(b"content")
    path = tar_of(tmp_path / "x", tmp_path / "a.tar")
    member = list_archive(path).files["a.png"]
    assert member == Member(path.read_bytes().index(b"content"), len(b"content"))
