"""All arrangements of ``plus`` ones and ``minus`` minus-ones in ``dim`` coordinates, without ever listing them.

The system V_n^{pm} is the orbit of the vector [1, ..., 1, 0, ..., 0, -1, ..., -1] under permutations of its
coordinates (Gabdullin, arXiv 2512.07509); V_n^{11} are the roots of A_{n-1}, the centers of arXiv 2510.04090.
A vector is addressed by its rank in the combinatorial number system (Lehmer 1964; Knuth, TAOCP 4A, 7.2.1.3): the rank
of the set of its ones, times the number of ways to place the minus-ones, plus the rank of the set of its minus-ones
among the coordinates left. Every operation costs O(batch x dim) at most, whatever the number of vectors.
"""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from math import comb, sqrt

import torch
from torch import Tensor

from lsc.errors import UserError
from lsc.systems.base import System
from lsc.systems.partition import log_partition, log_rest

_INT64_MAX = 2**63 - 1


@dataclass(frozen=True, repr=True)
class OrbitSystem(System):
    """All vectors with ``plus`` ones, ``minus`` minus-ones and zeros elsewhere.

    Args:
        plus, minus: numbers of ones and minus-ones, not both zero.
        dim: number of coordinates, at least ``plus + minus``.
    """

    plus: int
    minus: int
    dim: int

    def __post_init__(self) -> None:
        if self.plus < 0 or self.minus < 0 or self.plus + self.minus < 1:
            raise ValueError(f"plus and minus must be natural numbers, not both zero: {self.plus}, {self.minus}")
        if self.dim < self.plus + self.minus:
            raise UserError(
                f"{self.name} needs {self.plus + self.minus} dimensions at least, not {self.dim}: raise the dimension"
            )

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
    def name(self) -> str:
        return f"V{self.plus}{self.minus}" if max(self.plus, self.minus) < 10 else f"V({self.plus},{self.minus})"

    @property
    def norm(self) -> float:
        return sqrt(self.plus + self.minus)

    @property
    def capacity(self) -> int:
        return capacity(self.plus, self.minus, self.dim)

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

    def positions(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Places of the ones (..., plus) and of the minus-ones (..., minus), each ascending, for ``index`` (...)."""
        self.check_indexable()
        if (
            index.device.type == "cpu"
            and index.numel()
            and not 0 <= int(index.min()) <= int(index.max()) < self.capacity
        ):
            raise IndexError(
                f"an index is outside of the {self.capacity} vectors of {self.name} in {self.dim} dimensions"
            )
        places = comb(self.dim - self.plus, self.minus)
        ones = _unrank(torch.div(index, places, rounding_mode="floor"), self.plus, self.dim)
        minus_ones = _unrank(index % places, self.minus, self.dim - self.plus)
        for i in range(self.plus):  # from positions among the coordinates left to positions among all
            minus_ones = minus_ones + (minus_ones >= ones[..., i : i + 1])
        return ones, minus_ones

    def index_of(self, ones: Tensor, minus_ones: Tensor) -> Tensor:
        """Inverse of :meth:`positions`; each of the two tensors must be ascending along its last dimension."""
        self.check_indexable()
        skipped = (ones.unsqueeze(-2) < minus_ones.unsqueeze(-1)).sum(-1)
        places = comb(self.dim - self.plus, self.minus)
        return _rank(ones, self.dim) * places + _rank(minus_ones - skipped, self.dim - self.plus)

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
        flat = index.reshape(len(z), -1)
        ones, minus_ones = self.positions(flat)
        return gathered_score(z, ones, minus_ones).reshape(index.shape)

    def scores_of_all(self, z: Tensor, index: Tensor) -> Tensor:
        """Dot products of every row of ``z`` (B, dim) with every vector of ``index`` (C,): float32 (B, C).

        As :meth:`scores` to the last bit, but a vector's places are worked out once for all rows.
        """
        ones, minus_ones = self.positions(index)
        coordinates = z.double().T.contiguous()
        total = torch.zeros(len(index), len(z), dtype=torch.float64, device=z.device)
        for place in ones.unbind(-1):
            total += coordinates[place]
        for place in minus_ones.unbind(-1):
            total -= coordinates[place]
        return total.T.float()

    def nearest(self, z: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        from lsc.systems.search import nearest_of_orbit

        return nearest_of_orbit(self, z, k)

    def log_partition(self, z: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        """log sum over all vectors v of exp(scale z.v), exactly, for ``z`` (B, dim): (B,); see :mod:`.partition`."""
        return log_partition(scale * z, self.plus, self.minus)

    def log_rest(self, z: Tensor, index: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        """As :meth:`log_partition`, but without the vector of ``index`` (B,): what competes with the true class."""
        return log_rest(scale * z, *self.positions(index))

    def log_rest_at(self, z: Tensor, ones: Tensor, minus_ones: Tensor, spread: float | None = None) -> Tensor:
        """:meth:`log_rest` of the vectors given by their :meth:`positions`; ``spread`` as in :mod:`.partition`."""
        return log_rest(z, ones, minus_ones, spread)

    def check_indexable(self) -> None:
        """Raise a UserError if there are more vectors than 64-bit indexes can name."""
        if self.capacity > _INT64_MAX:
            raise UserError(
                f"{self.name} in {self.dim} dimensions has {self.capacity} vectors, more than 64-bit indexes can name: "
                "use a lower dimension or fewer nonzero entries, such as V11"
            )


def capacity(plus: int, minus: int, dim: int) -> int:
    """Number of vectors of V_dim^{plus,minus}: dim! / (plus! minus! (dim - plus - minus)!)."""
    return comb(dim, plus) * comb(dim - plus, minus) if dim >= plus + minus else 0


def gathered_score(z: Tensor, ones: Tensor, minus_ones: Tensor) -> Tensor:
    """Sum of ``z`` (B, dim) over ``ones`` (B, ..., plus) minus its sum over ``minus_ones``: (B, ...), float32.

    Summed in float64, which holds a sum of a few float32 numbers exactly but for extreme ranges, and rounded once.
    """
    total = torch.zeros(ones.shape[:-1], dtype=torch.float64, device=z.device)
    for places, sign in ((ones, 1.0), (minus_ones, -1.0)):
        taken = z.float().gather(1, places.reshape(len(z), -1)).reshape(places.shape)
        total = total + sign * taken.sum(-1, dtype=torch.float64)
    return total.float()


def _arrangements(places: int, first: int, second: int) -> int:
    """Ways to choose ``first`` and then ``second`` of the remaining ``places``."""
    return comb(places, first) * comb(places - first, second) if first + second <= places else 0


@lru_cache(maxsize=256)
def _binomials(size: int, dim: int, device: torch.device) -> Tensor:
    """C(c, i) for i = 1..size (rows) and c = 0..dim (columns), int64."""
    return torch.tensor(
        [[min(comb(c, i), _INT64_MAX) for c in range(dim + 1)] for i in range(1, size + 1)], device=device
    ).long()


def _rank(places: Tensor, dim: int) -> Tensor:
    """Rank of ascending ``places`` (..., size) among all subsets of that size: sum of C(place_i, i)."""
    rank = torch.zeros(places.shape[:-1], dtype=torch.int64, device=places.device)
    table = _binomials(places.shape[-1], dim, places.device)
    for i in range(places.shape[-1]):
        rank = rank + table[i][places[..., i]]
    return rank


def _unrank(rank: Tensor, size: int, dim: int) -> Tensor:
    """Inverse of :func:`_rank`: (...) to ascending places (..., size)."""
    table = _binomials(size, dim, rank.device)
    places = torch.empty(*rank.shape, size, dtype=torch.int64, device=rank.device)
    for i in reversed(range(size)):
        place = torch.searchsorted(table[i], rank.contiguous(), right=True) - 1
        places[..., i] = place
        rank = rank - table[i][place]
    return places
