"""The exact normaliser of a softmax over all vectors of V_n^{pm}, in O(dim) per embedding.

The sum over all vectors v of exp(z.v) is the coefficient of x^p y^m in

    prod_k (1 + x exp(z_k) + y exp(-z_k)),

since each coordinate is zero, a one or a minus-one. The product is formed as a balanced tree of polynomials cut off at
degree (p, m). All terms are positive: nothing cancels, no digit is lost. Where the largest and the smallest coordinate
are not too far apart, which a normalised embedding's never are, coefficients are float64 numbers; else their logarithms.
"""

from itertools import combinations
from math import prod

import torch
from torch import Tensor

# Stands for the logarithm of zero. Finite, so that a sum of nothing but zeros has a gradient of zero and not NaN.
_LOG_ZERO = -1e30
# With exponents spread by no more than this, float64 holds every product and every derivative (its own limit is 708).
_LINEAR_SPREAD = 500.0

# Coefficients of x^i y^j, or their logarithms, by (i, j), each (B, number of factors); that of (0, 0) is 1 and left out.
_Polynomials = dict[tuple[int, int], Tensor]


def log_partition(z: Tensor, plus: int, minus: int) -> Tensor:
    """log of the sum of exp(z.v) over all v of V^{plus,minus}, for ``z`` (B, dim): (B,), float32 (float64 for float64).

    Differentiable; the gradient is the expected vector under the softmax. Memory O(B dim).
    """
    z = z if z.dtype == torch.float64 else z.float()
    if (plus, minus) == (1, 1):
        return _log_root_partition(z)
    top, bottom = _extremes(z)
    linear = _is_linear(top, bottom, plus + minus)
    up, down = _leaves(z - top, bottom - z, linear)
    total = _logarithm(_product(up, down, plus, minus, linear)[plus, minus], linear)
    return total.to(z.dtype) + (plus * top - minus * bottom).squeeze(1)


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
    linear = _is_linear(top, bottom, plus + minus)
    up, down = _leaves(z - top, bottom - z, linear)
    none = 0.0 if linear else _LOG_ZERO
    outside = _product(up.scatter(1, support, none), down.scatter(1, support, none), plus, minus, linear)
    up, down = up.gather(1, support), down.gather(1, support)
    inside = _product(up, down, plus, minus, linear)
    pairs = [[outside[i, j], inside[plus - i, minus - j]] for i, j in outside if (i, j) != (0, 0)]
    # On the support alone: every other way to place the signs there, listed (there are few).
    everywhere = range(plus + minus)
    for chosen in combinations(everywhere, plus):
        if chosen != tuple(range(plus)):
            pairs.append([(up if k in chosen else down)[:, k] for k in everywhere])
    total = _logarithm(_sum_of_products(pairs, linear), linear)
    return total.to(z.dtype) + (plus * top - minus * bottom).squeeze(1)


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
    return torch.logsumexp(torch.stack(terms), 0)


def _log_difference(log_product: Tensor, n: int) -> Tensor:
    """log(exp(log_product) - n)."""
    return log_product + torch.log1p(-n * torch.exp(-log_product))


def _extremes(z: Tensor) -> tuple[Tensor, Tensor]:
    """Largest and smallest coordinate, as constants: taking them out keeps all exponents at zero or below."""
    return z.detach().amax(1, keepdim=True), z.detach().amin(1, keepdim=True)


def _is_linear(top: Tensor, bottom: Tensor, entries: int) -> bool:
    """Whether no vector's term can underflow in float64."""
    return top.numel() == 0 or bool(entries * (top - bottom).max() < _LINEAR_SPREAD)


def _leaves(up: Tensor, down: Tensor, linear: bool) -> tuple[Tensor, Tensor]:
    return (up.double().exp(), down.double().exp()) if linear else (up, down)


def _logarithm(total: Tensor, linear: bool) -> Tensor:
    if not linear:
        return total
    # A sum without any term (a system of one vector less that vector) is zero.
    return torch.where(total > 0, total.clamp_min(1e-300).log(), _LOG_ZERO)


def _product(up: Tensor, down: Tensor, plus: int, minus: int, linear: bool) -> _Polynomials:
    """All coefficients (B,) of the product of the factors 1 + x up_k + y down_k, cut off at degree (plus, minus)."""
    factors = ({(1, 0): up} if plus else {}) | ({(0, 1): down} if minus else {})
    none = 0.0 if linear else _LOG_ZERO
    while (count := next(iter(factors.values())).shape[1]) > 1:
        half = count // 2
        product = _multiply(
            {degree: c[:, :half] for degree, c in factors.items()},
            {degree: c[:, half : 2 * half] for degree, c in factors.items()},
            plus, minus, linear,
        )  # fmt: skip
        if count % 2:
            for degree, c in product.items():
                last = factors[degree][:, -1:] if degree in factors else torch.full_like(c[:, :1], none)
                product[degree] = torch.cat([c, last], 1)
        factors = product
    wanted = [(i, j) for i in range(plus + 1) for j in range(minus + 1)]
    blank = torch.full_like(up[:, 0], none)
    out = {degree: factors[degree].squeeze(1) if degree in factors else blank for degree in wanted}
    out[0, 0] = torch.full_like(blank, 1.0 if linear else 0.0)
    return out


def _multiply(left: _Polynomials, right: _Polynomials, plus: int, minus: int, linear: bool) -> _Polynomials:
    # Products with the constant coefficients, which are one.
    terms = {degree: [[left[degree]], [right[degree]]] for degree in left}
    for (i, j), a in left.items():
        for (k, n), b in right.items():
            if i + k <= plus and j + n <= minus:
                terms.setdefault((i + k, j + n), []).append([a, b])
    return {degree: _sum_of_products(parts, linear) for degree, parts in terms.items()}


def _sum_of_products(parts: list[list[Tensor]], linear: bool) -> Tensor:
    """Sum over ``parts`` of the product of each part's factors; all of them logarithms unless ``linear``."""
    if not linear:
        return torch.logsumexp(torch.stack([sum(part[1:], start=part[0]) for part in parts]), 0)
    products = [prod(part[1:], start=part[0]) for part in parts]
    return sum(products[1:], start=products[0])
