"""The best arrangements for an embedding, best first, from two lists of subsets that no embedding changes.

The score of a vector is the sum of the coordinates at its ones minus the sum of those at its minus-ones. So the best
vectors pair a good set of ones with a good set of minus-ones:

- of sets of coordinates, numbered by rank in a row (0 is the largest), one is at least as good as every set that it
  dominates, rank by rank. The T best sets are thus among those that at most T sets dominate, themselves included;
- the pair of the i-th best ones and the j-th best minus-ones (from 0) is no better than (i + 1)(j + 1) pairs, so the T
  best pairs lie on the staircase (i + 1)(j + 1) <= T.

Both lists depend on the sizes and on T alone, have about T log T entries, and are kept. Every pair that is not listed
scores no more than the T-th largest listed one, the *bound*; pairs whose two sets meet are no vectors, and dropped.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import comb

import torch
from torch import Tensor

from lsc.systems.arrangements import Arrangements

# The error of a sum of a few coordinates below 1 in float64, taken in another order.
_SUM_ERROR = 1e-14


@dataclass(frozen=True)
class Listed:
    """The vectors of a staircase that beat its bound.

    Attributes:
        row: embedding of each (N,) int64.
        index: of each vector (N,) int64.
        score: of each (N,) float32.
        bound: (B,) float32: no vector that is not listed scores more; minus infinity where all were.
    """

    row: Tensor
    index: Tensor
    score: Tensor
    bound: Tensor


def entries(system: Arrangements, count: int) -> int:
    """Entries of the lists of ``count``, which are the work of listing for one row (and are made, if they are not yet)."""
    device = torch.device("cpu")
    sets = [len(_leading_subsets(size, system.dim, count, device)[0]) for size in (system.plus, system.minus)]
    return sum(sets) + len(_stairs(min(sets[0], count), min(sets[1], count), count, device)[0])


def list_best(system: Arrangements, unit: Tensor, count: int, ties: bool = False) -> Listed:
    """The vectors better than the ``count``-th best pair for every row of ``unit`` (B, dim) float32, below 1 in size.

    With ``ties`` those that equal the bound are listed, too, as far as they lie on the staircase.
    """
    ones, ones_sums = _best_subsets(unit, system.plus, count)
    minus_ones, minus_sums = _best_subsets(unit, system.minus, count, largest=False)
    i, j = _stairs(ones.shape[1], minus_ones.shape[1], count, unit.device)
    score = ones_sums.index_select(1, i) + minus_sums.index_select(1, j)
    if len(i) == comb(system.dim, system.plus) * comb(system.dim, system.minus):
        bound = torch.full_like(score[:, 0], -torch.inf)
    else:
        bound = score.kthvalue(len(i) - count + 1, dim=1).values + _SUM_ERROR * (system.plus + system.minus)
    bound, score = bound.float(), score.float()
    row, pair = (score >= bound[:, None] if ties else score > bound[:, None]).nonzero(as_tuple=True)
    score = score[row, pair]
    a, b = ones[row, i[pair]], minus_ones[row, j[pair]]
    if system.plus and system.minus:
        apart = ~(a.unsqueeze(-1) == b.unsqueeze(-2)).flatten(1).any(1)
        row, score, a, b = row[apart], score[apart], a[apart], b[apart]
    return Listed(row, system.index_of(_ascending(a), _ascending(b)), score, bound)


def _ascending(places: Tensor) -> Tensor:
    return places if places.shape[1] < 2 else places.sort(dim=1).values


def _best_subsets(unit: Tensor, size: int, count: int, largest: bool = True) -> tuple[Tensor, Tensor]:
    """The up to ``count`` best sets of ``size`` coordinates of each row: places (B, N, size), float64 sums (B, N).

    Args:
        largest: those of the largest sums, or of the least, whose sums are then given with the opposite sign.
    """
    chosen, depth = _leading_subsets(size, unit.shape[1], count, unit.device)
    values, order = unit.topk(depth, dim=1, largest=largest)
    values = values.double() if largest else -values.double()
    sums = values.new_zeros(len(unit), len(chosen))
    for ranks in chosen.unbind(1):
        sums += values.index_select(1, ranks)
    best, which = sums.topk(min(count, len(chosen)), dim=1)
    places = order.gather(1, chosen[which].flatten(1))
    return places.view(*which.shape, size), best


@lru_cache(maxsize=64)
def _leading_subsets(size: int, dim: int, count: int, device: torch.device) -> tuple[Tensor, int]:
    """The sets of ``size`` of the ranks 0..dim-1 that at most ``count`` sets dominate, (N, size), and their depth.

    Made rank by rank: to a beginning, its next rank is added as long as the best set that begins so is dominated by
    ``count`` at most. Their number grows with the rank, so the last possible one is found by halving.
    """
    chosen = torch.zeros(1, 0, dtype=torch.int64)
    for place in range(size):
        first = chosen[:, -1] + 1 if place else torch.zeros(1, dtype=torch.int64)
        low, high = first - 1, torch.full_like(first, dim - size + place)  # low is possible, or none is
        while bool((low < high).any()):
            middle = (low + high + 1) // 2
            possible = _dominating(_completed(chosen, middle, size)) <= count
            low, high = torch.where(possible, middle, low), torch.where(possible, high, middle - 1)
        times = low - first + 1
        begun = times.cumsum(0) - times
        step = torch.arange(int(times.sum())) - begun.repeat_interleave(times)
        chosen = torch.cat([chosen.repeat_interleave(times, 0), (first.repeat_interleave(times) + step)[:, None]], 1)
    return chosen.to(device), int(chosen.max()) + 1 if size else 0


def _completed(begun: Tensor, rank: Tensor, size: int) -> Tensor:
    """The best sets (N, size) that begin with ``begun`` (N, i) and ``rank`` (N,)."""
    tail = rank[:, None] + torch.arange(size - begun.shape[1])
    return torch.cat([begun, tail], 1)


def _dominating(ranks: Tensor) -> Tensor:
    """How many sets of ranks are at most ``ranks`` (N, size), ascending, in every place: float64 (N,).

    With e_i = rank_i - i (i from 0) these are the sequences 0 <= f_0 <= f_1 <= ... with f_i <= e_i, counted by a
    determinant of binomials (Kreweras 1965), whose expansion is N_j = sum over i < j of (-1)^(j-1-i) C(e_i + 1, j - i) N_i.
    """
    excess = (ranks - torch.arange(ranks.shape[1])).double()
    counts = [torch.ones(len(ranks), dtype=torch.float64)]
    for j in range(1, ranks.shape[1] + 1):
        total = torch.zeros_like(counts[0])
        for i in range(j):
            total += (-1) ** (j - 1 - i) * _binomial(excess[:, i] + 1, j - i) * counts[i]
        counts.append(total)
    return counts[-1]


def _binomial(n: Tensor, k: int) -> Tensor:
    """C(n, k) of whole numbers ``n`` in float64."""
    out = torch.ones_like(n)
    for i in range(k):
        out = out * (n - i) / (i + 1)
    return out


@lru_cache(maxsize=64)
def _stairs(ones: int, minus_ones: int, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """All (i, j) with i < ones, j < minus_ones and (i + 1)(j + 1) <= count: two lists (N,)."""
    i = torch.arange(ones)
    times = (count // (i + 1)).clamp(max=minus_ones)
    i = i.repeat_interleave(times)
    j = torch.arange(len(i)) - (times.cumsum(0) - times).repeat_interleave(times)
    return i.to(device), j.to(device)
