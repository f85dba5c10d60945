"""Chapter 2: predefined centers against cross-entropy in low latent dimension."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lsc.study import plots
from lsc.study.selection import around, baseline, ordered, pulled, reference
from lsc.study.tables import Records
from lsc.training.records import EMBEDDINGS


def perturbed(runs: pd.DataFrame) -> pd.DataFrame:
    """The cosine-pulled runs that differ in the perturbation of their centers alone, least perturbed first."""
    return around(runs, pulled(runs, "cosine"), "centers.perturbation").sort_values("perturbation", kind="stable")


def by_dimension(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of the baseline and of cosine centers that differ in the latent dimension and so in the system alone."""
    both = baseline(runs), pulled(runs, "cosine")
    return pd.concat([around(runs, chosen, "centers.dim", "centers.system") for chosen in both])


def of_dimension(runs: pd.DataFrame, dim: int) -> pd.DataFrame:
    """The runs of the baseline and of cosine centers whose embeddings have ``dim`` coordinates, one of each variant."""
    shown = pd.concat([baseline(runs), pulled(runs, "cosine")])
    found = runs[(runs.dim == dim) & runs.objective.isin(shown.objective) & (runs.seed == runs.seed.min())]
    return ordered(found)


def draw_accuracy(metrics: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Test error against epoch: objectives of one latent dimension, and perturbed centers."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8), sharey=True)
    plots.curves(left, metrics, reference(runs))
    left.set(xlabel="epoch", title="Objectives")
    plots.curves(right, metrics, perturbed(runs))
    right.set(xlabel="epoch", title="Perturbed centers")
    plots.error_axis(left)
    return figure


def gaps(runs: pd.DataFrame) -> str:
    """Sentences on how far each objective is from the baseline in the same dimension."""
    shown, theirs = reference(runs), baseline(runs)
    fewest = f"With {runs.groupby('variant').size().min()} seeds, differences as small as the bands say little."
    if theirs.empty:
        return f"**What it shows.** There is no baseline to compare with. {fewest}"
    best = 100 * theirs.final_top1.mean()
    sentences = [f"In the same dimension {theirs.label.iloc[0]} reaches {best:.2f} %."]
    for _, rows in shown[shown.role != "baseline"].groupby("objective", sort=False):
        gap, label = best - 100 * rows.final_top1.mean(), rows.label.iloc[0]
        sentences.append(f"{label[0].upper()}{label[1:]} is {abs(gap):.2f} points {'behind' if gap > 0 else 'ahead'}.")
    return " ".join(["**What it shows.**", *sentences, fewest])


def draw_by_dimension(runs: pd.DataFrame) -> Figure:
    """Final test error against the latent dimension."""
    figure, axes = plt.subplots(figsize=(5.2, 3.8))
    table = by_dimension(runs)
    for _, rows in table.groupby("objective", sort=False):
        look = {"color": rows.color.iloc[0], "label": rows.label.iloc[0]}
        plots.band(axes, rows, "dim", "final_top1", marker="o", **look)
    axes.set_xscale("log", base=2)
    ticks = sorted(table.dim.unique())
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="latent dimension", ylim=(0.8, 0.998))
    plots.error_axis(axes)
    axes.legend()
    return figure


def sample(records: Records, run: Any) -> dict[str, np.ndarray]:
    """The embeddings that a run kept, with labels, predictions and, where there are any, centers."""
    folder = records.folder(f"{run.experiment}/{run.variant}/seed_{run.seed}")
    with np.load(folder / EMBEDDINGS) as arrays:
        return dict(arrays)


def draw_plane(records: Records, runs: pd.DataFrame) -> Figure:
    """Embeddings of two coordinates around their centers, one panel per variant."""
    chosen = list(of_dimension(runs, 2).itertuples())
    figure, panels = plt.subplots(1, max(len(chosen), 1), figsize=(4.6 * max(len(chosen), 1), 4.6), squeeze=False)
    for axes, run in zip(panels[0], chosen, strict=False):
        _plane(axes, sample(records, run))
        axes.set_title(run.shown)
    return figure


def draw_space(records: Records, runs: pd.DataFrame) -> Figure:
    """Directions of embeddings of three coordinates around their centers, one panel per variant."""
    chosen = list(of_dimension(runs, 3).itertuples())
    figure = plt.figure(figsize=(4.6 * max(len(chosen), 1), 4.8))
    for position, run in enumerate(chosen, start=1):
        axes = figure.add_subplot(1, len(chosen), position, projection="3d")
        _space(axes, sample(records, run))
        axes.set_title(run.shown)
    return figure


def draw_confusion(records: Records, runs: pd.DataFrame) -> Figure:
    """Which classes are taken for which, for the baseline and for cosine centers."""
    both = pd.concat([baseline(runs), pulled(runs, "cosine")])
    chosen = list(both.drop_duplicates("variant").itertuples())
    figure, panels = plt.subplots(1, max(len(chosen), 1), figsize=(4.6 * max(len(chosen), 1), 4.4), squeeze=False)
    for axes, run in zip(panels[0], chosen, strict=False):
        arrays = sample(records, run)
        names = [str(label) for label in range(arrays["labels"].max() + 1)]
        plots.confusion(axes, arrays["labels"], arrays["predictions"], names)
        axes.set_title(run.shown)
    return figure


def _plane(axes: Axes, arrays: dict[str, np.ndarray]) -> None:
    points, labels, centers = arrays["embeddings"], arrays["labels"], arrays.get("centers")
    limit = float(np.quantile(np.abs(points), 0.995) * 1.15)
    for label in range(labels.max() + 1):
        color = plots.CLASS_COLORS[label % 10]
        x, y = points[labels == label].T
        axes.scatter(x, y, s=6, color=color, alpha=0.7, lw=0)
        if centers is not None:
            direction = centers[label] / np.linalg.norm(centers[label])
            axes.plot(*zip((0, 0), direction * limit, strict=True), color=color, lw=0.8)
            x, y = direction * limit * 1.07
            axes.text(x, y, str(label), color=color, ha="center", va="center", fontweight="bold")
    axes.set(xlim=(-1.2 * limit, 1.2 * limit), ylim=(-1.2 * limit, 1.2 * limit), xlabel="$z_1$", ylabel="$z_2$")
    axes.set_aspect("equal")


def _space(axes: Any, arrays: dict[str, np.ndarray]) -> None:
    points, labels, centers = arrays["embeddings"], arrays["labels"], arrays.get("centers")
    # Directions are what the cosine sees: the points are drawn on the unit sphere.
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    for label in range(labels.max() + 1):
        color = plots.CLASS_COLORS[label % 10]
        axes.scatter(*points[labels == label].T, s=8, color=color, alpha=0.6, lw=0)
        if centers is not None:
            direction = centers[label] / np.linalg.norm(centers[label])
            axes.plot(*zip((0, 0, 0), direction, strict=True), color=color, lw=1)
            axes.text(*(1.2 * direction), str(label), color=color, ha="center", fontweight="bold")
    axes.set(xlabel="$z_1$", ylabel="$z_2$", zlabel="$z_3$", xticks=[-1, 0, 1], yticks=[-1, 0, 1], zticks=[-1, 0, 1])
    axes.set_box_aspect((1, 1, 1))
    axes.view_init(elev=24, azim=38)
