"""Characters of Unicode: which of them can be classes, how a choice of them is written, what they are called."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches

from lsc.errors import UserError, needing

# The versions of the characters' properties and names; part of what the classes are.
UNICODE = unicodedata.unidata_version

# Controls, spaces, unassigned and private ones show nothing, or nothing that all fonts agree on. U+FFFD is what is shown for
# a character that is none.
_NO_CLASS = ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs")
_REPLACEMENT = 0xFFFD

_RANGE = re.compile(r"U\+([0-9A-F]{1,6})(?:\s*-\s*(?:U\+)?([0-9A-F]{1,6}))?", re.IGNORECASE)


def is_class(code: int) -> bool:
    """Whether a character can be a class."""
    return code != _REPLACEMENT and unicodedata.category(chr(code)) not in _NO_CLASS


def name_of(code: int) -> str:
    """Such as ``A U+0041 LATIN CAPITAL LETTER A``; a mark that stands on another character is shown on a dotted circle."""
    return f"{_shown(code)} U+{code:04X} {unicodedata.name(chr(code), '')}".rstrip()


def brief(code: int) -> str:
    """Such as ``A U+0041``."""
    return f"{_shown(code)} U+{code:04X}"


def _shown(code: int) -> str:
    return f"\u25cc{chr(code)}" if unicodedata.category(chr(code)).startswith("M") else chr(code)


def class_name(members: Sequence[int]) -> str:
    """The name of the first of characters that look alike, and the others in brackets."""
    others = ", ".join(map(brief, members[1:]))
    return name_of(members[0]) + (f" (or {others})" if others else "")


def chooser(entry: str) -> Callable[[int], bool]:
    """What an entry of the option ``characters`` chooses: "all", a range "U+4E00-U+9FFF", or a script's or block's name.

    Raises:
        UserError: it is none of these; a near name is suggested.
    """
    where = "data set glyphs, option characters"
    if entry == "all":
        return lambda code: True
    match = _RANGE.fullmatch(entry.strip())
    if match:
        low, high = int(match[1], 16), int(match[2] or match[1], 16)
        if low > high or high > 0x10FFFF:
            raise UserError(f"{where}: {entry!r} ends before it begins, or beyond U+10FFFF; write it as U+4E00-U+9FFF")
        return lambda code: low <= code <= high
    if entry.upper().startswith("U+"):
        raise UserError(f"{where}: {entry!r} is no range of characters; write it as U+4E00-U+9FFF or U+0041")
    with needing("plots", "data set glyphs"):
        from fontTools import unicodedata as properties
    scripts = {name.replace("_", " ").casefold(): code for code, name in properties.Scripts.NAMES.items()}
    blocks = {name.casefold(): name for name in properties.Blocks.VALUES}
    wanted = entry.replace("_", " ").strip().casefold()
    if wanted in scripts:
        return lambda code: properties.script(chr(code)) == scripts[wanted]
    if wanted in blocks:
        return lambda code: properties.block(chr(code)) == blocks[wanted]
    near = get_close_matches(wanted, [*scripts, *blocks], 1)
    meant = f"; did you mean {blocks.get(near[0], near[0].title())}?" if near else ""
    raise UserError(f"{where}: {entry!r} is no script, no block and no range such as U+4E00-U+9FFF{meant}")


def in_groups(entries: Sequence[str], covered: Iterable[int]) -> list[list[int]]:
    """The characters among ``covered`` that each entry chooses, by code; one that several choose is of the first of them.

    Raises:
        UserError: an entry cannot be read, or chooses none.
    """
    left = sorted(covered)
    groups = []
    for entry in entries:
        wanted = chooser(entry)
        groups.append([code for code in left if wanted(code)])
        taken = set(groups[-1])
        left = [code for code in left if code not in taken]
    return groups
