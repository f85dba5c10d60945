"""What a search must know of the classes in a system: which vector is whose, and how far a center may lie from it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from lsc.systems.arrangements import Arrangements

# Relative error allowed for scores of displaced centers, which are made and compared in float32.
_CENTER_ERROR = 1e-5
# Coordinates of displaced centers held at one time, and made at one time on a CPU: they should fit into a core's cache.
_COORDINATES_AT_ONCE, _COORDINATES_MADE_AT_ONCE = 1 << 20, 1 << 17


@dataclass
class Kept:
    """What searches keep of a set of classes from one call to the next. A copy of it, and a saved one, is empty."""

    tensors: dict[tuple[str, torch.device], Tensor] = field(default_factory=dict)

    def get(self, name: str, device: torch.device, make: Callable[[], Tensor]) -> Tensor:
        """The tensor called ``name`` on ``device``, made where it is not there."""
        if (name, device) not in self.tensors:
            self.tensors[name, device] = make()
        return self.tensors[name, device]

    def __deepcopy__(self, memo: object) -> "Kept":
        return Kept()

    def __reduce__(self) -> tuple[type["Kept"], tuple[()]]:
        return Kept, ()


@dataclass(frozen=True)
class Classes:
    """Classes 0..count-1 with a vector of a system each, and a center that may be displaced from it.

    Attributes:
        count: number of classes.
        label_of: classes (...) of int64 vectors (...), -1 where no class has that vector.
        index_of: vectors (...) of classes (...), int64.
        reach: largest angle in radians between a class's center and its vector; 0 if centers are not displaced.
        centers: displaced centers of classes (N,): float32 (N, dim), at the system's norm; None if they are not.
        kept: what searches keep; to be made anew where the classes change.
    """

    count: int
    label_of: Callable[[Tensor], Tensor]
    index_of: Callable[[Tensor], Tensor]
    reach: float = 0.0
    centers: Callable[[Tensor], Tensor] | None = None
    kept: Kept = field(default_factory=Kept)

    def displaced(self, labels: Tensor, dim: int) -> Tensor:
        """Displaced centers of ``labels`` (N,): float32 (N, dim)."""
        assert self.centers is not None
        step = max(_COORDINATES_MADE_AT_ONCE // dim, 1)
        if labels.device.type != "cpu" or len(labels) <= step:
            return self.centers(labels)
        return torch.cat([self.centers(part) for part in torch.split(labels, step)])

    def center_scores(self, unit: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
        """Scores (N,) of the displaced centers of ``labels`` (N,) for ``unit[rows]``, float32."""
        step = max(_COORDINATES_AT_ONCE // unit.shape[1], 1)
        parts = [
            (unit[row].double() * self.displaced(label, unit.shape[1])).sum(1).float()
            for row, label in zip(torch.split(rows, step), torch.split(labels, step), strict=True)
        ]
        return torch.cat(parts) if parts else torch.zeros(0, device=unit.device)

    def most(self, score: Tensor, full: Tensor) -> Tensor:
        """The largest score that the center of a vector with ``score`` can have.

        ``full`` is the score of a vector in the direction of the embedding itself. Both are broadcast.
        """
        if self.reach == 0:
            return score
        cosine = (score / full).clamp(-1, 1)
        turned = cosine * math.cos(self.reach) + (1 - cosine.square()).sqrt() * math.sin(self.reach)
        turned = torch.where(cosine >= math.cos(self.reach), 1.0, turned) + _CENTER_ERROR
        return torch.where(score.isneginf(), score, turned * full)

    def least(self, score: Tensor, full: Tensor) -> Tensor:
        """The least score of a vector whose center can have ``score``: the inverse of :meth:`most`."""
        cosine = (score / full - _CENTER_ERROR).clamp(-1, 1)
        turned = cosine * math.cos(self.reach) - (1 - cosine.square()).sqrt() * math.sin(self.reach)
        turned = torch.where(cosine <= -math.cos(self.reach), -torch.inf, turned - _CENTER_ERROR)
        return turned * full


@lru_cache(maxsize=2)
def whole(system: Arrangements) -> Classes:
    """Every vector of ``system`` is a class, labelled with its index. What searches keep of the last two systems stays."""
    return Classes(system.capacity, label_of=lambda index: index, index_of=lambda labels: labels)
