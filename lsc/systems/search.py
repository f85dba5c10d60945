"""Exact nearest vectors of an orbit system by looking at the best ones first, with a proof that the rest are worse.

The vector of V^{pm} with the largest dot product with z has its ones on the p largest coordinates of z and its
minus-ones on the m smallest (rearrangement inequality). The next ones use coordinates a little further down. So the
search lists the vectors with ones among the s largest and minus-ones among the t smallest coordinates. Any other
vector has a one on the (s+1)-th largest coordinate or worse, or a minus-one on the (t+1)-th smallest or worse:

    score of any other <= top sum with its least part replaced by that coordinate       (the bound).

When the k-th best class found beats the bound, the answer is proven; otherwise s or t grows. Where centers are
displaced (by an angle of up to ``reach``), the bound is widened by that angle and the candidates are scored anew.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb

import torch
from torch import Tensor

from lsc.systems.arrangements import Arrangements
from lsc.systems.ranking import rank_within_rows, scan

# So many classes are never looked at one by one: where that would be needed to set equal scores in order, it is left.
_SCANNED_AT_MOST = 100_000_000
# Candidate scores held at one time.
_CANDIDATES_AT_ONCE = 2_000_000
# Relative error allowed for scores of displaced centers, which are made and compared in float32.
_CENTER_ERROR = 1e-5
# So few classes are always looked at, all of them. Of so many, the next few best are always searched for; of fewer, where
# the square of their number is so many times the number of vectors that may come before the last of these.
_FEW, _MANY, _DENSELY = 2_000, 100_000, 200
# Listing is cheap per vector, but for every row anew; looking at all classes shares much work between rows.
_LEAST_BUDGET = 1024


@dataclass(frozen=True)
class Found:
    """Result of a search: ``labels`` (B, k) int64, ``scores`` (B, k) float32, best first, and the work it took.

    ``looked_at`` (B,) int64 counts the vectors listed for each row (the number of classes where all were scanned).
    """

    labels: Tensor
    scores: Tensor
    looked_at: Tensor


@dataclass(frozen=True)
class Classes:
    """What a search must know of the classes in a system.

    Attributes:
        count: number of classes, labelled 0..count-1.
        label_of: labels (...) of int64 indexes (...), -1 where no class has that vector.
        reach: largest angle in radians between a class's center and its vector; 0 if centers are not displaced.
        score: given (z, rows, labels), scores (N,) of the centers of ``labels`` (N,) for ``z[rows]``; None if centers
            are not displaced.
        scan_score: scores (B, C) of all of ``labels`` (C,) for all rows of z, given (z, labels).
    """

    count: int
    label_of: Callable[[Tensor], Tensor]
    scan_score: Callable[[Tensor, Tensor], Tensor]
    reach: float = 0.0
    score: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None


def whole(system: Arrangements) -> Classes:
    """Every vector of ``system`` is a class, labelled with its index."""
    return Classes(
        count=system.capacity,
        label_of=lambda index: index,
        scan_score=system.scores_of_all,
    )


def search(system: Arrangements, z: Tensor, k: int, classes: Classes, give_up: bool = False) -> Found:
    """The ``k`` (at most ``classes.count``) best classes for every row of ``z`` (B, dim), exactly.

    Ranked as :mod:`lsc.systems.ranking` says, but that among more than 10^8 classes equal scores may come in any order where
    too many tie. Rows that are not finite get labels 0..k-1 and scores NaN. With
    ``give_up``, rows for which listing is too dear get labels -1 instead of a scan of all classes.
    """
    z = z.detach().float()
    k = min(k, classes.count)
    labels = torch.arange(k, device=z.device).repeat(len(z), 1)
    scores = torch.full((len(z), k), torch.nan, device=z.device)
    looked_at = torch.zeros(len(z), dtype=torch.int64, device=z.device)
    high, low = z.amax(1), z.amin(1)
    open_rows = torch.isfinite(high) & torch.isfinite(low)
    # All vectors tie on a constant row, so the first labels are the answer; no search could prove it so soon.
    ties = (high == low) & open_rows if classes.reach == 0 else (high == 0) & (low == 0)
    scores[ties] = (high * (system.plus - system.minus))[ties, None]
    rows = (open_rows & ~ties).nonzero()[:, 0]
    if give_up or _listing_pays(system, len(rows), k, classes):
        rows = _search_rows(system, z, rows, k, classes, labels, scores, looked_at)
    if not give_up and classes.count > _SCANNED_AT_MOST and classes.reach == 0:
        rows = _search_rows(system, z, rows, k, classes, labels, scores, looked_at, ties=True)
    if give_up:
        labels[rows] = -1
    elif len(rows):
        labels[rows], scores[rows] = scan(z[rows], classes.count, k, classes.scan_score)
        looked_at[rows] += classes.count
    return Found(labels, scores, looked_at)


def _listing_pays(system: Arrangements, rows: int, k: int, classes: Classes) -> bool:
    """Whether listing vectors is likely to be cheaper than looking at all classes, by measurements on a CPU.

    Where an embedding lies near a center, the best class is listed at once, up to a hundred times as fast as by looking
    at 100,000; where it lies anywhere, at worst half as fast.
    """
    if classes.count <= _FEW:
        return False
    if k == 1:
        return True
    # The next few lie far down the list, the further the fewer of its vectors are classes.
    if classes.count <= _MANY and classes.count**2 < _DENSELY * k * system.capacity:
        return False
    # To look at all classes makes each center once, for all rows; listing makes centers for every row anew. Beyond the
    # best one a class's neighbours stand so close together that displacement may bring any of them next.
    return classes.score is None or rows * system.dim < classes.count


def _search_rows(
    system: Arrangements, z: Tensor, rows: Tensor, k: int, classes: Classes, *out: Tensor, ties: bool = False
) -> Tensor:  # fmt: skip
    """Search for ``rows`` of z and write what is proven to ``out``; return the rows given up as too dear.

    With ``ties`` an answer stands that others may equal, and no row is too dear.
    """
    labels, scores, looked_at = out
    budget = max(_LEAST_BUDGET, classes.count // 8)
    dear = torch.zeros(0, dtype=torch.int64, device=z.device)
    # A single best vector needs no list at all; of the next few, the best are one or two coordinates further down.
    extra_ones = extra_minus_ones = 0 if k == 1 else 1 if k <= 3 else 3
    while len(rows):
        reach = _Reach(
            system, min(system.plus + extra_ones, system.dim), min(system.minus + extra_minus_ones, system.dim)
        )
        if reach.size > (_CANDIDATES_AT_ONCE if ties else min(budget, _CANDIDATES_AT_ONCE)):
            break
        wide_ones, wide_minus_ones, left = False, False, []
        for part in torch.split(rows, max(_CANDIDATES_AT_ONCE // reach.size // 4, 1)):
            result = _list_best(
                system, z[part], k, classes, reach, budget_of_scores=max(classes.count // len(rows), 256), ties=ties
            )
            proven = result.proven
            labels[part[proven]], scores[part[proven]] = result.labels[proven], result.scores[proven]
            looked_at[part] = reach.size
            dear = torch.cat([dear, part[result.dear]])
            left.append(part[~proven & ~result.dear])
            wide_ones |= result.wide_ones
            wide_minus_ones |= result.wide_minus_ones
        rows = torch.cat(left)
        extra_ones = 2 * extra_ones + 1 if wide_ones and system.plus else extra_ones
        extra_minus_ones = 2 * extra_minus_ones + 1 if wide_minus_ones and system.minus else extra_minus_ones
    return torch.cat([dear, rows])


@dataclass(frozen=True)
class _Reach:
    """Ones among the ``ones`` largest coordinates, minus-ones among the ``minus_ones`` smallest."""

    system: Arrangements
    ones: int
    minus_ones: int

    @property
    def size(self) -> int:
        """Number of vectors within reach (those whose two sets of coordinates meet are counted, too)."""
        return comb(self.ones, self.system.plus) * comb(self.minus_ones, self.system.minus)


@dataclass(frozen=True)
class _Step:
    labels: Tensor
    scores: Tensor
    proven: Tensor
    dear: Tensor
    wide_ones: bool
    wide_minus_ones: bool


def _list_best(
    system: Arrangements, z: Tensor, k: int, classes: Classes, reach: _Reach, budget_of_scores: int, ties: bool
) -> _Step:
    """One round of the search for all of ``z`` (B, dim)."""
    ones, ones_sum, ones_drop = _subsets(z, system.plus, reach.ones)
    minus_ones, minus_sum, minus_drop = _subsets(-z, system.minus, reach.minus_ones)
    best = ones_sum[:, 0] + minus_sum[:, 0]
    # A few units in the last place of float64, for sums taken in another order.
    slack = 1e-14 * (system.plus + system.minus) * torch.maximum(z.amax(1).abs(), z.amin(1).abs()).double()
    full = z.norm(dim=1) * system.norm if classes.reach else best.float()
    beyond_ones = _widen((best - ones_drop + slack).float(), full, classes.reach)
    beyond_minus = _widen((best - minus_drop + slack).float(), full, classes.reach)
    bound = torch.maximum(beyond_ones, beyond_minus)

    base = (ones_sum[:, :, None] + minus_sum[:, None, :]).float()
    # What does not beat the bound could not be proven to be among the best in this round.
    reached = _widen(base, full[:, None, None], classes.reach)
    hopeful = reached >= bound[:, None, None] if ties else reached > bound[:, None, None]
    row, a, b = hopeful.nonzero(as_tuple=True)
    places, other_places = ones[row, a], minus_ones[row, b]
    apart = ~(places.unsqueeze(-1) == other_places.unsqueeze(-2)).flatten(1).any(1)
    row, places, other_places = row[apart], places[apart], other_places[apart]
    base = base[row, a[apart], b[apart]]
    label = classes.label_of(system.index_of(places.sort(dim=1).values, other_places.sort(dim=1).values))
    used = (label >= 0) & (label < classes.count)
    row, label, base = row[used], label[used], base[used]

    dear = torch.zeros(len(z), dtype=torch.bool, device=z.device)
    score = base
    if classes.score is not None:
        row, label, score, dear = _score_displaced(z, row, label, base, k, classes, full, budget_of_scores)
    labels, scores = rank_within_rows(row, label, score, len(z), k)
    worst = scores[:, -1]
    proven = (worst >= bound if ties else worst > bound) & ~dear
    unsure = ~proven & ~dear
    return _Step(
        labels, scores, proven, dear,
        bool((unsure & (beyond_ones >= worst)).any()), bool((unsure & (beyond_minus >= worst)).any()),
    )  # fmt: skip


def _widen(score: Tensor, full: Tensor, reach: float) -> Tensor:
    """From the score of a vector to the largest that a center displaced by an angle of up to ``reach`` can have.

    ``full`` is the score of a vector in the direction of the embedding itself.
    """
    if reach == 0:
        return score
    cosine = (score / full).clamp(-1, 1)
    turned = cosine * math.cos(reach) + (1 - cosine.square()).sqrt() * math.sin(reach)
    turned = torch.where(cosine >= math.cos(reach), 1.0, turned) + _CENTER_ERROR
    return torch.where(score.isneginf(), score, turned * full)


def _score_displaced(
    z: Tensor, row: Tensor, label: Tensor, base: Tensor, k: int, classes: Classes, full: Tensor, budget: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores of displaced candidates: first of the k with the best vectors, then of all that could still beat these."""
    assert classes.score is not None
    hopes = _widen(base, full[row], classes.reach)
    _, vector_scores = rank_within_rows(row, label, base, len(z), k)
    first = base >= vector_scores[row, -1]
    score = torch.full_like(base, -torch.inf)
    score[first] = classes.score(z, row[first], label[first])
    _, found = rank_within_rows(row[first], label[first], score[first], len(z), k)
    second = ~first & (hopes >= found[row, -1])
    needed = torch.zeros(len(z), dtype=torch.int64, device=z.device).index_add_(0, row, second.long())
    dear = needed > budget
    second &= ~dear[row]
    score[second] = classes.score(z, row[second], label[second])
    scored = first | second
    return row[scored], label[scored], score[scored], dear


def _subsets(z: Tensor, size: int, among: int) -> tuple[Tensor, Tensor, Tensor]:
    """Subsets of ``size`` of the ``among`` largest coordinates of ``z`` (B, dim).

    Returns: their places (B, N, size), their sums (B, N) in float64, the best subset first, and by how much (B,) the
    best sum exceeds that of any subset with a coordinate from elsewhere (infinite if there is none).
    """
    values, order = z.topk(min(among + 1, z.shape[1]), dim=1)
    values = values.double()
    chosen = _combinations(among, size, z.device)
    drop = torch.full((len(z),), torch.inf, dtype=torch.float64, device=z.device)
    if size and among < z.shape[1]:
        drop = values[:, size - 1] - values[:, among]
    return order[:, chosen], values[:, chosen].sum(-1), drop


@lru_cache(maxsize=64)
def _combinations(among: int, size: int, device: torch.device) -> Tensor:
    return torch.tensor(list(combinations(range(among), size)), device=device).long().reshape(comb(among, size), size)
