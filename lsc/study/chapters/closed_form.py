"""Chapter 4, its second part: the read-out's last layer in closed form, beside training by steps and cross-entropy."""

import math
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lsc.study import plots
from lsc.study.selection import baseline, one_variant, ordered, with_centers
from lsc.study.tables import Records
from lsc.study.variants import has_block
from lsc.study.wording import compared, images_of, listed, of_blocks, percent, ranged, seconds_differ, upper, within

SHARE = 0.95
# In the order in which they are shown: a panel for each that a study has, but for the last one, which is in the table alone.
EXPERIMENTS = ("closed_form_100", "closed_form", "closed_form_10000", "characters", "parts")
ABLATION = "parts"


def is_solved(runs: pd.DataFrame) -> pd.Series:
    """Whether the last layer of each run is solved for, while it trains or at its end."""
    return runs.changes.map(lambda changes: has_block(changes, "readout")).astype(bool)


def is_in_closed_form(runs: pd.DataFrame) -> pd.Series:
    """Whether the last layer of each run is solved for instead of trained by steps: not where it is refitted at the end alone."""
    by_steps = runs.changes.map(lambda changes: changes.get("readout.sums", "running") is None)
    return is_solved(runs) & ~by_steps.astype(bool)


def is_fitted(runs: pd.DataFrame) -> pd.Series:
    """Whether the centers of each run are made anew to fit the network, and so no longer predefined."""
    return runs.changes.map(lambda changes: has_block(changes, "centers.fit")).astype(bool)


def with_methods(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs in the order of their roles, those of ours last, with their methods as names; none if there are none.

    Columns that are added: solved, fitted and part, the experiment in words.
    """
    if runs.empty:
        return runs.assign(solved=[], fitted=[], part=[])
    named = ordered(runs)
    named = named.assign(solved=is_solved(named), fitted=is_fitted(named))
    words = named.changes.map(lambda changes: "".join(f", {each}" for each in of_blocks(changes)))
    several = words.groupby([named.label, words]).transform("size") > named.seed.nunique()
    own = (words + " (" + named.variant.str.replace("_", " ") + ")").where(several, words)
    part = [f"{count:,} classes of {data}" for count, data in zip(named.num_classes, named.data, strict=True)]
    part = [name + ", parts alone" * (own == ABLATION) for name, own in zip(part, named.experiment, strict=True)]
    named = named.assign(shown=named.label + own, part=part)
    return named.sort_values(["fitted", "solved"], kind="stable")


def gathered(records: Records) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Metrics and runs, by method, of those of :data:`EXPERIMENTS` that a study has."""
    runs = [with_methods(records.summaries(name)) for name in EXPERIMENTS]
    kept = [table for table in runs if len(table)] or runs[:1]
    metrics = [records.metrics(name) for name in EXPERIMENTS if records.has(name)]
    return pd.concat(metrics) if metrics else records.metrics(EXPERIMENTS[0]), pd.concat(kept)


def _compared(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that are drawn and told of one by one."""
    return runs[runs.experiment != ABLATION] if len(runs) else runs


def protocol(runs: pd.DataFrame) -> str:
    """A sentence for each experiment on what all its runs share."""
    told = [
        f"All runs among {part} have {_shared(rows, 'dim', 'coordinates')} and a read-out of {int(one.hidden):,} hidden "
        f"activations, and take {_shared(rows, 'steps', 'steps')}."
        for part, rows in _compared(runs).groupby("part", sort=False)
        for one in [rows.iloc[0]]
    ]
    return " ".join(told)


def _shared(rows: pd.DataFrame, column: str, things: str) -> str:
    """The number that runs share, and which of them have others: "512 coordinates"."""
    shared = int(rows[column].iloc[0])
    others = [
        f"{name} with {int(own[column].iloc[0]):,}"
        for name, own in rows[rows[column] != shared].groupby("shown", sort=False)
    ]
    return f"{shared:,} {things}" + (f" ({listed(others)})" if others else "")


def draw(metrics: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Accuracy against epochs and against seconds, for each experiment; a star is the accuracy after the last refit."""
    if runs.empty:
        return plots.nothing("This study has no runs with the last layer in closed form.")
    runs = _compared(runs)
    parts = list(runs.groupby("part", sort=False))
    alone = len(parts) == 1
    size = (9.5, 3.8) if alone else (4.6 * len(parts) + 0.4, 6.6)
    shape = (1, 2) if alone else (2, len(parts))
    figure, panels = plt.subplots(*shape, figsize=size, sharey=True, squeeze=False)
    # A method looks the same in every panel, whatever is beside it.
    styles = plots.line_styles(runs.drop_duplicates("shown").assign(variant=lambda table: table.shown))
    for column, (part, own) in enumerate(parts):
        top, bottom = (panels[0, 0], panels[0, 1]) if alone else (panels[0, column], panels[1, column])
        _curves(top, bottom, metrics[metrics.experiment == own.experiment.iloc[0]], own, styles)
        top.xaxis.set_major_locator(MaxNLocator(integer=True))
        top.set(xlabel="epoch", ylim=(0, 1), title="" if alone else part)
        bottom.set(xlabel="seconds of training")
    for axes in panels[:, 0] if not alone else panels[0, :1]:
        plots.percent_axis(axes, images_of(runs))
    if any(runs.solved):
        final = images_of(runs, "final_on")
        other = "" if final == images_of(runs) else f", on the {final} images"
        words = f"after the last refit, its pass included{other}"
        panels[0, 0].scatter([], [], marker="*", s=90, color="#777777", label=words)
    plots.legend_below(figure, list(panels.flat), 3)
    return figure


def _curves(
    left: Axes, right: Axes, metrics: pd.DataFrame, runs: pd.DataFrame, styles: dict[str, dict[str, Any]]
) -> None:
    for variant, own in runs.groupby("variant", sort=False):
        rows, style = metrics[metrics.variant == variant].dropna(subset=["top1"]), styles[own.shown.iloc[0]]
        plots.band(left, rows, "epoch", "top1", **style)
        mean = rows.groupby("epoch")[["seconds", "top1"]].mean()
        right.plot(mean.seconds, mean.top1, **style)
        if own.solved.iloc[0]:
            star = {"marker": "*", "s": 90, "color": style["color"], "zorder": 3}
            left.scatter(rows.epoch.max(), own.final_top1.mean(), **star)
            right.scatter(own.seconds.mean(), own.final_top1.mean(), **star)


def end_of_curve(metrics: pd.DataFrame, runs: pd.DataFrame) -> float:
    """The top-1 with which the curves of ``runs`` end, mean over these: of the images on which they were scored while training.

    A share of it is a goal that the same curves can be asked for (:func:`epochs_to`): a final accuracy may be of other images.
    """
    curves = metrics[metrics.variant.isin(runs.variant)].dropna(subset=["top1"]).sort_values("epoch", kind="stable")
    return float(curves.groupby(["variant", "seed"]).top1.last().mean())


def epochs_to(goal: float, metrics: pd.DataFrame, variant: str) -> float:
    """Mean over the seeds of :func:`epochs_of_seeds`; infinite if one of them never reaches the goal."""
    first = epochs_of_seeds(goal, metrics, variant)
    return sum(first) / len(first)


def epochs_of_seeds(goal: float, metrics: pd.DataFrame, variant: str) -> list[float]:
    """For each seed of a variant, the epochs until top-1 first reaches ``goal``; infinite if it never does."""
    rows = metrics[metrics.variant == variant]
    first = (float(group[group.top1 >= goal].epoch.min()) for _, group in rows.groupby("seed"))
    return [math.inf if math.isnan(epochs) else epochs for epochs in first]


def falls_back(goal: float, metrics: pd.DataFrame, variant: str) -> bool:
    """Whether a curve of a variant that has reached ``goal`` is below it later."""
    rows = metrics[metrics.variant == variant].dropna(subset=["top1"]).sort_values("epoch", kind="stable")
    return any(bool(((own.top1 >= goal).cummax() & (own.top1 < goal)).any()) for _, own in rows.groupby("seed"))


def overview(metrics: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """A line per method and experiment: accuracies over the seeds, how soon it comes close to the baseline, and what it took."""
    tables = [
        _overview(metrics[metrics.experiment == own.experiment.iloc[0]], own)
        for _, own in runs.groupby("part", sort=False)
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["method"])


def _overview(metrics: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    theirs = baseline(runs)
    goal = SHARE * end_of_curve(metrics, theirs) if len(theirs) else math.inf
    table = []
    for variant, own in runs.groupby("variant", sort=False):
        epochs = epochs_to(goal, metrics, str(variant))
        before = own.top1_before_refit.mean() if "top1_before_refit" in own else math.nan
        table.append(
            {
                "classes": own.part.iloc[0],
                "method": own.shown.iloc[0],
                "seeds": " ".join(map(str, sorted(own.seed))),
                "top-1 mean (%)": round(100 * own.final_top1.mean(), 2),
                "top-1 min (%)": round(100 * own.final_top1.min(), 2),
                "top-1 max (%)": round(100 * own.final_top1.max(), 2),
                "before the refit (%)": round(100 * before, 2),
                f"epochs to {SHARE:.0%} of the baseline": "—" if math.isinf(epochs) else f"{epochs:.1f}",
                "training time (s)": round(own.seconds.mean(), 1),
                "training time min (s)": round(own.seconds.min(), 1),
                "training time max (s)": round(own.seconds.max(), 1),
            }
        )
    return pd.DataFrame(table)


def overview_shown(table: pd.DataFrame) -> pd.DataFrame:
    """A table of :func:`overview` as a page shows it: seconds with their range in one column."""
    if table.empty:
        return table
    columns = ["training time (s)", "training time min (s)", "training time max (s)"]
    seeds = [len(each.split()) for each in table.seeds]
    shown = [ranged(*row) for row in zip(*(table[column] for column in columns), seeds, strict=True)]
    return table.drop(columns=columns[1:]).assign(**{columns[0]: shown})


def findings(metrics: pd.DataFrame, runs: pd.DataFrame) -> str:
    """What each method ends with beside the baseline, how soon it comes near it, and in what time; a paragraph per experiment."""
    paragraphs = [
        _findings(metrics[metrics.experiment == own.experiment.iloc[0]], own)
        for _, own in _compared(runs).groupby("part", sort=False)
    ]
    return "\n\n".join(filter(None, [*paragraphs, seconds_differ(_compared(runs))]))


def _findings(metrics: pd.DataFrame, runs: pd.DataFrame) -> str:
    theirs = baseline(runs)
    if theirs.empty or len(theirs) == len(runs):
        return ""
    goal = SHARE * end_of_curve(metrics, theirs)
    first = epochs_to(goal, metrics, theirs.variant.iloc[0])
    parts = []
    for variant, own in runs[runs.variant != theirs.variant.iloc[0]].groupby("variant", sort=False):
        epochs = epochs_to(goal, metrics, str(variant))
        near = "never there" if math.isinf(epochs) else f"there after {epochs:.1f} epochs"
        near += " (later below it again)" if falls_back(goal, metrics, str(variant)) else ""
        times = own.seconds.mean() / theirs.seconds.mean()
        parts.append(
            f"{own.shown.iloc[0]}: {percent(own)}, {compared(own, theirs)}, {near}, in {times:.1f} times the time"
        )
    shown = "never" if math.isinf(first) else f"after {first:.1f} epochs"
    return (
        f"Among {runs.part.iloc[0]}, {theirs.label.iloc[0]} reaches {percent(theirs)} and first {SHARE:.0%} of what its "
        f"{images_of(theirs)} curve ends with {shown}. {upper('; '.join(parts))}."
    )


def in_short(runs: pd.DataFrame) -> str:
    """A clause on the best of ours beside the baseline, where classes are most; empty where either is missing."""
    for _, own in reversed(list(_compared(runs).groupby("part", sort=False))):
        theirs, ours = baseline(own), with_centers(own[own.solved.astype(bool) | own.fitted.astype(bool)])
        if theirs.empty or ours.empty:
            continue
        means = ours.groupby("variant").final_top1.mean()
        best = ours[ours.variant == means.idxmax()]
        refitted = one_variant(own[(own.objective == theirs.objective.iloc[0]) & own.solved.astype(bool)])
        also = "" if refitted.empty else f" ({percent(refitted)} with a refit of its own)"
        return (
            f" Among {own.part.iloc[0]}, {best.shown.iloc[0]} reaches {percent(best)} where {theirs.label.iloc[0]} reaches "
            f"{percent(theirs)}{within(best, theirs)}{also}, in {best.seconds.mean() / theirs.seconds.mean():.1f} times the time."
        )
    return ""
