"""Faces of font files: where they are, what they are called, which characters they have. Free of torch.

A file holds one face or, as a collection (.ttc, .otc), several. A face is known by its full name (name table, id 4); of faces
with one name, or of one content, the first counts.
"""

import hashlib
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lsc.errors import UserError, needing
from lsc.files import open_regular

SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
# What `make fonts` installs.
PACKAGES = "fonts-wqy-zenhei fonts-wqy-microhei fonts-arphic-ukai fonts-arphic-uming fonts-hanazono fonts-noto-cjk"
INSTALL = f"install some: make fonts, or as root on Debian and Ubuntu apt-get install {PACKAGES}"

# Tables of outlines; a face without any of them has bitmaps of fixed sizes.
_OUTLINES = ("glyf", "CFF ", "CFF2")
# A glyph that more characters than this share stands for whatever the font has no glyph for.
_SHARED = 16


@dataclass(frozen=True)
class Face:
    """One face of a font file; ``index`` is its place in a collection."""

    path: Path
    index: int
    name: str
    license: str

    @cached_property
    def digest(self) -> str:
        """Sixteen hex digits of the file's SHA-256, and the place in it."""
        with self.path.open("rb") as file:
            return f"{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}:{self.index}"


def find_faces(fonts: Sequence[str]) -> list[Face]:
    """The faces of ``fonts`` in their order: "matplotlib", "system", files or folders.

    Raises:
        UserError: a file that is missing or no font, a folder without one, or neither matplotlib nor fontconfig.
    """
    found: dict[str, Face] = {}
    for entry in fonts:
        for path, named in _files(entry):
            for face in _faces(path, strict=named):
                found.setdefault(face.name, face)
    if not found:
        raise UserError(f"data set glyphs, option fonts: no font with outlines in {', '.join(fonts)}; {INSTALL}")
    return list(found.values())


def named_faces(faces: Sequence[Face], names: Iterable[str], option: str) -> list[Face]:
    """The faces of these full names, whatever the case of letters.

    Raises:
        UserError: there is no such face; it suggests a near one.
    """
    known = {face.name.casefold(): face for face in faces}
    chosen = []
    for name in names:
        if name.casefold() not in known:
            near = get_close_matches(name.casefold(), known, 1)
            remedy = f"did you mean {known[near[0]].name}?" if near else f"known are {_listed(faces)}"
            raise UserError(
                f"data set glyphs, option {option}: no face {name!r} among the fonts; {remedy} If it is missing, {INSTALL}"
            )
        chosen.append(known[name.casefold()])
    return chosen


def _listed(faces: Sequence[Face]) -> str:
    names = [face.name for face in faces]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more." if len(names) > 12 else ".")


@dataclass(frozen=True)
class Coverage:
    """What a face's character map says: the characters with a glyph, and how many have a stand-in for one."""

    characters: frozenset[int]
    stand_ins: int


def coverage(face: Face) -> Coverage:
    """Characters whose glyph is neither ``.notdef`` nor one that more than 16 characters share."""
    with _opened(face.path, face.index) as font:
        glyphs = font.getBestCmap() or {}
        missing = font.getGlyphOrder()[0]
    times = Counter(glyphs.values())
    kept = {code for code, glyph in glyphs.items() if glyph != missing and times[glyph] <= _SHARED}
    return Coverage(frozenset(kept), len(glyphs) - len(kept))


def _files(entry: str) -> Iterator[tuple[Path, bool]]:
    """The files that an entry of the option stands for, and whether it names the file itself."""
    try:
        is_folder, is_file = Path(entry).is_dir(), Path(entry).is_file()
    except OSError as error:
        shown = entry if len(entry) <= 200 else f"{entry[:200]}..."
        raise UserError(
            f"data set glyphs, option fonts: {shown} cannot be looked at ({error.strerror}); make it readable or leave it out"
        ) from None
    if entry == "matplotlib":
        yield from ((path, True) for path in _of_matplotlib())
    elif entry == "system":
        yield from ((path, False) for path in _of_system())
    elif is_folder:
        paths = sorted(path for path in Path(entry).rglob("*") if path.suffix.lower() in SUFFIXES)
        if not paths:
            raise UserError(f"data set glyphs, option fonts: the folder {entry} has no {', '.join(SUFFIXES)} file")
        yield from ((path, False) for path in paths)
    elif is_file:
        yield Path(entry), True
    else:
        raise UserError(
            f"data set glyphs, option fonts: {entry} is no file and no folder; give one, or matplotlib, or system"
        )


def _of_matplotlib() -> list[Path]:
    """The twelve DejaVu faces of sans, serif and mono that matplotlib brings; its STIX and cm fonts have other characters."""
    package = find_spec("matplotlib")
    if package is None or package.origin is None:
        raise UserError(
            "data set glyphs: matplotlib, whose fonts are the default, is not installed: pip install 'lsc[plots]'"
        )
    folder = Path(package.origin).parent / "mpl-data" / "fonts" / "ttf"
    return [path for path in sorted(folder.glob("DejaVu*.ttf")) if "Display" not in path.stem]


def _of_system() -> list[Path]:
    """The scalable fonts that fontconfig knows, sorted by path."""
    try:
        done = subprocess.run(
            ["fc-list", "--format", "%{file}\n", ":scalable=true"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        raise UserError(
            "data set glyphs, option fonts: system needs fontconfig's fc-list (as root on Debian and Ubuntu: apt-get install "
            "fontconfig); or name files and folders"
        ) from None
    paths = sorted({line for line in done.stdout.splitlines() if Path(line).suffix.lower() in SUFFIXES})
    return [Path(path) for path in paths]


def _faces(path: Path, strict: bool) -> Iterator[Face]:
    """The faces of a file with outlines. What is no font is an error where it is ``strict``, and passed over otherwise."""
    try:
        for index in range(_count(path)):
            with _opened(path, index) as font:
                if any(table in font for table in _OUTLINES):
                    yield Face(path, index, _name(font, path), _license(font))
                elif strict:
                    raise UserError(f"data set glyphs, option fonts: {path} has no outlines; leave it out")
    except UserError:
        if strict:
            raise


def _count(path: Path) -> int:
    """Number of faces in a file."""
    try:
        with open_regular(path) as file:
            start = file.read(12)
    except OSError as error:
        raise UserError(
            f"data set glyphs, option fonts: {path} cannot be read ({error.strerror}); leave it out or make it readable"
        ) from None
    return int.from_bytes(start[8:12], "big") if start[:4] == b"ttcf" else 1


@contextmanager
def _opened(path: Path, index: int) -> Iterator[Any]:
    """A face, opened by fontTools without what is not asked for; whatever is wrong with the file is a :class:`UserError`."""
    with needing("plots", "data set glyphs"):
        from fontTools.ttLib import TTFont
    try:
        with closing(TTFont(path, fontNumber=index, lazy=True)) as font:
            yield font
    except UserError:
        raise
    except Exception as error:  # a damaged table is met when it is first read, by errors of many kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"data set glyphs, option fonts: {path} is no font, or a damaged one ({reason}); leave it out or replace it"
        ) from None


def _name(font: Any, path: Path) -> str:
    names = font["name"]
    whole = names.getDebugName(4) or " ".join(filter(None, (names.getDebugName(1), names.getDebugName(2))))
    return " ".join(whole.split()) or path.stem


def _license(font: Any) -> str:
    """The beginning of the licence's text (name table, id 13) and its address (id 14)."""
    text, address = (" ".join((font["name"].getDebugName(key) or "").split()) for key in (13, 14))
    short = text if len(text) <= 90 else f"{text[:87]}..."
    return ", ".join(filter(None, (short, address))) or "none stated"
