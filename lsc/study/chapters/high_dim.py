"""Chapter 3: a vision transformer with predefined centers in high dimension, and how much slower it is."""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lsc.study import plots
from lsc.study.chapters.closed_form import end_of_curve
from lsc.study.selection import around, baseline, one_variant, pulled, reference, with_centers
from lsc.study.wording import compared, images_of, percent, range_of, seconds_differ, setting, upper, within

SHARES = (0.5, 0.9, 0.95)
NOTHING = "This study has no vision transformers in high dimension."


def by_accuracy(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs, those of the variant with the best mean accuracy first."""
    mean = runs.groupby("variant").final_top1.transform("mean")
    return runs.loc[mean.sort_values(ascending=False, kind="stable").index]


def readouts(runs: pd.DataFrame) -> pd.DataFrame:
    """The baseline and cosine centers, each with the shared read-out and then with those of other hidden layers."""
    kept = []
    for chosen in (baseline(runs), pulled(runs, "cosine")):
        others = around(runs, chosen, "encoder.hidden")
        kept += [chosen, others[~others.variant.isin(chosen.variant)]]
    return pd.concat(kept)


def systems(runs: pd.DataFrame) -> pd.DataFrame:
    """The cosine-pulled runs that differ in their centers alone, best first."""
    return by_accuracy(around(runs, pulled(runs, "cosine"), "centers"))


def in_latent_space(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs whose cosines to their centers are drawn: one variant per objective, and other read-outs of cosine centers."""
    shown = with_centers(pd.concat([readouts(runs), reference(runs)]))
    return shown.drop_duplicates(["variant", "seed"])


def draw_accuracy(metrics: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Accuracy against epochs and against seconds."""
    if runs.empty:
        return plots.nothing(NOTHING)
    shown = reference(runs)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8), sharey=True)
    plots.curves(left, metrics, shown)
    left.set(xlabel="epoch", ylim=(0, 1))
    plots.percent_axis(left, images_of(runs))
    for variant, style in plots.line_styles(shown).items():
        rows = metrics[metrics.variant == variant].dropna(subset=["top1"]).groupby("epoch")[["seconds", "top1"]].mean()
        right.plot(rows.seconds, rows.top1, **style)
    right.set(xlabel="seconds of training", ylabel="")
    plots.legend_below(figure, [left], 5)
    return figure


def time_to_accuracy(metrics: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Epochs and seconds until top-1 first reaches shares of what the curve of the baseline with the same read-out ends with.

    Columns: variant, and for each share epochs and seconds, means and ranges of the seeds as text; "—" where a seed never does.
    """
    table = []
    for variant, own in by_accuracy(runs).groupby("variant", sort=False):
        goal = end_of_curve(metrics, _rival(runs, own))
        curve = metrics[metrics.variant == variant].dropna(subset=["top1"])
        row = {"variant": own.shown.iloc[0]}
        for share in SHARES:
            there = curve[curve.top1 >= share * goal].groupby("seed")[["epoch", "seconds"]].min()
            all_there = len(there) == curve.seed.nunique()
            for column, shown in (("epoch", "epochs"), ("seconds", "seconds")):
                row[f"{shown} to {share:.0%}"] = range_of(there[column]) if all_there else "—"
        table.append(row)
    return pd.DataFrame(table)


def _rival(runs: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    """The baseline with the same read-out as ``own``, or its reference variant if there is none."""
    theirs = baseline(runs)
    others = around(runs, theirs, "encoder.hidden")
    same = one_variant(others[_hidden(others) == _hidden(own).iloc[0]])
    return theirs if same.empty else same


def _hidden(runs: pd.DataFrame) -> pd.Series:
    """Width of the read-out's hidden layer, 0 where it has none."""
    return runs.hidden.astype(float).fillna(0)


def draw_choices(metrics: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Linear and wide read-out; systems, dimension and assignment."""
    if runs.empty:
        return plots.nothing(NOTHING)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8), sharey=True)
    plots.curves(left, metrics, readouts(runs))
    left.set(xlabel="epoch", title="Linear and wide read-out", ylim=(0, 1))
    plots.percent_axis(left, images_of(runs))
    plots.curves(right, metrics, systems(runs))
    right.set(xlabel="epoch", title="Systems, dimension, assignment")
    plots.legends_below(figure, [left, right])
    return figure


def draw_cosines(metrics: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Cosine of the embeddings to their own and to the nearest other center."""
    if runs.empty:
        return plots.nothing(NOTHING)
    figure, axes = plt.subplots(figsize=(5.6, 3.8))
    seen: list[str] = []
    for variant, rows in in_latent_space(runs).groupby("variant", sort=False):
        color = plots.shade(rows.color.iloc[0], seen.count(rows.objective.iloc[0]))
        seen.append(rows.objective.iloc[0])
        rows_of = metrics[metrics.variant == variant]
        plots.band(axes, rows_of, "epoch", "own_cosine", color=color, label=rows.shown.iloc[0])
        plots.band(axes, rows_of, "epoch", "other_cosine", color=color, linestyle="--")
    words = f"cosine of {images_of(runs)} embeddings\nto the own center (solid)\nand to the nearest other (dashed)"
    axes.set(xlabel="epoch", ylabel=words)
    axes.locator_params(axis="x", integer=True)
    plots.legend_below(figure, [axes], 3)
    return figure


def in_short(runs: pd.DataFrame, coordinates: str) -> str:
    """Cosine centers beside the baseline, with each read-out, and the Euclidean loss; ``coordinates`` where there are no runs."""
    parts = [
        f"{percent(own)} against {percent(rival)}{within(own, rival)} with {_readout(own)}"
        for _, own in _cosine_readouts(runs)
        if not (rival := _same_readout(runs, own)).empty
    ]
    if runs.empty:
        return coordinates or NOTHING
    if not parts:
        return "There is no baseline to compare with."
    ours, theirs = pulled(runs, "cosine"), baseline(runs)
    text = f"{upper(ours.label.iloc[0])} centers against {theirs.label.iloc[0]}: {'; '.join(parts)}."
    euclidean = pulled(runs, "euclidean")
    if euclidean.empty:
        return text
    return f"{text} The {euclidean.label.iloc[0]} loss reaches {percent(euclidean)}."


def _cosine_readouts(runs: pd.DataFrame) -> Any:
    shown = readouts(runs)
    return shown[shown.pulls_by == "cosine"].groupby("variant", sort=False)


def _same_readout(runs: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    """The baseline with the same read-out, none if there is none."""
    rival = _rival(runs, own)
    return rival if len(rival) and _hidden(rival).iloc[0] == _hidden(own).iloc[0] else rival.iloc[:0]


def _readout(own: pd.DataFrame) -> str:
    return "a hidden layer before the latent space" if _hidden(own).iloc[0] else "a linear read-out"


def findings(runs: pd.DataFrame) -> str:
    """What cosine centers reach beside the baseline, with each read-out, in few dimensions, and the best of all."""
    ours, sentences = pulled(runs, "cosine"), []
    for variant, own in _cosine_readouts(runs):
        rival = _same_readout(runs, own)
        if rival.empty:
            continue
        first = f"{own.label.iloc[0]} centers reach {percent(own)} where {rival.label.iloc[0]} reaches {percent(rival)}"
        then = f"they reach {percent(own)} and {percent(rival)}"
        same = f" and the same {int(own.dim.iloc[0])} dimensions," if variant in set(ours.variant) else ""
        sentences.append(f"With {_readout(own)}{same} {first if same else then}: {compared(own, rival)}.")
    for _, rows in around(runs, ours, "centers.dim").groupby("variant", sort=False):
        if not set(rows.variant) & set(ours.variant):
            sentences.append(f"In {rows.dim.iloc[0]} dimensions, they reach {percent(rows)}.")
    others = around(runs, ours, "centers.system", "centers.assignment")
    parts = [
        f"{', '.join(setting(key, value) for key, value in rows.changes.iloc[0].items())} {percent(rows)}"
        for _, rows in by_accuracy(others[~others.variant.isin(ours.variant)]).groupby("variant", sort=False)
    ]
    if parts:
        sentences.append(f"Other systems and assignments reach: {', '.join(parts)}.")
    euclidean, theirs = pulled(runs, "euclidean"), baseline(runs)
    if not euclidean.empty:
        beside = (
            ""
            if theirs.empty
            else f" where {theirs.label.iloc[0]} reaches {percent(theirs)}: {compared(euclidean, theirs)}"
        )
        sentences.append(f"The {euclidean.label.iloc[0]} loss reaches {percent(euclidean)}{beside}.")
    best = one_variant(by_accuracy(with_centers(runs)))
    if not best.empty:
        sentences.append(f"The best variant with centers is {best.shown.iloc[0]} with {percent(best)}.")
    return " ".join(filter(None, [*sentences, seconds_differ(runs)]))
