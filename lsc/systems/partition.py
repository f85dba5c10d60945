"""The exact normaliser of a softmax over all vectors of V_n^{pm}, in O(dim) per embedding.

The sum over all vectors v of exp(z.v) is the coefficient of x^p y^m in

    prod_k (1 + x exp(z_k) + y exp(-z_k)),

since each coordinate is zero, a one or a minus-one. Where the largest and the smallest coordinate are not too far apart,
which a normalised embedding's never are, coefficients are float64 numbers: of many factors from sums of powers
(:mod:`lsc.systems.power_sums`), of few factor by factor (:mod:`lsc.systems.prefix_sums`). Else they are logarithms, multiplied
factor by factor. All can be differentiated twice.
"""

from functools import lru_cache
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from lsc.systems import power_sums, prefix_sums
from lsc.tracing import constant_in_traces

# Stands for the logarithm of zero. Finite, so that a sum of nothing but zeros has a gradient of zero and not NaN.
_LOG_ZERO = -1e30
# With exponents spread by no more than this, float64 holds every product and every derivative (its own limit is 708).
_LINEAR_SPREAD = 500.0
# With coordinates spread by no more than this, float32 holds their exponentials (its own limit is 88 on each side).
_NARROW_SPREAD = 160.0
# So many numbers are worked on at a time: a CPU's cache holds them, and fewer would be more calls.
_AT_ONCE, _AT_ONCE_ON_A_GPU = 2**19, 2**26


def log_partition(z: Tensor, plus: int, minus: int, spread: float | None = None) -> Tensor:
    """log of the sum of exp(z.v) over all v of V^{plus,minus}, for ``z`` (B, dim): (B,), float32 (float64 for float64).

    The gradient is the expected vector under the softmax, its own gradient the covariance. Memory O(B dim).

    Args:
        spread: a bound on the difference between two coordinates of a row, where the caller knows one: that spares a
            look at the numbers, for which a GPU would have to be waited for.
    """
    z = z if z.dtype == torch.float64 else z.float()
    if (plus, minus) == (1, 1):
        return _log_root_partition(z)
    return _by_spread(z, torch.empty(len(z), 0, dtype=torch.int64, device=z.device), plus, minus, spread)


def log_rest(z: Tensor, ones: Tensor, minus_ones: Tensor, spread: float | None = None) -> Tensor:
    """As :func:`log_partition` without one vector: ones at ``ones`` (B, plus), minus-ones at ``minus_ones`` (B, minus).

    The vectors left are grouped by what they do on the support of the one left out; every group is a sum of positive
    terms. So log(1 + exp(log_rest - z.v)), the cross-entropy of v, keeps its relative precision however small it is,
    which the difference of the full partition function and z.v does not.
    """
    z = z if z.dtype == torch.float64 else z.float()
    plus, minus = ones.shape[-1], minus_ones.shape[-1]
    if (plus, minus) == (1, 1):
        return _log_root_rest(z, ones, minus_ones)
    return _by_spread(z, torch.cat([ones, minus_ones], -1), plus, minus, spread)


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


def _by_spread(z: Tensor, support: Tensor, plus: int, minus: int, spread: float | None) -> Tensor:
    """The logarithm of the sum over all vectors (``support`` (B, 0)), or all but the one of ``support`` (B, plus + minus).

    In numbers for the rows whose terms float64 holds, in logarithms for the others.
    """
    entries, wanted = plus + minus, z.requires_grad and torch.is_grad_enabled()
    if spread is None:
        spreads = (z.detach().amax(1) - z.detach().amin(1)).nan_to_num(0.0, posinf=torch.inf)
        spread = float(spreads.max()) if len(z) else 0.0
        if not entries * spread < _LINEAR_SPREAD:
            wide = ~(entries * spreads < _LINEAR_SPREAD)
            rows, others = wide.nonzero()[:, 0], (~wide).nonzero()[:, 0]
            out = z.new_zeros(len(z)).index_copy(0, rows, _in_logarithms(z[rows], support[rows], plus, minus))
            if len(others):
                within = _LINEAR_SPREAD / entries < _NARROW_SPREAD and z.dtype == torch.float32
                out = out.index_copy(
                    0, others, _InNumbers.apply(z[others], support[others], plus, minus, within, wanted)
                )
            return out
    if not entries * spread < _LINEAR_SPREAD:
        return _in_logarithms(z, support, plus, minus)
    narrow = spread < _NARROW_SPREAD and z.dtype == torch.float32
    return _InNumbers.apply(z, support, plus, minus, narrow, wanted)


class _InNumbers(torch.autograd.Function):
    """The sum in float64, and its gradient found together with it, so that the way back is one product."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, support: Tensor, plus: int, minus: int, narrow: bool, wanted: bool) -> Tensor:
        in_parts = []
        by_sums = power_sums.is_worth_it(plus, minus, z.shape[1] - support.shape[1])
        factors = (plus + minus if by_sums else z.shape[1]) + support.shape[1]
        numbers = 2 * z.shape[1] + 2 * (plus + 2) * (minus + 2) * factors
        rows = 1 + (_AT_ONCE if z.device.type == "cpu" else _AT_ONCE_ON_A_GPU) // numbers
        for part, places in zip(torch.split(z, rows), torch.split(support, rows), strict=True):
            in_parts.append(_log_sum_and_gradient(part, places, plus, minus, narrow, wanted))
        log_sums, gradients = (
            torch.cat(found) if len(found) > 1 else found[0] for found in zip(*in_parts, strict=True)
        )
        ctx.save_for_backward(z, support, gradients)
        ctx.signs = plus, minus
        return log_sums

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        z, support, gradients = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of the gradient is wanted
            again = _in_logarithms(z.double(), support, *ctx.signs).to(z.dtype)
            return *torch.autograd.grad(again, z, grads[0], create_graph=True), *[None] * 5
        return grads[0][:, None] * gradients, *[None] * 5


def _log_sum_and_gradient(
    z: Tensor, support: Tensor, plus: int, minus: int, narrow: bool, wanted: bool
) -> tuple[Tensor, Tensor]:
    """What :func:`_by_spread` gives, and its gradient (B, dim), an empty one unless ``wanted``."""
    bottom, top = torch.aminmax(z, dim=1, keepdim=True)
    taken = support.shape[1]
    rest = None
    if power_sums.is_worth_it(plus, minus, z.shape[1] - taken):
        places = torch.cat([power_sums.peeled(z, support, plus, minus), support], 1)
        rest = power_sums.Product(z, top, bottom, places, plus, minus, narrow)
        start = rest.coefficients
    else:
        places = torch.cat([torch.arange(z.shape[1], device=z.device).expand(z.shape), support], 1)
        start = torch.zeros(plus + 1, minus + 1, len(z), dtype=torch.float64, device=z.device)
        start[0, 0] = 1.0
    outside = places.shape[1] - taken
    near = z.gather(1, places).double()
    logs = torch.stack([near - top, bottom - near])  # of a and b, which are 1 at most
    factors = logs.exp()
    if rest is None:
        factors.scatter_(2, support.expand(2, -1, -1), 0.0)
    # The support takes part where something outside of it does; all other ways to place the signs on it alone are listed.
    signs = _other_signs(plus, minus, z.device) if taken else logs.new_empty(0, 0)
    others = (logs[..., outside:].transpose(0, 1).flatten(1) @ signs).exp()
    if wanted:
        total, slope, of_start = prefix_sums.coefficient_and_gradient(factors, start, outside)
    else:
        total = prefix_sums.coefficient(factors, start, outside)
    total = total + others.sum(1)
    # A sum without any term (a system of one vector less that vector) is zero.
    log_total = torch.where(total > 0, total.clamp_min(1e-300).log(), _LOG_ZERO)
    log_sum = (log_total + (plus * top - minus * bottom).squeeze(1)).to(z.dtype)
    if not wanted:
        return log_sum, z.new_empty(0)
    of_others = (others @ signs.T).view(len(z), 2, taken)
    slope[:, outside:] += of_others[:, 0] - of_others[:, 1]
    if rest is None:
        gradient = slope[:, :outside]
    else:
        gradient = rest.gradient(of_start).scatter_(1, places[:, :outside], slope[:, :outside])
    gradient = gradient.scatter(1, support, slope[:, outside:])
    return log_sum, gradient.div_(total.clamp_min(1e-300)[:, None]).to(z.dtype)


def _in_logarithms(z: Tensor, support: Tensor, plus: int, minus: int) -> Tensor:
    """What :func:`_by_spread` gives, for embeddings of any size, and differentiable any number of times."""
    top, bottom = z.detach().amax(1, keepdim=True), z.detach().amin(1, keepdim=True)
    up, down = z - top, bottom - z
    if not support.shape[1]:
        total = _log_coefficients(up, down, plus, minus)[plus, minus]
    else:
        inside = up.gather(1, support), down.gather(1, support)
        outside = up.scatter(1, support, _LOG_ZERO), down.scatter(1, support, _LOG_ZERO)
        far, near = _log_coefficients(*outside, plus, minus), _log_coefficients(*inside, plus, minus)
        parts = [far[i, j] + near[plus - i, minus - j] for i, j in far if (i, j) != (0, 0)]
        others = torch.cat(inside, 1).double() @ _other_signs(plus, minus, z.device)
        total = torch.logsumexp(torch.cat([torch.stack(parts, 1), others.to(z.dtype)], 1), 1)
    return total.to(z.dtype) + (plus * top - minus * bottom).squeeze(1)


@constant_in_traces
def _other_signs(plus: int, minus: int, device: torch.device) -> Tensor:
    """Which logarithms, of ones and then of minus-ones, every placement of the signs but the first sums: (2(p+m), W)."""
    return _other_signs_on(plus, minus, device)


@lru_cache(maxsize=64)
def _other_signs_on(plus: int, minus: int, device: torch.device) -> Tensor:
    places = range(plus + minus)
    chosen = [set(ones) for ones in combinations(places, plus)][1:]
    taken = [[float(k in ones) for k in places] + [float(k not in ones) for k in places] for ones in chosen]
    return torch.tensor(taken, dtype=torch.float64, device=device).reshape(len(chosen), 2 * len(places)).T


# Coefficients of x^i y^j as logarithms, by (i, j), each (B, number of factors); that of (0, 0) is 1 and left out.
_Logarithms = dict[tuple[int, int], Tensor]


def _log_coefficients(up: Tensor, down: Tensor, plus: int, minus: int) -> _Logarithms:
    """Logarithms (B,) of all coefficients of the product, for embeddings of any size."""
    factors = ({(1, 0): up} if plus else {}) | ({(0, 1): down} if minus else {})
    while (count := next(iter(factors.values())).shape[1]) > 1:
        half = count // 2
        product = _multiply(
            {degree: c[:, :half] for degree, c in factors.items()},
            {degree: c[:, half : 2 * half] for degree, c in factors.items()},
            plus, minus,
        )  # fmt: skip
        if count % 2:
            for degree, c in product.items():
                last = factors[degree][:, -1:] if degree in factors else torch.full_like(c[:, :1], _LOG_ZERO)
                product[degree] = torch.cat([c, last], 1)
        factors = product
    wanted = [(i, j) for i in range(plus + 1) for j in range(minus + 1)]
    blank = torch.full_like(up[:, 0], _LOG_ZERO)
    out = {degree: factors[degree].squeeze(1) if degree in factors else blank for degree in wanted}
    out[0, 0] = torch.zeros_like(blank)
    return out


def _multiply(left: _Logarithms, right: _Logarithms, plus: int, minus: int) -> _Logarithms:
    # Products with the constant coefficients, whose logarithms are zero.
    terms = {degree: [left[degree], right[degree]] for degree in left}
    for (i, j), a in left.items():
        for (k, n), b in right.items():
            if i + k <= plus and j + n <= minus:
                terms.setdefault((i + k, j + n), []).append(a + b)
    return {degree: torch.logsumexp(torch.stack(parts), 0) for degree, parts in terms.items()}
