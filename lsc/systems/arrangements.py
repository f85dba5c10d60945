"""Arrangements of ones and minus-ones among coordinates, numbered: from an index to the places of its entries, and back.

A vector is addressed by its rank in the combinatorial number system (Lehmer 1964; Knuth, TAOCP 4A, 7.2.1.3): the rank
of the set of its ones, times the number of ways to place the minus-ones, plus the rank of the set of its minus-ones
among the coordinates left. Every operation costs O(batch x dim) at most, whatever the number of vectors.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import comb, sqrt

import torch
from torch import Tensor

from lsc.checks import check_ids, check_within
from lsc.errors import UserError
from lsc.tracing import constant_in_traces

_INT64_MAX = 2**63 - 1


@dataclass(frozen=True, repr=True)
class Arrangements:
    """All ways to place ``plus`` ones and ``minus`` minus-ones among ``dim`` coordinates, zeros elsewhere.

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

    @property
    def name(self) -> str:
        return f"V{self.plus}{self.minus}" if max(self.plus, self.minus) < 10 else f"V({self.plus},{self.minus})"

    @property
    def norm(self) -> float:
        return sqrt(self.plus + self.minus)

    @property
    def capacity(self) -> int:
        return capacity(self.plus, self.minus, self.dim)

    def positions(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Places of the ones (..., plus) and of the minus-ones (..., minus), each ascending, for ``index`` (...)."""
        self.check_indexable()
        check_ids(index, "indexes")
        check_within(index, self.capacity, f"an index of {self.name} in {self.dim} dimensions")
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


@constant_in_traces
def _binomials(size: int, dim: int, device: torch.device) -> Tensor:
    """C(c, i) for i = 1..size (rows) and c = 0..dim (columns), int64; copied to a device once."""
    return _binomials_on(size, dim, device)


@lru_cache(maxsize=256)
def _binomials_on(size: int, dim: int, device: torch.device) -> Tensor:
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
    places = []
    for i in reversed(range(1, size)):
        places.append(torch.searchsorted(table[i], rank.contiguous(), right=True) - 1)
        rank = rank - table[i][places[-1]]
    # C(place, 1), the first term, is the place itself.
    return torch.stack([rank, *reversed(places)], -1) if size else rank.new_empty(*rank.shape, 0)
