"""The rules of `lsc fit`: every choice for whatever images, none against what was given; and the look that they rest on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import lsc
from lsc.data import parse_options
from lsc.errors import UserError
from lsc.settings import merge
from lsc.trained.advice import MANY, Images, advise, settings_of
from lsc.trained.budget import Pace, fitted, seconds_of
from lsc.trained.looking import ground, is_coloured, look
from lsc.trained.planning import encoder_block, plan, refuse_place
from lsc.training.options import Duration
from lsc.training.run import run_from
from tests.own_images import write_glyphs, write_spirals, write_textures

PHOTOGRAPHS = Images("photos", (100,) * 10, 480, 640, True, 0.1, ("train", "test"))


def chosen(images: Images, device: str = "cpu", **changes: object) -> dict[str, object]:
    return settings_of(advise(images, changes, device), changes)


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 40), min_size=2, max_size=50),
    side=st.integers(1, 2000),
    colour=st.booleans(),
    ground=st.floats(0, 1),
    splits=st.sampled_from([("train",), ("train", "valid"), ("train", "test"), ("train", "valid", "test")]),
    device=st.sampled_from(["cpu", "cuda"]),
    encoder=st.sampled_from([None, "small_cnn", "resnet18", "vit_ti", "torchvision", "timm"]),
    frozen=st.booleans(),
)
def test_whatever_the_images_a_run_comes_out(
    counts: list[int], side: int, colour: bool, ground: float, splits: tuple[str, ...], device: str,
    encoder: str | None, frozen: bool,
) -> None:  # fmt: skip
    images = Images("images", tuple(counts), side, side, colour, ground, splits)
    block = {"frozen": frozen} | ({"name": encoder} if encoder else {})
    found = chosen(images, device, encoder=block)
    run = run_from(merge(found, {"data": {"root": "images"}}))
    assert run.centers.dim is not None
    assert run.encoder.hidden is not None
    assert run.encoder.hidden >= 2 * len(counts)
    assert run.training.batch_size <= max(1, int(0.8 * sum(counts)))
    assert run.data.image_size % getattr(run.encoder, "patch", 1) == 0
    assert bool(run.data.valid_share) == ("valid" not in splits)
    if encoder is None and frozen is False:
        assert run.encoder.name in ("small_cnn", "resnet18")


def test_what_is_given_always_wins_and_the_rest_fits_it() -> None:
    found = chosen(PHOTOGRAPHS, data={"image_size": 96, "flip": False}, training={"batch_size": 7})
    assert (found["data"]["image_size"], found["data"]["flip"]) == (96, False)  # type: ignore[index]
    assert found["encoder"]["patch"] == 3  # type: ignore[index]
    assert found["training"]["batch_size"] == 7  # type: ignore[index]
    lines = " ".join(map(str, advise(PHOTOGRAPHS, {"data": {"flip": False}})))
    assert "data.flip" not in lines
    assert "readout" not in chosen(PHOTOGRAPHS, objective={"name": "cross_entropy"})


def test_many_classes_get_centers_that_fit_the_network_unless_something_else_is_asked_for() -> None:
    many, fewer = replace(PHOTOGRAPHS, counts=(20,) * MANY), replace(PHOTOGRAPHS, counts=(20,) * (MANY - 1))
    run = run_from(merge(chosen(many), {"data": {"root": "images"}}))
    assert (run.objective.name, run.centers.system, run.readout) == ("center_softmax", "codes", None)
    assert run.centers.fit is not None
    drawn = run_from(merge(chosen(replace(many, ground=0.8)), {"data": {"root": "images"}}))
    assert drawn.centers.fit is not None
    assert drawn.readout is not None
    assert (drawn.readout.sums, drawn.readout.refit) == (None, True)
    assert chosen(many, centers={"dim": 64})["centers"]["dim"] == 64  # type: ignore[index]
    for found in (
        chosen(fewer),
        chosen(many, encoder={"frozen": True, "name": "torchvision"}),
        chosen(many, objective={"name": "euclidean"}),
        chosen(many, centers={"system": "V21"}),
        chosen(many, readout={"half_life": 60}),
        chosen(many, lifelong={"groups": 5}),
        chosen(many, teacher={"run": "a/b"}),
        chosen(many, training={"duration": "0 steps", "warmup": "0 steps"}),
        chosen(many, centers={"dim": None}),
    ):
        run = run_from(merge(found, {"data": {"root": "images"}}))
        assert run.centers.fit is None
        assert run.readout is not None


def test_characters_and_small_images_are_not_mirrored() -> None:
    def flip(images: Images) -> bool:
        return chosen(images)["data"]["flip"]  # type: ignore[index]

    assert flip(PHOTOGRAPHS)
    assert not flip(replace(PHOTOGRAPHS, ground=0.8))
    assert not flip(replace(PHOTOGRAPHS, side=28))
    assert not flip(replace(PHOTOGRAPHS, colour=False))


def test_a_look_tells_signs_from_photographs(tmp_path: Path) -> None:
    signs = plan(write_glyphs(tmp_path / "signs", classes=3, train=4), {}, device="cpu").images
    textures = plan(write_textures(tmp_path / "noise", train=3), {}, device="cpu").images
    assert (signs.drawn, signs.colour, signs.side, signs.counts) == (True, False, 64, (4, 4, 4))
    assert (textures.drawn, textures.colour, textures.side) == (False, True, 224)
    grey = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    assert ground(grey) == 1
    assert not is_coloured(grey)
    assert is_coloured(torch.stack([grey[0], grey[1], grey[2] + 60]))


def test_what_a_training_would_suffer_from_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_spirals(tmp_path / "images", train=3, test=2)
    for number in (1, 2):
        (root / "train" / "turns 1" / f"00{number}.png").unlink()
    for path in (root / "test" / "turns 2").iterdir():
        path.unlink()
    (root / "test" / "turns 2").rmdir()
    options = parse_options("folder", root=str(root))
    look(options.list_files(), root)  # type: ignore[attr-defined]
    said = capsys.readouterr().err
    assert "1 class (turns 1) with one training image" in said
    assert "1 class (turns 2) without test images" in said
    for path in (root / "train").rglob("*.png"):
        Image.fromarray(np.full((9, 9, 3), 77, np.uint8)).save(path)
    with pytest.raises(UserError, match="show one colour alone: there is nothing to learn"):
        look(options.list_files(), root)  # type: ignore[attr-defined]


def test_a_time_becomes_steps(tmp_path: Path) -> None:
    assert [seconds_of(text) for text in ("90", "90s", "10m", "1.5h")] == [90, 90, 600, 5400]
    for wrong in ("", "0", "soon", "-3m", "10 days"):
        with pytest.raises(UserError, match="write it as"):
            seconds_of(wrong)
    root = write_spirals(tmp_path / "images", train=20)
    planned = plan(root, {"training": {"batch_size": 8}}, device="cpu")
    pace = Pace(step=0.1, epoch=0.0, image=0.001)
    found, _ = fitted(planned.run, planned.dataset, pace, 40)
    steps = int(str(found["duration"]).split()[0])
    assert 0.6 * 40 / 0.1 < steps < 40 / 0.1
    often, _ = fitted(planned.run, planned.dataset, pace, 40, 1)
    assert often["evaluate_every"] == 1
    assert int(str(often["duration"]).split()[0]) < int(str(found["duration"]).split()[0])
    assert fitted(planned.run, planned.dataset, pace, 40, Duration("6 steps"))[0]["duration"] == often["duration"]
    longer, line = fitted(planned.run, planned.dataset, pace, 1e6)
    assert int(str(longer["duration"]).split()[0]) == 4 * planned.run.training.duration.steps(6, 8)
    assert "a waste" in line
    with pytest.raises(UserError, match="too few"):
        fitted(planned.run, planned.dataset, pace, 0.1)


@pytest.mark.parametrize("in_table", [False, True], ids=["folders", "table"])
def test_an_image_that_is_left_out_counts_in_the_plan_even_when_it_is_gone(in_table: bool, tmp_path: Path) -> None:
    root = write_spirals(tmp_path / "images", train=4)
    if in_table:
        (root / "train").rename(root / "all")
        rows = [f"{path.relative_to(root)},{path.parent.name}" for path in sorted(root.rglob("*.png"))]
        (root / "labels.csv").write_text("path,class\n" + "\n".join(rows) + "\n")
    broken = sorted(root.rglob("*.png"))[1]
    (tmp_path / "gone.txt").write_text(f"{broken.relative_to(root)}\n")
    given = {"data": {"leave_out": str(tmp_path / "gone.txt")}}
    before = plan(root, given, device="cpu")
    broken.unlink()
    after = plan(root, given, device="cpu")
    assert after.images.counts == before.images.counts
    assert after.run == before.run
    assert after.dataset.fingerprint == before.dataset.fingerprint


def test_classes_without_test_images_are_found_among_very_many(tmp_path: Path) -> None:
    root = write_spirals(tmp_path / "images", train=2)
    index = parse_options("folder", root=str(root)).list_files()  # type: ignore[attr-defined]
    many = 40_000
    names = [*index.class_names, *(f"class {number}" for number in range(many - len(index.class_names)))]
    tested = np.arange(1, many)
    index = index._replace(
        class_names=names,
        files=index.files | {"test": np.full(len(tested), b"x.png")},
        labels=index.labels | {"test": tested},
    )
    tolist, asked = np.ndarray.tolist, []

    class Counted(np.ndarray):
        def tolist(self) -> list[int]:
            asked.append(1)
            return tolist(self)

    index = index._replace(labels=index.labels | {"test": tested.view(Counted)})
    look(index, root)
    assert len(asked) == 1


def test_paths_that_cannot_be_looked_at_are_one_line(tmp_path: Path) -> None:
    long = "x" * 300
    (tmp_path / "circle").symlink_to("circle")
    for ask in (
        lambda: encoder_block(long),
        lambda: refuse_place(Path(long), tmp_path),
        lambda: lsc.fit(None, long, tmp_path / "out"),
        lambda: plan(tmp_path / long, {}, device="cpu"),
    ):
        with pytest.raises(UserError, match=r"x+\.\.\. cannot be looked at \(File name too long\)"):
            ask()
    refuse_place(tmp_path / "circle", tmp_path / "images")
