"""An executed notebook as the blocks of a page: texts, figures and tables in their order, without code."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from lsc.errors import UserError
from lsc.study.pages.contents import Chapter

# The mark of lsc.study.shown, which is not imported: it would bring matplotlib and pandas along.
MARK = "application/vnd.lsc.shown+json"
# [words](ref:low_dim_accuracy), of a figure, or (ref:table_...), of a table, wherever that stands.
REFERENCE = re.compile(r"\[([^\]]*)\]\(ref:(\w+)\)")


@dataclass(frozen=True)
class Block:
    """A piece of a page; ``kind`` and ``name`` as in :class:`lsc.study.shown.Shown`, ``data`` the digest of a figure's data.

    The text of a figure or table in which there is nothing says so (:attr:`is_empty`).
    """

    kind: str
    markdown: str
    name: str | None = None
    data: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it is a figure for which there was nothing to draw, or a table without rows."""
        return (self.kind == "figure" and self.data is None) or (self.kind == "table" and self.markdown[0] != "|")


def read_blocks(notebook: Path) -> list[Block]:
    """The blocks of an executed notebook.

    Raises:
        UserError: a cell shows something that a page does not know.
    """
    content = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    return [block for cell in content.cells for block in _of_cell(cell, notebook) if block.markdown.strip()]


def _of_cell(cell: Any, notebook: Path) -> Iterator[Block]:
    if cell.cell_type == "markdown":
        yield Block("text", cell.source)
    for output in cell.get("outputs", ()):
        if output.output_type == "stream" and output.name == "stderr":
            continue  # warnings stand in the log
        data = output.get("data", {})
        if MARK not in data or "text/markdown" not in data:
            shown = ", ".join(data) or output.output_type
            raise UserError(f"{notebook}: a cell shows {shown}, which no page knows; use lsc.study.shown")
        yield Block(markdown=data["text/markdown"], **data[MARK])


def missing(blocks: list[Block], chapter: Chapter) -> list[str]:
    """The figures and tables of a chapter that no block shows."""
    seen = {("table" if block.kind == "data" else block.kind, block.name) for block in blocks}
    return [item.label for item in chapter.items if (item.kind, item.name) not in seen]
