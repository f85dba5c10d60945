"""Exact nearest classes where these are few: a matrix product with all of them, as :mod:`lsc.systems.ranking` does it.

The matrix is kept for the next search.
"""

import torch
from torch import Tensor

from lsc.systems.arrangements import Arrangements
from lsc.systems.classes import Classes
from lsc.systems.ranking import best_of_units

# Centers made at one time.
_MADE_AT_ONCE = 1024


def multiply(system: Arrangements, unit: Tensor, k: int, classes: Classes) -> tuple[Tensor, Tensor]:
    """The ``k`` best classes for ``unit`` (B, dim), finite and below 1 in size: labels and scores (B, k), best first."""
    matrix = classes.kept.get("matrix", unit.device, lambda: _matrix(system, classes, unit.device))
    return best_of_units(unit, classes.count, k, matrix.__getitem__, system.norm)


def _matrix(system: Arrangements, classes: Classes, device: torch.device) -> Tensor:
    """Centers of all classes: float32 (classes, dim)."""
    matrix = torch.zeros(classes.count, system.dim, device=device)
    for labels in torch.split(torch.arange(classes.count, device=device), _MADE_AT_ONCE):
        part = matrix[labels[0] : labels[-1] + 1]
        if classes.centers is not None:
            part.copy_(classes.displaced(labels, system.dim))
        else:
            ones, minus_ones = system.positions(classes.index_of(labels))
            part.scatter_(1, ones, 1.0).scatter_(1, minus_ones, -1.0)
    return matrix
