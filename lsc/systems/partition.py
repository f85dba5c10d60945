"""The exact normaliser of a softmax over all vectors of V_n^{pm}, in O(dim) per embedding.

The sum over all vectors v of exp(z.v) is the coefficient of x^p y^m in

    prod_k (1 + x exp(z_k) + y exp(-z_k)),

since each coordinate is zero, a one or a minus-one. Where the largest and the smallest coordinate are not too far apart,
which a normalised embedding's never are, coefficients are float64 numbers, made from sums of powers
(:mod:`lsc.systems.power_sums`), or factor by factor where there are few (:mod:`lsc.systems.product_tree`); else they are
logarithms, multiplied factor by factor. All can be differentiated twice.
"""

from collections.abc import Callable
from functools import lru_cache
from itertools import combinations

import torch
from torch import Tensor

from lsc.systems import power_sums
from lsc.systems.product_tree import product
from lsc.tracing import constant_in_traces

# Stands for the logarithm of zero. Finite, so that a sum of nothing but zeros has a gradient of zero and not NaN.
_LOG_ZERO = -1e30
# With exponents spread by no more than this, float64 holds every product and every derivative (its own limit is 708).
_LINEAR_SPREAD = 500.0
# With coordinates spread by no more than this, float32 holds their exponentials (its own limit is 88 on each side).
_NARROW_SPREAD = 160.0


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

    def whole(z: Tensor, narrow: bool | None) -> Tensor:
        top, bottom = _extremes(z)
        if narrow is None:
            total = _log_coefficients(z - top, bottom - z, plus, minus)[plus, minus]
        else:
            total = _coefficients(z, top, bottom, None, plus, minus, narrow)[plus, minus].log()
        return total.to(z.dtype) + (plus * top - minus * bottom).squeeze(1)

    return _by_spread(whole, spread, plus + minus, z)


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
    return _by_spread(_log_rest, spread, plus + minus, z, ones, minus_ones)


def _log_rest(z: Tensor, ones: Tensor, minus_ones: Tensor, narrow: bool | None) -> Tensor:
    """:func:`log_rest` in numbers, whether or not float32 holds their exponentials, or (None) in logarithms."""
    plus, minus = ones.shape[-1], minus_ones.shape[-1]
    support = torch.cat([ones, minus_ones], -1)
    top, bottom = _extremes(z)
    up, down = z - top, bottom - z
    inside = up.gather(1, support), down.gather(1, support)
    # On the support alone: every other way to place the signs there, listed (there are few).
    others = torch.cat(inside, 1).double() @ _other_signs(plus, minus, z.device)
    if narrow is None:
        outside = up.scatter(1, support, _LOG_ZERO), down.scatter(1, support, _LOG_ZERO)
        far, near = _log_coefficients(*outside, plus, minus), _log_coefficients(*inside, plus, minus)
        parts = [far[i, j] + near[plus - i, minus - j] for i, j in far if (i, j) != (0, 0)]
        total = torch.logsumexp(torch.cat([torch.stack(parts, 1), others.to(z.dtype)], 1), 1)
    else:
        # Something outside of the support, and the rest of the signs on it: all degrees but (0, 0) outside.
        pairs = _coefficients(z, top, bottom, support, plus, minus, narrow) * _multiplied(*inside, plus, minus).flip(
            0, 1
        )
        total = pairs.flatten(0, 1)[1:].sum(0) + others.exp().sum(1)
        # A sum without any term (a system of one vector less that vector) is zero.
        total = torch.where(total > 0, total.clamp_min(1e-300).log(), _LOG_ZERO)
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


def _by_spread(make: Callable[..., Tensor], spread: float | None, entries: int, z: Tensor, *places: Tensor) -> Tensor:
    """``make(z, *places, narrow)`` for the rows whose terms float64 holds, and with None for ``narrow`` for the others."""
    if spread is None:
        spreads = (z.detach().amax(1) - z.detach().amin(1)).nan_to_num(0.0, posinf=torch.inf)
        spread = float(spreads.max()) if len(z) else 0.0
        if not entries * spread < _LINEAR_SPREAD:
            wide = ~(entries * spreads < _LINEAR_SPREAD)
            rows, others = wide.nonzero()[:, 0], (~wide).nonzero()[:, 0]
            out = z.new_zeros(len(z)).index_copy(0, rows, make(z[rows], *(place[rows] for place in places), None))
            if len(others):
                within = _LINEAR_SPREAD / entries < _NARROW_SPREAD and z.dtype == torch.float32
                out = out.index_copy(0, others, make(z[others], *(place[others] for place in places), within))
            return out
    if not entries * spread < _LINEAR_SPREAD:
        return make(z, *places, None)
    return make(z, *places, spread < _NARROW_SPREAD and z.dtype == torch.float32)


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


def _coefficients(
    z: Tensor, top: Tensor, bottom: Tensor, left_out: Tensor | None, plus: int, minus: int, narrow: bool
) -> Tensor:
    """Coefficients of the product of the factors 1 + x exp(z_k - top) + y exp(bottom - z_k): (plus + 1, minus + 1, B).

    Without the coordinates ``left_out`` (B, N). By sums of powers where that is faster, else factor by factor.
    """
    if power_sums.is_worth_it(plus, minus, z.shape[1] - (0 if left_out is None else left_out.shape[1])):
        return power_sums.coefficients(z, top, bottom, left_out, plus, minus, narrow)
    up, down = z - top, bottom - z
    if left_out is not None:
        up, down = up.scatter(1, left_out, _LOG_ZERO), down.scatter(1, left_out, _LOG_ZERO)
    return _multiplied(up, down, plus, minus)


def _multiplied(up: Tensor, down: Tensor, plus: int, minus: int) -> Tensor:
    """Coefficients of the product of the factors 1 + x exp(up_k) + y exp(down_k), both (B, number of factors)."""
    return product(up.double().exp().T.contiguous(), down.double().exp().T.contiguous(), plus, minus)


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
