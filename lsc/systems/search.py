"""Exact nearest classes in an orbit system: the best vectors are listed, or all classes are looked at, by what is cheaper.

Where the classes are few, a matrix product with all of them is the whole search (:mod:`lsc.systems.multiplying`).

The vector of V^{pm} with the largest dot product with z has its ones on the p largest coordinates of z and its
minus-ones on the m smallest (rearrangement inequality), and the next ones are listed as :mod:`lsc.systems.staircase` says,
with a bound on all others. When the k-th best class found beats the bound, the answer is proven; otherwise four times
as many are listed. Where centers are displaced (by an angle of up to ``reach``), the bound is widened by that angle
and the candidates' centers are scored anew. What listing does not prove at less than the cost of looking at every class
is left to such a product, or to :mod:`lsc.systems.scanning`.
"""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from lsc.systems.arrangements import Arrangements
from lsc.systems.classes import Classes, whole
from lsc.systems.effort import (
    center_cost,
    listing_cost,
    looking_cost,
    product_is_cheaper_than_scan,
    product_is_cheapest,
)
from lsc.systems.multiplying import multiply
from lsc.systems.ranking import rank_within_rows, unit_rows
from lsc.systems.scanning import scan
from lsc.systems.staircase import entries, list_best

__all__ = ["Classes", "Found", "search", "whole"]

# So many classes are not looked at for an embedding without a warning, nor where equal scores can be had without.
_MANY = 100_000_000
# So much of the cost of looking at all classes may be spent in vain on listing, for one answer and for several.
_RISKED, _RISKED_FOR_MORE = 0.5, 0.4
# Entries of the lists of a staircase at one time, over all embeddings.
_ENTRIES_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Found:
    """Result of a search: ``labels`` (B, k) int64, ``scores`` (B, k) float32, best first, and the work it took.

    ``looked_at`` (B,) int64 counts the vectors listed for each row, and the classes where all were looked at.
    """

    labels: Tensor
    scores: Tensor
    looked_at: Tensor


@torch.no_grad()
def search(system: Arrangements, z: Tensor, k: int, classes: Classes) -> Found:
    """The ``k`` (at most ``classes.count``) best classes for every row of ``z`` (B, dim), exactly.

    Ranked as :mod:`lsc.systems.ranking` says, but that among more than 10^8 classes equal scores may come in any order where
    too many tie. Rows that are not finite get labels 0..k-1 and scores NaN. A search that must look at 10^8 classes or
    more one by one warns of it.
    """
    unit, power, finite = unit_rows(z)
    k = min(k, classes.count)
    if product_is_cheapest(system, classes, len(z), k):
        with torch.autocast(z.device.type, enabled=False):
            labels, scores = multiply(system, unit, k, classes)
        scores = torch.where(finite[:, None], (scores.double() * power).float(), torch.nan)
        return Found(labels, scores, torch.full_like(labels[:, 0], classes.count))
    found = Found(
        torch.arange(k, device=z.device).repeat(len(z), 1),
        torch.full((len(z), k), torch.nan, device=z.device),
        torch.zeros(len(z), dtype=torch.int64, device=z.device),
    )
    high, low = unit.amax(1), unit.amin(1)
    # All vectors tie on a constant row, so the first labels are the answer; no search could prove it so soon.
    ties = finite & ((high == low) if classes.reach == 0 else (high == 0) & (low == 0))
    found.scores[ties] = (high * (system.plus - system.minus))[ties, None]
    rows = (finite & ~ties).nonzero()[:, 0]
    with torch.autocast(z.device.type, enabled=False):
        rows = _search_rows(system, unit, rows, k, classes, found)
        if len(rows) and classes.count > _MANY and classes.reach == 0:
            rows = _search_rows(system, unit, rows, k, classes, found, ties=True)
        if len(rows):
            _warn_of_many(system, len(rows), classes.count)
            look = multiply if product_is_cheaper_than_scan(system, classes, len(rows), k) else scan
            found.labels[rows], found.scores[rows] = look(system, _of(unit, rows), k, classes)
            found.looked_at[rows] += classes.count
    return Found(found.labels, (found.scores.double() * power).float(), found.looked_at)


def _warn_of_many(system: Arrangements, rows: int, count: int) -> None:
    if count >= _MANY:
        warnings.warn(
            f"the nearest of {count:,} classes in {system.name} in {system.dim} dimensions: for {rows} embeddings every class "
            "has to be looked at, which takes long; fewer answers (k), a smaller perturbation or embeddings with fewer equal "
            "coordinates spare it",
            stacklevel=4,
        )


def _search_rows(
    system: Arrangements, unit: Tensor, rows: Tensor, k: int, classes: Classes, found: Found, ties: bool = False
) -> Tensor:
    """Search for ``rows`` by listing and write what is proven to ``found``; return the rows left to be looked at.

    Rows ascend, those that come and those that are left. With ``ties`` an answer stands that others may equal.
    """
    # Among so many of the best vectors about k belong to classes; one more sets the bound.
    likely = k * system.capacity // classes.count + 1
    # The best alone is often that of the embedding's own class, however few the classes are.
    count, growth = (2, 8) if k == 1 else (likely, 4)
    spent, dear = 0.0, rows[:0]  # on each row
    while len(rows) and count <= _ENTRIES_AT_ONCE // 8:
        listed = entries(system, count)
        looking = looking_cost(system, classes, len(rows), k)
        cost = listing_cost(system, classes, len(rows), count, listed)
        if not ties and spent * len(rows) + cost > looking * (_RISKED if k == 1 else _RISKED_FOR_MORE):
            break
        spent += cost / len(rows)
        # A center made for one row alone is dearer than its share of those that are made for all: a quarter is risked.
        budget = max(int(looking / len(rows) / center_cost(system) / 4), 2 * k)
        left = []
        for part in torch.split(rows, max(_ENTRIES_AT_ONCE // max(listed, system.dim), 1)):
            labels, scores, proven, too_dear, centers = _list_for(
                system, _of(unit, part), k, classes, count, budget, ties
            )
            found.labels[part[proven]], found.scores[part[proven]] = labels[proven], scores[proven]
            found.looked_at[part] = listed
            dear = torch.cat([dear, part[too_dear]])
            spent += centers * center_cost(system) / len(rows)
            left.append(part[~proven & ~too_dear])
        rows = torch.cat(left)
        count *= growth
    return torch.cat([dear, rows]).sort().values


def _of(unit: Tensor, rows: Tensor) -> Tensor:
    """``rows``, which ascend, of ``unit``: itself where these are all."""
    return unit if len(rows) == len(unit) else unit[rows]


def _list_for(
    system: Arrangements, unit: Tensor, k: int, classes: Classes, count: int, budget: int, ties: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """One round for all of ``unit`` (B, dim).

    Returns: labels and scores (B, k), which rows are proven, which are too dear, and the number of centers made.
    """
    listed = list_best(system, unit, count, ties)
    label = classes.label_of(listed.index)
    used = (label >= 0) & (label < classes.count)
    row, label, score = listed.row[used], label[used], listed.score[used]
    bound, dear = listed.bound, torch.zeros(len(unit), dtype=torch.bool, device=unit.device)
    if classes.centers is not None:
        full = unit.norm(dim=1) * system.norm
        bound = classes.most(bound, full)
        row, label, score, dear = _of_centers(unit, row, label, score, k, classes, full, bound, budget)
    labels, scores = rank_within_rows(row, label, score, len(unit), k)
    worst = scores[:, -1]
    proven = (worst > bound) & ~dear
    if ties:
        proven |= (worst == bound) & ~worst.isneginf()
    return labels, scores, proven, dear, 0 if classes.centers is None else len(row)


def _of_centers(
    unit: Tensor, row: Tensor, label: Tensor, score: Tensor, k: int, classes: Classes, full: Tensor, bound: Tensor,
    budget: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Scores of the candidates' centers: first of the k with the best vectors, then of all that could still beat these.

    The latter only for rows that this round will prove, and up to ``budget`` for each; rows that need more are dear.
    """
    most = classes.most(score, full[row])
    _, of_vectors = rank_within_rows(row, label, score, len(unit), k)
    first = score >= of_vectors[row, -1]
    of_center = torch.full_like(score, -torch.inf)
    of_center[first] = classes.center_scores(unit, row[first], label[first])
    _, found = rank_within_rows(row[first], label[first], of_center[first], len(unit), k)
    worst = found[:, -1]
    second = ~first & (most >= worst[row]) & (worst > bound)[row]
    needed = torch.zeros(len(unit), dtype=torch.int64, device=unit.device).index_add_(0, row, second.long())
    dear = needed > budget
    second &= ~dear[row]
    of_center[second] = classes.center_scores(unit, row[second], label[second])
    scored = first | second
    return row[scored], label[scored], of_center[scored], dear
