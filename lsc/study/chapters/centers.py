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

# Of systems, and of no objective: dark to light as they hold more vectors; dashed what holds few.
SYSTEM_COLORS = {
    "V11": "#3b0f70",
    "V21": "#8c2981",
    "V22": "#de4968",
    "V33": "#fe9f6d",
    "simplex": "#777777",
    "orthoplex": "#b0b0b0",
}
_DASHED = {"simplex": "--", "orthoplex": ":"}
_MARKERS = {"V11": "o", "V21": "s", "V22": "^", "V33": "D", "simplex": "v", "orthoplex": "P"}
# As they are written in figures, and in texts.
WRITTEN = {"V11": "$V^{11}$ (roots)", "V21": "$V^{21}$", "V22": "$V^{22}$", "V33": "$V^{33}$"}
HTML = {"V11": "V<sup>11</sup> (roots)", "V21": "V<sup>21</sup>", "V22": "V<sup>22</sup>", "V33": "V<sup>33</sup>"}
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
    left.axhline(MILLION, color="#888888", ls=":", lw=1)
    left.annotate("1,281,167", (4, MILLION), xytext=(0, 3), textcoords="offset points", fontsize=8, color="#555555")
    _lines(right, least, "classes", "dim", marker="o", ms=3)
    right.set(xscale="log", yscale="log", xlabel="classes", ylabel="least dimension", ylim=(3, 5e4))
    right.axvline(MILLION, color="#888888", ls=":", lw=1)
    plots.legend_below(figure, [left], 6)
    return figure


def size_at_a_million(least: pd.DataFrame) -> str:
    """A sentence on the dimension and the bytes of 1,281,167 centers that are roots."""
    row = least[(least.classes == MILLION) & (least.system == "V11")].iloc[0]
    return (
        f"At {MILLION:,} classes the roots need {row.dim:,} coordinates. Kept as a matrix the centers would take "
        f"{row.dense_bytes / 1e9:.1f} GB, and one index per class {row.index_bytes / 1e6:.0f} MB; a keyed permutation takes "
        "nothing."
    )


def in_short(capacities: pd.DataFrame, least: pd.DataFrame) -> str:
    """What the systems offer, in one sentence."""
    needed = least[least.classes == MILLION].set_index("system").dim
    return (
        f"{MILLION:,} classes fit into {needed['V11']:,} coordinates as roots of A<sub>n</sub>, any two of them "
        "at least 60 degrees "
        f"apart, and into {needed['V22']:,} as {HTML['V22']}, at least "
        f"{capacities[capacities.system == 'V22'].min_angle.iloc[-1]:.0f} degrees apart."
    )


def findings(least: pd.DataFrame, angles: pd.DataFrame) -> str:
    """What the systems offer and what they lack, from the tables of least dimensions and of smallest angles."""
    needed = least[least.classes == MILLION].set_index("system").dim
    kept = angles[angles.min_angle.notna() & angles.random.notna()]
    roots, crowded = (kept[kept.system == system].sort_values("dim") for system in ("V11", "V22"))
    wider = roots[roots.random.astype(float) > roots.min_angle.astype(float)]
    beyond = (
        f" From {int(wider.dim.iloc[0])} dimensions on, as many random directions would be farther apart than the roots, but the "
        "nearest of random directions is found by a search through all of them alone."
        if len(wider)
        else ""
    )
    return (
        f"The roots keep 60 degrees in every dimension and need about √N coordinates for N classes: {needed['V11']:,} "
        f"for {MILLION:,}. {HTML['V21']} and {HTML['V22']} need {needed['V21']:,} and {needed['V22']:,}, at smallest angles of "
        f"{kept[kept.system == 'V21'].min_angle.astype(float).iloc[-1]:.0f} and {crowded.min_angle.astype(float).iloc[-1]:.0f} "
        f"degrees.{beyond} Perturbation brings the nearest roots closer together; among the more crowded {HTML['V21']} and "
        f"{HTML['V22']} the closest pairs first approach and then part. The error under noise hardly changes with it."
    )


def draw_spectra(dim: int) -> Figure:
    """The share of the other vectors at each cosine to a given one."""
    spectra = analysis.spectrum_table([OrbitSystem(*orbit, dim) for orbit in ORBITS.values()])
    figure, axes = plt.subplots(figsize=(6, 3.6))
    offsets = (-0.012, -0.004, 0.004, 0.012)
    for offset, (system, rows) in zip(offsets, spectra.groupby("system", sort=False), strict=True):
        color = SYSTEM_COLORS[str(system)]
        share = rows.share.astype(float)
        axes.vlines(rows.cosine + offset, 1e-10, share, color=color, lw=1.5)
        marker, label = _MARKERS[str(system)], WRITTEN[str(system)]
        axes.scatter(rows.cosine + offset, share, s=22, color=color, marker=marker, label=label)
    axes.set(yscale="log", ylim=(1e-9, 2), xlabel="cosine to a given vector", ylabel="share of the other vectors")
    plots.legend_below(figure, [axes])
    return figure


def draw_angles(angles: pd.DataFrame, systems: Iterable[str] = ("V11", "V21", "V22")) -> Figure:
    """The smallest angle of each system (:func:`lsc.study.analysis.min_angle_table`) beside the best possible."""
    systems = list(systems)
    figure, panels = plt.subplots(1, len(systems), figsize=(3.5 * len(systems), 3.4), sharey=True)
    for axes, system in zip(panels, systems, strict=True):
        rows = angles[angles.system == system]
        dims, bound = rows.dim.astype(float), rows.levenshtein_bound.astype(float)
        axes.fill_between(dims, bound, 100, color="#dddddd", label="impossible")
        angle = rows.min_angle.astype(float)
        axes.plot(rows.dim, angle, color=SYSTEM_COLORS[system], marker=_MARKERS[system], ms=4, label=WRITTEN[system])
        axes.plot(rows.dim, rows.random.astype(float), color="#888888", ls=":", label="random directions")
        axes.set(xscale="log", xlabel="dimension", ylim=(0, 95), title=WRITTEN[system])
    panels[0].set_ylabel("smallest angle (degrees)")
    plots.legend_below(figure, panels, 5)
    return figure


def draw_perturbation(dim: int, classes: int, systems: Iterable[str] = ("V11", "V21", "V22")) -> Figure:
    """The smallest angle between perturbed centers, and the error under noise, measured and by the union bound."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8))
    for system in systems:
        _perturbed_angles(left, system, dim, classes)
        for size, marker in ((0.0, "o"), (0.3, "^")):
            _errors_under_noise(right, system, dim, classes, size, marker)
    left.set(xlabel="perturbation, relative to the center's norm", ylabel="smallest angle (degrees)", ylim=(0, None))
    right.set(yscale="log", xlabel="noise per coordinate, relative to the center's norm", ylim=(2e-4, 2))
    right.set_ylabel("share of wrong nearest centers")
    plots.legends_below(figure, [left, right])
    return figure


def _perturbed_angles(axes: Axes, system: str, dim: int, classes: int) -> None:
    sizes = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
    rows = analysis.perturbation_table(OrbitSystem(*ORBITS[system], dim), classes, sizes, seeds=(0, 1, 2))
    plots.band(
        axes, rows, "perturbation", "smallest", color=SYSTEM_COLORS[system], marker="o", ms=3, label=WRITTEN[system]
    )


def _errors_under_noise(axes: Axes, system: str, dim: int, classes: int, size: float, marker: str) -> None:
    centers = Centers(OrbitSystem(*ORBITS[system], dim), classes, perturbation=size)
    rows = analysis.noise_error_table([centers], (0.12, 0.15, 0.18, 0.22, 0.27, 0.33, 0.4), samples=2048)
    color = SYSTEM_COLORS[system]
    label = f"{WRITTEN[system]}, perturbed by {size:g}" if size else f"{WRITTEN[system]}; line: bound"
    if not size:
        axes.plot(rows.noise, rows.union_bound, color=color, lw=1)
    # Hollow and larger, so that a point over another leaves it to be seen.
    face, area = ("none", 46) if size else (color, 16)
    shares = rows.error.clip(lower=1e-4)
    axes.scatter(rows.noise, shares, s=area, edgecolors=color, facecolors=face, marker=marker, label=label)


def _lines(axes: Axes, table: pd.DataFrame, x: str, y: str, **style: object) -> None:
    for system, rows in table.groupby("system", sort=False):
        color, dashes = SYSTEM_COLORS[str(system)], _DASHED.get(str(system), "-")
        look = {"color": color, "ls": dashes, "label": WRITTEN.get(str(system), system), **style}
        axes.plot(rows[x].astype(float), rows[y].astype(float), **look)  # type: ignore[arg-type]
