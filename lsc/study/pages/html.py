"""A chapter as an HTML page that needs no other file but its figures, and the frame that all pages share."""

import re
from collections.abc import Iterable
from html import escape, unescape
from pathlib import Path

from markdown_it import MarkdownIt

from lsc.study.pages.blocks import Block
from lsc.study.pages.contents import Chapter, Item
from lsc.study.pages.markdown import linked, neighbours

# The verdicts of lsc.study.judging, with their marks in Markdown and their classes in HTML.
VERDICTS = {
    "holds": ("🟢", "holds"),
    "holds in part": ("🟡", "part"),
    "does not hold": ("🔴", "fails"),
    "not decided": ("🔵", "untested"),
    "not testable here": ("⚪", "untested"),
}
_MARKS = dict(VERDICTS.values())
_MARKED = re.compile(rf"({'|'.join(_MARKS)})\u00a0([^<]+)")
_STYLE = Path(__file__).with_name("style.css")
# A number with its range, such as 97.5 (97.2 to 97.8), which no line should break.
_RANGE = re.compile(r"<td>(\d[\d.,]*(?: ×)? \([\d.,]+ to [\d.,]+\))</td>")
_MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")


def chapter_page(blocks: Iterable[Block], chapter: Chapter, chapters: list[Chapter], study: str) -> str:
    """A chapter's page: contents, texts, figures and tables, and the ways to the other pages."""
    body = "\n".join(_part(block, chapter, chapters) for block in blocks)
    body, contents = _with_contents(body)
    steps = _steps(chapter, chapters)
    head = f'<a href="../index.html">Study “{escape(study)}”</a>'
    return page(
        f"{chapter.heading} · {study}",
        f'<header><nav class="steps" aria-label="Pages"><span>{head}</span>{steps}</nav></header>\n<main>\n'
        f"{_after_the_title(body, contents)}\n</main>\n"
        f'<footer><nav class="steps" aria-label="Next pages"><span>{head}</span>{steps}</nav></footer>',
    )


def page(title: str, body: str) -> str:
    """A whole page, its style inside."""
    style = _STYLE.read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def text_html(markdown: str) -> str:
    """Markdown as HTML; the marks of verdicts become coloured words, which need no font of pictures."""
    html = str(_MARKDOWN.render(markdown)).strip()
    return _MARKED.sub(lambda found: f'<span class="verdict {_MARKS[found[1]]}">{found[2]}</span>', html)


def inline_html(markdown: str) -> str:
    """Markdown of one paragraph as HTML, without the paragraph."""
    return str(_MARKDOWN.renderInline(markdown))


def figure_html(item: Item, folder: str, anchored: bool = True) -> str:
    """A figure with its caption; the picture leads to the drawing that can be enlarged."""
    anchor = f' id="{item.anchor}"' if anchored else ""
    return (
        f'<figure{anchor}><a href="{folder}{item.name}.pdf"><img src="{folder}{item.name}.png" alt="{escape(item.alt)}"></a>'
        f"<figcaption><b>{item.label}.</b> {inline_html(item.caption)}</figcaption></figure>"
    )


def _part(block: Block, chapter: Chapter, chapters: list[Chapter]) -> str:
    markdown = linked(block.markdown, chapters, "html", here=chapter)
    if block.name and block.is_empty:
        item = chapter.item(block.kind, block.name)
        return f'<p id="{item.anchor}"><b>{item.label}.</b> {inline_html(markdown)}</p>'
    if block.kind == "figure" and block.name:
        return figure_html(chapter.item("figure", block.name), "../figures/")
    if block.kind == "data" and block.name:
        item = chapter.item("table", block.name)
        file = f'<a href="../tables/{item.name}.csv">CSV</a>'
        return f'<p id="{item.anchor}">{item.label}: {inline_html(item.caption)} {file}</p>'
    html = text_html(markdown)
    if block.kind == "table" and block.name:
        item = chapter.item("table", block.name)
        html = _RANGE.sub(r'<td class="range">\1</td>', html)
        return (
            f'<figure id="{item.anchor}"><div class="scroll" tabindex="0" role="region" aria-label="{item.label}">{html}</div>'
            f"<figcaption><b>{item.label}.</b> {inline_html(item.caption)} "
            f'<a href="../tables/{item.name}.csv">CSV</a></figcaption></figure>'
        )
    kind = {"summary": "summary", "today": "note"}.get(block.kind)
    return f'<div class="{kind}">{html}</div>' if kind else html


def _with_contents(body: str) -> tuple[str, str]:
    """The body with an anchor at each section, and the list of these."""
    sections: dict[str, str] = {}

    def anchored(found: re.Match[str]) -> str:
        words = re.sub(r"<[^>]+>", "", found[1])
        anchor = re.sub(r"\W+", "-", unescape(words).lower()).strip("-")
        sections[anchor] = found[1]
        return f'<h2 id="{anchor}">{found[1]}</h2>'

    body = re.sub(r"<h2>(.*?)</h2>", anchored, body)
    rows = "".join(f'<li><a href="#{anchor}">{words}</a></li>' for anchor, words in sections.items())
    return body, f'<nav class="contents" aria-label="Contents"><ul>{rows}</ul></nav>' if rows else ""


def _after_the_title(body: str, contents: str) -> str:
    """The contents stand where the first section begins."""
    before, section, after = body.partition("<h2 ")
    return f"{before}{contents}\n{section}{after}"


def _steps(chapter: Chapter, chapters: list[Chapter]) -> str:
    before, after = neighbours(chapter, chapters)
    steps = [f'<a rel="prev" href="{before.file}.html">← {escape(before.heading)}</a>'] if before else []
    steps += [f'<a rel="next" href="{after.file}.html">{escape(after.heading)} →</a>'] if after else []
    return "".join(f"<span>{step}</span>" for step in steps)
