"""One style for every figure: an objective has its own colour everywhere, readable without colour vision.

Accuracies are drawn in per cent, upwards; curves are means over the seeds in a band from the least seed to the greatest.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lsc.study.wording import ranged

# Okabe and Ito's palette ("Color universal design", 2008), in the order in which we hand it out.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PINK = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)

# Ten colours for ten classes: Okabe-Ito without its yellow, which is too light for points, and three mixtures.
CLASS_COLORS = [BLUE, ORANGE, GREEN, RED, PINK, SKY, BLACK, "#882255", "#999933", "#888888"]

# Dashes set variants of one objective apart, in colour and in print.
DASHES: Sequence[str | tuple[int, tuple[int, ...]]] = ("-", "--", ":", "-.", (0, (1, 1)), (0, (6, 2, 1, 2, 1, 2)))


def use_style() -> None:
    """Set the style of every figure made from here on."""
    mpl.rcParams.update(
        {
            "figure.dpi": 100,
            "savefig.dpi": 160,
            "savefig.bbox": "tight",
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "axes.titlesize": 11,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#e6e6e6",
            "grid.linewidth": 0.8,
            "axes.axisbelow": True,
            "legend.frameon": False,
            "legend.fontsize": 9,
            "lines.linewidth": 1.6,
            "pdf.fonttype": 42,
        }
    )


def shade(color: str, number: int) -> str:
    """A colour, or one of its lighter and darker shades, for variants of one objective."""
    if not number:
        return color
    amount = (0.0, 0.45, -0.45, 0.65, -0.7, 0.25)[number % 6]
    base, end = np.array(to_rgb(color)), 1.0 if amount > 0 else 0.0
    red, green, blue = base + abs(amount) * (end - base)
    return to_hex((red, green, blue))


def line_styles(runs: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Colour, dashes and label of each variant of a table of summaries, in its order.

    Objectives differ by colour and the variants of one by dashes; where all are of one objective, by shades of its colour too.
    """
    alone = runs.objective.nunique() == 1
    seen: dict[str, int] = {}
    styles: dict[str, dict[str, Any]] = {}
    for row in runs.drop_duplicates("variant").to_dict("records"):
        number = seen.get(row["objective"], 0)
        styles[row["variant"]] = {
            "color": shade(row["color"], number if alone else 0), "linestyle": DASHES[number % len(DASHES)], "label": row["shown"]
        }  # fmt: skip
        seen[row["objective"]] = number + 1
    return styles


def band(axes: Axes, table: pd.DataFrame, x: str, y: str, **style: Any) -> None:
    """The mean of ``y`` over seeds against ``x``, in a band from the least seed to the greatest."""
    known = table.dropna(subset=[y]) if y in table else table.iloc[:0]
    if known.empty:  # a layer has no cosines to centers, joint training no new classes
        return
    grouped = known.groupby(x)[y]
    mean = grouped.mean()
    axes.plot(mean.index, mean, **style)
    axes.fill_between(mean.index, grouped.min(), grouped.max(), color=style.get("color", BLUE), alpha=0.15, lw=0)


def curves(axes: Axes, metrics: pd.DataFrame, runs: pd.DataFrame, x: str = "epoch", y: str = "top1") -> None:
    """One banded curve per variant of ``runs``, a table of summaries."""
    for variant, style in line_styles(runs).items():
        band(axes, metrics[metrics.variant == variant], x, y, **style)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def legend_below(owner: Any, axes: Sequence[Axes], columns: int = 4) -> None:
    """A legend below a figure, or below a part of one, where it covers no data; each label once."""
    handles: dict[str, Any] = {}
    for each in axes:
        for handle, label in zip(*each.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        columns = min(columns, len(handles))
        owner.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)


def legends_below(figure: Figure, panels: Sequence[Axes], columns: int = 2) -> None:
    """A legend of its own below each panel of a figure."""
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        if handles:
            # Two long ones are wider than a panel.
            beside = 1 if max(map(len, labels)) > 36 else min(columns, len(handles))
            axes.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=beside)


def percent_axis(axes: Axes, images: str = "test") -> None:
    """Show accuracies between 0 and 1 on the ``images`` (:func:`lsc.study.wording.images_of`) in per cent."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda top1, _: f"{100 * top1:g}"))
    axes.set_ylabel(f"{images} accuracy (%)")


def error_axis(axes: Axes, images: str = "test") -> None:
    """As :func:`percent_axis`, on an axis that is logarithmic in the error: near 100 % accuracies differ there."""
    axes.set_yscale(
        "function", functions=(lambda top1: -np.log10(np.clip(1.0005 - top1, 1e-4, 1)), lambda y: 1.0005 - 10.0**-y)
    )
    ticks = [0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995]
    axes.set_yticks(ticks, [f"{100 * tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylabel(f"{images} accuracy (%), logarithmic in the error")


def nothing(words: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    figure = plt.figure(figsize=(6, 1))
    figure.text(0.5, 0.5, words, ha="center", va="center")
    return figure


def confusion(axes: Axes, labels: np.ndarray, predictions: np.ndarray, names: Sequence[str]) -> None:
    """How often each class (rows) is taken for each other (columns), in per cent of the class's images."""
    counts = np.zeros((len(names), len(names)))
    np.add.at(counts, (labels, predictions), 1)
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    numbers = np.where(shares > 0, np.char.mod("%.0f", shares), "")
    seaborn.heatmap(
        shares,
        ax=axes,
        annot=numbers,
        fmt="",
        annot_kws={"size": 7},
        cmap="Blues",
        vmin=0,
        vmax=100,
        cbar=False,
        square=True,
    )
    axes.set_xticklabels(names)
    axes.set_yticklabels(names, rotation=0)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")


def accuracy_table(summaries: pd.DataFrame, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
    """A line per variant: mean and range of the final accuracy over seeds, in per cent, and what it took.

    Accuracies have four digits, so that rounding them for people rounds what was measured. Where the records have the number of
    images behind an accuracy it is a column.
    """
    if summaries.empty:
        return pd.DataFrame(columns=["variant"])
    grouped = summaries.groupby("variant", sort=False)
    table = pd.DataFrame(
        {
            "variant": grouped.shown.first().to_numpy(),
            "classes": grouped.num_classes.first().to_numpy(),
            "dim": grouped.dim.first().to_numpy(),
            "runs": grouped.size().to_numpy(),
            "seeds": grouped.seed.apply(lambda seeds: " ".join(map(str, seeds))).to_numpy(),
            "top-1 mean (%)": (100 * grouped.final_top1.mean()).round(4).to_numpy(),
            "top-1 min (%)": (100 * grouped.final_top1.min()).round(4).to_numpy(),
            "top-1 max (%)": (100 * grouped.final_top1.max()).round(4).to_numpy(),
            "encoder parameters": grouped.encoder_parameters.first().to_numpy(),
            "objective parameters": grouped.objective_parameters.first().to_numpy(),
            "training time (s)": grouped.seconds.mean().round(4).to_numpy(),
            "training time min (s)": grouped.seconds.min().round(4).to_numpy(),
            "training time max (s)": grouped.seconds.max().round(4).to_numpy(),
        }
    )
    if "final_images" in summaries:
        table.insert(3, "images", grouped.final_images.first().astype("Int64").to_numpy())
    for column, shown in (columns or {}).items():
        table[shown] = grouped[column].mean().to_numpy()
    return table


def accuracy_shown(table: pd.DataFrame) -> pd.DataFrame:
    """A table of :func:`accuracy_table` as a page shows it: a mean with the range of the seeds in one column.

    The numbers of classes, and of images behind an accuracy, are shown where they differ.
    """
    if table.empty:
        return table
    accuracy, time = ("top-1 mean (%)", "top-1 min (%)", "top-1 max (%)"), "training time"
    times = (f"{time} (s)", f"{time} min (s)", f"{time} max (s)")
    both = [
        [ranged(*row) for row in zip(*(table[column] for column in columns), table.runs, strict=True)]
        for columns in (accuracy, times)
    ]
    kept = table.drop(columns=[*accuracy, *times[1:], "runs", "seeds"])
    kept.insert(list(kept).index("dim") + 1, "accuracy (%)", both[0])
    kept[times[0]] = both[1]
    alike = [column for column in ("classes", "images") if column in kept and kept[column].nunique() == 1]
    return kept.drop(columns=alike).rename(columns={"dim": "dimension"})
