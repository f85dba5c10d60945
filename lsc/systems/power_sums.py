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
from typing import Any

import torch
from torch import Tensor

from lsc.systems.product_tree import FEW, differentiable_product, extended

# Largest p and m for which the sums are used.
MOST = 4


def is_worth_it(plus: int, minus: int, coordinates: int) -> bool:
    """Whether so many coordinates are multiplied faster by sums of powers than factor by factor."""
    return max(plus, minus) <= MOST and coordinates > FEW


def coefficients(
    z: Tensor, top: Tensor, bottom: Tensor, left_out: Tensor | None, plus: int, minus: int, narrow: bool
) -> Tensor:
    """Coefficients of the product of 1 + x exp(z_k - top) + y exp(bottom - z_k): float64 (plus + 1, minus + 1, B).

    Args:
        z: (B, dim); top, bottom: its extremes (B, 1), constants.
        left_out: coordinates (B, N) that take no part.
        narrow: whether the exponentials of z between its extremes fit into float32.
    """
    peeled = _peeled(z.detach(), left_out, plus, minus)
    near = z.gather(1, peeled).double()
    gone = peeled if left_out is None else torch.cat([left_out, peeled], 1)
    of_rest = _PowerSums.apply(z, top, bottom, gone, plus, minus, narrow)
    return extended(of_rest, (near - top).exp().T.contiguous(), (bottom - near).exp().T.contiguous())


def _peeled(z: Tensor, left_out: Tensor | None, plus: int, minus: int) -> Tensor:
    """The ``plus`` largest coordinates of those that take part and the ``minus`` smallest of the others: (B, plus + minus)."""
    high = z if left_out is None else z.scatter(1, left_out, -torch.inf)
    largest = high.topk(plus, dim=1).indices
    low = (z if left_out is None else z.scatter(1, left_out, torch.inf)).scatter(1, largest, torch.inf)
    return torch.cat([largest, low.topk(minus, dim=1, largest=False).indices], 1)


@lru_cache(maxsize=64)
def _series(plus: int, minus: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The logarithm's coefficients (D,) as a map of the sums of powers (D, plus + minus) and of the number of terms (D,),
    and the degrees i + j (D,)."""
    degrees = [(i, j) for i in range(plus + 1) for j in range(minus + 1)]
    of_sums, of_number = torch.zeros(len(degrees), plus + minus), torch.zeros(len(degrees))
    of_sums, of_number = of_sums.double(), of_number.double()
    for place, (i, j) in enumerate(degrees):
        if i + j == 0:
            continue
        factor = (-1) ** (i + j - 1) / (i + j) * comb(i + j, i)
        if i > j:
            of_sums[place, i - j - 1] = factor
        elif j > i:
            of_sums[place, plus + j - i - 1] = factor
        else:
            of_number[place] = factor
    total = torch.tensor([float(i + j) for i, j in degrees], dtype=torch.float64)
    return of_sums.to(device), of_number.to(device), total.to(device)


class _PowerSums(torch.autograd.Function):
    """Coefficients of the product over the coordinates that are not ``gone``, with a gradient that is written out."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, top: Tensor, bottom: Tensor, gone: Tensor, plus: int, minus: int, narrow: bool
    ) -> Tensor:
        of_sums, of_number, degree = _series(plus, minus, z.device)
        a = (z - (top + bottom) / 2).to(torch.float32 if narrow else torch.float64).exp()
        b = a.reciprocal().scatter_(1, gone, 0.0).double()
        a = a.scatter_(1, gone, 0.0).double()
        sums = torch.stack([*_sums_of_powers(a, plus), *_sums_of_powers(b, minus)])
        log = torch.addmm(((z.shape[1] - gone.shape[1]) * of_number)[:, None], of_sums, sums)
        log = log.view(plus + 1, minus + 1, -1)
        out = torch.zeros_like(log)
        out[0, 0] = 1.0
        for j in range(1, minus + 1):
            for s in range(1, j + 1):
                out[0, j].addcmul_(log[0, s], out[0, j - s], value=s / j)
        for i in range(1, plus + 1):
            for r in range(1, i + 1):
                for s in range(minus + 1):
                    out[i, s:].addcmul_(log[r, s], out[i - r, : minus + 1 - s], value=r / i)
        # From the middle, where a and b are inverse to each other, to the extremes, where both are 1 at most.
        shrink = (degree[:, None] * ((bottom - top) / 2).double().T).exp().view_as(out)
        ctx.save_for_backward(z, top, bottom, gone, a, b, out, shrink)
        ctx.degrees = plus, minus
        return out * shrink

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        z, top, bottom, gone, a, b, out, shrink = ctx.saved_tensors
        (grad,), (plus, minus) = grads, ctx.degrees
        if torch.is_grad_enabled():  # a gradient of the gradient is wanted
            up = (z.double() - top).exp().scatter(1, gone, 0.0).T
            down = (bottom - z.double()).exp().scatter(1, gone, 0.0).T
            again = differentiable_product(up, down, plus, minus)
            return *torch.autograd.grad(again, z, grad, create_graph=True, materialize_grads=True), *[None] * 6
        of_sums, _, _ = _series(plus, minus, z.device)
        grad = grad * shrink
        of_log = torch.zeros_like(out)
        for i in range(plus + 1):
            for j in range(minus + 1):
                of_log[: i + 1, : j + 1].addcmul_(grad[i, j], out[: i + 1, : j + 1].flip(0, 1))
        of_power = of_sums.T @ of_log.flatten(0, 1)
        total = torch.zeros_like(a)
        for powers, values, sign in ((of_power[:plus], a, 1.0), (of_power[plus:], b, -1.0)):
            slope = torch.zeros_like(a)  # of sum_r g_r v^r along log v, by Horner's rule
            for r in range(len(powers), 0, -1):
                slope.add_(powers[r - 1][:, None], alpha=sign * r).mul_(values)
            total += slope
        return total.to(z.dtype), *[None] * 6


def _sums_of_powers(values: Tensor, most: int) -> list[Tensor]:
    """Sums (B,) of the powers 1..most of ``values`` (B, dim)."""
    sums, power = [], values
    for exponent in range(1, most + 1):
        sums.append(power.sum(1))
        if exponent < most:
            power = power * values
    return sums
