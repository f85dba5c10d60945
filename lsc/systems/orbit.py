"""All arrangements of ``plus`` ones and ``minus`` minus-ones in ``dim`` coordinates, without ever listing them.

The system V_n^{pm} is the orbit of the vector [1, ..., 1, 0, ..., 0, -1, ..., -1] under permutations of its
coordinates (Gabdullin, arXiv 2512.07509); V_n^{11} are the roots of A_{n-1}, the centers of arXiv 2510.04090.
How its vectors are numbered: :mod:`lsc.systems.arrangements`; how the nearest are found: :mod:`lsc.systems.search`.
"""

from collections import Counter
from dataclasses import dataclass
from math import comb

import torch
from torch import Tensor

from lsc.checks import check_count, check_embeddings
from lsc.systems.arrangements import Arrangements, capacity
from lsc.systems.base import System, in_rows
from lsc.systems.partition import log_partition, log_rest
from lsc.systems.search import search, whole


@dataclass(frozen=True, repr=True)
class OrbitSystem(Arrangements, System):
    """All vectors with ``plus`` ones, ``minus`` minus-ones and zeros elsewhere.

    Args:
        plus, minus: numbers of ones and minus-ones, not both zero.
        dim: number of coordinates, at least ``plus + minus``.
    """

    @classmethod
    def smallest(cls, num_classes: int, plus: int = 1, minus: int = 1) -> "OrbitSystem":
        """The system of the least dimension that holds ``num_classes`` vectors (n_min of arXiv 2512.07509)."""
        low = high = plus + minus
        while capacity(plus, minus, high) < num_classes:
            if capacity(plus, minus, high + 1) == capacity(plus, minus, high):
                raise ValueError(f"V^({plus},{minus}) has the same capacity in every dimension")
            low, high = high, 2 * high
        while low < high:
            middle = (low + high) // 2
            if capacity(plus, minus, middle) < num_classes:
                low = middle + 1
            else:
                high = middle
        return cls(plus, minus, high)

    @property
    def max_cosine(self) -> float:
        """Largest cosine between two different vectors: moving one entry to a zero keeps all products but one."""
        return next(iter(self.cosine_spectrum()), -1.0)

    def cosine_spectrum(self) -> dict[float, int]:
        """Every cosine between a vector and the others, with its exact count, in descending order.

        The other vector puts a of its ones on the ones of the first, b on its minus-ones and the rest on its zeros,
        and d of its minus-ones on the minus-ones, e on the ones: their product is a + d - b - e, the number of such
        vectors a product of three multinomials.
        One vector sees what every vector sees, so this is the spectrum of the whole system.
        """
        plus, minus, zeros = self.plus, self.minus, self.dim - self.plus - self.minus
        counts: Counter[int] = Counter()
        for a in range(plus + 1):
            for b in range(plus - a + 1):
                for d in range(minus - b + 1):
                    for e in range(min(minus - d, plus - a) + 1):
                        counts[a + d - b - e] += (
                            _arrangements(plus, a, e) * _arrangements(minus, d, b)
                            * _arrangements(zeros, plus - a - b, minus - d - e)
                        )  # fmt: skip
        counts[plus + minus] -= 1  # the vector itself
        return {dot / (plus + minus): count for dot, count in sorted(counts.items(), reverse=True) if count}

    def vectors(self, index: Tensor) -> Tensor:
        ones, minus_ones = self.positions(index)
        out = torch.zeros(*index.shape, self.dim, device=index.device)
        return out.scatter_(-1, ones, 1.0).scatter_(-1, minus_ones, -1.0)

    def index(self, vectors: Tensor) -> Tensor:
        is_one, is_minus_one = vectors == 1, vectors == -1
        fits = (is_one.sum(-1) == self.plus) & (is_minus_one.sum(-1) == self.minus)
        fits &= (is_one | is_minus_one | (vectors == 0)).all(-1)
        if vectors.shape[-1] != self.dim or not bool(fits.all()):
            raise ValueError(f"not a vector of {self.name} in {self.dim} dimensions")
        # The k-th coordinate that holds a one, in ascending order: a stable sort brings them to the front.
        ones = is_one.to(torch.uint8).sort(dim=-1, descending=True, stable=True).indices[..., : self.plus]
        minus_ones = is_minus_one.to(torch.uint8).sort(dim=-1, descending=True, stable=True).indices[..., : self.minus]
        return self.index_of(ones, minus_ones)

    def scores(self, z: Tensor, index: Tensor) -> Tensor:
        check_embeddings(z, self.dim)
        ones, minus_ones = self.positions(in_rows(index, len(z)))
        return gathered_score(z, ones, minus_ones).reshape(index.shape)

    def nearest(self, z: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        check_embeddings(z, self.dim)
        check_count(k)
        found = search(self, z, k, whole(self))
        return found.labels, found.scores

    def log_partition(self, z: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        """log sum over all vectors v of exp(scale z.v), exactly, for ``z`` (B, dim): (B,); see :mod:`.partition`."""
        check_embeddings(z, self.dim)
        return log_partition(scale * z, self.plus, self.minus)

    def log_rest(self, z: Tensor, index: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        """As :meth:`log_partition`, but without the vector of ``index`` (B,): what competes with the true class."""
        check_embeddings(z, self.dim)
        return log_rest(scale * z, *self.positions(index))

    def log_rest_at(self, z: Tensor, ones: Tensor, minus_ones: Tensor, spread: float | None = None) -> Tensor:
        """:meth:`log_rest` of the vectors given by their :meth:`positions`; ``spread`` as in :mod:`.partition`."""
        return log_rest(z, ones, minus_ones, spread)


def gathered_score(z: Tensor, ones: Tensor, minus_ones: Tensor) -> Tensor:
    """Sum of ``z`` (B, dim) over ``ones`` (B, ..., plus) minus its sum over ``minus_ones``: (B, ...), float32.

    Summed in float64, which holds a sum of a few float32 numbers exactly but for extreme ranges, and rounded once.
    """
    total = torch.zeros(ones.shape[:-1], dtype=torch.float64, device=z.device)
    for places, sign in ((ones, 1.0), (minus_ones, -1.0)):
        taken = z.float().gather(1, places.flatten(1)).reshape(places.shape)
        total = total + sign * taken.sum(-1, dtype=torch.float64)
    return total.float()


def _arrangements(places: int, first: int, second: int) -> int:
    """Ways to choose ``first`` and then ``second`` of the remaining ``places``."""
    return comb(places, first) * comb(places - first, second) if first + second <= places else 0
