"""How numbers are said: accuracies in per cent, differences in points, and lists."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from lsc.study.variants import has_block, in_words


def percent(runs: pd.DataFrame, digits: int = 1) -> str:
    """The mean final accuracy of runs: "97.5 %"."""
    return f"{100 * runs.final_top1.mean():.{digits}f} %"


def points(ours: pd.DataFrame, theirs: pd.DataFrame, digits: int = 1) -> str:
    """How far the mean final accuracy of ``ours`` is from that of ``theirs``: "0.8 points behind"."""
    gap = 100 * (theirs.final_top1.mean() - ours.final_top1.mean())
    shown = f"{abs(gap):.{digits}f}"
    if float(shown) == 0:
        return "level"
    return f"{shown} point{'' if shown.strip('0') == '1.' else 's'} {'behind' if gap > 0 else 'ahead'}"


def apart(some: pd.DataFrame, others: pd.DataFrame) -> bool:
    """Whether every seed of the one ends above every seed of the other."""
    return bool(some.final_top1.min() > others.final_top1.max() or others.final_top1.min() > some.final_top1.max())


def listed(parts: Sequence[str], last: str = "and") -> str:
    """A list in words: "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {last} {parts[-1]}" if parts else ""


def span(least: str, most: str) -> str:
    """From the least to the most: "64 to 256", or "64" where both are alike."""
    return least if least == most else f"{least} to {most}"


def upper(words: str) -> str:
    """With a capital at the beginning."""
    return words[:1].upper() + words[1:]


def number(value: float, digits: int = 1) -> str:
    """A number, or "never" where it is infinite."""
    return "never" if math.isinf(value) else f"{value:,.{digits}f}"


def of_blocks(changes: Mapping[str, Any]) -> list[str]:
    """What the blocks ``centers.fit`` and ``readout`` make of a method; nothing where it has neither."""
    words = []
    if has_block(changes, "centers.fit"):
        words.append("centers fitted")
    if has_block(changes, "readout"):
        by_steps = changes.get("readout.sums", "running") is None
        words.append("last layer refitted at the end" if by_steps else "last layer in closed form")
    return words


def of_changes(changes: Mapping[str, Any]) -> list[str]:
    """What settings make of a method: "similar", "V21", "dim 32"; those of a block by what it is for (:func:`of_blocks`)."""
    told = ("centers.fit.", "readout.", *(("centers.system",) if has_block(changes, "centers.fit") else ()))
    return [*(setting(key, value) for key, value in changes.items() if not key.startswith(told)), *of_blocks(changes)]


def setting(key: str, value: Any) -> str:
    """What a setting makes of a method: "similar", "V21", "dim 32"."""
    own, name = in_words(key, value), key.rpartition(".")[2].replace("_", " ")
    return own or (value if isinstance(value, str) else f"{name} {value}")
