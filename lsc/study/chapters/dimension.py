"""Chapter 3, its second part: how many coordinates the latent space should have, with and without the closed form."""

from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lsc.study import plots
from lsc.study.chapters.closed_form import end_of_curve, is_in_closed_form
from lsc.study.wording import images_of, listed, range_of, span, upper

# A dimension is enough if it comes within so many points of the best one.
_ENOUGH = 1.0
# How soon a run comes close: the share of what the best baseline's curve ends with.
_SHARE = 0.9
_COLORS = {"A": plots.BLUE, "V21": plots.ORANGE, "V22": plots.GREEN}


def with_lines(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with ``solved`` (the last layer in closed form) and ``line``, what they share on the figure."""
    found = runs.assign(solved=is_in_closed_form(runs))
    words = found.solved.map({True: ", closed form", False: ", by steps"})
    return found.assign(line=(found.system + words).where(found.has_centers.astype(bool), found.label))


def draw(metrics: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Final accuracy, and epochs to a given accuracy, against the latent dimension. ``runs`` are those of :func:`with_lines`."""
    if runs.empty:
        return plots.nothing("This study has no runs that differ in the latent dimension.")
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.2))
    goal = _goal(metrics, runs)
    soon = runs.assign(epochs=[_epochs(metrics, run, goal) for run in runs.to_dict("records")])
    for line, own in runs.groupby("line", sort=False):
        style = _style(own)
        _points(left, own.assign(value=100 * own.final_top1), **style, label=line)
        _points(right, soon[soon.line == line].rename(columns={"epochs": "value"}), **style)
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        ticks = sorted(runs.dim.unique())
        axes.set_xticks(ticks, [str(tick) for tick in ticks], rotation=45)
        axes.minorticks_off()
        axes.set_xlabel("latent dimension")
    left.set(ylabel=f"{images_of(runs, 'final_on')} accuracy (%)", ylim=(0, 100), title="Final accuracy")
    right.set(ylabel="epochs", title=f"Epochs to {100 * goal:.0f} % {images_of(runs)} accuracy")
    right.set_ylim(bottom=0)
    plots.legend_below(figure, [left], 4)
    return figure


def _style(own: pd.DataFrame) -> dict[Any, Any]:
    first = own.iloc[0]
    if not first.has_centers:
        return {"color": first.color, "linestyle": "-", "marker": "s"}
    color = _COLORS.get(first.system, plots.PINK)
    return {
        "color": color,
        "linestyle": "-" if first.solved else "--",
        "marker": "o",
        "mfc": color if first.solved else "white",
    }


def _points(axes: Axes, rows: pd.DataFrame, **style: Any) -> None:
    """Means of the seeds; none where one of them has no value, such as a goal that it never reached."""
    mean = rows.groupby("dim").value.agg(lambda values: values.mean(skipna=False)).dropna()
    axes.plot(mean.index, mean, ms=4, **style)


def _goal(metrics: pd.DataFrame, runs: pd.DataFrame) -> float:
    """The accuracy whose epochs are counted: a share of the best mean with which curves of the baseline end."""
    theirs = runs[runs.role == "baseline"]
    rows = runs if theirs.empty else theirs
    return _SHARE * max(end_of_curve(metrics, own) for _, own in rows.groupby("variant"))


def _epochs(metrics: pd.DataFrame, run: dict[Any, Any], goal: float) -> float:
    rows = metrics[(metrics.variant == run["variant"]) & (metrics.seed == run["seed"])]
    return float(rows[rows.top1 >= goal].epoch.min())


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """A line for each dimension, a column for each line of the figure: mean final accuracies in per cent."""
    return _by_dimension(runs, lambda top1: round(100 * top1.mean(), 4))


def table_shown(runs: pd.DataFrame) -> pd.DataFrame:
    """As :func:`table`, as a page shows it: each mean with the range of its seeds."""
    return _by_dimension(runs, lambda top1: range_of(top1, times=100))


def _by_dimension(runs: pd.DataFrame, told: Callable[[pd.Series], Any]) -> pd.DataFrame:
    if runs.empty:
        return pd.DataFrame(columns=["dimension"])
    wide = runs.groupby(["dim", "line"]).final_top1.agg(told).unstack("line").sort_index()
    return (
        wide[list(dict.fromkeys(runs.line))]
        .rename_axis(columns=None)
        .reset_index()
        .rename(columns={"dim": "dimension"})
    )


def in_short(runs: pd.DataFrame) -> str:
    """From which dimension on more coordinates bring no more, with the last layer in closed form and trained by steps."""
    if runs.empty:
        return ""
    parts = []
    for solved, words in ((True, "with the last layer in closed form"), (False, "trained by steps")):
        lines = runs[(runs.solved == solved) & runs.has_centers.astype(bool)].groupby("line", sort=False)
        if said := _from_where([own for _, own in lines if own.dim.nunique() > 1]):
            parts.append(f"{words} {said}")
    if not parts:
        return ""
    classes = f"{int(runs.num_classes.max()):,} classes"
    return f"Centers come within a point of their best accuracy among {classes} {'; '.join(parts)}."


def _from_where(lines: list[pd.DataFrame]) -> str:
    """From which dimension on lines are near their best: that of a line whose best is the most that was tried is not known."""
    settled = [_enough(own) for own in lines if _enough(own) < own.dim.max()]
    rising = [own for own in lines if _enough(own) == own.dim.max()]
    parts = [f"from {span(str(min(settled)), str(max(settled)))} dimensions on"] if settled else []
    if rising:
        most = sorted({int(own.dim.max()) for own in rising})
        which = f" ({listed([str(own.system.iloc[0]) for own in rising])})" if settled else ""
        below = sorted({int(own.dim[own.dim < own.dim.max()].max()) for own in rising})
        tried = f"{span(str(below[0]), str(below[-1]))} and {span(str(most[0]), str(most[-1]))}"
        parts.append(f"somewhere between {tried}, the most that was tried{which}")
    return ", and ".join(parts)


def findings(runs: pd.DataFrame) -> str:
    """What more coordinates bring each line, and from which dimension on they bring no more."""
    if runs.empty:
        return ""
    parts = []
    for line, own in runs.groupby("line", sort=False):
        mean = 100 * own.groupby("dim").final_top1.mean()
        best = mean.index[int(mean.argmax())]
        parts.append(f"{line} {mean.iloc[0]:.1f} % in {mean.index[0]} dimensions and {mean.max():.1f} % in {best}")
    text = f"{upper('; '.join(parts))}."
    if enough := in_short(runs):
        text += (
            f" {enough} What the place of one class adds to the score of another, the crosstalk, falls with the dimension "
            "(docs/learning.md)."
        )
    return text


def _enough(own: pd.DataFrame) -> int:
    """The least dimension of a line that comes near to its best."""
    mean = 100 * own.groupby("dim").final_top1.mean()
    return int(mean.index[mean >= mean.max() - _ENOUGH].min())
