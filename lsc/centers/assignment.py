"""Which class gets which vector: similar classes near each other, by exact or by greedy linear assignment."""

import torch
from torch import Tensor

from lsc.centers.permutation import Permutation
from lsc.checks import check_seed
from lsc.errors import UserError, needing
from lsc.systems import OrbitSystem, System
from lsc.systems.ranking import rank_within_rows, unit_rows
from lsc.systems.staircase import entries, list_best

# Entries of the score matrix up to which the exact assignment is used: seconds, and 200 MB.
_EXACT_LIMIT = 25_000_000
# Vectors that a class considers in a round (a quarter of what is listed for it), and entries of lists held at one time.
_WISHES, _ENTRIES_AT_ONCE = (8, 32, 128), 1_000_000
# Classes that wish for one vector and are left in a round, from which on they are matched together, so many at a time.
_CROWD, _TOGETHER = 16, 256
# Most vectors that are listed for a crowd, and classes that are matched at one time in the end.
_LISTED_AT_MOST, _BLOCK = 1 << 15, 1024


def similarity_assignment(features: Tensor, system: System, seed: int = 0, method: str = "auto") -> Tensor:
    """Give every class a vector of ``system`` so that similar classes get near vectors.

    The features (class means, say) are brought to the system's dimension by :func:`directions`; the sum over classes of
    direction . vector is then made large.

    Args:
        features: (classes, any number of features).
        method: "exact" (linear assignment, O(classes x capacity) memory), "greedy" (in rounds, the r-th best suitor of a
            vector asks for its own r-th best free one; classes that crowd together are matched exactly with the vectors
            around them; O(classes) memory beside the features) or "auto", exact as long as classes x capacity is up to
            25 million. Greedy, classes of 32 features in groups of 1,000 that all but coincide, in the least V22 that holds
            them: 100,000 in 11.5 seconds of one core and 0.7 GB, 1,000,000 in 145 seconds and 1.5 GB, torch and the
            features included.

    Returns:
        int64 indexes (classes,) into the system, all different, on the CPU: an ``assignment`` of
        :class:`~lsc.centers.Centers`.
    """
    if features.ndim != 2 or not bool(torch.isfinite(features).all()):
        raise UserError(f"features must be a finite matrix (classes, features), not of shape {tuple(features.shape)}")
    if 0 in features.shape:
        raise UserError(
            f"features of shape {tuple(features.shape)}: give a row for each class, with one feature at least"
        )
    check_seed(seed)
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
    return _Greedy(features.detach().cpu(), basis, mean, system, seed).assigned


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


class _Greedy:
    """Vectors for classes in rounds: ``assigned`` (classes,) int64."""

    def __init__(self, features: Tensor, basis: Tensor, mean: Tensor, system: OrbitSystem, seed: int) -> None:
        self.features, self.basis, self.mean, self.system = features, basis, mean, system
        self.assigned = torch.full((len(features),), -1, dtype=torch.int64)
        self.taken = _Taken()
        for wishes in _WISHES:
            waiting = (self.assigned < 0).nonzero()[:, 0]
            if len(waiting) <= _BLOCK:
                break
            self._round(waiting, wishes)
        self._fill(seed)

    def directions(self, classes: Tensor) -> Tensor:
        """Where the classes (N,) point to: (N, dim)."""
        return (self.features[classes].float() - self.mean) @ self.basis

    def _give(self, classes: Tensor, vectors: Tensor) -> None:
        self.assigned[classes] = vectors
        self.taken.add(vectors)

    def _round(self, waiting: Tensor, wishes: int) -> None:
        """Let the classes ``waiting`` ask for one of their best free vectors each, as long as any gets one."""
        wish, score = self._wishes(waiting, wishes)
        first_wish = wish[:, 0].clone()
        while len(waiting):
            winner, asked = _suitors(wish, score)
            self._give(waiting[winner], asked)
            left = torch.ones(len(waiting), dtype=torch.bool)
            left[winner] = False
            gone = wish < 0
            gone |= torch.isin(wish, asked)
            waiting, first_wish = waiting[left], first_wish[left]
            wish, score = _to_the_front(wish[left], score[left], ~gone[left])
            if len(winner) < max(len(waiting) // 50, 1):
                break
        crowds, inverse, size = torch.unique(first_wish, return_inverse=True, return_counts=True)
        order = inverse.argsort(stable=True)
        for crowd, members in zip(crowds.tolist(), torch.split(order, size.tolist()), strict=True):
            if crowd >= 0 and len(members) > _CROWD:
                for part in torch.split(waiting[members], _TOGETHER):
                    self._match(part)

    def _wishes(self, classes: Tensor, wishes: int) -> tuple[Tensor, Tensor]:
        """The best free vectors of each class and their scores, (N, wishes), best first, -1 where no more were listed."""
        count = 4 * wishes
        step = max(_ENTRIES_AT_ONCE // max(entries(self.system, count), self.system.dim), 1)
        parts = []
        for part in torch.split(classes, step):
            unit, _, _ = unit_rows(self.directions(part))
            listed = list_best(self.system, unit, count)
            free = ~self.taken.contains(listed.index)
            parts.append(rank_within_rows(listed.row[free], listed.index[free], listed.score[free], len(part), wishes))
        return torch.cat([wish for wish, _ in parts]), torch.cat([score for _, score in parts])

    def _match(self, classes: Tensor) -> None:
        """Give a crowd of classes the free vectors around their mean direction, by the best assignment to these."""
        directions = self.directions(classes)
        unit, _, _ = unit_rows(directions.mean(0, keepdim=True))
        count = 4 * len(classes)
        while True:
            listed = list_best(self.system, unit, min(count, _LISTED_AT_MOST))
            index = listed.index[listed.score.argsort(descending=True, stable=True)]
            free = index[~self.taken.contains(index)][: 2 * len(classes)]
            if len(free) == 2 * len(classes) or count >= _LISTED_AT_MOST:
                break
            count *= 4
        classes, directions = classes[: len(free)], directions[: len(free)]
        if len(classes):
            self._give(classes, free[_best_pairs(directions @ self.system.vectors(free).T)])

    def _fill(self, seed: int) -> None:
        """Give the classes left free vectors of a random order, about two for each, matched exactly in blocks."""
        waiting = (self.assigned < 0).nonzero()[:, 0]
        drawn = min(self.system.capacity, len(self.features) + len(waiting))
        candidates = Permutation(self.system.capacity, seed)(torch.arange(drawn))
        free = candidates[~self.taken.contains(candidates)]
        blocks = -(-len(waiting) // _BLOCK)
        if blocks:
            for part, vectors in zip(waiting.tensor_split(blocks), free.tensor_split(blocks), strict=True):
                scores = self.directions(part) @ self.system.vectors(vectors).T
                self.assigned[part] = vectors[_best_pairs(scores)]


class _Taken:
    """Vectors that are taken: a sorted list, and a short one of those that were added since it was last sorted."""

    def __init__(self) -> None:
        self._sorted = self._recent = torch.zeros(0, dtype=torch.int64)

    def add(self, vectors: Tensor) -> None:
        self._recent = torch.cat([self._recent, vectors])
        if len(self._recent) > max(len(self._sorted) // 20, 1000):
            self._sorted = torch.cat([self._sorted, self._recent]).sort().values
            self._recent = self._recent[:0]

    def contains(self, vectors: Tensor) -> Tensor:
        found = torch.isin(vectors, self._recent)
        if len(self._sorted):
            place = torch.searchsorted(self._sorted, vectors).clamp_max(len(self._sorted) - 1)
            found |= self._sorted[place] == vectors
        return found


def _suitors(wish: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """Who gets what: rows (N,) of ``wish`` (R, wishes), ranked by ``score``, and a different vector for each (N,).

    The r-th best suitor of a vector, where it is the first wish of several, asks for its own r-th wish instead; where
    several ask for one vector, the best of them gets it.
    """
    row = torch.arange(len(wish))
    turn = _places_in_groups(wish[:, 0], score[:, 0])
    asks = (turn < wish.shape[1]) & (wish.gather(1, turn.clamp_max(wish.shape[1] - 1)[:, None])[:, 0] >= 0)
    row, turn = row[asks], turn[asks]
    asked, offered = wish[row, turn], score[row, turn]
    best = _places_in_groups(asked, offered) == 0
    return row[best], asked[best]


def _places_in_groups(group: Tensor, score: Tensor) -> Tensor:
    """Place (N,) of every item within the items of its ``group`` (N,), by descending ``score``, from 0."""
    order = score.argsort(descending=True, stable=True)
    order = order[group[order].argsort(stable=True)]
    ordered = group[order]
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order)) - torch.searchsorted(ordered, ordered)
    return place


def _to_the_front(wish: Tensor, score: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """The wishes that are ``kept``, in their order, before the others, which become -1."""
    order = (~kept).to(torch.uint8).argsort(dim=1, stable=True)
    kept = kept.gather(1, order)
    return torch.where(kept, wish.gather(1, order), -1), score.gather(1, order)
