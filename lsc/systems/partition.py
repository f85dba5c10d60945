"""The exact normaliser of a softmax over all vectors of V_n^{pm}, in O(dim) per embedding.

The sum over all vectors v of exp(z.v) is the coefficient of x^p y^m in

    prod_k (1 + x exp(z_k) + y exp(-z_k)),

since each coordinate is zero, a one or a minus-one. The product is formed as a balanced tree of polynomials cut off at
degree (p, m), with logarithms of coefficients. All terms are positive: nothing cancels, no digit is lost.
"""

from itertools import combinations

import torch
from torch import Tensor

# Stands for the logarithm of zero. Finite, so that a sum of nothing but zeros has a gradient of zero and not NaN.
_LOG_ZERO = -1e30

# Logarithms of the coefficients of x^i y^j, by (i, j), each (B, number of factors).
_Polynomials = dict[tuple[int, int], Tensor]


def log_partition(z: Tensor, plus: int, minus: int) -> Tensor:
    """log of the sum of exp(z.v) over all v of V^{plus,minus}, for ``z`` (B, dim): (B,), float32 (float64 for float64).

    Differentiable; the gradient is the expected vector under the softmax. Memory O(B dim).
    """
    z = z if z.dtype == torch.float64 else z.float()
    if (plus, minus) == (1, 1):
        return _log_root_partition(z)
    top, bottom = _extremes(z)
    leaves = _leaves(z - top, bottom - z)
    return _product(leaves, plus, minus)[plus, minus] + (plus * top - minus * bottom).squeeze(1)


def log_rest(z: Tensor, ones: Tensor, minus_ones: Tensor) -> Tensor:
    """As :func:`log_partition` without one vector: ones at ``ones`` (B, plus), minus-ones at ``minus_ones`` (B, minus).

    The vectors left are grouped by what they do on the support of the one left out; every group is a sum of positive
    terms. So log(1 + exp(log_rest - z.v)), the cross-entropy of v, keeps its relative precision however small it is,
    which the difference of the full partition function and z.v does not.
    """
    z = z if z.dtype == torch.float64 else z.float()
    plus, minus = ones.shape[-1], minus_ones.shape[-1]
    if (plus, minus) == (1, 1):
        return _log_root_rest(z, ones, minus_ones)
    support = torch.cat([ones, minus_ones], -1)
    top, bottom = _extremes(z)
    up, down = z - top, bottom - z
    outside = _product(
        _leaves(up.scatter(1, support, _LOG_ZERO), down.scatter(1, support, _LOG_ZERO)), plus, minus, complete=True
    )
    up, down = up.gather(1, support), down.gather(1, support)
    inside = _product(_leaves(up, down), plus, minus, complete=True)
    terms = [outside[i, j] + inside[plus - i, minus - j] for i, j in outside if (i, j) != (0, 0)]
    # On the support alone: every other way to place the signs there, listed (there are few).
    everywhere = range(plus + minus)
    for chosen in combinations(everywhere, plus):
        if chosen != tuple(range(plus)):
            terms.append(sum((up if k in chosen else down)[:, k] for k in everywhere))  # type: ignore[arg-type]
    return _log_sum(terms) + (plus * top - minus * bottom).squeeze(1)


def _log_root_partition(z: Tensor) -> Tensor:
    """The roots' own form, (sum e^z)(sum e^-z) - n: the n subtracted is at most 1/n of the product, so it is safe."""
    return _log_difference(torch.logsumexp(z, 1) + torch.logsumexp(-z, 1), z.shape[1])


def _log_root_rest(z: Tensor, one: Tensor, minus_one: Tensor) -> Tensor:
    """:func:`log_rest` of roots: the others share both of their places with the root left out, one of them or none."""
    others = z.shape[1] - 2
    pair = torch.cat([one, minus_one], 1)
    up = torch.logsumexp(z.scatter(1, pair, _LOG_ZERO), 1)
    down = torch.logsumexp((-z).scatter(1, pair, _LOG_ZERO), 1)
    first, second = z.gather(1, pair).unbind(1)
    terms = [second - first]
    if others > 0:
        terms += [first + down, second + down, up - first, up - second]
    if others > 1:
        terms.append(_log_difference(up + down, others))
    return _log_sum(terms)


def _log_difference(log_product: Tensor, n: int) -> Tensor:
    """log(exp(log_product) - n)."""
    return log_product + torch.log1p(-n * torch.exp(-log_product))


def _extremes(z: Tensor) -> tuple[Tensor, Tensor]:
    """Largest and smallest coordinate, as constants: taking them out keeps the logarithms small, hence precise."""
    return z.detach().amax(1, keepdim=True), z.detach().amin(1, keepdim=True)


def _leaves(up: Tensor, down: Tensor) -> _Polynomials:
    return {(0, 0): torch.zeros_like(up), (1, 0): up, (0, 1): down}


def _product(factors: _Polynomials, plus: int, minus: int, complete: bool = False) -> _Polynomials:
    """Product of all factors, cut off at degree (plus, minus): coefficients (B,); with ``complete`` all of them."""
    factors = {degree: c for degree, c in factors.items() if degree[0] <= plus and degree[1] <= minus}
    while (count := factors[0, 0].shape[1]) > 1:
        left = {degree: c[:, : count // 2] for degree, c in factors.items()}
        right = {degree: c[:, count // 2 : count // 2 * 2] for degree, c in factors.items()}
        product = _multiply(left, right, plus, minus)
        if count % 2:
            last = factors
            blank = torch.full_like(factors[0, 0][:, -1:], _LOG_ZERO)
            product = {d: torch.cat([c, last[d][:, -1:] if d in last else blank], 1) for d, c in product.items()}
        factors = product
    blank = torch.full_like(factors[0, 0], _LOG_ZERO)
    wanted = [(i, j) for i in range(plus + 1) for j in range(minus + 1)] if complete else [(plus, minus)]
    return {degree: factors.get(degree, blank).squeeze(1) for degree in wanted}


def _multiply(left: _Polynomials, right: _Polynomials, plus: int, minus: int) -> _Polynomials:
    terms: dict[tuple[int, int], list[Tensor]] = {}
    for (i, j), a in left.items():
        for (k, n), b in right.items():
            if i + k <= plus and j + n <= minus:
                terms.setdefault((i + k, j + n), []).append(a + b)
    return {degree: _log_sum(parts) for degree, parts in terms.items()}


def _log_sum(parts: list[Tensor]) -> Tensor:
    if len(parts) == 1:
        return parts[0]
    if len(parts) == 2:
        return torch.logaddexp(parts[0], parts[1])
    return torch.logsumexp(torch.stack(parts), 0)
