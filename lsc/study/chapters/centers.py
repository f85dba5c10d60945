"""Chapter 1: the vector systems themselves, from closed forms."""

from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lsc.centers import Centers
from lsc.study import analysis, plots
from lsc.systems import OrbitSystem

SYSTEM_COLORS = {
    "V11": plots.BLUE,
    "V21": plots.ORANGE,
    "V22": plots.GREEN,
    "V33": plots.RED,
    "simplex": plots.BLACK,
    "orthoplex": plots.PINK,
}
ORBITS = {"V11": (1, 1), "V21": (2, 1), "V22": (2, 2), "V33": (3, 3)}
# The number of images of ImageNet-1K, the largest number of classes that the paper speaks of.
MILLION = 1_281_167


def draw_roots_of_a2() -> Figure:
    """The six roots of A_2 on their plane in space."""
    roots = OrbitSystem(1, 1, 3)
    figure = plt.figure(figsize=(5, 4.6))
    axes = figure.add_subplot(projection="3d", computed_zorder=False)
    corners = np.array([[-1.5, 0, 1.5], [0, -1.5, 1.5], [1.5, -1.5, 0], [1.5, 0, -1.5], [0, 1.5, -1.5], [-1.5, 1.5, 0]])
    triangles = [[0, i, i + 1] for i in range(1, 5)]
    axes.plot_trisurf(*corners.T, triangles=triangles, color=plots.SKY, alpha=0.18, lw=0, zorder=0)
    for vector in roots.vectors(torch.arange(roots.capacity)).numpy():
        axes.plot(*zip((0, 0, 0), vector, strict=True), color=plots.BLUE, lw=2)
        axes.scatter(*vector, color=plots.BLUE, s=25)
        name = "(" + ", ".join(f"{x:.0f}".replace("-", "−") for x in vector) + ")"
        axes.text(*(1.32 * vector), name, ha="center", va="center", fontsize=8)
    axes.set(xlabel="$z_1$", ylabel="$z_2$", zlabel="$z_3$", xticks=[-1, 0, 1], yticks=[-1, 0, 1], zticks=[-1, 0, 1])
    axes.set_box_aspect((1, 1, 1))
    axes.view_init(elev=28, azim=35)
    return figure


def draw_capacity(capacities: pd.DataFrame, least: pd.DataFrame) -> Figure:
    """Vectors by dimension, and the least dimension by classes.

    Args:
        capacities: of :func:`lsc.study.analysis.capacity_table`.
        least: of :func:`lsc.study.analysis.least_dimension_table`.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8))
    _lines(left, capacities, "dim", "capacity")
    left.set(xscale="log", yscale="log", xlabel="dimension", ylabel="vectors", ylim=(3, 1e12))
    left.axhline(MILLION, color="#888888", ls=":")
    left.legend()
    _lines(right, least, "classes", "dim", marker="o", ms=3)
    right.set(xscale="log", yscale="log", xlabel="classes", ylabel="least dimension", ylim=(3, 5e4))
    right.axvline(MILLION, color="#888888", ls=":")
    return figure


def size_at_a_million(least: pd.DataFrame) -> str:
    """A sentence on the dimension and the bytes of 1,281,167 centers that are roots."""
    row = least[(least.classes == MILLION) & (least.system == "V11")].iloc[0]
    return (
        f"At {MILLION:,} classes the roots need {row.dim:,} coordinates. Kept as a matrix the centers would take "
        f"{row.dense_bytes / 1e9:.1f} GB; as one index per class {row.index_bytes / 1e6:.0f} MB; with a keyed permutation "
        "nothing at all."
    )


def draw_spectra(dim: int) -> Figure:
    """The share of the other vectors at each cosine to a given one."""
    spectra = analysis.spectrum_table([OrbitSystem(*orbit, dim) for orbit in ORBITS.values()])
    figure, axes = plt.subplots(figsize=(6, 3.6))
    offsets = (-0.012, -0.004, 0.004, 0.012)
    for offset, (system, rows) in zip(offsets, spectra.groupby("system", sort=False), strict=True):
        color = SYSTEM_COLORS[str(system)]
        axes.vlines(rows.cosine + offset, 1e-10, rows.share.astype(float), color=color, lw=2, label=str(system))
        axes.scatter(rows.cosine + offset, rows.share.astype(float), color=color, s=14)
    axes.set(yscale="log", ylim=(1e-9, 2), xlabel="cosine to a given vector", ylabel="share of the other vectors")
    axes.legend(loc="upper left")
    return figure


def draw_angles(angles: pd.DataFrame, systems: Iterable[str] = ("V11", "V21", "V22")) -> Figure:
    """The smallest angle of each system (:func:`lsc.study.analysis.min_angle_table`) beside the best possible."""
    systems = list(systems)
    figure, panels = plt.subplots(1, len(systems), figsize=(3.5 * len(systems), 3.4), sharey=True)
    for axes, system in zip(panels, systems, strict=True):
        rows = angles[angles.system == system]
        dims, bound = rows.dim.astype(float), rows.levenshtein_bound.astype(float)
        axes.fill_between(dims, bound, 100, color="#eeeeee", label="impossible")
        axes.plot(rows.dim, rows.min_angle.astype(float), color=SYSTEM_COLORS[system], marker="o", ms=3, label=system)
        axes.plot(rows.dim, rows.random.astype(float), color="#888888", ls=":", label="random directions")
        axes.set(xscale="log", xlabel="dimension", ylim=(0, 95), title=system)
        axes.legend(fontsize=8, loc="lower right")
    panels[0].set_ylabel("smallest angle (degrees)")
    return figure


def draw_perturbation(dim: int, classes: int, systems: Iterable[str] = ("V11", "V21", "V22")) -> Figure:
    """The smallest angle between perturbed centers, and the error under noise, measured and by the union bound."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8))
    for system in systems:
        _perturbed_angles(left, system, dim, classes)
        for size, marker in ((0.0, "o"), (0.3, "^")):
            _errors_under_noise(right, system, dim, classes, size, marker)
    left.set(xlabel="perturbation, relative to the center's norm", ylabel="smallest angle (degrees)", ylim=(0, None))
    left.legend()
    right.set(yscale="log", xlabel="noise per coordinate, relative to the center's norm", ylim=(2e-4, 2))
    right.set_ylabel("nearest-center error")
    right.legend(fontsize=8)
    return figure


def _perturbed_angles(axes: Axes, system: str, dim: int, classes: int) -> None:
    sizes = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
    rows = analysis.perturbation_table(OrbitSystem(*ORBITS[system], dim), classes, sizes, seeds=(0, 1, 2))
    plots.band(axes, rows, "perturbation", "smallest", color=SYSTEM_COLORS[system], marker="o", ms=3, label=system)


def _errors_under_noise(axes: Axes, system: str, dim: int, classes: int, size: float, marker: str) -> None:
    centers = Centers(OrbitSystem(*ORBITS[system], dim), classes, perturbation=size)
    rows = analysis.noise_error_table([centers], (0.12, 0.15, 0.18, 0.22, 0.27, 0.33, 0.4), samples=2048)
    color, label = SYSTEM_COLORS[system], f"{system}, perturbed by {size:g}" if size else system
    if not size:
        axes.plot(rows.noise, rows.union_bound, color=color, lw=1)
    axes.scatter(rows.noise, rows.error.clip(lower=1e-4), color=color, marker=marker, s=22, label=label)


def _lines(axes: Axes, table: pd.DataFrame, x: str, y: str, **style: object) -> None:
    for system, rows in table.groupby("system", sort=False):
        color = SYSTEM_COLORS[str(system)]
        axes.plot(rows[x].astype(float), rows[y].astype(float), color=color, label=system, **style)  # type: ignore[arg-type]
