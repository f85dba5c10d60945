"""Exact nearest classes by looking at all of them: cheap float32 scores as a filter, exact ones for the few that pass.

The classes are taken in blocks, and of every block only the largest float32 score is kept. At least k classes reach the
k-th largest of these, so a class that stays below it by more than the error of such scores is not among the best k: a
few blocks are left, whose classes are ranked by the rule of :mod:`lsc.systems.ranking`. Nothing of size
classes x embeddings is held.

The float32 score of an arrangement is a sum of a few coordinates, looked up by its places: a fraction of a matrix
product's work, whatever the dimension. Displaced centers have to be made and multiplied with; so first the scores of
their vectors say which centers can be among the best at all. Places are kept for the next search.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lsc.systems.arrangements import Arrangements
from lsc.systems.classes import Classes
from lsc.systems.ranking import product_error, rank_within_rows

# Float32 scores held at one time: they should fit into a core's cache.
_SCORES_AT_ONCE = 1 << 18
# Embeddings whose coordinates are looked up at one time, for the same reason; and where places are made anew for every part
# of the embeddings, which is dear.
_ROWS_LOOKED_UP, _ROWS_WITH_NEW_PLACES = 64, 1024
# Float32 scores of a part of the embeddings that are held until the exact ones are taken.
_HELD = 1 << 20
# Coordinates gathered at one time for exact scores.
_EXACT_AT_ONCE = 1 << 22
# Bytes of places that are kept. More classes' are made anew for every search.
_PLACES_KEPT = 1 << 26
# Displaced centers multiplied with at one time.
_CENTERS_AT_ONCE = 1024
# Rounding error of float32.
_UNIT = 2.0**-24


def scan(system: Arrangements, unit: Tensor, k: int, classes: Classes) -> tuple[Tensor, Tensor]:
    """The ``k`` best classes for ``unit`` (B, dim), finite and below 1 in size: labels and scores (B, k), best first."""
    if classes.centers is not None:
        return _scan_displaced(system, unit, k, classes)
    parts = [_best_by_blocks(part, classes.count, k) for part in _looking(system, unit, classes)]
    return torch.cat([labels for labels, _ in parts]), torch.cat([scores for _, scores in parts])


def places_are_kept(system: Arrangements, classes: Classes) -> bool:
    """Whether the places of all classes' ones and minus-ones are kept."""
    width = 2 if 2 * system.dim < 2**15 else 4
    return width * classes.count * (system.plus + system.minus) <= _PLACES_KEPT


@dataclass(frozen=True)
class _Scores:
    """Two ways to the scores of a part of the embeddings.

    Attributes:
        rows: number of embeddings.
        approximate: (start, stop) to the float32 scores (stop - start, rows), minus infinity beyond the classes.
        exact: rows (N,) and classes (N,) to their scores (N,) by the rule.
        error: (rows,) the largest difference between the two.
    """

    rows: int
    approximate: Callable[[int, int], Tensor]
    exact: Callable[[Tensor, Tensor], Tensor]
    error: Tensor


def _best_by_blocks(scores: _Scores, count: int, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` best of classes 0..count-1: labels and scores (rows, k)."""
    rows, device = scores.rows, scores.error.device
    # Looking for the largest maxima costs about as much per block as three exact scores.
    width = max(round(math.sqrt(count / (3 * k))), 1)
    blocks = -(-count // width)  # block i holds classes i, i + blocks, i + 2 blocks, ...
    maxima = torch.full((blocks, rows), -torch.inf, device=device)
    held = torch.empty(width, blocks, rows, device=device) if width * blocks * rows <= _HELD else None
    chunk = max(_SCORES_AT_ONCE // rows, 1)
    together = max(chunk // blocks, 1)
    for layer in range(0, width, together):
        layers = min(together, width - layer)
        for start in range(0, blocks, chunk):
            stop = min(start + chunk, blocks)
            found = scores.approximate(layer * blocks + start, (layer + layers - 1) * blocks + stop)
            found = found.view(layers, stop - start, rows)
            if held is not None:
                held[layer : layer + layers, start:stop] = found
            torch.maximum(maxima[start:stop], found.amax(0) if layers > 1 else found[0], out=maxima[start:stop])
    reached = maxima.T.contiguous().topk(k, dim=1).values[:, -1]
    least = reached - 2 * scores.error
    block, row = (maxima >= least).nonzero(as_tuple=True)
    best, layer_starts = _Best(rows, k, device), torch.arange(width, device=device) * blocks
    for some, someone in zip(*(torch.split(t, max(_EXACT_AT_ONCE // width, 1)) for t in (block, row)), strict=True):
        label, of_row = some[:, None] + layer_starts, someone[:, None].expand(-1, width)
        hopeful = label < count if held is None else least[someone, None] <= held[:, some, someone].T
        label, of_row = label[hopeful], of_row[hopeful]
        score = scores.exact(of_row, label)
        passing = score >= (reached - scores.error)[of_row]
        best.add(of_row[passing], label[passing], score[passing])
    return best.labels, best.scores


class _Best:
    """The best classes found so far: ``labels`` and ``scores`` (rows, k)."""

    def __init__(self, rows: int, k: int, device: torch.device) -> None:
        self.labels = torch.full((rows, k), -1, device=device)
        self.scores = torch.full((rows, k), -torch.inf, device=device)
        self._empty = True

    def add(self, row: Tensor, label: Tensor, score: Tensor) -> None:
        """Let further classes take part, none of them twice: three lists (N,)."""
        rows, k = self.labels.shape
        if not self._empty:
            row = torch.cat([torch.arange(rows, device=row.device).repeat_interleave(k), row])
            label, score = torch.cat([self.labels.flatten(), label]), torch.cat([self.scores.flatten(), score])
        self.labels, self.scores = rank_within_rows(row, label, score, rows, k)
        self._empty = False


def _looking(system: Arrangements, unit: Tensor, classes: Classes) -> Iterator[_Scores]:
    """The scores of the vectors of the classes, for parts of the embeddings."""
    kept = _kept_places(system, classes, unit.device)
    entries = system.plus + system.minus

    def places(start: int, stop: int) -> Tensor:
        first, last = min(start, classes.count), min(stop, classes.count)  # the last block may begin beyond the classes
        labels = torch.arange(first, last, device=unit.device)
        found = kept[first:last].int() if kept is not None else _places(system, classes.index_of(labels)).int()
        # Beyond them all entries are minus infinity's.
        return F.pad(found, (0, 0, 0, stop - start - len(found)), value=2 * system.dim)

    for part in torch.split(unit, _ROWS_LOOKED_UP if kept is not None else _ROWS_WITH_NEW_PLACES):
        table = torch.cat([part, -part], 1)
        looked_up = F.pad(table.T, (0, 0, 0, 1), value=-torch.inf).contiguous()
        exact_table = table.double().flatten()

        def approximate(start: int, stop: int, looked_up: Tensor = looked_up) -> Tensor:
            return F.embedding_bag(places(start, stop), looked_up, mode="sum")

        def exact(row: Tensor, label: Tensor, exact_table: Tensor = exact_table) -> Tensor:
            found = kept[label].long() if kept is not None else _places(system, classes.index_of(label))
            total = torch.zeros(len(row), dtype=torch.float64, device=row.device)
            for place in found.unbind(1):
                total += exact_table[row * (2 * system.dim) + place]
            return total.float()

        # A sum of numbers below 1, and the rounding of the exact score.
        error = part.new_full((len(part),), (entries + 1) * entries * _UNIT)
        yield _Scores(len(part), approximate, exact, error)


def _places(system: Arrangements, index: Tensor) -> Tensor:
    """Places (N, plus + minus) in a row of an embedding followed by its negative, whose sum is the score."""
    ones, minus_ones = system.positions(index)
    return torch.cat([ones, minus_ones + system.dim], -1)


def _kept_places(system: Arrangements, classes: Classes, device: torch.device) -> Tensor | None:
    if not places_are_kept(system, classes):
        return None

    def make() -> Tensor:
        kind = torch.int16 if 2 * system.dim < 2**15 else torch.int32
        labels = torch.arange(classes.count, device=device)
        return torch.cat([_places(system, classes.index_of(part)).to(kind) for part in torch.split(labels, 1 << 17)])

    return classes.kept.get("places", device, make)


def _scan_displaced(system: Arrangements, unit: Tensor, k: int, classes: Classes) -> tuple[Tensor, Tensor]:
    """:func:`scan` of many displaced centers: only those are made that can be among the best of any embedding."""
    vectors = Classes(classes.count, classes.label_of, classes.index_of, kept=classes.kept)
    # The centers of the best vectors set the mark.
    near = scan(system, unit, min(4 * k, classes.count), vectors)[0]
    rows = torch.arange(len(unit), device=unit.device).repeat_interleave(near.shape[1])
    scores = classes.center_scores(unit, rows, near.flatten()).view(near.shape)
    best = _Best(len(unit), k, unit.device)
    mark = scores.topk(k, dim=1).values[:, -1]
    full, error = unit.norm(dim=1) * system.norm, product_error(unit, system.norm)
    columns = unit.T.contiguous()
    least = classes.least(mark, full)
    for labels in _within_reach(system, unit, vectors, least):
        centers = classes.displaced(labels, system.dim)
        place, row = (centers @ columns >= mark - error).nonzero(as_tuple=True)
        best.add(row, labels[place], (unit[row].double() * centers[place]).sum(1).float())
        mark = torch.maximum(mark, best.scores[:, -1])
        least.copy_(classes.least(mark, full))
    return best.labels, best.scores


def _within_reach(system: Arrangements, unit: Tensor, vectors: Classes, least: Tensor) -> Iterator[Tensor]:
    """Classes, about 1,024 at a time, whose vectors score ``least`` (B,) or more for any embedding.

    What the caller writes into ``least`` between two of them counts for the next.
    """
    parts = list(_looking(system, unit, vectors))
    waiting = torch.zeros(0, dtype=torch.int64, device=unit.device)
    sizes = [part.rows for part in parts]
    chunk = max(_SCORES_AT_ONCE // max(sizes), 1)
    for start in range(0, vectors.count, chunk):
        stop = min(start + chunk, vectors.count)
        needed = torch.zeros(stop - start, dtype=torch.bool, device=unit.device)
        for part, mark in zip(parts, torch.split(least, sizes), strict=True):
            needed |= (part.approximate(start, stop) >= mark - part.error).any(1)
        waiting = torch.cat([waiting, needed.nonzero()[:, 0] + start])
        whole = len(waiting) // _CENTERS_AT_ONCE * _CENTERS_AT_ONCE
        yield from torch.split(waiting[:whole], _CENTERS_AT_ONCE) if whole else ()
        waiting = waiting[whole:]
    if len(waiting):
        yield waiting
