"""Which class gets which vector: similar classes near each other, by exact or by greedy linear assignment."""

import torch
from torch import Tensor

from lsc.centers.permutation import Permutation
from lsc.errors import UserError, needing
from lsc.systems import OrbitSystem, System
from lsc.systems.search import Classes, search

# Entries of the score matrix up to which the exact assignment is used: seconds, and 200 MB.
_EXACT_LIMIT = 25_000_000
_ROWS_AT_ONCE = 4096
_ROUNDS = 12
_BLOCK = 1024


def similarity_assignment(features: Tensor, system: System, seed: int = 0, method: str = "auto") -> Tensor:
    """Give every class a vector of ``system`` so that similar classes get near vectors.

    The features (class means, say) are brought to the system's dimension by :func:`directions`; the sum over classes of
    direction . vector is then made large.

    Args:
        features: (classes, any number of features).
        method: "exact" (linear assignment, O(classes x capacity) memory), "greedy" (in rounds, every class asks for
            its best free vector and the best suitor gets it; O(classes) memory beside the features) or "auto", exact as
            long as classes x capacity is up to 25 million.

    Returns:
        int64 indexes (classes,) into the system, all different, on the CPU: an ``assignment`` of
        :class:`~lsc.centers.Centers`.
    """
    if features.ndim != 2 or not bool(torch.isfinite(features).all()):
        raise UserError(f"features must be a finite matrix (classes, features), not of shape {tuple(features.shape)}")
    if len(features) > system.capacity:
        raise UserError(f"{len(features)} classes do not fit into the {system.capacity} vectors of {system.name}")
    if method not in ("auto", "exact", "greedy"):
        raise UserError(f"method {method!r} is unknown: use 'auto', 'exact' or 'greedy'")
    basis, mean = directions(features, system.dim, seed)
    exact = len(features) * system.capacity <= _EXACT_LIMIT if method == "auto" else method == "exact"
    if exact or not isinstance(system, OrbitSystem):
        vectors = system.vectors(torch.arange(system.capacity))
        scores = (features.cpu().float() - mean) @ basis @ vectors.T
        return _best_pairs(scores)
    return _greedy(features.cpu(), basis, mean, system, seed)


def _best_pairs(scores: Tensor) -> Tensor:
    """(R,) int64: a column for each row of ``scores`` (R, C), R <= C, all different, with the largest sum of scores."""
    with needing("data", "assignment by similarity"):
        from scipy.optimize import linear_sum_assignment
    return torch.from_numpy(linear_sum_assignment(scores.numpy(), maximize=True)[1]).long()


def directions(features: Tensor, dim: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A map (features, dim) and a mean (features,): (x - mean) @ map are whitened directions in ``dim`` coordinates.

    The leading principal components, at most ``dim``, each of variance one, are turned by a random rotation, so that
    the variance is spread over all coordinates, which all belong to equally many vectors of an orbit system.
    """
    features = features.detach().cpu().double()
    mean = features.mean(0)
    centered = features - mean
    variances, axes = torch.linalg.eigh(centered.T @ centered / max(len(features) - 1, 1))
    kept = (variances > 1e-10 * variances[-1].clamp_min(1e-30)).nonzero()[:, 0][-dim:]
    whitening = axes[:, kept] / variances[kept].sqrt()
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(dim, len(kept), generator=generator, dtype=torch.float64))
    return (whitening @ rotation.T).float(), mean.float()


def _greedy(features: Tensor, basis: Tensor, mean: Tensor, system: OrbitSystem, seed: int) -> Tensor:
    assigned = torch.full((len(features),), -1, dtype=torch.int64)
    taken = torch.zeros(0, dtype=torch.int64)
    for _ in range(_ROUNDS):
        waiting = (assigned < 0).nonzero()[:, 0]
        if len(waiting) <= _BLOCK:
            break
        wishes, scores = [], []
        for part in torch.split(waiting, _ROWS_AT_ONCE):
            found = search(system, (features[part].float() - mean) @ basis, 1, _free(system, taken), give_up=True)
            wishes.append(found.labels[:, 0])
            scores.append(found.scores[:, 0])
        wish = torch.cat(wishes)
        order = torch.cat(scores).argsort(descending=True, stable=True)
        # Labels -1 gave up; a class without any direction is answered with vector 0, taken or not.
        order = order[((wish >= 0) & ~_contains(taken, wish))[order]]
        order = order[wish[order].argsort(stable=True)]  # by vector, the best suitor first
        wanted = wish[order]
        first = torch.ones_like(wanted, dtype=torch.bool)
        first[1:] = wanted[1:] != wanted[:-1]
        winners = waiting[order[first]]
        assigned[winners] = wanted[first]
        taken = torch.cat([taken, wanted[first]]).sort().values
        if len(winners) < len(waiting) // 20:
            break
    _fill(assigned, taken, features, basis, mean, system, seed)
    return assigned


def _fill(
    assigned: Tensor, taken: Tensor, features: Tensor, basis: Tensor, mean: Tensor, system: OrbitSystem, seed: int
) -> None:
    """Give the classes left free vectors: those of a random order, matched exactly in blocks."""
    waiting = (assigned < 0).nonzero()[:, 0]
    candidates = Permutation(system.capacity, seed)(torch.arange(len(features)))
    free = candidates[~_contains(taken, candidates)][: len(waiting)]
    for classes, vectors in zip(torch.split(waiting, _BLOCK), torch.split(free, _BLOCK), strict=True):
        scores = (features[classes].float() - mean) @ basis @ system.vectors(vectors).T
        assigned[classes] = vectors[_best_pairs(scores)]


def _contains(ordered: Tensor, values: Tensor) -> Tensor:
    if len(ordered) == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    return ordered[torch.searchsorted(ordered, values).clamp_max(len(ordered) - 1)] == values


def _free(system: OrbitSystem, taken: Tensor) -> Classes:
    """The vectors not ``taken``, labelled with their indexes."""
    return Classes(
        count=system.capacity,
        label_of=lambda index: torch.where(_contains(taken, index), -1, index),
        scan_score=system.scores_of_all,
    )
