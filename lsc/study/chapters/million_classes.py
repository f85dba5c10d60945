"""Chapter 4: the same network for any number of classes."""

import math
from collections.abc import Iterator
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lsc.study import plots
from lsc.study.selection import alike, ordered, with_centers
from lsc.study.variants import without
from lsc.study.wording import images_of, listed, of_changes, percent, within

# What differs between runs of one method: the classes, and how long they are trained.
_SIZE = ("data", "training")


def with_methods(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs by number of classes, with a column method: objective and centers, whatever the number of classes.

    Settings of the objective are named where two methods would bear one name without them.
    """
    methods, full = _methods(runs, *_SIZE, "objective"), _methods(runs, *_SIZE)
    names = pd.DataFrame({"method": methods, "full": full}, index=runs.index)
    several = names.groupby("method").full.transform("nunique") > 1
    named = runs.assign(method=names.method.mask(several, names.full))
    return named.sort_values(["num_classes", "variant"])


def _methods(runs: pd.DataFrame, *left_out: str) -> list[str]:
    return [
        ", ".join([label, *of_changes(without(changes, *left_out))])
        for label, changes in zip(runs.label, runs.changes, strict=True)
    ]


def trained(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that are trainings, not stretches of steps."""
    return runs[~runs.stretch.astype(bool)]


def stretches(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that are stretches of steps (:func:`lsc.study.variants.is_stretch`)."""
    return runs[runs.stretch.astype(bool)]


def judged(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs whose nearest neighbours were judged."""
    return runs.dropna(subset=["neighbour_top1"]) if "neighbour_top1" in runs else runs.iloc[:0]


def plain(runs: pd.DataFrame) -> pd.DataFrame:
    """The trainings that are pulled by the cosine to centers with the shared settings."""
    chosen = alike(trained(runs), {}, *_SIZE)
    return chosen[chosen.pulls_by == "cosine"]


def protocol(runs: pd.DataFrame) -> str:
    """Sentences on what all runs share, what a stretch is and what transfer is judged on; empty where there are none."""
    if runs.empty:
        return ""
    places = {*zip(with_centers(runs).system, with_centers(runs).dim, strict=True)}
    which = "".join(f", {system} with {dim} coordinates," for system, dim in places) if len(places) == 1 else ""
    text = (
        f"Centers for every number of classes are vectors of one system in one dimension{which} so that the networks "
        "are identical. Accuracy is that among all classes of the run."
    )
    stretch, neighbours = stretches(runs), judged(runs)
    if len(stretch):
        text += (
            f" The run called a stretch is {int(stretch.steps.iloc[0])} steps among {int(stretch.num_classes.iloc[0]):,} "
            "classes: it shows time, memory and parameters, and is not a training to convergence."
        )
    if len(neighbours):
        text += (
            f" Transfer is the accuracy of {_nearest(neighbours)} among the embeddings of {neighbours.neighbour_on.iloc[0]} "
            f"({neighbours.neighbour_set.iloc[0]})."
        )
    return text


def _nearest(runs: pd.DataFrame) -> str:
    """The nearest neighbours that judge transfer, with their number: "the 5 nearest neighbours"."""
    counts = sorted({int(count) for count in runs.neighbours})
    return (
        "the nearest neighbour" if counts == [1] else f"the {listed(list(map(str, counts)), 'or')} nearest neighbours"
    )


def left_open(runs: pd.DataFrame) -> str:
    """What a stretch of steps leaves open; empty where there is none."""
    stretch = stretches(runs)
    if stretch.empty:
        return ""
    return f"Training {int(stretch.num_classes.max()):,} classes to convergence is no part of this study."


def overview(metrics: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """A line per run: parameters, accuracy among all classes, speed and memory."""
    if runs.empty:
        return pd.DataFrame(columns=["run"])
    speed = metrics.groupby(["variant", "seed"]).images_per_second.median()
    return pd.DataFrame(
        {
            "run": f"{run['method']}{', a stretch of steps' if run['stretch'] else ''}",
            "classes": run["num_classes"],
            "dim": run["dim"],
            "encoder parameters": run["encoder_parameters"],
            "objective parameters": run["objective_parameters"],
            "chance (%)": 100 / run["num_classes"],
            "accuracy (%)": 100 * run["final_top1"],
            "top-5 (%)": _percent(run.get("final_top5")),
            "neighbours (%)": _percent(run.get("neighbour_top1")),
            "k": run["neighbours"] or math.nan,
            "images/s": speed[run["variant"], run["seed"]],
            "peak memory (MiB)": run["peak_memory_mb"],
            "seed": run["seed"],
        }
        for run in runs.to_dict("records")
    )


def _percent(share: float | None) -> float:
    return math.nan if share is None else 100 * share


def draw_scaling(runs: pd.DataFrame) -> Figure:
    """Parameters and accuracy against the number of classes."""
    if runs.empty:
        return plots.nothing("This study has no runs for several numbers of classes.")
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8))
    counts = np.geomspace(10, 1_281_167, 60)
    rows_added = runs.encoder_parameters.iloc[0] + counts * (int(runs.dim.iloc[0]) + 1)
    left.plot(
        counts, rows_added, "--", color=plots.BLACK, lw=1, label="a vector and a bias for each class (arithmetic)"
    )
    shown = runs[runs.objective.isin(trained(runs).objective)]
    # Where one line hides another, the larger hollow marker beneath still shows.
    sizes = iter((11, 8, 5, 3, 3, 3, 3, 3))
    for (_, rows), marker in zip(ordered(shown).groupby("objective", sort=False), cycle("soD^")):
        total, size = rows.encoder_parameters + rows.objective_parameters, next(sizes, 3)
        look = {"color": rows.color.iloc[0], "label": rows.label.iloc[0], "marker": marker, "ms": size, "mfc": "none"}
        left.plot(rows.num_classes, total, lw=max(size / 4, 1), **look)
    left.set(xscale="log", yscale="log", xlabel="classes", ylabel="trained parameters")
    methods = trained(runs).sort_values("method", key=lambda method: method.str.lower(), kind="stable")
    styles = plots.line_styles(methods.assign(variant=methods.method, shown=methods.method))
    for marker, (method, style) in zip(cycle("oDs^vP*X"), styles.items(), strict=False):
        plots.band(right, methods[methods.method == method], "num_classes", "final_top1", marker=marker, **style)
    right.set(xscale="log", xlabel="classes", ylim=(0, 1))
    plots.percent_axis(right, images_of(runs, "final_on"))
    plots.legends_below(figure, [left, right])
    return figure


def draw_loss(metrics: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Training loss of cosine centers against images seen, a line per run."""
    if plain(runs).empty:
        return plots.nothing("This study has no cosine centers with the shared settings.")
    figure, axes = plt.subplots(figsize=(5.6, 3.6))
    chosen = plain(runs)
    for place, (count, of_size) in enumerate(chosen.groupby("num_classes")):
        rows = metrics[metrics.variant.isin(of_size.variant)]
        look = {"color": plots.shade(of_size.color.iloc[0], place), "marker": "osD^v"[place % 5], "ms": 4}
        plots.band(axes, rows, "examples", "train_loss", label=f"{count:,} classes", **look)
    axes.set(xlabel="training images seen", ylabel="training loss (1 − cosine)", ylim=(0, None))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    plots.legend_below(figure, [axes])
    return figure


def in_short(runs: pd.DataFrame, solved: str = "") -> str:
    """One network for all numbers of classes, and how accurate it is at the most of them; then ``solved``, if anything."""
    if runs.empty:
        return solved.strip()
    sizes = with_centers(runs)
    counts = listed([f"{count:,}" for count in sorted(sizes.num_classes.unique())])
    same = sizes.encoder_parameters.nunique() == 1
    if sizes.num_classes.nunique() < 2:
        text = f"There are runs of {counts} classes"
    else:
        text = f"{'One and the same network takes' if same else 'The networks differ among'} {counts} classes"
    if len(stretch := stretches(sizes)):
        text += f" ({stretch.num_classes.max():,} in a stretch of {int(stretch.steps.iloc[0])} steps, no training)"
    centers = plain(runs)
    if len(centers):
        largest = centers.num_classes.max()
        rival = trained(runs)
        rival = rival[(rival.num_classes == largest) & (rival.role == "baseline")]
        ours = centers[centers.num_classes == largest]
        beside = "" if rival.empty else f" where {rival.label.iloc[0]} reaches {percent(rival)}{within(ours, rival)}"
        text += f"; trained by steps, {ours.label.iloc[0]} centers reach {percent(ours)} among {largest:,}{beside}"
    return f"{text}.{solved}"


def findings(runs: pd.DataFrame) -> str:
    """Parameters, accuracy at the largest number of classes of cosine centers, transfer, and what a stretch shows."""
    if runs.empty:
        return ""
    same = runs.encoder_parameters.nunique() == 1
    sentences = [
        f"The encoder has {'the same' if same else 'NOT the same'} {runs.encoder_parameters.iloc[0]:,} "
        "parameters in every run.",
        *_at_the_largest(runs),
        *_transfer(runs),
    ]
    stretch = stretches(runs)
    if len(stretch):
        sentences.append(
            f"Among {int(stretch.num_classes.iloc[0]):,} classes a step trains nothing larger than the batch's own centers, "
            "and the evaluation names the nearest of all centers exactly."
        )
    return " ".join(sentences)


def _at_the_largest(runs: pd.DataFrame) -> Iterator[str]:
    centers = plain(runs)
    if centers.empty:
        return
    largest = centers.num_classes.max()
    ours = centers[centers.num_classes == largest]
    others = trained(runs)
    others = others[(others.num_classes == largest) & ~others.method.isin(centers.method)]
    others = others.sort_values("method", key=lambda method: method.str.lower(), kind="stable")
    parts = [f"{name} {percent(own)}{within(ours, own)}" for name, own in others.groupby("method", sort=False)]
    ours_text = f"At {int(largest):,} classes {ours.label.iloc[0]} centers reach {percent(ours)}"
    yield ", ".join([ours_text, *parts]) + "."


def _transfer(runs: pd.DataFrame) -> Iterator[str]:
    neighbours = judged(runs)
    if neighbours.empty:
        return
    parts = [
        f"{100 * run['neighbour_top1']:.1f} % ({run['method']}, {int(run['num_classes']):,} classes)"
        for run in trained(neighbours).to_dict("records")
    ]
    among = neighbours.neighbour_on.iloc[0]
    stretch = stretches(neighbours)
    if len(stretch):
        parts.append(f"{100 * stretch.neighbour_top1.mean():.1f} % after the stretch of steps")
    text = f"By {_nearest(neighbours)}, images of {among} are recognised: {', '.join(parts)}"
    yield f"{text}."
