"""Chapter 6: classes that arrive group after group."""

import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lsc.study import plots
from lsc.study.selection import twin


def in_order(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs by the label of their objective, then by name."""
    return runs.sort_values(["label", "variant", "seed"], key=lambda c: c.str.lower() if c.name == "label" else c)


def ends(metrics: pd.DataFrame) -> pd.DataFrame:
    """The state of every run at the end of each phase."""
    known = metrics.dropna(subset=["top1"]).sort_values("step")
    return known.groupby(["variant", "seed", "phase"], sort=False).tail(1)


def draw_accuracy(states: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Accuracy on all classes seen so far. ``states`` are those of :func:`ends`."""
    figure, axes = plt.subplots(figsize=(6.2, 4))
    for variant, style in plots.line_styles(in_order(runs)).items():
        plots.band(axes, states[states.variant == variant], "classes_seen", "top1", marker="o", ms=3, **style)
    axes.set(xlabel="classes seen so far", ylabel="test top-1 on all of them", ylim=(0, 1.02))
    axes.set_xticks(sorted(states.classes_seen.unique()))
    axes.legend(fontsize=8)
    return figure


def draw_novelty(states: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """How well images of classes yet to come are told from known ones."""
    figure, axes = plt.subplots(figsize=(6.2, 3.6))
    for variant, style in plots.line_styles(in_order(runs)).items():
        plots.band(axes, states[states.variant == variant], "classes_seen", "novelty_auroc", marker="o", ms=3, **style)
    axes.axhline(0.5, color="#888888", ls=":")
    axes.set(xlabel="classes known", ylabel="AUROC, known against new classes", ylim=(0.4, 1.02))
    if "novelty_auroc" in states:
        axes.set_xticks(sorted(states.dropna(subset=["novelty_auroc"]).classes_seen.unique()))
    axes.legend(fontsize=8)
    return figure


def forgetting(states: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """A line per variant, means over its seeds: final accuracy, forgetting, and how new classes are noticed.

    Forgetting is a group's accuracy when it had just been learned minus that at the end, averaged over all groups but
    the last.
    """
    each = pd.DataFrame(_of_run(phases) for _, phases in states.groupby(["variant", "seed"]))
    order = list(dict.fromkeys(in_order(runs).variant))
    shown = dict(zip(runs.variant, runs.shown, strict=True))
    grouped = each.groupby("variant")
    table = grouped.mean(numeric_only=True).loc[order].reset_index()
    table.insert(1, "runs", grouped.size().loc[order].to_numpy())
    return table.assign(variant=table.variant.map(shown))


def _of_run(phases: pd.DataFrame) -> dict[str, Any]:
    phases = phases.sort_values("phase")
    groups = phases.group_top1.tolist()
    lost = [groups[group][group] - groups[-1][group] for group in range(len(groups) - 1)]

    def mean(column: str) -> float:
        return phases[column].mean() if column in phases else math.nan

    return {
        "variant": phases.variant.iloc[0],
        "final top-1 (%)": 100 * phases.top1.iloc[-1],
        "forgetting (points)": 100 * np.mean(lost),
        "new classes noticed (AUROC)": mean("novelty_auroc"),
        "vacant, new classes (%)": 100 * mean("vacant_new"),
        "vacant, known classes (%)": 100 * mean("vacant_known"),
    }


def findings(runs: pd.DataFrame) -> str:
    """Final accuracy on all classes of cosine centers against a growing layer, for each replay."""
    parts = []
    theirs = runs[runs.role == "baseline"]
    for _, own in in_order(runs[runs.pulls_by == "cosine"]).groupby("variant", sort=False):
        rival = twin(theirs, own.changes.iloc[0], "objective")
        if not rival.empty:
            parts.append(
                f"{_protocol(own.replay.iloc[0])}{_readout(own)} {100 * own.final_top1.mean():.1f} % against "
                f"{100 * rival.final_top1.mean():.1f} %"
            )
    compared = (
        " Final accuracy on all classes, cosine centers against a growing classification layer: "
        f"{'; '.join(parts)}. Predefined centers spare the network its growth; by themselves they do not keep it from "
        "forgetting."
    )
    return f"**What it shows.**{compared if parts else ''}{_by_sums(runs)}"


def _readout(runs: pd.DataFrame) -> str:
    hidden = runs.hidden.iloc[0]
    return "" if pd.isna(hidden) else f" with {int(hidden):,} hidden activations"


def _by_sums(runs: pd.DataFrame) -> str:
    """A sentence on the runs whose read-out takes new groups in by sums; none if there are none."""
    sums = runs[runs.sums.astype(bool)]
    if sums.empty:
        return ""
    ends = [
        f"{100 * own.final_top1.mean():.1f} %{f' ({label})' if sums.label.nunique() > 1 else ''}"
        for label, own in sums.groupby("label", sort=False)
    ]
    return (
        f" Where the network stays as it is after the first group and the read-out takes the others in by sums, without an old "
        f"image and without a step, it ends with {', '.join(ends)} (docs/learning.md)."
    )


def _protocol(replay: float) -> str:
    return "joint" if math.isinf(replay) else f"replay {replay:.0f}"
