"""Glyphs: the same bytes from the same fonts, no picture in two splits, look-alikes in one class, mistakes in one line."""

import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fontTools.ttLib import TTCollection, TTFont
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.io import ImageReadMode, read_image

from lsc.data import characters, fonts, open_dataset
from lsc.data.drawing import draw_all
from lsc.data.fonts import Face, coverage, find_faces
from lsc.data.glyphs import SPLITS, Glyphs
from lsc.data.lookalikes import difference, look_alike, merged
from lsc.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")

LETTERS = "U+0041-U+005A"


def glyphs(**options: Any) -> Glyphs:
    dataset = open_dataset("glyphs", **{"characters": LETTERS} | options)
    assert isinstance(dataset, Glyphs)
    return dataset


def everything(dataset: Glyphs, split: str) -> torch.Tensor:
    return dataset.images(split, torch.arange(dataset.size(split)))


def of_matplotlib() -> Path:
    package = find_spec("matplotlib")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "mpl-data" / "fonts" / "ttf"


SANS, SERIF = of_matplotlib() / "DejaVuSans.ttf", of_matplotlib() / "DejaVuSerif.ttf"


@pytest.fixture(scope="module")
def letters() -> Glyphs:
    return glyphs()


def test_letters_of_twelve_faces_are_classes_with_readable_names(letters: Glyphs) -> None:
    assert letters.class_names is not None
    assert letters.num_classes == 26
    assert letters.class_names[0] == "A U+0041 LATIN CAPITAL LETTER A"
    assert letters.image_shape == (1, 32, 32)
    assert [letters.size(split) for split in letters.splits] == [26 * 8, 26, 26 * 3]
    assert letters.splits == SPLITS
    assert [face.name for face in letters.faces["valid"]] == ["DejaVu Sans Bold"]
    assert len({face.name for faces in letters.faces.values() for face in faces}) == 12


def test_no_picture_is_in_two_splits_or_twice_in_one() -> None:
    """Signs that a face takes over from another are left out of the later split, and counted."""
    signs = glyphs(characters="Mathematical Operators")
    seen: set[tuple[int, bytes]] = set()
    for split in SPLITS:
        images, labels = everything(signs, split), signs.labels(split).tolist()
        here = {(label, bytes(image.numpy())) for label, image in zip(labels, images, strict=True)}
        assert len(here) == len(labels)
        assert not here & seen
        seen |= here
    assert signs.copies["test"] > 0
    pictures = 0
    for face in find_faces(["matplotlib"]):
        known = coverage(face).characters & {code for members in signs.members for code in members}
        pictures += len(draw_all(face, known, 32)[0])
    assert sum(signs.size(split) + signs.copies[split] for split in SPLITS) == pictures


def test_characters_that_look_alike_in_all_faces_are_one_class() -> None:
    merged_set = glyphs(characters=["U+0041-U+0042", "Greek", "U+0410-U+0411"], image_size=16)
    assert merged_set.class_names is not None
    assert merged_set.class_names[0] == "A U+0041 LATIN CAPITAL LETTER A (or \u0391 U+0391, \u0410 U+0410)"
    assert [0x42, 0x392] in merged_set.members
    assert merged_set.group_sizes == (2, merged_set.num_classes - 3, 1)
    apart = glyphs(characters=["U+0041-U+0042", "Greek", "U+0410-U+0411"], image_size=16, alike=0.0)
    assert apart.num_classes > merged_set.num_classes


pictures_of_a_character = st.dictionaries(
    st.integers(0, 2), st.sampled_from([(0, 9), (9, 0), (9, 1), (9, 9)]), min_size=1
)


@given(st.lists(pictures_of_a_character, min_size=1, max_size=6), st.sampled_from([0.0, 0.15, 1.2]))
@settings(max_examples=60, deadline=None)
def test_classes_are_the_connected_characters_that_look_alike(found: list[dict[int, Any]], bound: float) -> None:
    """Against the closure of the rule over all pairs."""
    drawn = {
        code: {face: np.array(picture, np.uint8) for face, picture in own.items()} for code, own in enumerate(found)
    }
    together = np.array(
        [[one == other or look_alike(drawn[one], drawn[other], bound) for one in drawn] for other in drawn]
    )
    for _ in drawn:
        together = (together.astype(int) @ together.astype(int)) > 0
    expected = {tuple(np.flatnonzero(row).tolist()) for row in together}
    classes = merged(drawn, list(drawn), bound)
    assert {tuple(sorted(members)) for members in classes} == expected
    assert [members[0] for members in classes] == sorted(members[0] for members in classes)


def test_the_difference_of_pictures_is_in_units_of_ink() -> None:
    one, other = np.array([[10, 0], [0, 0]], np.uint8), np.array([[10, 5], [0, 0]], np.uint8)
    assert difference(one, other) == difference(other, one) == 0.5


def test_the_same_fonts_give_the_same_bytes_and_another_file_another_fingerprint(
    letters: Glyphs, tmp_path: Path
) -> None:
    again = glyphs()
    assert all(torch.equal(everything(letters, split), everything(again, split)) for split in SPLITS)
    assert letters.fingerprint == again.fingerprint
    font = TTFont(SERIF)
    font["head"].fontRevision += 1
    font.save(tmp_path / "changed.ttf")
    sets = [
        glyphs(fonts=[str(SANS), str(serif)], test_faces=["DejaVu Serif"])
        for serif in (SERIF, tmp_path / "changed.ttf")
    ]
    assert torch.equal(everything(sets[0], "test"), everything(sets[1], "test"))
    assert sets[0].fingerprint != sets[1].fingerprint


def test_the_cache_holds_what_is_drawn_and_a_damaged_one_is_replaced(letters: Glyphs, tmp_path: Path) -> None:
    options = {"cache": str(tmp_path / "cache")}
    first = glyphs(**options)
    (file,) = (tmp_path / "cache").iterdir()
    before = file.stat().st_mtime_ns
    again = glyphs(**options)
    assert file.stat().st_mtime_ns == before
    file.write_bytes(file.read_bytes()[:1000])
    mended = glyphs(**options)
    for split in SPLITS:
        assert torch.equal(everything(letters, split), everything(first, split))
        assert torch.equal(everything(first, split), everything(again, split))
        assert torch.equal(everything(first, split), everything(mended, split))
    assert first.class_names == again.class_names == letters.class_names
    assert (again.copies, again.left_out, again.fingerprint) == (letters.copies, letters.left_out, letters.fingerprint)
    # Other views and other parts of the classes are of the same pictures; other sizes are not.
    glyphs(**options, num_classes=5, augment={"rotation": 5.0})
    assert len(list((tmp_path / "cache").iterdir())) == 1
    glyphs(**options, image_size=16)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_training_views_are_a_function_of_seed_epoch_and_place(letters: Glyphs) -> None:
    whole = list(letters.train_batches(52, seed=1, epoch=0))
    rest = list(letters.train_batches(52, seed=1, epoch=0, skip=2))
    assert torch.equal(whole[2].images, rest[0].images)
    other = next(iter(letters.train_batches(52, seed=1, epoch=1)))
    assert not torch.equal(whole[0].images, other.images)
    plain = next(iter(letters.eval_batches("train", 52)))
    torch.testing.assert_close(plain.images, letters.normalise(letters.images("train", plain.indexes)))


def test_parts_of_the_classes_share_none_and_make_up_the_whole(letters: Glyphs) -> None:
    early, late = glyphs(num_classes=10), glyphs(first_class=10)
    assert early.class_names is not None
    assert late.class_names is not None
    assert early.class_names + late.class_names == letters.class_names
    assert torch.equal(everything(late, "test"), everything(letters, "test")[letters.labels("test") >= 10])


def test_characters_that_are_trained_once_have_one_image() -> None:
    dataset = glyphs(characters=[LETTERS, "U+0061-U+0065"], once="U+0061-U+0065")
    counts = torch.bincount(dataset.labels("train")).tolist()
    assert counts == [8] * 26 + [1] * 5
    assert torch.bincount(dataset.labels("test")).tolist() == [3] * 31
    assert dataset.group_sizes == (26, 5)


def test_a_collection_holds_several_faces(tmp_path: Path) -> None:
    collection = TTCollection()
    collection.fonts = [TTFont(SANS), TTFont(SERIF)]
    collection.save(tmp_path / "both.ttc")
    faces = find_faces([str(tmp_path)])
    assert [(face.name, face.index) for face in faces] == [("DejaVu Sans", 0), ("DejaVu Serif", 1)]
    alone = [find_faces([str(path)])[0] for path in (SANS, SERIF)]
    for inside, own in zip(faces, alone, strict=True):
        assert coverage(inside) == coverage(own)
        assert np.array_equal(draw_all(inside, [0x41, 0x67], 32)[1], draw_all(own, [0x41, 0x67], 32)[1])
    dataset = glyphs(fonts=str(tmp_path / "both.ttc"), test_faces=["dejavu serif"], num_classes=3)
    assert (dataset.size("train"), dataset.size("test")) == (3, 3)


def test_what_stands_for_missing_characters_is_left_out() -> None:
    last_resort = next(iter(of_matplotlib().glob("LastResort*.ttf")), None)
    if last_resort is None:
        pytest.skip("this matplotlib does not bring the Last Resort font")
    found = coverage(find_faces([str(last_resort)])[0])
    assert found.stand_ins > 1000
    assert not found.characters & set(range(0x41, 0x5B))


def test_nothing_is_drawn_for_what_is_empty_or_unknown() -> None:
    face = find_faces([str(SANS)])[0]
    shown, images = draw_all(face, [0x20, 0x41, 0x10FFFD], 24)
    assert shown == [0x41]
    assert images.shape == (1, 24, 24)
    assert images.max() > 200
    assert not characters.is_class(0x20)
    assert not characters.is_class(0xFFFD)


def test_a_sign_that_is_larger_than_the_picture_is_drawn_whole() -> None:
    """A playing card is higher than an em: its frame, a rectangle, must be closed at both ends."""
    _, images = draw_all(find_faces([str(SANS)])[0], [0x1F0A1], 64)
    frame = images[0] > 60
    rows, columns = np.flatnonzero(frame.any(1)), np.flatnonzero(frame.any(0))
    assert len(rows) > 60
    assert frame[rows[:3]].sum(1).max() > 0.7 * len(columns)
    assert frame[rows[-3:]].sum(1).max() > 0.7 * len(columns)


def test_a_comma_is_no_apostrophe() -> None:
    _, images = draw_all(find_faces([str(SANS)])[0], [ord(","), ord("'"), ord("c"), ord("C")], 32)
    rows = [np.flatnonzero(image.any(1)) for image in images]
    assert rows[0].min() > rows[1].max()
    assert len(rows[2]) < len(rows[3])


def test_names_of_marks_and_choices_of_characters() -> None:
    assert characters.name_of(0x301) == "\u25cc\u0301 U+0301 COMBINING ACUTE ACCENT"
    assert characters.name_of(0x4E00) == "\u4e00 U+4E00 CJK UNIFIED IDEOGRAPH-4E00"
    chosen = characters.in_groups(["Greek", "u+0041 - u+0043", "Basic Latin"], [0x3B1, 0x41, 0x44, 0x43, 0x410])
    assert chosen == [[0x3B1], [0x41, 0x43], [0x44]]


FACES = {"fonts": [str(SANS), str(SERIF)], "test_faces": ["DejaVu Serif"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fonts": "nowhere.ttf"}, "nowhere.ttf is no file and no folder"),
        ({"fonts": "."}, "the folder . has no .ttf"),
        ({"fonts": "text.ttf"}, "text.ttf is no font, or a damaged one"),
        ({"fonts": "half.ttf"}, "half.ttf is no font, or a damaged one"),
        ({"fonts": str(SANS)}, "option test_faces: name the faces that test, of these fonts: DejaVu Sans"),
        ({"test_faces": ["DejaVu Sans Bld"]}, "did you mean DejaVu Sans Bold?"),
        ({"test_faces": ["DejaVu Sans"], "train_faces": ["DejaVu Sans"]}, "DejaVu Sans is among train_faces already"),
        (FACES | {"train_faces": []}, "no face is left to train with"),
        ({"characters": "U+4E00-U+9FFF"}, "none of the 12 faces has a character of 'U+4E00-U+9FFF'"),
        ({"characters": "U+4E00-U+9FFF"}, "make fonts"),
        ({"characters": "U+4E00-9FFX"}, "'U+4E00-9FFX' is no range of characters; write it as U+4E00-U+9FFF"),
        ({"characters": "U+9FFF-U+4E00"}, "ends before it begins"),
        ({"characters": "Greeek"}, "did you mean Greek?"),
        ({"test_faces": ["DejaVu Sans Mono"], "characters": "Thai Digits"}, "no script, no block"),
        ({"characters": "Tifinagh", "min_faces": 1, "test_faces": ["DejaVu Serif"]}, "DejaVu Serif has none of the"),
        ({"min_faces": 13}, "13 exceeds the 12 faces"),
        ({"characters": "Tifinagh", "min_faces": 9}, "no character of Tifinagh is in 9 of the 12 faces"),
        ({"characters": ["Latin", "Arabic"]}, "no character of Arabic is in 6 of the 12 faces"),
        ({"characters": ["U+0041-U+0043", "U+0391"]}, "no class is left for 'U+0391'"),
        ({"num_classes": 27}, "27 classes from 0 on, and there are 26 in all"),
        ({"first_class": 25}, "two classes from 25 on"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(
    options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    if str(options.get("fonts")).endswith(".ttf") and options["fonts"] != "nowhere.ttf":
        (tmp_path / "text.ttf").write_text("no font")
        (tmp_path / "half.ttf").write_bytes(SANS.read_bytes()[:100_000])
    with pytest.raises(UserError) as refused:
        glyphs(**options)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_machine_without_fontconfig_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="needs fontconfig's fc-list"):
        glyphs(fonts="system")


def test_fonts_that_are_none_are_passed_over_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.ttf").write_text("no font")
    (tmp_path / "b.ttf").write_bytes(SANS.read_bytes())
    assert [face.name for face in find_faces([str(tmp_path)])] == ["DejaVu Sans"]


def test_font_files_that_cannot_be_opened_are_passed_over_in_a_folder(tmp_path: Path) -> None:
    shutil.copy(SANS, tmp_path / "sans.ttf")
    (tmp_path / "dead.ttf").symlink_to("gone.ttf")
    (tmp_path / "folder.ttf").mkdir()
    os.mkfifo(tmp_path / "pipe.ttf")
    assert [face.name for face in find_faces([str(tmp_path)])] == ["DejaVu Sans"]
    with pytest.raises(UserError, match=r"x+\.\.\. cannot be looked at \(File name too long\)"):
        find_faces(["x" * 300])


def test_a_font_that_may_not_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(fonts, "open_regular", refuse)
    with pytest.raises(UserError, match=rf"{SANS} cannot be read \(Permission denied\); leave it out"):
        find_faces([str(SANS)])


def test_the_command_names_fonts_licences_and_what_looks_alike(lsc_here: Callable[..., Any], tmp_path: Path) -> None:
    words = ("--set", "characters=[U+0041-U+0043,U+0391-U+0393]", "--set", "image_size=16")
    done = lsc_here("data", "check", "glyphs", *words)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("train: DejaVu Sans Oblique, 5,")
    assert "licence: Fonts are (c) Bitstream" in lines[0]
    assert "groups of classes: 3, 1" in lines
    assert "  A U+0041, \u0391 U+0391" in lines
    out = tmp_path / "sheet.png"
    shape = ("--classes", "3", "--images", "3", "--split", "test")
    drawn = lsc_here("data", "render", "glyphs", *words, *shape, "--out", out, "--apart", "p")
    assert drawn.returncode == 0, drawn.stderr
    files = sorted(path.name for path in (tmp_path / "p").iterdir())
    assert len(files) == 9
    assert files[0] == "00000_A_U+0041_LATIN_CAPITAL_LETTER_A_0.png"
    picture = read_image(str(tmp_path / "p" / files[0]), ImageReadMode.GRAY)
    dataset = glyphs(characters=["U+0041-U+0043", "U+0391-U+0393"], image_size=16)
    assert torch.equal(picture, everything(dataset, "test")[0])


def test_a_face_is_known_by_its_file_and_place(tmp_path: Path) -> None:
    face = find_faces([str(SANS)])[0]
    copy = tmp_path / "copy.ttf"
    copy.write_bytes(SANS.read_bytes())
    assert Face(copy, 0, "x", "").digest == face.digest != Face(copy, 1, "x", "").digest
    assert fonts.PACKAGES in fonts.INSTALL
