"""Exact nearest classes where these are few: one matrix product with all of them, in float64.

Such scores follow the rule of :mod:`lsc.systems.ranking` by themselves. The matrix is kept for the next search.
"""

import torch
from torch import Tensor

from lsc.systems.arrangements import Arrangements
from lsc.systems.classes import Classes
from lsc.systems.ranking import first_best

# Bytes of the matrix up to which it is kept, and scores held at one time: they should fit into a core's cache.
_KEPT, _SCORES_AT_ONCE = 1 << 26, 1 << 19
# Displaced centers made at one time.
_MADE_AT_ONCE = 1024


def matrix_may_be_kept(system: Arrangements, classes: Classes) -> bool:
    """Whether the matrix of all classes is small enough to be kept."""
    return 8 * classes.count * system.dim <= _KEPT


def multiply(system: Arrangements, unit: Tensor, k: int, classes: Classes) -> tuple[Tensor, Tensor]:
    """The ``k`` best classes for ``unit`` (B, dim), finite: labels and scores (B, k), best first."""
    matrix = classes.kept.get("matrix", unit.device, lambda: _matrix(system, classes, unit.device))
    parts = [
        first_best((rows @ matrix).float(), k)
        for rows in torch.split(unit.double(), max(_SCORES_AT_ONCE // classes.count, 1))
    ]
    if len(parts) == 1:
        return parts[0]
    return torch.cat([labels for labels, _ in parts]), torch.cat([scores for _, scores in parts])


def _matrix(system: Arrangements, classes: Classes, device: torch.device) -> Tensor:
    """Centers of all classes as columns: float64 (dim, classes)."""
    labels = torch.arange(classes.count, device=device)
    if classes.centers is not None:
        return torch.cat([classes.centers(part).double() for part in torch.split(labels, _MADE_AT_ONCE)]).T.contiguous()
    ones, minus_ones = system.positions(classes.index_of(labels))
    matrix = torch.zeros(system.dim, classes.count, dtype=torch.float64, device=device)
    return matrix.scatter_(0, ones.T, 1.0).scatter_(0, minus_ones.T, -1.0)
