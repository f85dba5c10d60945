"""The figures of chapter 7: a training step and a search, with the interval of each median."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lsc.cost.interval import median_interval
from lsc.cost.measured import BARE, Measurements, shown_as
from lsc.study import plots

WAYS = {"exact search": "seconds", "matrix product": "matmul_seconds", "faiss, flat index": "faiss_seconds"}


def draw_step(found: Measurements) -> Figure:
    """Time and memory of a training step against the number of classes; what was predicted is dashed."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.8))
    _steps(left, found, "step_seconds", 1e3)
    left.set(ylabel="milliseconds per step", title="Time")
    _steps(right, found, "peak_bytes", 1e-6)
    right.set(ylabel="peak memory (MB)", title="Memory")
    left.plot([], [], "k--", marker="o", ms=4, mfc="white", label="predicted")
    plots.legend_below(figure, [left], 5)
    return figure


def _steps(axes: Axes, found: Measurements, column: str, scale: float) -> None:
    bare = found.of(BARE)[column].median() * scale
    axes.axhline(bare, color=shown_as(BARE).color, lw=5, alpha=0.5, label=shown_as(BARE).label)
    for name in dict.fromkeys(found.steps.objective[found.steps.objective != BARE]):
        _line(axes, found, name, column, scale)
    axes.set(xscale="log", yscale="log", xlabel="classes")


def _line(axes: Axes, found: Measurements, name: str, column: str, scale: float) -> None:
    """Medians of one objective in the band of their intervals; dashed from the last one on what was predicted."""
    rows, look = found.of(name), shown_as(name)
    counts = sorted(rows.classes.unique())
    values = [median_interval((scale * rows[rows.classes == count][column]).tolist()) for count in counts]
    if values:
        middle, low, high = np.array(values).T
        # Where curves lie on each other, the larger marker beneath shows.
        number = list(dict.fromkeys(found.steps.objective)).index(name)
        shape: dict[str, Any] = {"marker": "osD^vP*"[number % 7], "ms": max(10 - 2 * number, 4), "mfc": "none"}
        axes.plot(counts, middle, color=look.color, label=look.label, **shape)
        axes.fill_between(counts, low, high, color=look.color, alpha=0.15, lw=0)
    steps = found.steps
    guess = steps[(steps.objective == name) & steps.predicted.astype(bool)].dropna(subset=[column])
    if not guess.empty:
        x = [*counts[-1:], *guess.classes]
        y = [*(value[0] for value in values[-1:]), *(guess[column] * scale)]
        axes.plot(x, y, "--", color=look.color, marker="o", ms=4, mfc="white", zorder=1)


def draw_search(found: Measurements) -> Figure:
    """Time to find the nearest class of an embedding, by exact search and by the usual ways."""
    groups = list(found.search.groupby(["case", "k"], sort=False))
    figure, axes = plt.subplots(figsize=(8.5, 0.5 * len(groups) + 1.6))
    ways = {label: column for label, column in WAYS.items() if column in found.search}
    for (label, column), color, marker in zip(ways.items(), (plots.BLUE, "#777777", "#b8860b"), "osD", strict=False):
        each = [1e6 * group[column] / group.batch for _, group in groups]
        for place, values in enumerate(each):
            axes.plot([values.min(), values.max()], [place, place], color=color, lw=2)
        axes.plot([values.median() for values in each], range(len(each)), marker, color=color, ms=7, label=label)
    axes.set_yticks(
        range(len(groups)), [f"{key[0]}, the nearest {'' if key[1] == 1 else key[1]}".rstrip() for key, _ in groups]
    )
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="microseconds per embedding (less is better)")
    plots.legend_below(figure, [axes])
    return figure
