"""Tables of center systems: capacity, least dimension, spectra, angles beside the best bounds, perturbation and noise.

Every function returns a long :class:`pandas.DataFrame`, one row per case. Closed forms throughout where there are any,
since one vector of an orbit system sees what every vector sees; so a table for a million vectors takes milliseconds.
Cosines are of unit vectors, angles in degrees, sizes in bytes.
"""

import math
from collections.abc import Iterable, Sequence

import pandas as pd
import torch
from torch import Tensor

from lsc.centers import Centers
from lsc.study import bounds
from lsc.systems import OrbitSystem, System, parse_system

ORBITS = ("V11", "V21", "V22", "V33")
INDEX_BYTES = 8
FLOAT_BYTES = 4
# Up to so many classes the smallest angle is found from all pairs.
_ALL_PAIRS = 20_000


def capacity_table(dims: Iterable[int], systems: Sequence[str] = ORBITS) -> pd.DataFrame:
    """How many vectors each system has in each dimension.

    Columns: system, dim, capacity (exact, Python integers), max_cosine, min_angle. Besides orbit systems, "simplex"
    (dim + 1 vectors) and "orthoplex" (2 dim) may be named. Dimensions too small for a system are left out.
    """
    rows: list[dict[str, object]] = []
    for name in systems:
        for dim in dims:
            described = _described(name, dim)
            if described is not None:
                capacity, cosine = described
                rows.append({"system": name, "dim": dim, "capacity": capacity, **_angle(cosine)})
    return pd.DataFrame(rows)


def least_dimension_table(
    class_counts: Iterable[int], systems: Sequence[str] = (*ORBITS, "simplex", "orthoplex")
) -> pd.DataFrame:
    """The least dimension in which each system holds each number of classes, and what the centers would weigh.

    Columns: system, classes, dim, capacity, used (share of the vectors), max_cosine, min_angle, index_bytes (one 64-bit
    index per class, more than shuffled centers need: these need none), dense_bytes (a float32 matrix).
    """
    rows: list[dict[str, object]] = []
    for name in systems:
        for classes in class_counts:
            dim, capacity, cosine = least_dimension(name, classes)
            rows.append(
                {"system": name, "classes": classes, "dim": dim, "capacity": capacity, "used": classes / capacity}
                | _angle(cosine)
                | {"index_bytes": INDEX_BYTES * classes, "dense_bytes": FLOAT_BYTES * classes * dim}
            )
    return pd.DataFrame(rows)


def least_dimension(name: str, classes: int) -> tuple[int, int, float]:
    """Least dimension for ``classes`` classes in the system ``name``, its capacity there and its largest cosine."""
    if name == "simplex":
        return max(classes, 2) - 1, max(classes, 2), -1 / (max(classes, 2) - 1)
    if name == "orthoplex":
        dim = (classes + 1) // 2
        return dim, 2 * dim, 0.0 if dim > 1 else -1.0
    if name == "one_hot":
        return classes, classes, 0.0
    system = parse_system(name, None, classes)
    return system.dim, system.capacity, system.max_cosine


def spectrum_table(systems: Iterable[System]) -> pd.DataFrame:
    """At which cosines a vector sees the others.

    Columns: system, dim, cosine, angle, count (exact), share (of the other vectors).
    """
    rows: list[dict[str, object]] = []
    for system in systems:
        for cosine, count in system.cosine_spectrum().items():
            rows.append(
                {"system": system.name, "dim": system.dim, "cosine": cosine, "angle": degrees(cosine)}
                | {"count": count, "share": count / (system.capacity - 1)}
            )
    return pd.DataFrame(rows)


def min_angle_table(dims: Iterable[int], systems: Sequence[str] = ORBITS) -> pd.DataFrame:
    """The smallest angle of each system beside the largest that so many vectors could have, and what chance gives.

    Columns: system, dim, span (dimension of the space that the vectors span; dim - 1 where plus equals minus), vectors,
    min_angle, rankin_bound, levenshtein_bound (upper bounds on the smallest angle, in the span), random (median of
    random vectors there), kissing_number (most vectors with angles of 60 degrees or more, where proven). Sources:
    :mod:`lsc.study.bounds`.
    """
    rows: list[dict[str, object]] = []
    for name in systems:
        for dim in dims:
            described = _described(name, dim)
            if described is None or described[0] < 2:
                continue
            count, cosine = described
            span = dim - 1 if name[0] == "A" or (name[0] == "V" and name[1] == name[2]) else dim
            if span < 2:
                continue
            rows.append(
                {"system": name, "dim": dim, "span": span, "vectors": count, "min_angle": degrees(cosine)}
                | {"rankin_bound": degrees(bounds.rankin(count, span))}
                | {"levenshtein_bound": degrees(bounds.levenshtein(count, span))}
                | {"random": degrees(bounds.random_cosine(count, span))}
                | {"kissing_number": bounds.KISSING_NUMBERS.get(span)}
            )
    return pd.DataFrame(rows).astype({"kissing_number": "Int64"})


def perturbation_table(
    system: System, num_classes: int, perturbations: Iterable[float], seeds: Iterable[int] = (0,), sample: int = 256
) -> pd.DataFrame:
    """What perturbation does to the angle between a class's center and the nearest other one.

    Columns: system, dim, classes, perturbation, seed, smallest (over the classes looked at), median, unperturbed (the
    system's own smallest angle), exact (True: all pairs of classes were compared; False: ``sample`` classes, each with
    the vectors at the largest cosine, which in an orbit system are the ones that perturbation can bring nearest).
    """
    rows: list[dict[str, object]] = []
    for perturbation in perturbations:
        for seed in seeds:
            centers = Centers(system, num_classes, perturbation=perturbation, seed=seed)
            exact = num_classes <= _ALL_PAIRS or not isinstance(system, OrbitSystem)
            cosines = _nearest_of_all(centers) if exact else _nearest_of_neighbours(centers, sample, seed)
            rows.append(
                {"system": system.name, "dim": system.dim, "classes": num_classes, "perturbation": perturbation}
                | {
                    "seed": seed,
                    "smallest": degrees(float(cosines.max())),
                    "median": degrees(float(cosines.median())),
                }
                | {"unperturbed": degrees(system.max_cosine), "exact": exact}
            )
    return pd.DataFrame(rows)


def noise_error_table(
    centers: Iterable[Centers], noises: Iterable[float], samples: int = 4096, seed: int = 0
) -> pd.DataFrame:
    """How often isotropic noise moves a center nearer to another class's.

    The embedding is a center of norm one plus normal noise of standard deviation ``noise`` in every coordinate.

    Columns: system, dim, classes, perturbation, noise, cosine (mean between embedding and center), error (measured on
    ``samples`` draws), standard_error, union_bound (upper bound in closed form, for unperturbed orbit systems).
    """
    rows: list[dict[str, object]] = []
    noises = list(noises)
    for which in centers:
        spectrum = which.system.cosine_spectrum() if which.perturbation == 0 else {}
        closed = isinstance(which.system, OrbitSystem) and which.perturbation == 0
        for noise in noises:
            generator = torch.Generator().manual_seed(seed)
            errors, cosine = 0, 0.0
            for start in range(0, samples, 256):
                batch = min(256, samples - start)
                labels = torch.randint(which.num_classes, (batch,), generator=generator)
                own = which.vectors(labels) / which.radius
                z = own + noise * torch.randn(batch, which.dim, generator=generator)
                errors += int((which.nearest(z)[0][:, 0] != labels).sum())
                cosine += float(torch.cosine_similarity(z, own, dim=1).sum())
            error = errors / samples
            rows.append(
                {"system": which.system.name, "dim": which.dim, "classes": which.num_classes}
                | {"perturbation": which.perturbation, "noise": noise, "cosine": cosine / samples, "error": error}
                | {"standard_error": math.sqrt(error * (1 - error) / samples)}
                | {"union_bound": bounds.union_bound(spectrum, noise) if closed else math.nan}
            )
    return pd.DataFrame(rows)


def neighbours(system: OrbitSystem, index: Tensor) -> Tensor:
    """Indexes of all vectors that differ from that of ``index`` () in the place of one entry, moved to a zero: (N,).

    These have the largest cosine, 1 - 1 / (plus + minus); there are (plus + minus)(dim - plus - minus) of them.
    """
    vector = system.vectors(index)
    zeros, entries = (vector == 0).nonzero()[:, 0], (vector != 0).nonzero()[:, 0]
    old, new = torch.cartesian_prod(entries, zeros).unbind(1)
    moved = vector.repeat(len(old), 1)
    row = torch.arange(len(old))
    moved[row, new] = moved[row, old]
    moved[row, old] = 0
    return system.index(moved)


def _nearest_of_all(centers: Centers) -> Tensor:
    """Largest cosine of every class's center with another's: (classes,)."""
    vectors = centers.vectors(torch.arange(centers.num_classes)) / centers.radius
    best = []
    for start in range(0, len(vectors), 1024):
        cosines = vectors[start : start + 1024] @ vectors.T
        cosines[torch.arange(len(cosines)), torch.arange(start, start + len(cosines))] = -1
        best.append(cosines.amax(1))
    return torch.cat(best)


def _nearest_of_neighbours(centers: Centers, sample: int, seed: int) -> Tensor:
    """As :func:`_nearest_of_all`, for ``sample`` random classes and the neighbours of their vectors that are used."""
    assert isinstance(centers.system, OrbitSystem)
    best = []
    for label in torch.randint(centers.num_classes, (sample,), generator=torch.Generator().manual_seed(seed)):
        others = centers.labels(neighbours(centers.system, centers.indexes(label)))
        others = others[others >= 0]
        cosines = centers.vectors(others) @ centers.vectors(label) / centers.radius**2
        best.append(cosines.max() if len(cosines) else torch.tensor(-1.0))
    return torch.stack(best)


def _described(name: str, dim: int) -> tuple[int, float] | None:
    """Capacity and largest cosine of the system ``name`` in ``dim`` dimensions; None where it does not exist."""
    if name == "simplex":
        return dim + 1, -1 / dim
    if name == "orthoplex":
        return 2 * dim, 0.0 if dim > 1 else -1.0
    least = parse_system(name, None, 1)
    assert isinstance(least, OrbitSystem), f"{name} has no capacity of its own"
    if dim < least.dim:
        return None
    system = OrbitSystem(least.plus, least.minus, dim)
    return system.capacity, system.max_cosine


def _angle(cosine: float) -> dict[str, object]:
    return {"max_cosine": cosine, "min_angle": degrees(cosine)}


def degrees(cosine: float) -> float:
    """Angle whose cosine is ``cosine``, which may be out of range by rounding."""
    return math.degrees(math.acos(max(-1.0, min(1.0, cosine))))
