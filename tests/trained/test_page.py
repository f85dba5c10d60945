"""The page that a training ends with: what it says is right, and it needs nothing but itself."""

import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

import lsc
from lsc.errors import UserError
from lsc.trained.page import Judged, judged, worst_classes, write_page
from lsc.trained.planning import plan
from tests.own_images import write_spirals

QUICK = {"training": {"duration": "2 steps"}, "encoder": {"width": 4}}


class Tags(HTMLParser):
    """Opened and not closed tags, and the addresses that the page asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_stands_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_spirals(tmp_path / "images", train=8, test=6)
    for split in ("train", "test"):
        (root / split / "turns 1").rename(root / split / "a <b> & 字")
    trained = lsc.fit(None, root, tmp_path / "run", device="cpu", **QUICK)
    planned = plan(root, QUICK, device="cpu")
    found = judged(trained, planned.dataset)
    assert 1 - len(found.wrong) / 18 == pytest.approx(trained.summary["final_top1"])
    page = Tags()
    page.feed(write_page(trained, planned.dataset, planned).read_text())
    assert page.open == []
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert len(page.sources) == min(24, len(found.wrong)) + 1
    assert f"{trained.summary['final_top1']:.1%} of 18 images of the split test" in page.text
    assert "data.valid_share=0.2" in page.text
    if len(found.wrong):
        assert "a <b> & 字" in page.text
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"needs matplotlib.*lsc\[plots\]"):
        write_page(trained, planned.dataset)


def test_the_worst_classes_come_first_with_those_they_are_taken_for() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 3])
    predicted = torch.tensor([0, 0, 0, 2, 3, 3, 2, 2, 3])
    found = Judged("test", torch.arange(9), labels, predicted)
    assert worst_classes(found, 5) == [1, 3, 0, 2]
    assert worst_classes(Judged("test", labels, labels, labels), 5) == []
