"""What a notebook of a chapter shows: a text, a figure or a table, each of which the pages know by its kind and name.

Every piece is Markdown, marked with what it is (:data:`MARK`), so that :mod:`lsc.study.pages` needs neither the kernel nor
the records to make a page of an executed notebook.
"""

import hashlib
import math
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

MARK = "application/vnd.lsc.shown+json"
MISSING = "—"
NOTHING = "This study has nothing to list here."

Format = str | Callable[[Any], str]


class Shown:
    """A piece of a page.

    Attributes:
        kind: "text"; "summary", the chapter in one sentence; "today", which is true of today's code and no part of what the
            records say; "figure"; "table"; "data", a table of which the file alone is shown.
        markdown: what is shown; of a figure its caption is added by the page. Without a picture, why there is none.
        name: of a figure or table, as in ``workflow/chapters.yaml``.
        picture: the file of a figure, with a digest of the data that are drawn in it.
    """

    def __init__(
        self, kind: str, markdown: str, name: str | None = None, picture: tuple[Path, str] | None = None
    ) -> None:
        self.kind, self.markdown, self.name, self.picture = kind, markdown, name, picture

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        mark = {"kind": self.kind, "name": self.name, "data": self.picture[1] if self.picture else None}
        bundle: dict[str, Any] = {"text/markdown": self.markdown, MARK: mark}
        if self.picture is not None:  # for those who read the notebook itself
            bundle["image/png"] = b64encode(self.picture[0].read_bytes()).decode()
        return bundle


def text(markdown: str) -> Shown:
    """A text that was put together from the records."""
    return Shown("text", markdown)


def summary(sentence: str) -> Shown:
    """The chapter in one sentence, which the front page repeats."""
    return Shown("summary", f"**In short.** {sentence}")


def today(markdown: str) -> Shown:
    """A text that is true of the code of today alone; empty where there is nothing to say."""
    return Shown("today", markdown)


def figure(drawn: Figure, results: str | Path, name: str) -> Shown:
    """Keep a figure as ``figures/<name>.png`` and ``.pdf`` of a study's results, and show it.

    Of one that has no panels, since there was nothing to draw, the words are shown.
    """
    folder = Path(results) / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("png", "pdf"):
        # Without dates the same records give the same file.
        drawn.savefig(folder / f"{name}.{kind}", metadata={"CreationDate": None} if kind == "pdf" else None)
    data = drawn_data(drawn)
    plt.close(drawn)
    if not drawn.axes:
        return Shown("figure", " ".join(words.get_text() for words in drawn.texts), name)
    return Shown("figure", f"![{name}](../figures/{name}.png)", name, (folder / f"{name}.png", data))


def drawn_data(drawn: Figure) -> str:
    """Twelve hex digits over the numbers that are drawn in a figure, to three digits, and its words.

    Fonts, and so the pictures, differ from machine to machine; this does not.
    """
    parts: list[str] = []
    for axes in drawn.axes:
        for array in _arrays(axes):
            parts += (f"{0 if abs(x) < 1e-9 else x:.3g}" for x in np.ravel(np.asarray(array, dtype=float)))
        parts += [words.get_text() for words in axes.texts]
        parts += [axes.get_xlabel(), axes.get_ylabel(), axes.get_title("left"), axes.get_title("center")]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]


def _arrays(axes: Any) -> Iterator[Any]:
    """The numbers of the lines, points, areas and images of a panel; of one in space those in space."""
    for line in axes.lines:
        yield getattr(line, "get_data_3d", line.get_data)()
    for collection in axes.collections:
        if hasattr(collection, "_offsets3d"):
            yield np.ma.getdata(collection._offsets3d)
            continue
        yield np.ma.getdata(collection.get_offsets())
        yield from (path.vertices for path in collection.get_paths())
        if collection.get_array() is not None:
            yield np.ma.getdata(collection.get_array())


def table(
    rows: pd.DataFrame,
    results: str | Path,
    name: str,
    *,
    formats: Mapping[str, Format] | None = None,
    shown: pd.DataFrame | None = None,
) -> Shown:
    """Keep a table as ``tables/<name>.csv`` of a study's results, and show it.

    Args:
        formats: how a column's values are written, as a format string or a function; without one numbers are written
            with thousands separated and two digits after the point.
        shown: what is shown in place of the whole table.
    """
    folder = Path(results) / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    rows.to_csv(folder / f"{name}.csv", index=False)
    if rows.empty:
        return Shown("table", NOTHING, name)
    return Shown("table", markdown_table(rows if shown is None else shown, formats), name)


def data(rows: pd.DataFrame, results: str | Path, name: str) -> Shown:
    """Keep a table as ``tables/<name>.csv`` of a study's results, and show the link to it alone."""
    return Shown("data", table(rows, results, name).name or "", name)


def markdown_table(rows: pd.DataFrame, formats: Mapping[str, Format] | None = None) -> str:
    """A table in Markdown: numbers to the right, words to the left, what is missing as a dash."""
    formats = formats or {}
    columns = [[_cell(value, formats.get(str(name))) for value in rows[name]] for name in rows]
    numbers = [
        all(isinstance(value, int | float) or pd.api.types.is_number(value) for value in rows[name]) for name in rows
    ]
    lines = [
        [str(name) for name in rows],
        ["---:" if right else "---" for right in numbers],
        *map(list, zip(*columns, strict=True)),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any, how: Format | None) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA or value == "":
        return MISSING
    if how is not None:
        written = how.format(value) if isinstance(how, str) else how(value)
    elif isinstance(value, bool) or not pd.api.types.is_number(value):
        written = str(value)
    else:
        written = f"{value:,}" if pd.api.types.is_integer(value) else f"{value:,.2f}"
    return written.replace("|", "\\|").replace("\n", " ")
