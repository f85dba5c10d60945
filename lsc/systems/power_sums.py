"""Coefficients of prod_k (1 + x a_k + y / a_k) from the sums of powers of the a_k, and their analytic gradient.

The logarithm of the product has the coefficient (-1)^(d-1) / d C(d, i) sum_k a_k^(i-j) at x^i y^j, d = i + j, because
the factors' two terms are inverse to each other. So all that is needed of the embedding are the sums of the a_k^r, r = 1..p,
and of the a_k^-r, r = 1..m; exponentiating the series (Newton's identities, in two variables) gives the coefficients.

Newton's identities cancel where few terms dominate a sum. Therefore the p largest and the m smallest coordinates are
*peeled off* first and multiplied in as factors of their own. Then a sum of powers of the rest is either spread over many
terms, and nothing cancels, or small against what was peeled off, and what cancels does not count: if the rest's
largest a is M and their sum s = r M, an error of s^p is one of (r M)^p against a whole of at least M^p (small r), and
against about s^p / p! (large r). The error stays below a few thousand units of float64 for p, m <= 4 whatever the
embedding; for more, :mod:`lsc.systems.partition` multiplies factor by factor.
"""

from functools import lru_cache
from math import comb
from typing import NamedTuple

import torch
from torch import Tensor

from lsc.tracing import constant_in_traces

# Largest p and m for which the sums are used.
MOST = 4
# So many factors at most are faster multiplied one by one.
FEW = 32


def is_worth_it(plus: int, minus: int, coordinates: int) -> bool:
    """Whether so many coordinates are multiplied faster by sums of powers than factor by factor."""
    return max(plus, minus) <= MOST and coordinates > FEW


def peeled(z: Tensor, left_out: Tensor, plus: int, minus: int) -> Tensor:
    """The ``plus`` largest coordinates but those ``left_out`` (B, N), the ``minus`` smallest of the others: (B, plus + minus)."""
    largest = z.scatter(1, left_out, -torch.inf).topk(plus, dim=1).indices
    low = z.scatter(1, torch.cat([left_out, largest], 1), torch.inf)
    return torch.cat([largest, low.topk(minus, dim=1, largest=False).indices], 1)


class Product:
    """The product of the factors 1 + x exp(z_k - top) + y exp(bottom - z_k), by sums of powers.

    Args:
        z: (B, dim); top, bottom: its extremes (B, 1).
        left_out: coordinates (B, N) that take no part.
        narrow: whether the exponentials of z between its extremes fit into float32.

    Attributes:
        coefficients: (plus + 1, minus + 1, B), float64.
    """

    def __init__(
        self, z: Tensor, top: Tensor, bottom: Tensor, left_out: Tensor, plus: int, minus: int, narrow: bool
    ) -> None:
        self.maps = maps = _maps(plus, minus, z.device)
        a = (z - (top + bottom) / 2).to(torch.float32 if narrow else torch.float64).exp()
        self.values = torch.stack([a, a.reciprocal()]).scatter_(2, left_out.expand(2, -1, -1), 0.0).double()
        sums, power = [self.values.sum(2)], self.values
        for _ in range(max(plus, minus) - 1):
            power = power * self.values
            sums.append(power.sum(2))
        number = z.shape[1] - left_out.shape[1]
        newton = torch.addmm((number * maps.newton_of_number)[:, None], maps.newton_of_sums, torch.cat(sums))
        newton = newton.view(len(maps.degree), len(maps.degree), -1).permute(2, 0, 1)
        first = torch.zeros_like(newton[:, :, :1])
        first[:, 0] = 1.0
        self.centred = torch.linalg.solve_triangular(newton, first, upper=False, unitriangular=True).squeeze(2).T
        # From the middle, where a and b are inverse to each other, to the extremes, where both are 1 at most.
        self.shrink = (maps.degree[:, None] * ((bottom - top) / 2).double().T).exp()
        self.coefficients = (self.centred * self.shrink).view(plus + 1, minus + 1, -1)

    def gradient(self, of_coefficients: Tensor) -> Tensor:
        """Derivatives (B, dim) by z of what has the derivatives ``of_coefficients`` by the coefficients."""
        maps = self.maps
        of_centred = of_coefficients.flatten(0, 1) * self.shrink
        # The derivative of a coefficient by one of the logarithm is the coefficient of the difference of their degrees.
        by_log = self.centred.index_select(0, maps.difference).view(*maps.has_difference.shape[:2], -1)
        of_power = maps.log_of_sums.T @ (by_log * maps.has_difference * of_centred).sum(1)
        slope = torch.zeros_like(self.values)  # of sum_r g_r v^r along log v, by Horner's rule
        by_power = of_power.view(len(of_power) // 2, 2, of_power.shape[1], 1)
        for r, of_sums in reversed(list(enumerate(by_power, start=1))):
            slope.add_(of_sums, alpha=r).mul_(self.values)
        return slope[0] - slope[1]


class _Maps(NamedTuple):
    """What leads from sums of powers to coefficients of D degrees (i, j), float64; the degree (0, 0) is the first.

    Attributes:
        degree: i + j, (D,).
        log_of_sums: the logarithm's coefficients from the sums of powers of a and b by turns, R of each: (D, 2 R).
        newton_of_sums: A in Newton's identities (I + A) c = (1, 0, ..., 0) of the coefficients c, likewise: (D * D, 2 R).
        newton_of_number: what each factor adds to A, (D * D,).
        difference: at (degree, higher degree) the place of their difference, (D * D,).
        has_difference: 1 where that is one, else 0: (D, D, 1).
    """

    degree: Tensor
    log_of_sums: Tensor
    newton_of_sums: Tensor
    newton_of_number: Tensor
    difference: Tensor
    has_difference: Tensor


@constant_in_traces
def _maps(plus: int, minus: int, device: torch.device) -> _Maps:
    return _maps_on(plus, minus, device)


@lru_cache(maxsize=64)
def _maps_on(plus: int, minus: int, device: torch.device) -> _Maps:
    degrees = [(i, j) for i in range(plus + 1) for j in range(minus + 1)]
    count = len(degrees)
    sums = 2 * max(plus, minus)
    log_of_sums, log_of_number = torch.zeros(count, sums).double(), torch.zeros(count).double()
    for place, (i, j) in enumerate(degrees[1:], start=1):
        factor = (-1) ** (i + j - 1) / (i + j) * comb(i + j, i)
        if i > j:
            log_of_sums[place, 2 * (i - j - 1)] = factor
        elif j > i:
            log_of_sums[place, 2 * (j - i) - 1] = factor
        else:
            log_of_number[place] = factor
    newton_of_sums, newton_of_number = (
        torch.zeros(count, count, sums).double(),
        torch.zeros(count, count).double(),
    )
    difference, has_difference = torch.zeros(count, count).long(), torch.zeros(count, count, 1).double()
    for low, (r, s) in enumerate(degrees):
        for high, (i, j) in enumerate(degrees):
            if i >= r and j >= s:
                place = degrees.index((i - r, j - s))
                difference[low, high], has_difference[low, high] = place, 1.0
                share = (i + j - r - s) / max(i + j, 1)
                newton_of_sums[high, low] = -share * log_of_sums[place]
                newton_of_number[high, low] = -share * log_of_number[place]
    degree = torch.tensor([float(i + j) for i, j in degrees], dtype=torch.float64)
    maps = _Maps(
        degree,
        log_of_sums,
        newton_of_sums.flatten(0, 1),
        newton_of_number.flatten(),
        difference.flatten(),
        has_difference,
    )
    return _Maps(*(part.to(device) for part in maps))
