"""Whether pages are whole: that HTML is valid, and that every link, anchor and picture leads somewhere.

Links into the internet are not followed.
"""

import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lsc.errors import needing

# A link that begins by going up.
_UPWARDS = re.compile(r'<a href="(?P<target>\.\./[^"]*)">(?P<words>.*?)</a>', re.DOTALL)


class _Read(HTMLParser):
    """The anchors of a page, what it refers to, and pictures without a text."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: list[str] = []
        self.targets: list[str] = []
        self.mute: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.anchors += [value for value in (given.get("id"), given.get("name") if tag == "a" else None) if value]
        self.targets += [value for key in ("href", "src") if (value := given.get(key))]
        if tag == "img" and not given.get("alt"):
            self.mute.append(str(given.get("src")))


def within(page: str, place: Path, folder: Path) -> str:
    """The HTML ``page``, which lies at ``place``, with links that lead out of ``folder`` turned into words: what they lead to."""

    def in_words(link: re.Match[str]) -> str:
        target, words = unquote(link["target"].partition("#")[0]), link["words"]
        if (place.parent / target).resolve().is_relative_to(folder.resolve()):
            return link[0]
        name = target.rpartition("../")[2]
        return words if name in words else f"{words} ({name})"

    return _UPWARDS.sub(in_words, page)


def faults(pages: Iterable[Path]) -> Iterator[str]:
    """What is wrong with HTML pages, a line each.

    Raises:
        UserError: html5lib is not installed.
    """
    with needing("dev", "the check of pages"):
        import html5lib

    read: dict[Path, _Read] = {}
    for page in pages:
        parser = html5lib.HTMLParser()
        parser.parse(page.read_text(encoding="utf-8"))
        yield from (f"{page}:{line}: {kind} {about}" for (line, _), kind, about in parser.errors)
        yield from _of_links(page, read)


def _of_links(page: Path, read: dict[Path, _Read]) -> Iterator[str]:
    found = _reading(page, read)
    yield from (f"{page}: the picture {name} has no alternative text" for name in found.mute)
    twice = {anchor for anchor in found.anchors if found.anchors.count(anchor) > 1}
    yield from (f"{page}: the anchor {anchor} stands twice" for anchor in sorted(twice))
    for target in dict.fromkeys(found.targets):
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            continue
        path = page if not parts.path else (page.parent / unquote(parts.path)).resolve()
        if not path.exists():
            yield f"{page}: {target} leads to no file"
        elif parts.fragment and path.suffix == ".html" and unquote(parts.fragment) not in _reading(path, read).anchors:
            yield f"{page}: {target} leads to no anchor"


def _reading(page: Path, read: dict[Path, _Read]) -> _Read:
    key = page.resolve()
    if key not in read:
        read[key] = _Read()
        read[key].feed(page.read_text(encoding="utf-8"))
    return read[key]
