"""Images as people have them: layouts, tables, formats, names; what is passed over is said."""

import os
import shutil
import struct
import tarfile
import tempfile
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

import lsc
from lsc.data import open_dataset
from lsc.data.base import Batch, Requests
from lsc.data.decoding import central_part, decode, random_part, view
from lsc.data.folder import FolderOptions
from lsc.data.image_folder import ImageFolder, broken_images
from lsc.data.imagenet import ImagenetOptions
from lsc.data.scanning import EXTENSIONS
from lsc.data.splitting import every_so_manieth, share_of_each_class
from lsc.errors import UserError, in_one_line
from lsc.training.loop import train
from lsc.training.records import read_rows
from lsc.training.run import Run
from tests.conftest import tiny_run
from tests.data.images import huge_jpeg, huge_png, picture, save, tree, two_classes

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")

# Ways of laying out the same images; {} is the folder of a class.
LAYOUTS = {
    "splits": ("train/{}", "valid/{}", "test/{}"),
    "val": ("train/{}", "val/{}", "test/{}"),
    "other words": ("Training/{}", "Validation/{}", "TESTING/{}"),
    "nested": ("train/{}/2023/may", "valid/{}", "test/{}/x/y/z"),
}


def opened(root: Path, **options: object) -> ImageFolder:
    dataset = open_dataset("folder", root=str(root), **{"image_size": 16, "workers": 0} | options)
    assert isinstance(dataset, ImageFolder)
    return dataset


def sizes(dataset: ImageFolder) -> dict[str, int]:
    return {split: dataset.size(split) for split in dataset.splits}


def paths(dataset: ImageFolder, split: str) -> list[str]:
    return [dataset.path(split, index).name for index in range(dataset.size(split))]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_splits_go_by_several_names(layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree(tmp_path, [f"{place.format(label)}/{n}.png" for place in LAYOUTS[layout] for label in "ab" for n in range(3)])
    dataset = opened(tmp_path)
    assert sizes(dataset) == {"train": 6, "valid": 6, "test": 6}
    assert dataset.labels("test").tolist() == [0, 0, 0, 1, 1, 1]
    assert capsys.readouterr().err == ""


def test_class_folders_alone_are_all_to_train_on(tmp_path: Path) -> None:
    dataset = opened(tree(tmp_path, ["cat/1.png", "cat/2.png", "dog/1.png"]))
    assert sizes(dataset) == {"train": 3}
    assert dataset.class_names == ["cat", "dog"]


def test_two_folders_for_one_split_and_none_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no folders of images: move them to .*labels\.csv"):
        opened(tree(tmp_path / "flat", ["1.png", "2.png"]))
    with pytest.raises(UserError, match=r"has val/ and valid/ for the split valid|has valid/ and val/"):
        opened(tree(tmp_path / "twice", ["train/a/1.png", "train/b/1.png", "val/a/1.png", "valid/a/1.png"]))
    with pytest.raises(UserError, match=r"train is missing"):
        opened(tree(tmp_path / "test", ["test/a/1.png", "test/b/1.png"]))


@pytest.mark.parametrize("kind", ["comma", "semicolon", "tab", "bom", "parquet"])
def test_a_table_names_classes_and_splits(kind: str, tmp_path: Path) -> None:
    tree(tmp_path, [f"images/{n}.png" for n in range(6)])
    rows = [(f"images/{n}.png", "ab"[n % 2], "train" if n < 4 else "val") for n in range(6)]
    if kind == "parquet":
        import pyarrow as pa
        from pyarrow import parquet

        columns = dict(zip(("path", "class", "split"), map(list, zip(*rows, strict=True)), strict=True))
        parquet.write_table(pa.table(columns), tmp_path / "labels.parquet")
    else:
        mark = {"semicolon": ";", "tab": "\t"}.get(kind, ",")
        lines = [mark.join(row) for row in (("File", "label", "split"), *rows)]
        (tmp_path / "labels.csv").write_text("\n".join(lines), encoding="utf-8-sig" if kind == "bom" else "utf-8")
    dataset = opened(tmp_path)
    assert sizes(dataset) == {"train": 4, "valid": 2}
    assert dataset.labels("train").tolist() == [0, 1, 0, 1]
    assert paths(dataset, "valid") == ["4.png", "5.png"]
    assert sizes(opened(tmp_path, labels="labels.parquet" if kind == "parquet" else "labels.csv")) == sizes(dataset)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path\n0.png\n", "has no column class; its first row is path"),
        ("", "has no column path; its first row is empty"),
        ("path,class\n0.png\n", "row 2: has no class"),
        ("path,class\n0.png,a\n,b\n", "row 3: has no path"),
        ("path,class,split\n0.png,a,tset\n", "row 2: 'tset' is no split"),
        ("path,class\n0.png,a\n0.png,b\n", "row 3: 0.png has another class"),
        ("path,class\n0.png,a\nx.png,b\ny.png,b\n", "2 of 3 files are missing from .*, the first x.png .row 3.: put"),
        ("path,class\n0.png,a\n1.png,a\n", "has 1 classes to train on"),
        ("path,class,split\n0.png,a,\n1.png,b,test\n", "'' is no split"),
        ("path,class,split\n0.png,a,train\n1.png,b,train\n2.png,c,test\n", "c is a class of test that train does not"),
        ("path,class,label\n0.png,a,a\n", "two columns for the class"),
        ('path,class\n0.png,"a\nb"\n1.png,b\n', "line break or the like"),
        ('path,class\n0.png,"a', "row 2: unexpected end of data"),
    ],
)
def test_a_table_with_a_mistake_is_one_line_that_names_the_row(text: str, message: str, tmp_path: Path) -> None:
    tree(tmp_path, ["0.png", "1.png", "2.png"])
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        opened(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("other", ["./part1/1.png", "part1//1.png", "part1/../part1/1.png", "{root}/part1/1.png"])
def test_a_file_under_two_spellings_is_one_file(other: str, tmp_path: Path) -> None:
    other = other.format(root=tree(tmp_path, ["part1/1.png", "part1/2.png"]))
    table = tmp_path / "labels.csv"
    for label, split in (("dog", "train"), ("cat", "test")):
        table.write_text(f"path,class,split\npart1/1.png,cat,train\npart1/2.png,dog,train\n{other},{label},{split}\n")
        with pytest.raises(
            UserError, match=r"row 4: .*1\.png has another class or split .*, where it is part1/1\.png: keep"
        ):
            opened(tmp_path)
    table.write_text(f"path,class\n{other},cat\npart1/1.png,cat\npart1/2.png,dog\n")
    assert FolderOptions(root=str(tmp_path)).list_files().files["train"].tolist() == sorted(
        [other.encode(), b"part1/2.png"]
    )


def test_paths_that_cannot_be_looked_at_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, ["0.png"])
    (tmp_path / "labels.csv").write_text(f"path,class\n0.png,a\n{'x' * 300}.png,b\n")
    with pytest.raises(
        UserError, match=r"labels.csv, row 3: x+\.\.\. cannot be looked at \(File name too long\): make"
    ):
        opened(tmp_path)
    with pytest.raises(UserError, match=r"x+\.\.\. cannot be looked at \(File name too long\)"):
        opened(tmp_path, labels=f"{'x' * 300}.parquet")
    with pytest.raises(UserError, match=r"cannot be looked at \(File name too long\)"):
        opened(tmp_path / ("x" * 300))

    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(UserError, match=rf"{tmp_path} cannot be looked at \(Permission denied\): make it readable"):
        FolderOptions(root=str(tmp_path)).list_files()
    with pytest.raises(UserError, match=rf"{tmp_path} cannot be looked at \(Permission denied\): make it readable"):
        ImagenetOptions(root=str(tmp_path)).list_files()


@pytest.mark.parametrize("column", ["image", "label"])
def test_a_table_of_pictures_themselves_is_refused(column: str, tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    columns = {"image": ["0.png", "1.png"], "label": ["a", "b"]} | {column: [{"bytes": b"x", "path": "1.png"}] * 2}
    parquet.write_table(pa.table(columns), tree(tmp_path, ["0.png", "1.png"]) / "labels.parquet")
    with pytest.raises(
        UserError, match=rf"its column {column} holds no (text|paths of images) but struct<.*: write the images"
    ):
        opened(tmp_path)


def test_tables_that_are_none_are_refused(tmp_path: Path) -> None:
    tree(tmp_path, ["0.png"])
    (tmp_path / "labels.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"labels\.parquet is no Parquet file"):
        opened(tmp_path)
    (tmp_path / "labels.csv").write_bytes(b"path,class\n\xe9.png,a\n")
    with pytest.raises(UserError, match=r"labels\.csv is not UTF-8"):
        opened(tmp_path)
    with pytest.raises(UserError, match=r"other\.csv is missing"):
        opened(tmp_path, labels="other.csv")


def test_folders_of_splits_win_over_a_table_and_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two_classes(tmp_path)
    (tmp_path / "labels.csv").write_text("path,class\ntrain/a/00.png,x\ntrain/b/00.png,y\n")
    assert opened(tmp_path).class_names == ["a", "b"]
    assert "labels.csv is not read" in capsys.readouterr().err
    assert opened(tmp_path, labels="labels.csv").class_names == ["x", "y"]


@pytest.mark.parametrize("suffix", [*EXTENSIONS, ".JPG", ".Png", ".JPE"])
def test_every_format_is_listed_and_decoded(suffix: str, tmp_path: Path) -> None:
    kind = {".pbm": "1", ".pgm": "L"}.get(suffix, "RGB")
    for label in "ab":
        save(tmp_path / label / f"x{suffix}", mode=kind)
    pixels = opened(tmp_path, image_size=8).images("train", torch.tensor([0]))[0]
    expected = decode(save(tmp_path / "x.png", mode=kind).read_bytes(), "", "")
    near = 40 if suffix.lower() in (".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".avif") else 0
    decoded = decode((tmp_path / "a" / f"x{suffix}").read_bytes(), "", "")
    assert (decoded.int() - expected.int()).abs().float().mean() <= near
    assert pixels.shape == (3, 8, 8)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_and_not_cut_off(suffix: str, tmp_path: Path) -> None:
    levels = np.array([[0, 257, 30_000, 65_535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / f"deep.{suffix}")
    found = decode((tmp_path / f"deep.{suffix}").read_bytes(), "", "")
    assert found.tolist() == [[[0, 1, 116, 255]]] * 3


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
def test_colour_modes_become_three_channels(mode: str, suffix: str, tmp_path: Path) -> None:
    if (mode, suffix) in {("CMYK", "png"), ("CMYK", "webp")} or (mode in ("LA", "P", "RGBA") and suffix == "jpg"):
        pytest.skip(f"{suffix} cannot hold mode {mode}")
    path = tmp_path / f"x.{suffix}"
    picture().convert(mode).save(path, **({"lossless": True} if suffix == "webp" else {}))
    expected = torch.from_numpy(np.array(picture().convert(mode).convert("RGB"))).permute(2, 0, 1)
    near = 12 if suffix == "jpg" else 0  # what the format loses
    assert (decode(path.read_bytes(), "", "").int() - expected.int()).abs().float().mean() <= near


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_pictures_stand_upright(suffix: str, orientation: int, tmp_path: Path) -> None:
    path = tmp_path / f"x.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture().save(path, exif=exif.tobytes(), **({"quality": 100, "subsampling": 0} if suffix == "jpg" else {}))
    with Image.open(path) as file:
        expected = torch.from_numpy(np.array(ImageOps.exif_transpose(file).convert("RGB"))).permute(2, 0, 1)
    found = decode(path.read_bytes(), "", "")
    assert found.shape == expected.shape
    assert (found.int() - expected.int()).abs().max() <= 2


def test_what_cannot_be_taken_is_named_with_the_reason(tmp_path: Path) -> None:
    def refused(path: Path, message: str) -> None:
        with pytest.raises(UserError, match=message) as caught:
            decode(path.read_bytes(), path.name, "replace it")
        assert "\n" not in str(caught.value)

    refused(
        huge_png(tmp_path / "bomb.png", 40_000), r"bomb\.png holds 40,000 x 40,000 pixels, more than the 178,956,970"
    )
    refused(huge_jpeg(tmp_path / "bomb.jpg", 40_000), "40,000 x 40,000 pixels")
    frames = [picture(n) for n in range(3)]
    for suffix in ("gif", "webp", "tif"):
        frames[0].save(tmp_path / f"many.{suffix}", save_all=True, append_images=frames[1:])
        refused(tmp_path / f"many.{suffix}", "holds 3 pictures")
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "float.tif")
    refused(tmp_path / "float.tif", "floating-point")
    for suffix in ("png", "jpg", "bmp", "tif", "webp", "gif"):
        path = save(tmp_path / f"cut.{suffix}")
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        refused(path, rf"cut\.{suffix} does not decode")
    (tmp_path / "text.bmp").write_text("no image")
    refused(tmp_path / "text.bmp", "cannot identify it as an image")


def test_grey_images_may_have_one_channel(tmp_path: Path) -> None:
    for label in "ab":
        save(tmp_path / label / "x.png", mode="L")
    one, three = opened(tmp_path, channels=1), opened(tmp_path)
    assert one.image_shape == (1, 16, 16)
    (batch,) = one.train_batches(2, seed=0, epoch=0)
    assert batch.images.shape == (2, 1, 16, 16)
    assert torch.equal(one.images("train", torch.arange(2))[:, 0], three.images("train", torch.arange(2))[:, 1])


def test_what_is_passed_over_is_counted_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two_classes(tmp_path, per_class=2, splits=("train",))
    folder = tmp_path / "train" / "a"
    (folder / "notes.txt").touch()
    (folder / "raw.heic").touch()
    (folder / ".hidden.png").touch()
    (folder / ".DS_Store").touch()
    os.mkfifo(folder / "pipe.png")
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "self.png").symlink_to("self.png")
    (folder / "up").symlink_to(tmp_path)
    (folder / "linked.png").symlink_to(tmp_path / "train" / "b" / "00.png")
    save(tmp_path / "train" / "loose.png")
    (tmp_path / "holdout").mkdir()
    dataset = opened(tmp_path)
    assert paths(dataset, "train") == ["00.png", "01.png", "linked.png", "00.png", "01.png"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 7, lines
    told = "\n".join(lines)
    for part in (
        f"2 left out, the first {folder}/notes.txt: it is none of .jpg",
        f"1 left out, {folder}/.hidden.png: its name begins with a dot",
        f"1 left out, {folder}/pipe.png: it is no regular file",
        f"2 left out, the first {folder}/gone.png: the link leads to no file",
        f"1 left out, {folder}/up: the link leads back",
        f"1 left out, {tmp_path}/train/loose.png: it lies in no class folder",
        "1 left out, holdout/: it is the folder of no split",
    ):
        assert part in told


@pytest.mark.parametrize("dead", ["train/bird", "test", "bird", "train/me"])
def test_a_dead_link_in_place_of_a_class_or_split_is_refused(dead: str, tmp_path: Path) -> None:
    tree(tmp_path, ["train/cat/1.png", "train/dog/1.png"])
    (tmp_path / dead).symlink_to("me" if dead.endswith("me") else "/mnt/gone/bird")
    with pytest.raises(
        UserError, match=rf"{tmp_path}/{dead} is a link that leads to nothing \(.*\): mend it or remove it"
    ):
        opened(tmp_path)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for entry in ("train", *({dead} - {"train/bird", "train/me"})):
            tar.add(tmp_path / entry, arcname=entry)
    with pytest.raises(UserError, match=rf"a\.tar/{dead} is a link that leads to nothing in the archive: mend it"):
        opened(tmp_path / "a.tar")
    (tmp_path / dead).rename(tmp_path / dead.replace(Path(dead).name, ".hidden"))
    assert opened(tmp_path).class_names == ["cat", "dog"]


def test_a_dead_link_is_refused_where_folders_are_classes(tmp_path: Path) -> None:
    (tree(tmp_path, ["cat/1.png", "dog/1.png"]) / "bird").symlink_to("gone")
    with pytest.raises(UserError, match="bird is a link that leads to nothing"):
        opened(tmp_path)


def test_files_beside_the_folders_are_said_to_be_left_out(tmp_path: Path) -> None:
    root = tree(tmp_path / "d", ["train/cat/1.png", "train/dog/1.png", "loose.png"])
    (root / "train" / "x.heic").touch()
    (root / "linked.png").symlink_to("loose.png")
    (root / ".hidden").touch()
    notes = sorted(FolderOptions(root=str(root)).list_files().notes)
    assert notes[0].startswith(f"{root}: 1 left out, {root}/train/x.heic: it is none of .jpg")
    assert notes[1:] == [f"{root}: 2 left out, the first {root}/linked.png: it lies in no class folder"]


def test_a_pipe_that_takes_a_files_place_is_not_waited_for(tmp_path: Path) -> None:
    dataset = opened(two_classes(tmp_path, 2, ["train"]))
    dataset.path("train", 0).unlink()
    os.mkfifo(dataset.path("train", 0))
    with pytest.raises(UserError, match=r"00\.png cannot be read \(no regular file\)"):
        dataset.images("train", torch.tensor([0]))


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_classes(tmp_path, 2, ["train"])
    plain = os.scandir

    def scandir(folder: Path) -> object:
        if str(folder).endswith("/b"):
            raise PermissionError(13, "Permission denied")
        return plain(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match=r"train/b cannot be read \(Permission denied\): make it readable"):
        opened(tmp_path)


def test_an_accent_is_the_same_however_it_is_encoded(tmp_path: Path) -> None:
    composed, split_up = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    tree(tmp_path, [f"train/{composed}/1.png", "train/thé/1.png", f"test/{split_up}/1.png", "test/thé/1.png"])
    dataset = opened(tmp_path)
    assert dataset.class_names == [composed, "thé"]
    assert dataset.images("test", torch.arange(2)).shape == (2, 3, 16, 16)
    save(tmp_path / "train" / split_up / "2.png")
    with pytest.raises(UserError, match="two folders of the class café"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [("b\nc", r"line break or the like in its name, 'b\\nc'"), ("b\tc", "line break"), ("caf\udce9", "not UTF-8")],
)
def test_names_of_classes_are_text_on_one_line(name: str, message: str, tmp_path: Path) -> None:
    two_classes(tmp_path, 1, ["train"])
    save(tmp_path / "x.png").rename(tmp_path / "train" / "a" / "01.png")
    (tmp_path / "train" / "a").rename(tmp_path / "train" / name)
    with pytest.raises(UserError, match=message) as caught:
        opened(tmp_path)
    assert str(caught.value).isprintable()


def test_classes_that_differ_in_case_alone_are_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert opened(tree(tmp_path, ["Cat/1.png", "cat/1.png"])).num_classes == 2
    assert "Cat and cat are two classes whose names differ in case alone" in capsys.readouterr().err


def test_a_split_without_some_classes_is_a_warning_and_without_any_images_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two_classes(tmp_path, 2)
    shutil.rmtree(tmp_path / "test" / "b")
    opened(tmp_path)
    assert "test has no images of 1 classes, the first b" in capsys.readouterr().err
    for image in (tmp_path / "test" / "a").iterdir():
        image.unlink()
    with pytest.raises(UserError, match="test/a is a class without images"):
        opened(tmp_path)


def test_moving_renaming_and_adding_images_is_noticed(tmp_path: Path) -> None:
    two_classes(tmp_path, 3)
    before = opened(tmp_path).fingerprint
    assert opened(tmp_path, workers=2).fingerprint == before
    (tmp_path / "train" / "a" / "00.png").rename(tmp_path / "train" / "b" / "x.png")
    (tmp_path / "train" / "b" / "00.png").rename(tmp_path / "train" / "a" / "00.png")
    moved = opened(tmp_path).fingerprint
    assert moved != before
    (tmp_path / "test" / "a" / "00.png").rename(tmp_path / "test" / "a" / "zero.png")
    assert opened(tmp_path).fingerprint != moved


def test_an_image_that_is_left_out_keeps_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, listed = two_classes(tmp_path / "d", 4), tmp_path / "bad.txt"
    whole = opened(root)
    for name in ("train/a/01.png", "train/b/03.png", "test/a/02.png"):
        (root / name).write_bytes(b"broken")
    listed.write_text(f"# found by hand\ntrain/a/01.png\tno image\n{root}/train/b/03.png\ntest/a/02.png\nx.png\n")
    dataset = opened(root, leave_out=str(listed))
    assert "bad.txt: 1 of 4 are no images of the set, the first x.png" in capsys.readouterr().err
    assert paths(dataset, "train") == [f"{n:02d}.png" for n in (0, 2, 2, 3, 0, 1, 2, 0)]
    assert torch.equal(dataset.labels("train"), whole.labels("train"))
    assert sizes(dataset) == {"train": 8, "test": 7}
    assert dataset.fingerprint == whole.fingerprint
    (root / "train" / "a" / "01.png").unlink()
    assert opened(root, leave_out=str(listed)).fingerprint == whole.fingerprint
    assert opened(root).fingerprint != whole.fingerprint
    listed.write_text("".join(f"train/a/{n:02d}.png\n" for n in range(4)))
    with pytest.raises(UserError, match="leaves no training images of the class a"):
        opened(root, leave_out=str(listed))
    with pytest.raises(UserError, match="option leave_out: nowhere: No such file"):
        opened(root, leave_out="nowhere")


def test_images_that_a_table_names_from_the_root_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever way either of them names an image, and whether it is still there."""
    root, listed = tree(tmp_path / "d", [f"{n}.png" for n in range(4)]), tmp_path / "bad.txt"
    rows = [f"{root}/0.png,a", f"{root}/1.png,a", "2.png,b", f"{root}/3.png,b"]
    (root / "labels.csv").write_text("path,class\n" + "\n".join(rows) + "\n")
    whole = opened(root)
    listed.write_text(f"{root}/0.png\n3.png\nx.png\n")
    dataset = opened(root, leave_out=str(listed))
    assert sorted(paths(dataset, "train")) == ["1.png", "1.png", "2.png", "2.png"]
    assert "1 of 3 are no images of the set, the first x.png" in capsys.readouterr().err
    (root / "3.png").unlink()
    assert opened(root, leave_out=str(listed)).fingerprint == whole.fingerprint


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")])
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_memory_that_runs_out_is_no_fault_of_an_image(
    error: Exception, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    tree(tmp_path, [f"{label}/1.{suffix}" for label in "ab"])
    for used in ("decode_image", "_reduced", "_by_pillow"):
        monkeypatch.setattr(f"lsc.data.decoding.{used}", refuse)
    with pytest.raises(type(error)):
        list(broken_images(tmp_path, FolderOptions(root=str(tmp_path)).list_files()))
    with pytest.raises(type(error)):
        opened(tmp_path).images("train", torch.tensor([0]))
    with pytest.raises(UserError, match="memory ran out in a loading process"):
        next(opened(tmp_path, workers=1).train_batches(2, seed=0, epoch=0))


def test_a_photograph_that_memory_does_not_suffice_to_reduce_is_not_called_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.jpg"
    picture(size=(400, 300)).save(path)

    def refuse(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(MemoryError):
        decode(path.read_bytes(), "", "", central_part, 16)


def test_images_are_looked_at_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for its turn takes memory, of a million images gigabytes; and whoever stops listening waits for few."""
    tree(tmp_path, [f"{label}/{n:03d}.png" for label in "ab" for n in range(150)])
    for name in ("a/001.png", "b/149.png"):
        (tmp_path / name).write_bytes(b"broken")
    submitted = []
    submit = ThreadPoolExecutor.submit
    monkeypatch.setattr(ThreadPoolExecutor, "submit", lambda *given: submitted.append(given[2]) or submit(*given))
    monkeypatch.setattr("lsc.data.image_folder.default_workers", lambda: 2)
    found = broken_images(tmp_path, FolderOptions(root=str(tmp_path)).list_files())
    assert next(found)[0] == "a/001.png"
    assert len(submitted) < 100
    assert [name for name, _ in found] == ["b/149.png"]
    assert len(submitted) == len({*submitted}) == 300


def test_validation_leaves_every_class_something_to_train_on(tmp_path: Path) -> None:
    two_classes(tmp_path, 1, ["train"])
    for options in ({"valid_every": 2}, {"valid_share": 0.5}):
        with pytest.raises(UserError, match=f"option {next(iter(options))}: 0?.?[25] leaves no images for valid"):
            opened(tmp_path, **options)
    save(tmp_path / "train" / "b" / "more.png")
    for options in ({"valid_every": 2}, {"valid_share": 0.3}):
        dataset = opened(tmp_path, **options)
        assert dataset.labels("train").tolist() == [0, 1]
        assert dataset.labels("valid").tolist() == [1]
    with pytest.raises(UserError, match="give one of them"):
        opened(tmp_path, valid_every=2, valid_share=0.3)


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 12), min_size=2, max_size=8),
    share=st.floats(0.01, 0.99),
    every=st.integers(2, 9),
    seed=st.integers(0, 2**31),
)
@example(counts=[1, 1, 4], share=0.5, every=2, seed=0)
@example(counts=[1, 1, 6], share=0.5, every=2, seed=0)
def test_a_share_is_kept_and_does_not_depend_on_order(counts: list[int], share: float, every: int, seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    names = [f"train/{label}/{n}.png".encode() for n, label in enumerate(labels)]
    chosen = share_of_each_class(names, labels, share)
    taken = np.bincount(labels[chosen], minlength=len(counts))
    assert (taken < np.array(counts)).all()
    room = np.minimum(np.ceil(share * np.array(counts)), np.array(counts) - 1)
    assert chosen.sum() == min(max(round(share * sum(counts)), 1), room.sum())
    assert (taken <= room).all()
    assert (np.abs(taken - share * np.array(counts)) < 1 + (taken == np.array(counts) - 1)).all()
    order = np.random.default_rng(seed).permutation(len(labels))
    again = share_of_each_class([names[place] for place in order], labels[order], share)
    assert (again == chosen[order]).all()
    elsewhere = share_of_each_class([name.replace(b"train/", b"") for name in names], labels, share)
    assert (elsewhere == chosen).all()
    assert (np.bincount(labels[~every_so_manieth(labels, every)], minlength=len(counts)) > 0).all()


def test_runs_of_before_keep_their_digest() -> None:
    from lsc.settings import digest

    assert digest(FolderOptions(root="d", image_size=32)) == "9b6ec142c4a8"


@given(st.text())
def test_a_message_is_one_line(text: str) -> None:
    assert in_one_line(text).isprintable()


def folder_run(root: Path, **data: object) -> Run:
    options = {"name": "folder", "root": str(root), "image_size": 16, "workers": 0} | data
    return tiny_run(data=options, training={"duration": "3 epochs", "batch_size": 8})


def test_a_broken_image_in_the_middle_of_a_training_costs_one_line_and_no_epoch(tmp_path: Path) -> None:
    root, listed, out = two_classes(tmp_path / "d", 8), tmp_path / "bad.txt", tmp_path / "out"
    victim = root / "train" / "b" / "05.png"
    run = folder_run(root)
    dataset = run.data.open()
    whole = dataset.load

    def load(requests: Requests, device: torch.device) -> Iterator[Batch]:
        batches = whole(requests, device)
        for request in requests:
            if request.epoch == 1:
                victim.write_bytes(b"broken")
            yield next(batches)

    dataset.load = load  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"05\.png does not decode .*option leave_out.*\(a checkpoint of step \d was"):
        train(run, out, dataset=dataset)
    rows = read_rows(out / "metrics.jsonl")
    listed.write_text(str(victim))
    victim.unlink()
    with pytest.raises(UserError, match=r"of another configuration .dataset: "):
        train(run, out)
    summary = train(folder_run(root, leave_out=str(listed), workers=1), out)
    assert (summary["starts"], summary["steps"]) == (2, 6)
    assert read_rows(out / "metrics.jsonl")[: len(rows)] == rows


def test_images_that_change_their_class_do_not_go_on_unnoticed(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "d", 8)
    train(folder_run(root), tmp_path / "out")
    for number in range(4):
        names = [root / "train" / label / f"{number:02d}.png" for label in "ab"]
        names[0].rename(root / "train" / "b" / f"x{number}.png")
        names[1].rename(root / "train" / "a" / f"x{number}.png")
    with pytest.raises(UserError, match=r"another configuration .dataset: "):
        train(folder_run(root), tmp_path / "out")


def photograph(path: Path, mode: str = "RGB", orientation: int = 1) -> bytes:
    """A JPEG file of 1600 x 1200 pixels, with forms that are large enough to be seen at an eighth of that."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture(size=(40, 30)).resize((1600, 1200), Image.Resampling.BICUBIC).convert(mode).save(path, exif=exif.tobytes())
    return path.read_bytes()


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(("size", "times"), [(700, 1), (300, 1), (200, 2), (100, 4), (60, 8), (32, 8)])
def test_a_photograph_is_decoded_no_larger_than_is_of_use(
    size: int, times: int, mode: str, orientation: int, tmp_path: Path
) -> None:
    content = photograph(tmp_path / "x.jpg", mode, orientation)
    whole, fitting = decode(content, "x", ""), decode(content, "x", "", central_part, size)
    assert tuple(fitting.shape[1:]) == tuple(side // times for side in whole.shape[1:])
    shown = [view(image, central_part, size).float() for image in (whole, fitting)]
    assert (shown[0] - shown[1]).abs().mean() < 1
    if times == 1:
        assert torch.equal(whole, fitting)


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=5, max_size=5), st.floats(0.05, 1), st.integers(16, 120))
@settings(max_examples=30, deadline=None)
def test_parts_of_a_photograph_are_those_of_the_whole(draws: list[float], min_area: float, size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        content = photograph(Path(folder) / "x.jpg")
    part = random_part(draws, min_area)
    fitting = decode(content, "x", "", part, size)
    top, left, tall, wide = part(*fitting.shape[1:])
    assert fitting.shape[1] == 1200 or min(tall, wide) >= 2 * size - 2
    assert 0 <= top <= fitting.shape[1] - tall
    assert 0 <= left <= fitting.shape[2] - wide
    shown = [view(image, part, size).float() for image in (decode(content, "x", ""), fitting)]
    assert (shown[0] - shown[1]).abs().mean() < 4  # a pixel of the smaller picture is up to eight of the whole


def with_segments(content: bytes, *segments: bytes) -> bytes:
    """A JPEG file with further application segments (APP1) right after its beginning."""
    return content[:2] + b"".join(b"\xff\xe1" + struct.pack(">H", len(s) + 2) + s for s in segments) + content[2:]


def exif_of(orientation: int, kind: int = 3, before: bytes = b"", entries: int = 1, order: str = ">") -> bytes:
    """EXIF data with an orientation stored as the type ``kind`` (1: byte, 3: short, 4: long), after other entries."""
    value = struct.pack(order + {1: "B3x", 3: "H2x", 4: "I"}[kind], orientation)
    entry = struct.pack(order + "HHI", 0x0112, kind, 1) + value
    start = {">": b"MM", "<": b"II"}[order] + struct.pack(order + "HI", 42, 8)
    return b"Exif\0\0" + start + struct.pack(order + "H", entries) + before + entry + b"\0\0\0\0"


XMP = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
# A text where a number should be, which Pillow cannot write again, before an orientation.
ODD = struct.pack(">HHI4s", 0x0100, 2, 4, b"800\0")
SEGMENTS = {
    "none": ([], 1),
    "short": ([exif_of(6)], 6),
    "little": ([exif_of(6, order="<")], 6),
    "byte": ([exif_of(6, 1)], 6),
    "long": ([exif_of(8, 4)], 8),
    "of no meaning": ([exif_of(9)], 1),
    "XMP alone": ([XMP], 1),
    "XMP first": ([XMP, exif_of(3)], 3),
    "odd entries": ([exif_of(6, before=ODD, entries=2)], 6),
    "cut off": ([exif_of(6)[:18]], 1),
    "empty": ([b"Exif\0\0"], 1),
    "far away": ([b"Exif\0\0MM\0*\xff\xff\xff\xff"], 1),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", SEGMENTS)
def test_a_photograph_stands_alike_whatever_part_of_it_is_wanted(kind: str, tmp_path: Path) -> None:
    segments, orientation = SEGMENTS[kind]
    content = with_segments(photograph(tmp_path / "x.jpg"), *segments)
    plain = decode(photograph(tmp_path / "x.jpg", orientation=orientation), "x", "")
    whole, reduced = decode(content, "x", ""), decode(content, "x", "", central_part, 64)
    assert torch.equal(whole, plain)
    assert reduced.shape[1] * 8 == whole.shape[1] or kind == "far away"  # which Pillow refuses to open
    shown = [view(image, central_part, 64).float() for image in (whole, reduced)]
    assert (shown[0] - shown[1]).abs().mean() < 1


@pytest.mark.parametrize("marker", [b"\xff\xee\0\x08Adobe\0", b"\xff\xe2\0\x0eICC_PROFILE\0"])
def test_what_decodes_whole_decodes_in_part(marker: bytes, tmp_path: Path) -> None:
    """Segments that Pillow does not read."""
    content = photograph(tmp_path / "x.jpg")
    content = content[:2] + marker + content[2:]
    assert decode(content, "x", "", central_part, 64).shape == decode(content, "x", "").shape


def test_photographs_in_printing_colours_and_broken_ones(tmp_path: Path) -> None:
    content = photograph(tmp_path / "x.jpg", "CMYK")
    assert torch.equal(decode(content, "x", "", central_part, 32), decode(content, "x", ""))
    content = photograph(tmp_path / "x.jpg")
    with pytest.raises(UserError, match=r"^x\.jpg does not decode \(.*\): replace it$"):
        decode(content[: len(content) // 2], "x.jpg", "replace it", central_part, 32)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_picture_is_the_same_to_training_and_prediction(orientation: int, tmp_path: Path) -> None:
    root = two_classes(tmp_path / "d", 8)
    train(folder_run(root), tmp_path / "out")
    exif = Image.Exif()
    exif[0x0112] = orientation
    for label in "ab":
        picture(3, (30, 20)).save(root / "train" / label / "turned.jpg", exif=exif.tobytes())
        photograph(root / "train" / label / "large.jpg", orientation=orientation)
    dataset = opened(root)
    trained = lsc.load(tmp_path / "out")
    for name in ("turned.jpg", "large.jpg"):
        place = paths(dataset, "train").index(name)
        assert torch.equal(trained.read(root / "train" / "a" / name), dataset.images("train", torch.tensor([place]))[0])
