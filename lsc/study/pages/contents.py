"""What the chapters hold, from ``workflow/chapters.yaml``: titles, figures and tables with captions, in order and numbered."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lsc.errors import UserError

CONTENTS = Path("workflow/chapters.yaml")


@dataclass(frozen=True)
class Item:
    """A figure or a table.

    Attributes:
        kind: "figure" or "table".
        name: of its file, and of its anchor (:attr:`anchor`).
        number: "2.1"; "1" where the chapter has no number.
        caption: Markdown; what a reader needs to understand it alone.
        alt: what a figure shows, for those who do not see it.
    """

    kind: str
    name: str
    number: str
    caption: str
    alt: str = ""

    @property
    def label(self) -> str:
        return f"{self.kind.capitalize()} {self.number}"

    @property
    def anchor(self) -> str:
        return self.name if self.kind == "figure" else f"table_{self.name}"


@dataclass(frozen=True)
class Chapter:
    """A chapter.

    Attributes:
        name: as in a study's list of chapters.
        file: stem of its notebook and of its page.
        number: "2"; "" for what stands before all chapters.
        headline: the figure that the front page shows of it, if any.
        experiments, records: whose runs it reads, and which files of these.
        cost: whether it reads the measurements.
    """

    name: str
    file: str
    number: str
    title: str
    headline: str | None = None
    items: tuple[Item, ...] = ()
    experiments: tuple[str, ...] = ()
    records: tuple[str, ...] = ()
    cost: bool = False

    @property
    def heading(self) -> str:
        return f"{self.number}. {self.title}" if self.number else self.title

    @property
    def files(self) -> list[str]:
        """The files of its figures and tables, in a study's results."""
        kinds = {"figure": ("figures", ("png", "pdf")), "table": ("tables", ("csv",))}
        return [f"{kinds[item.kind][0]}/{item.name}.{ending}" for item in self.items for ending in kinds[item.kind][1]]

    def item(self, kind: str, name: str) -> Item:
        """The figure or table of a name.

        Raises:
            UserError: the chapter has none of that name.
        """
        for item in self.items:
            if (item.kind, item.name) == (kind, name):
                return item
        raise UserError(f"{CONTENTS}: chapter {self.name} has no {kind} {name!r}, which its notebook shows")


def read_contents(path: Path = CONTENTS, chosen: Iterable[str] | None = None) -> list[Chapter]:
    """The chapters in their order.

    Args:
        chosen: names of those that are wanted; all of them if None.
    """
    blocks = yaml.safe_load(path.read_text(encoding="utf-8"))
    wanted = set(blocks if chosen is None else chosen)
    return [_chapter(name, block) for name, block in blocks.items() if name in wanted]


def _chapter(name: str, block: dict[str, Any]) -> Chapter:
    number = block["notebook"].partition("_")[0].lstrip("0")
    before = f"{number}." if number else ""
    figures = [
        Item("figure", key, f"{before}{place}", _flat(said["caption"]), _flat(said["alt"]))
        for place, (key, said) in enumerate(block["figures"].items(), 1)
    ]
    tables = [
        Item("table", key, f"{before}{place}", _flat(caption))
        for place, (key, caption) in enumerate(block["tables"].items(), 1)
    ]
    return Chapter(
        name,
        block["notebook"],
        number,
        block["title"],
        block.get("headline"),
        (*figures, *tables),
        tuple(block["experiments"]),
        tuple(block["records"]),
        block.get("cost", False),
    )


def _flat(text: str) -> str:
    return " ".join(text.split())


def places(chapters: Iterable[Chapter]) -> dict[str, tuple[Chapter, Item]]:
    """Where each figure and table stands, by anchor."""
    return {item.anchor: (chapter, item) for chapter in chapters for item in chapter.items}


def in_words(caption: str) -> str:
    """A caption without marks, for where there is no Markdown."""
    return re.sub(r"<sub>(.*?)</sub>", r"\1", caption).replace("*", "")
