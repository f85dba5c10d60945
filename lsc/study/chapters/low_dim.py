"""Chapter 2: predefined centers against cross-entropy in low latent dimension."""

from collections.abc import Iterator
from typing import Any

import matplotlib.patheffects as effects
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lsc.study import plots
from lsc.study.selection import around, baseline, ordered, pulled, reference
from lsc.study.tables import Records
from lsc.study.wording import compared, images_of, listed, percent, points, upper, within
from lsc.training.records import EMBEDDINGS

NOTHING = "This study has no runs in low dimension."


def perturbed(runs: pd.DataFrame) -> pd.DataFrame:
    """The cosine-pulled runs that differ in the perturbation of their centers alone, least perturbed first."""
    return around(runs, pulled(runs, "cosine"), "centers.perturbation").sort_values("perturbation", kind="stable")


def by_dimension(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of the baseline and of cosine centers that differ in the latent dimension and so in the system alone."""
    return pd.concat([_a_variant_each(runs, chosen) for chosen in (baseline(runs), pulled(runs, "cosine"))])


def _a_variant_each(runs: pd.DataFrame, chosen: pd.DataFrame) -> pd.DataFrame:
    """Of the runs around the ``chosen`` ones, those of one variant in each dimension: the chosen one, or else the first."""
    found = around(runs, chosen, "centers.dim", "centers.system")
    own = found.variant.isin(chosen.variant)
    kept = pd.concat([found[own], found[~own]]).drop_duplicates("dim").variant
    return found[found.variant.isin(kept)]


def of_dimension(runs: pd.DataFrame, dim: int) -> pd.DataFrame:
    """The runs of the baseline and of cosine centers whose embeddings have ``dim`` coordinates, one of each variant."""
    shown = pd.concat([baseline(runs), pulled(runs, "cosine")])
    found = runs[(runs.dim == dim) & runs.objective.isin(shown.objective) & (runs.seed == runs.seed.min())]
    return ordered(found)


def draw_accuracy(metrics: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Accuracy against epoch: objectives of one latent dimension, and perturbed centers."""
    if runs.empty:
        return plots.nothing(NOTHING)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8), sharey=True)
    plots.curves(left, metrics, reference(runs))
    left.set(xlabel="epoch", title="Objectives")
    plots.curves(right, metrics, perturbed(runs))
    right.set(xlabel="epoch", title="Perturbed centers")
    plots.error_axis(left, images_of(runs))
    plots.legends_below(figure, [left, right])
    return figure


def in_short(runs: pd.DataFrame) -> str:
    """Where cosine centers are ahead of the baseline and where behind, by dimension."""
    if runs.empty:
        return NOTHING
    places: dict[str, list[str]] = {"ahead of": [], "behind": [], "level with": []}
    for dim, ours, theirs in _pairs(runs):
        gap = ours.final_top1.mean() - theirs.final_top1.mean()
        where = "level with" if points(ours, theirs) == "level" else "ahead of" if gap > 0 else "behind"
        seeds = "" if where == "level with" or not within(ours, theirs) else ", within the range of the seeds"
        places[where].append(f"{dim} ({percent(ours)} against {percent(theirs)}{seeds})")
    parts = [f"{where} it in {listed(dims)} dimensions" for where, dims in places.items() if dims]
    if not parts:
        return "There is no baseline to compare with."
    rival = baseline(runs).label.iloc[0]
    return f"Encoders train to cosine centers; compared with {rival} they are {listed(parts)}."


def _pairs(runs: pd.DataFrame) -> Iterator[tuple[int, pd.DataFrame, pd.DataFrame]]:
    """Cosine centers and the baseline in each dimension in which there are both, on the same classes."""
    table = by_dimension(runs)
    for dim in sorted(table.dim.unique()):
        rows = table[table.dim == dim]
        ours, theirs = rows[rows.pulls_by == "cosine"], rows[rows.role == "baseline"]
        if len(ours) and len(theirs):
            yield int(dim), ours, theirs


def gaps(runs: pd.DataFrame) -> str:
    """Sentences on how far each objective is from the baseline in the same dimension, then by dimension, then perturbed."""
    if runs.empty:
        return ""
    shown, theirs = reference(runs), baseline(runs)
    seeds = runs.groupby("variant").size().min()
    fewest = (
        f"With {seeds} seed{'' if seeds == 1 else 's'}, differences smaller than the ranges of the seeds prove nothing."
    )
    if theirs.empty:
        return f"There is no baseline to compare with. {fewest}"
    sentences = [
        f"In the same dimension, {int(theirs.dim.iloc[0])}, {theirs.label.iloc[0]} reaches {percent(theirs, 2)}."
    ]
    for _, rows in shown[shown.role != "baseline"].groupby("objective", sort=False):
        sentences.append(f"{upper(rows.label.iloc[0])} is {compared(rows, theirs, 2)}.")
    return " ".join([*sentences, *_of_dimensions(runs), *_of_perturbation(runs), fewest])


def _of_dimensions(runs: pd.DataFrame) -> Iterator[str]:
    parts = [
        f"in {dim} dimensions {percent(ours)} against {percent(theirs)}, {compared(ours, theirs)}"
        for dim, ours, theirs in _pairs(runs)
    ]
    if parts:
        ours, theirs = pulled(runs, "cosine").label.iloc[0], baseline(runs).label.iloc[0]
        yield f"By dimension, {ours} centers against {theirs}: {'; '.join(parts)}."


def _of_perturbation(runs: pd.DataFrame) -> Iterator[str]:
    moved, still = perturbed(runs), pulled(runs, "cosine")
    parts = [
        f"by {size:g} of their length, {percent(rows)}, {compared(rows, still)}"
        for size, rows in moved[moved.perturbation > 0].groupby("perturbation")
    ]
    if parts:
        yield f"With perturbed centers, against unperturbed ones at {percent(still)}: {'; '.join(parts)}."


def draw_by_dimension(runs: pd.DataFrame) -> Figure:
    """Final accuracy against the latent dimension."""
    table = by_dimension(runs)
    if table.empty:
        return plots.nothing("This study has no cosine centers and no cross-entropy whose dimension could be compared.")
    figure, axes = plt.subplots(figsize=(5.2, 3.8))
    for _, rows in table.groupby("objective", sort=False):
        look = {"color": rows.color.iloc[0], "label": rows.label.iloc[0]}
        plots.band(axes, rows, "dim", "final_top1", marker="o", **look)
    axes.set_xscale("log", base=2)
    ticks = sorted(table.dim.unique())
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("latent dimension")
    axes.set_ylim(min(0.8, table.final_top1.min()), max(0.998, table.final_top1.max()))
    plots.error_axis(axes, images_of(runs, "final_on"))
    plots.legend_below(figure, [axes])
    return figure


def sample(records: Records, run: Any) -> dict[str, np.ndarray]:
    """The embeddings that a run kept, with labels, predictions and, where there are any, centers."""
    folder = records.folder(f"{run.experiment}/{run.variant}/seed_{run.seed}")
    with np.load(folder / EMBEDDINGS) as arrays:
        return dict(arrays)


def draw_plane(records: Records, runs: pd.DataFrame) -> Figure:
    """Embeddings of two coordinates around their centers, one panel per variant."""
    chosen = list(of_dimension(runs, 2).itertuples())
    if not chosen:
        return plots.nothing("This study has no runs in two dimensions.")
    figure, panels = plt.subplots(1, len(chosen), figsize=(4.6 * len(chosen), 4.6), squeeze=False)
    for axes, run in zip(panels[0], chosen, strict=True):
        _plane(axes, sample(records, run))
        axes.set_title(run.shown)
    return figure


def draw_space(records: Records, runs: pd.DataFrame) -> Figure:
    """Directions of embeddings of three coordinates around their centers, one panel per variant."""
    chosen = list(of_dimension(runs, 3).itertuples())
    if not chosen:
        return plots.nothing("This study has no runs in three dimensions.")
    figure = plt.figure(figsize=(4.6 * len(chosen), 4.8))
    for position, run in enumerate(chosen, start=1):
        axes = figure.add_subplot(1, len(chosen), position, projection="3d")
        _space(axes, sample(records, run))
        axes.set_title(run.shown)
    return figure


def draw_confusion(records: Records, runs: pd.DataFrame) -> Figure:
    """Which classes are taken for which, for the baseline and for cosine centers."""
    both = pd.concat([baseline(runs), pulled(runs, "cosine")])
    chosen = list(both.drop_duplicates("variant").itertuples())
    if not chosen:
        return plots.nothing(
            "This study has neither cross-entropy nor cosine centers, whose confusions could be shown."
        )
    figure, panels = plt.subplots(1, len(chosen), figsize=(4.6 * len(chosen), 4.4), squeeze=False)
    for axes, run in zip(panels[0], chosen, strict=True):
        arrays = sample(records, run)
        names = [str(label) for label in range(arrays["labels"].max() + 1)]
        plots.confusion(axes, arrays["labels"], arrays["predictions"], names)
        axes.set_title(run.shown)
    return figure


def _plane(axes: Axes, arrays: dict[str, np.ndarray]) -> None:
    points, labels, centers = arrays["embeddings"], arrays["labels"], arrays.get("centers")
    limit = float(np.quantile(np.abs(points), 0.995) * 1.15)
    for label in range(labels.max() + 1):
        color, of_class = plots.CLASS_COLORS[label % 10], points[labels == label]
        axes.scatter(of_class[:, 0], of_class[:, 1], s=6, color=color, alpha=0.7, lw=0)
        if centers is None:
            _name(axes, np.median(of_class, axis=0), label)
            continue
        direction = centers[label] / np.linalg.norm(centers[label])
        axes.plot(*zip((0, 0), direction * limit, strict=True), color=color, lw=0.8)
        _name(axes, direction * limit * 1.07, label)
    axes.set(xlim=(-1.2 * limit, 1.2 * limit), ylim=(-1.2 * limit, 1.2 * limit), xlabel="$z_1$", ylabel="$z_2$")
    axes.set_aspect("equal")


def _space(axes: Any, arrays: dict[str, np.ndarray]) -> None:
    points, labels, centers = arrays["embeddings"], arrays["labels"], arrays.get("centers")
    # Directions are what the cosine sees: the points are drawn on the unit sphere.
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    for label in range(labels.max() + 1):
        color, of_class = plots.CLASS_COLORS[label % 10], points[labels == label]
        axes.scatter(*of_class.T, s=8, color=color, alpha=0.6, lw=0)
        if centers is None:
            middle = np.median(of_class, axis=0)
            _name(axes, 1.2 * middle / np.linalg.norm(middle), label)
            continue
        direction = centers[label] / np.linalg.norm(centers[label])
        axes.plot(*zip((0, 0, 0), direction, strict=True), color=color, lw=1)
        _name(axes, 1.2 * direction, label)
    axes.set(xlabel="$z_1$", ylabel="$z_2$", zlabel="$z_3$", xticks=[-1, 0, 1], yticks=[-1, 0, 1], zticks=[-1, 0, 1])
    axes.set_box_aspect((1, 1, 1))
    axes.view_init(elev=24, azim=38)


def _name(axes: Any, place: np.ndarray, label: int) -> None:
    """A class's digit in its colour, readable over its points."""
    halo = [effects.withStroke(linewidth=2.5, foreground="white")]
    look = {"color": plots.CLASS_COLORS[label % 10], "fontweight": "bold", "path_effects": halo}
    axes.text(*place, str(label), ha="center", va="center", zorder=5, **look)
