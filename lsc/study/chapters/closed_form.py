"""Chapter 4, its second part: the read-out's last layer in closed form, beside training by steps and cross-entropy."""

import math

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lsc.study import plots
from lsc.study.selection import baseline, ordered

SHARE = 0.95


def is_solved(runs: pd.DataFrame) -> pd.Series:
    """Whether the last layer of each run is solved for, while it trains or at its end."""
    return runs.changes.map(lambda changes: any(key.startswith("readout") for key in changes)).astype(bool)


def with_methods(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs in the order of their roles, those that are solved last, with their methods as names."""
    named = ordered(runs).assign(solved=is_solved(ordered(runs)))
    words = named.solved.map({True: ", last layer in closed form", False: ""})
    return named.assign(shown=named.label + words).sort_values("solved", kind="stable")


def protocol(runs: pd.DataFrame) -> str:
    """A sentence on what all these runs share; none if there are none."""
    if runs.empty:
        return ""
    one = runs.iloc[0]
    return (
        f"All have {int(one.num_classes):,} classes, {int(one.dim)} coordinates and a read-out of {int(one.hidden):,} hidden "
        f"activations, and take {int(one.steps):,} steps; {runs.seed.nunique()} seeds. The settings were chosen on other classes "
        "and seeds than those shown."
    )


def draw(metrics: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Accuracy against epochs and against seconds; a star is the accuracy after the last refit, with its pass in the time."""
    if runs.empty:
        return plots.nothing()
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
    left.set(xlabel="epoch", ylabel="test top-1", ylim=(0, 1))
    right.set(xlabel="seconds of training")
    left.legend(fontsize=8, loc="lower right")
    return figure


def epochs_to(goal: float, metrics: pd.DataFrame, variant: str) -> float:
    """Mean over the seeds of the epochs until top-1 first reaches ``goal``; infinite if it never does in one of them."""
    rows = metrics[metrics.variant == variant]
    first = [group[group.top1 >= goal].epoch.min() for _, group in rows.groupby("seed")]
    return math.inf if any(map(math.isnan, first)) else float(sum(first) / len(first))


def overview(metrics: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """A line per method: accuracies over the seeds, how soon it comes close to the baseline, and what it took."""
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
    theirs, solved = baseline(runs), runs[runs.solved.astype(bool)]
    trained = runs[~runs.solved.astype(bool) & runs.has_centers.astype(bool)]
    if theirs.empty or solved.empty or trained.empty:
        return ""
    goal = SHARE * theirs.final_top1.mean()
    rival = epochs_to(goal, metrics, theirs.variant.iloc[0])
    parts = []
    for variant, own in solved.groupby("variant", sort=False):
        epochs = epochs_to(goal, metrics, str(variant))
        reached = "never come" if math.isinf(epochs) else f"come in {epochs:.1f}"
        parts.append(
            f"{own.label.iloc[0]} centers whose last layer is solved for reach {100 * own.final_top1.mean():.1f} % and {reached} "
            f"epochs to {SHARE:.0%} of what {theirs.label.iloc[0]} ends with, {own.seconds.mean() / theirs.seconds.mean():.1f} "
            "times its seconds for all epochs"
        )
    by_steps = ", ".join(
        f"{own.label.iloc[0]} {100 * own.final_top1.mean():.1f} %" for _, own in trained.groupby("variant", sort=False)
    )
    shown = "never" if math.isinf(rival) else f"{rival:.1f} epochs"
    return (
        f"**What it shows.** {theirs.label.iloc[0].capitalize()} reaches {100 * theirs.final_top1.mean():.1f} % ({shown} to "
        f"{SHARE:.0%} of it); centers trained by steps alone: {by_steps}. With the closed form, "
        + "; ".join(parts)
        + "."
    )
