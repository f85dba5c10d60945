"""Chapter 4, its second part: the read-out's last layer in closed form, beside training by steps and cross-entropy."""

import math

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lsc.study import plots
from lsc.study.selection import baseline, one_variant, ordered
from lsc.study.wording import percent, points, upper

SHARE = 0.95


def is_solved(runs: pd.DataFrame) -> pd.Series:
    """Whether the last layer of each run is solved for, while it trains or at its end."""
    return runs.changes.map(lambda changes: any(key.startswith("readout") for key in changes)).astype(bool)


def with_methods(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs in the order of their roles, those that are solved last, with their methods as names; none if there are none."""
    if runs.empty:
        return runs.assign(solved=[])
    named = ordered(runs).assign(solved=is_solved(ordered(runs)))
    words = named.solved.map({True: ", last layer in closed form", False: ""})
    return named.assign(shown=named.label + words).sort_values("solved", kind="stable")


def protocol(runs: pd.DataFrame) -> str:
    """A sentence on what all these runs share."""
    if runs.empty:
        return ""
    one = runs.iloc[0]
    return (
        f"All have {int(one.num_classes):,} classes, {int(one.dim)} coordinates and a read-out of {int(one.hidden):,} hidden "
        f"activations, and take {int(one.steps):,} steps. The settings were chosen on other classes and seeds than those shown."
    )


def draw(metrics: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Accuracy against epochs and against seconds; a star is the accuracy after the last refit, with its pass in the time."""
    if runs.empty:
        return plots.nothing("This study has no runs with the last layer in closed form.")
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8), sharey=True)
    for variant, style in plots.line_styles(runs).items():
        rows, own = metrics[metrics.variant == variant].dropna(subset=["top1"]), runs[runs.variant == variant]
        plots.band(left, rows, "epoch", "top1", **style)
        mean = rows.groupby("epoch")[["seconds", "top1"]].mean()
        right.plot(mean.seconds, mean.top1, **style)
        if own.solved.iloc[0]:
            star = {"marker": "*", "s": 90, "color": style["color"], "zorder": 3}
            left.scatter(rows.epoch.max(), own.final_top1.mean(), **star)
            right.scatter(own.seconds.mean(), own.final_top1.mean(), **star)
    left.set(xlabel="epoch", ylim=(0, 1))
    plots.percent_axis(left)
    right.set(xlabel="seconds of training")
    left.scatter([], [], marker="*", s=90, color="#777777", label="after the last refit, its pass included")
    plots.legend_below(figure, [left], 4)
    return figure


def epochs_to(goal: float, metrics: pd.DataFrame, variant: str) -> float:
    """Mean over the seeds of the epochs until top-1 first reaches ``goal``; infinite if it never does in one of them."""
    rows = metrics[metrics.variant == variant]
    first = [group[group.top1 >= goal].epoch.min() for _, group in rows.groupby("seed")]
    return math.inf if any(map(math.isnan, first)) else float(sum(first) / len(first))


def overview(metrics: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """A line per method: accuracies over the seeds, how soon it comes close to the baseline, and what it took."""
    if runs.empty:
        return pd.DataFrame(columns=["method"])
    goal = SHARE * baseline(runs).final_top1.mean()
    table = []
    for variant, own in runs.groupby("variant", sort=False):
        epochs = epochs_to(goal, metrics, str(variant))
        before = own.top1_before_refit.mean() if "top1_before_refit" in own else math.nan
        table.append(
            {
                "method": own.shown.iloc[0],
                "seeds": " ".join(map(str, sorted(own.seed))),
                "top-1 mean (%)": round(100 * own.final_top1.mean(), 2),
                "top-1 min (%)": round(100 * own.final_top1.min(), 2),
                "top-1 max (%)": round(100 * own.final_top1.max(), 2),
                "before the refit (%)": round(100 * before, 2),
                f"epochs to {SHARE:.0%} of the baseline": "—" if math.isinf(epochs) else f"{epochs:.1f}",
                "training time (s)": round(own.seconds.mean(), 1),
            }
        )
    return pd.DataFrame(table)


def findings(metrics: pd.DataFrame, runs: pd.DataFrame) -> str:
    """What the closed form brings, beside the same centers trained by steps and beside the baseline."""
    if runs.empty:
        return ""
    theirs, solved = baseline(runs), runs[runs.solved]
    trained = runs[~runs.solved & runs.has_centers]
    if theirs.empty or solved.empty or trained.empty:
        return ""
    goal = SHARE * theirs.final_top1.mean()
    rival = epochs_to(goal, metrics, theirs.variant.iloc[0])
    parts = []
    for variant, own in solved.groupby("variant", sort=False):
        epochs = epochs_to(goal, metrics, str(variant))
        reached = "never reach" if math.isinf(epochs) else f"after {epochs:.1f} epochs reach"
        parts.append(
            f"{own.label.iloc[0]} centers reach {percent(own)}, {points(own, theirs)}, and {reached} {SHARE:.0%} "
            "of the final accuracy "
            f"of {theirs.label.iloc[0]}; all epochs take {own.seconds.mean() / theirs.seconds.mean():.1f} times its time"
        )
    by_steps = ", ".join(
        f"{own.label.iloc[0]} {percent(own)}, {points(own, theirs)}"
        for _, own in trained.groupby("variant", sort=False)
    )
    shown = "never" if math.isinf(rival) else f"after {rival:.1f} epochs"
    return (
        f"{upper(theirs.label.iloc[0])} reaches {percent(theirs)}, and {SHARE:.0%} of it {shown}; the same centers "
        f"trained by steps alone reach: {by_steps}. With the closed form, {'; '.join(parts)}."
    )


def in_short(runs: pd.DataFrame) -> str:
    """A clause on the closed form beside the baseline; empty where either is missing."""
    theirs, ours = baseline(runs), runs[runs.solved.astype(bool)] if len(runs) else runs
    if theirs.empty or ours.empty:
        return ""
    ours = one_variant(ours)
    return (
        f" With the last layer in closed form, {ours.label.iloc[0]} centers reach {percent(ours)} among "
        f"{int(ours.num_classes.iloc[0]):,} "
        f"classes where {theirs.label.iloc[0]} reaches {percent(theirs)}, in "
        f"{ours.seconds.mean() / theirs.seconds.mean():.1f} times "
        "the time."
    )
