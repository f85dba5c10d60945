"""Chapters of studies that lack runs: no experiments, one seed, one variant, nothing but a part of what a figure shows."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure

from lsc.study.pages.blocks import Block, missing
from lsc.study.pages.contents import read_contents
from lsc.study.shown import Shown
from tests.conftest import ROOT
from tests.study.shipped import demo, opened, pieces

CHAPTERS = {chapter.name: chapter for chapter in read_contents(ROOT / "workflow" / "chapters.yaml")}
NAMES = ["low_dim", "high_dim", "million_classes", "distillation", "lifelong"]


@pytest.fixture(autouse=True)
def figures_that_are_not_painted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is drawn is looked at by others: here the files alone are."""
    monkeypatch.setattr(Figure, "savefig", lambda _self, path, **_: Path(path).touch())
    yield
    plt.close("all")


def lacking(what: str) -> dict[str, Any]:
    study = demo()
    if what == "experiments":
        study["experiments"] = {}
    if what == "seeds":
        study["seeds"] = [0]
        for block in study["experiments"].values():
            block["seeds"] = [0]
    for block in study["experiments"].values():
        ours = [name for name, settings in block["variants"].items() if "teacher" not in settings]
        if what == "variants":
            block["variants"] = {ours[0]: block["variants"][ours[0]]}
        if what == "cross-entropy":
            centers = [name for name in ours if "cross_entropy" not in name and "partial_fc" not in name]
            block["variants"] = {name: block["variants"][name] for name in centers}
    return study


def words(found: list[Shown]) -> str:
    return "\n".join(piece.markdown for piece in found)


def whole(chapter: str, found: list[Shown], results: Path) -> None:
    """Every figure and table is shown, as such or by words, and its files are there."""
    one = CHAPTERS[chapter]
    assert (
        missing([Block(piece.kind, piece.markdown, piece.name) for piece in found if piece.markdown.strip()], one) == []
    )
    assert [name for name in one.files if not (results / name).exists()] == []
    assert "nan" not in re.findall(r"\w+", words(found))


@pytest.mark.parametrize("chapter", [*NAMES, "centers", "claims"])
@pytest.mark.parametrize("what", ["experiments", "seeds", "variants", "cross-entropy"])
def test_a_chapter_is_whole_whatever_its_study_lacks(what: str, chapter: str, tmp_path: Path) -> None:
    found = pieces(CHAPTERS[chapter].file, opened(tmp_path, lacking(what)))
    whole(chapter, found, tmp_path)
    if chapter not in NAMES:
        return
    said = words(found)
    if what == "experiments":
        assert "This study has no" in said
        assert "**Caveat.**" not in said
        assert all(piece.picture is None for piece in found)
    if what in ("seeds", "experiments"):
        assert "within the range of the seeds" not in said
    if what == "seeds":
        assert "how far seeds differ is not known" in said


def test_embeddings_that_a_study_lacks_are_said_to_be_missing(tmp_path: Path) -> None:
    study = demo()
    runs = opened(tmp_path, study).summaries("low_dim")
    for name in set(runs[runs.dim < 4].variant):
        del study["experiments"]["low_dim"]["variants"][name]
    found = pieces("2_low_dim", opened(tmp_path, study))
    whole("low_dim", found, tmp_path)
    figures = {piece.name: piece for piece in found if piece.kind == "figure"}
    assert figures["low_dim_embeddings_2d"].markdown == "This study has no runs in two dimensions."
    assert figures["low_dim_embeddings_3d"].markdown == "This study has no runs in three dimensions."
    assert figures["low_dim_confusion"].picture is not None
