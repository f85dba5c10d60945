"""A chapter as Markdown, for those who read it where the repository lies: figures, captions and tables in their place."""

import re
from collections.abc import Iterable

from lsc.study.pages.blocks import REFERENCE, Block
from lsc.study.pages.contents import Chapter, Item, places

# From results/<study>/notebooks, and from docs/chapters/<study>, to the root of the repository.
UP = "../../../"
_LINK = re.compile(r"\]\((?!https?:|#|\.|ref:|mailto:)([^)\s]+)\)")


def chapter_markdown(blocks: Iterable[Block], chapter: Chapter, chapters: list[Chapter]) -> str:
    """A chapter's page, with links to the ones before and after it.

    Args:
        chapters: all that are shown, in their order.
    """
    parts = [linked(_part(block, chapter), chapters, "md", here=chapter) for block in blocks if block.kind != "today"]
    return "\n\n".join([*parts, "---", _steps(chapter, chapters)]) + "\n"


def linked(
    markdown: str,
    chapters: list[Chapter],
    ending: str,
    *,
    here: Chapter | None = None,
    folder: str = "",
    up: str = UP,
) -> str:
    """Markdown whose references and paths, which begin at the repository's root, are links that lead there.

    Args:
        ending: of the pages, "md" or "html".
        here: the chapter in which the text stands, if any.
        folder: of the chapters' pages, from where the text stands.
        up: the repository's root, from where the text stands.
    """
    known = places(chapters)

    def reference(found: re.Match[str]) -> str:
        words, anchor = found.groups()
        if anchor not in known:
            return words or anchor.removeprefix("table_").replace("_", " ")
        where, item = known[anchor]
        page = "" if here is not None and where.name == here.name else f"{folder}{where.file}.{ending}"
        return f"[{words or item.label}]({page}#{anchor})"

    markdown = _LINK.sub(lambda found: f"]({up}{found[1]})", markdown)
    return REFERENCE.sub(reference, markdown)


def _part(block: Block, chapter: Chapter) -> str:
    if block.name is None:
        return f"> {block.markdown}" if block.kind == "summary" else block.markdown
    if block.kind == "data":
        item = chapter.item("table", block.name)
        return f'<a id="{item.anchor}"></a>{item.label}: {item.caption} [CSV](../tables/{item.name}.csv)'
    item = chapter.item(block.kind, block.name)
    if block.is_empty:
        return f'<a id="{item.anchor}"></a>\n\n*{item.label}. {block.markdown}*'
    shown = picture(item, "../figures/") if block.kind == "figure" else block.markdown
    # The data of a figure are compared, since its picture differs from machine to machine.
    data = f"<!-- data {block.data} -->" if block.data else ""
    return f'<a id="{item.anchor}"></a>{data}\n\n{shown}\n\n{caption(item)}'


def picture(item: Item, folder: str) -> str:
    """A figure, without its caption."""
    return f"![{item.alt}]({folder}{item.name}.png)"


def caption(item: Item, tables: str = "../tables/") -> str:
    """A caption, in italics, with the link to a table's file."""
    file = f" [CSV]({tables}{item.name}.csv)" if item.kind == "table" else ""
    return f"*{item.label}. {item.caption}*{file}"


def _steps(chapter: Chapter, chapters: list[Chapter]) -> str:
    before, after = neighbours(chapter, chapters)
    steps = ["[All chapters](README.md)"]
    steps += [f"[Previous: {before.heading}]({before.file}.md)"] if before else []
    steps += [f"[Next: {after.heading}]({after.file}.md)"] if after else []
    return " · ".join(steps)


def neighbours(chapter: Chapter, chapters: list[Chapter]) -> tuple[Chapter | None, Chapter | None]:
    """The chapters before and after one."""
    place = [other.name for other in chapters].index(chapter.name)
    return (chapters[place - 1] if place else None), (chapters[place + 1] if place + 1 < len(chapters) else None)
