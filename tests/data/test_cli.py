"""``lsc data`` and ``lsc cost data``: what they print and write, and one line with exit code 2 for a mistake."""

import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from torchvision.io import read_image

from lsc.cli import main
from lsc.data import DATASETS, open_dataset
from lsc.data.archives import reading
from lsc.data.file_index import load_index
from lsc.errors import UserError
from lsc.files import md5_of
from lsc.training.records import read_json
from tests.data.conftest import Lsc
from tests.data.images import two_classes

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")


def test_every_set_is_listed_with_its_options(lsc: Lsc) -> None:
    text = lsc("data", "list")
    assert all(f"{name}: " in text for name in DATASETS)
    assert "of: required" in text
    assert all(f"    {key}: " in text for options in DATASETS.values() for key in options.model_fields if key != "name")


def test_cinic10_from_a_small_tree_to_batches(lsc: Lsc, tmp_path: Path) -> None:
    archive, root = tmp_path / "CINIC-10.tar.gz", tmp_path / "cinic10"
    printed = lsc("data", "tree", "cinic10", "--root", tmp_path / "tree", "--per-class", 2, "--archive", archive)
    md5 = md5_of(archive)
    assert printed == f"{archive}: md5 {md5}\n"
    assert f"has md5 {md5} instead of" in lsc("data", "fetch", "cinic10", "--root", root, "--archive", archive, code=2)
    packed = lsc("data", "fetch", "cinic10", "--root", root, "--archive", archive, "--md5", md5)
    assert packed.strip() == str(root / "cinic10.safetensors")
    assert "train: 20 images, 10 classes" in lsc("data", "check", "cinic10", "--root", root)


def test_imagenet_is_checked_indexed_and_opened(lsc: Lsc, tmp_path: Path) -> None:
    root, index = tmp_path / "imagenet", tmp_path / "index.parquet"
    lsc("data", "tree", "imagenet", "--root", root, "--classes", 3, "--per-class", 4)
    message = lsc("data", "check", "imagenet", "--root", root, code=2)
    assert "has 3 classes instead of 1000: unpack ILSVRC2012_img_train.tar" in message
    printed = lsc("data", "index", "imagenet", "--root", root, "--out", index)
    assert "3 classes, 12 train, 6 test, sha256 " in printed
    assert open_dataset("imagenet", root=str(root), index=str(index)).size("train") == 12


def test_broken_images_are_all_named(lsc: Lsc, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lsc("data", "tree", "imagenet", "--root", tmp_path, "--classes", 2, "--per-class", 3)
    (tmp_path / "val").rename(tmp_path / "test")
    assert lsc("data", "check", "folder", "--root", tmp_path, "--decode").endswith("every image decodes\n")
    victims = [tmp_path / "train" / f"n1000000{label}" / f"n1000000{label}_2.JPEG" for label in range(2)]
    for victim in victims:
        victim.write_bytes(b"no image")
    sys.argv = ["lsc", "data", "check", "folder", "--root", str(tmp_path), "--decode"]
    with pytest.raises(SystemExit):
        main()
    output = capsys.readouterr()
    assert all(f"{victim} does not decode" in output.out for victim in victims)
    assert "has 2 broken images" in output.err


def test_what_is_passed_over_or_broken_is_counted_and_listed(lsc: Lsc, tmp_path: Path) -> None:
    root, listed = two_classes(tmp_path / "d", 10), tmp_path / "bad.txt"
    for label in "ab":
        (root / "train" / label / "05.png").write_bytes(b"no image")
    (root / "train" / "a" / "notes.txt").touch()
    printed = lsc("data", "check", "folder", "--root", root)
    assert f"note: {root}: 1 left out, {root}/train/a/notes.txt: it is none of .jpg" in printed
    printed = lsc("data", "check", "folder", "--root", root, "--leave-out", listed)
    assert f"{listed}: 2 images of 40 do not decode" in printed
    assert [line.partition("\t")[0] for line in listed.read_text().splitlines()[1:]] == [
        "train/a/05.png",
        "train/b/05.png",
    ]
    dataset = open_dataset("folder", root=str(root), leave_out=str(listed), image_size=8, workers=0)
    assert len(next(iter(dataset.train_batches(20, seed=0, epoch=0))).labels) == 20


def test_a_table_is_checked_by_its_option(lsc: Lsc, tmp_path: Path) -> None:
    two_classes(tmp_path, 2)
    (tmp_path / "mine.csv").write_text("path,class\ntrain/a/00.png,x\ntrain/b/00.png,y\n")
    words = ("--root", tmp_path, "--set", "labels=mine.csv")
    assert lsc("data", "check", "folder", *words) == "train: 2 images, 2 classes\n"
    assert "2 classes, 2 train, sha256" in lsc("data", "index", "folder", *words, "--out", tmp_path / "i.parquet")
    assert "has no column class" in _after(tmp_path / "mine.csv", "path\n", lsc, words)


def _after(path: Path, text: str, lsc: Lsc, words: tuple[object, ...]) -> str:
    path.write_text(text)
    return lsc("data", "check", "folder", *words, code=2)


def test_a_sample_sheet_has_a_row_for_each_class(lsc: Lsc, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    words = ("--classes", 3, "--images", 4, "--set", "image_size=16", "--set", "augment.flip=true")
    lsc("data", "render", "digits", "--out", out, *words)
    assert read_image(str(out)).shape[1:] == (3 * 18 + 2, 4 * 18 + 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fetch", "mnist"), "unknown data set 'mnist'; known are digits"),
        (("fetch", "imagenet"), "needs an account"),
        (("fetch", "digits"), "digits needs no download"),
        (("check", "digits", "--root", "."), "does not consist of image files"),
        (("check", "imagenet", "--root", "nowhere"), "unpack ILSVRC2012_img_train.tar"),
        (("tree", "digits", "--root", "."), "no small tree of 'digits'"),
        (("render", "digits", "--out", "x.png", "--set", "image_size"), "write it as key=value"),
        (("render", "digits", "--out", "x.png", "--set", "image_size=[1"), "not valid YAML"),
        (
            ("render", "digits", "--out", "x.png", "--set", "variant=2026-13-45"),
            "--set variant=2026-13-45: the value is not",
        ),
        (("render", "digits", "--out", "x.png", "--set", "a=1", "--set", "a.b=1"), "option a"),
        (("render", "digits", "--out", "x.png", "--classes", "11"), "has 10 classes only"),
        (("render", "digits", "--out", "x.png", "--images", "500"), "images only, not 500"),
        (("render", "digits", "--out", "x.png", "--split", "val"), "no split 'val'"),
    ],
)
def test_mistakes_are_answered_in_one_line(
    lsc: Lsc, words: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in lsc("data", *words, code=2)
    assert list(tmp_path.iterdir()) == []


def test_the_cost_of_data_is_measured_and_written(lsc: Lsc, tmp_path: Path) -> None:
    out = tmp_path / "cost.json"
    cases = ("digits", "fractals_32", "cinic10", "own")
    own = ("--root", two_classes(tmp_path / "own", 64))
    words = (*own, "--seconds", 0.2, "--out", out, *(word for case in cases for word in ("--only", case)))
    said = lsc("cost", "data", *words)
    content = read_json(out)
    assert [row["case"] for row in content["rows"]] == list(cases)
    assert all(row["images_per_second"] > 100 and row["images"] >= 128 for row in content["rows"])
    assert "torch" in content["versions"]
    stages = content["rows"][-1]["stages"]
    assert list(stages) == ["read", "decode", "crop and resize", "normalise"]
    assert all(rate > content["rows"][-1]["images_per_second"] / 2 for rate in stages.values())
    assert all(f"  {stage} " in said for stage in stages)
    assert "unknown case; known are digits" in lsc("cost", "data", "--only", "mnist", code=2)


def test_a_place_that_cannot_be_written_to_is_known_before_the_work(
    lsc: Lsc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = two_classes(tmp_path / "d", 2)
    (tmp_path / "file").write_text("")

    def unwanted(*_: object, **__: object) -> None:
        raise AssertionError("the images were looked at")

    monkeypatch.setattr("lsc.cli.data._listed", unwanted)
    monkeypatch.setattr("lsc.cli.data.open_dataset", unwanted)
    monkeypatch.setattr("lsc.cli.data.make_folder", unwanted)
    for option, words in (
        ("--leave-out", ("check", "folder", "--root", root)),
        ("--out", ("index", "folder", "--root", root)),
        ("--out", ("render", "digits")),
        ("--archive", ("tree", "cinic10", "--root", tmp_path / "tree")),
    ):
        for out in (root, tmp_path / "file" / "x", "x" * 300):
            message = lsc("data", *words, option, out, code=2)
            assert f"{option} {str(out)[:150]}" in message
            assert message.count("\n") == 1


def test_lists_that_are_none_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    tables = [
        pa.table({"split": ["train"], "label": [0], "file": ["a.png"]}, metadata={"classes": '["a"]'}),
        pa.table({"split": ["train"], "label": [0], "file": [None]}, metadata={"classes": "[]", "fingerprint": "x"}),
        pa.table({"split": ["train"], "label": [0], "file": [b"a"]}, metadata={"classes": "[]", "fingerprint": "x"}),
    ]
    for table in tables:
        parquet.write_table(table, path)
        with pytest.raises(UserError, match="is no index or damaged"):
            load_index(path)
    with pytest.raises(UserError, match=r"x+\.\.\. cannot be looked at \(File name too long\)"):
        load_index(tmp_path / ("x" * 300))
    with pytest.raises(UserError, match=r"x+\.\.\. cannot be looked at \(File name too long\)"):
        reading(tmp_path / ("x" * 300), None)
