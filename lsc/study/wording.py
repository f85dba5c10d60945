"""How numbers are said: accuracies in per cent, differences in points, and lists."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from lsc.study.variants import has_block, in_words

# What the images of a data set are, where that limits what results on them show.
_OF_DATA = {
    "digits": "Digits are small images of ten classes.",
    "fractals": "Fractals are drawn by formulas.",
    "glyphs": "Characters are real classes, but their images are drawn with fonts.",
}


# Shares of images, and their averages over groups, that are equal may differ by it.
_ROUNDED = 1e-9


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


def apart(some: pd.DataFrame, others: pd.DataFrame, column: str = "final_top1") -> bool:
    """Whether every seed of the one ends above every seed of the other, by more than shares of images are rounded by."""
    gap = max(some[column].min() - others[column].max(), others[column].min() - some[column].max())
    return bool(gap > _ROUNDED)


def within(some: pd.DataFrame, others: pd.DataFrame, column: str = "final_top1") -> str:
    """ " (within the range of the seeds)" where runs of several seeds are not :func:`apart`; nothing where they are."""
    alone = max(len(some), len(others)) < 2
    return "" if alone or apart(some, others, column) else " (within the range of the seeds)"


def compared(ours: pd.DataFrame, theirs: pd.DataFrame, digits: int = 1) -> str:
    """As :func:`points`, with :func:`within` where they differ: "0.2 points behind (within the range of the seeds)"."""
    said = points(ours, theirs, digits)
    return said if said == "level" else f"{said}{within(ours, theirs)}"


def ranged(mean: float, least: float, most: float, runs: int, digits: int = 1, unit: str = "") -> str:
    """A mean with the range of its runs: "97.5 (97.2 to 97.8)"; without one where there is one run, "—" where none has any."""
    if math.isnan(mean):
        return "—"
    shown = f"{mean:,.{digits}f}{unit}"
    return f"{shown} ({least:,.{digits}f} to {most:,.{digits}f})" if runs > 1 else shown


def range_of(values: pd.Series, digits: int = 1, unit: str = "", times: int = 1) -> str:
    """As :func:`ranged`, of a value of each run; the mean is taken first and then multiplied, as :func:`percent` does it."""
    mean, least, most = (times * float(value) for value in (values.mean(), values.min(), values.max()))
    return ranged(mean, least, most, len(values), digits, unit)


def seconds_differ(runs: pd.DataFrame) -> str:
    """A sentence on how far the seconds of runs of one variant differ; empty where each has one seed."""
    times = runs.groupby(["experiment", "variant"]).seconds.agg(["min", "max", "size"]) if len(runs) else runs
    if times.empty or times["size"].max() < 2:
        return ""
    most = 100 * (times["max"] / times["min"] - 1).max()
    return (
        f"The seconds of runs that differ in the seed alone are up to {most:.0f} % apart: "
        "smaller differences between the times of methods prove nothing."
    )


def caveat(*tables: pd.DataFrame, also: str = "") -> str:
    """What the records of some experiments cannot show: by the data that were used, and where there is one seed; then ``also``.

    In Markdown, and empty where there are no runs.
    """
    tables = tuple(runs for runs in tables if len(runs))
    if not tables:
        return ""
    used = dict.fromkeys(name for runs in tables for name in runs.data)
    said = [_OF_DATA[name] for name in used if name in _OF_DATA]
    if len(said) == len(used):
        said.append("How methods compare on natural images is a question for the `paper` study.")
    if any(runs.groupby(["experiment", "variant"]).seed.nunique().min() < 2 for runs in tables):
        said.append("Where there is one seed, how far seeds differ is not known.")
    return f"**Caveat.** {' '.join([*said, also]).strip()}" if said or also else ""


def images_of(runs: pd.DataFrame, column: str = "scored_on") -> str:
    """The images that accuracies are of, "test" or "validation": of curves, or of what runs end with (``final_on``)."""
    splits = dict.fromkeys(map(split_name, runs[column].dropna())) if column in runs else {}
    return listed([*splits]) or "test"


def split_name(split: str) -> str:
    """A split of a data set in words."""
    return {"valid": "validation", "train": "training"}.get(split, split)


def seeds_of(seeds: Iterable[int]) -> str:
    """ "seeds 0 and 1", "seed 0"."""
    each = sorted(set(seeds))
    return f"seed{'s' if len(each) > 1 else ''} {listed([str(seed) for seed in each])}"


def listed(parts: Sequence[str], last: str = "and") -> str:
    """A list in words: "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {last} {parts[-1]}" if parts else ""


def span(least: str, most: str) -> str:
    """From the least to the most: "64 to 256", or "64" where both are alike."""
    return least if least == most else f"{least} to {most}"


def upper(words: str) -> str:
    """With a capital at the beginning."""
    return words[:1].upper() + words[1:]


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
