"""The exact normaliser of a softmax over all vectors of V_n^{pm}, in O(dim) per embedding.

The sum over all vectors v of exp(z.v) is the coefficient of x^p y^m in

    prod_k (1 + x exp(z_k) + y exp(-z_k)),

since each coordinate is zero, a one or a minus-one. The product is formed as a balanced tree of polynomials cut off at
degree (p, m). All terms are positive: nothing cancels, no digit is lost. Where the largest and the smallest coordinate
are not too far apart, which a normalised embedding's never are, coefficients are float64 numbers; else their logarithms.
"""

from functools import lru_cache
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Stands for the logarithm of zero. Finite, so that a sum of nothing but zeros has a gradient of zero and not NaN.
_LOG_ZERO = -1e30
# With exponents spread by no more than this, float64 holds every product and every derivative (its own limit is 708).
_LINEAR_SPREAD = 500.0


def log_partition(z: Tensor, plus: int, minus: int, spread: float | None = None) -> Tensor:
    """log of the sum of exp(z.v) over all v of V^{plus,minus}, for ``z`` (B, dim): (B,), float32 (float64 for float64).

    Differentiable once; the gradient is the expected vector under the softmax. Memory O(B dim).

    Args:
        spread: a bound on the difference between two coordinates of a row, where the caller knows one: that spares a
            look at the numbers, for which a GPU would have to be waited for.
    """
    z = z if z.dtype == torch.float64 else z.float()
    if (plus, minus) == (1, 1):
        return _log_root_partition(z)
    top, bottom = _extremes(z)
    up, down = z - top, bottom - z
    if _is_linear(top, bottom, spread, plus + minus):
        total = _coefficients(up, down, plus, minus)[plus, minus].log()
    else:
        total = _log_coefficients(up, down, plus, minus)[plus, minus]
    return total.to(z.dtype) + (plus * top - minus * bottom).squeeze(1)


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
    support = torch.cat([ones, minus_ones], -1)
    top, bottom = _extremes(z)
    up, down = z - top, bottom - z
    outside = up.scatter(1, support, _LOG_ZERO), down.scatter(1, support, _LOG_ZERO)
    inside = up.gather(1, support), down.gather(1, support)
    # On the support alone: every other way to place the signs there, listed (there are few).
    others = torch.cat(inside, 1).double() @ _other_signs(plus, minus, z.device)
    if _is_linear(top, bottom, spread, plus + minus):
        # Something outside of the support, and the rest of the signs on it: all degrees but (0, 0) outside.
        pairs = _coefficients(*outside, plus, minus) * _coefficients(*inside, plus, minus).flip(0, 1)
        total = pairs.flatten(0, 1)[1:].sum(0) + others.exp().sum(1)
        # A sum without any term (a system of one vector less that vector) is zero.
        total = torch.where(total > 0, total.clamp_min(1e-300).log(), _LOG_ZERO)
    else:
        far, near = _log_coefficients(*outside, plus, minus), _log_coefficients(*inside, plus, minus)
        parts = [far[i, j] + near[plus - i, minus - j] for i, j in far if (i, j) != (0, 0)]
        total = torch.logsumexp(torch.cat([torch.stack(parts, 1), others.to(z.dtype)], 1), 1)
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


def _is_linear(top: Tensor, bottom: Tensor, spread: float | None, entries: int) -> bool:
    """Whether no vector's term can underflow in float64."""
    if spread is None:
        spread = float((top - bottom).max()) if top.numel() else 0.0
    return entries * spread < _LINEAR_SPREAD


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _other_signs(plus: int, minus: int, device: torch.device) -> Tensor:
    """Which logarithms, of ones and then of minus-ones, every placement of the signs but the first sums: (2(p+m), W)."""
    return _other_signs_on(plus, minus, device)


@lru_cache(maxsize=64)
def _other_signs_on(plus: int, minus: int, device: torch.device) -> Tensor:
    places = range(plus + minus)
    chosen = [set(ones) for ones in combinations(places, plus)][1:]
    taken = [[float(k in ones) for k in places] + [float(k not in ones) for k in places] for ones in chosen]
    return torch.tensor(taken, dtype=torch.float64, device=device).reshape(len(chosen), 2 * len(places)).T


def _coefficients(up: Tensor, down: Tensor, plus: int, minus: int) -> Tensor:
    """Coefficients of the product of the factors 1 + x exp(up_k) + y exp(down_k): float64 (plus + 1, minus + 1, B).

    ``up``, ``down``: logarithms (B, number of factors), at most zero.
    """
    return _ProductTree.apply(up.double().exp().T.contiguous(), down.double().exp().T.contiguous(), plus, minus)


class _ProductTree(torch.autograd.Function):
    """The product of all factors 1 + x up_k + y down_k, cut off at degree (plus, minus), by pairs of pairs.

    A level of the tree is one tensor (degrees in x, degrees in y, factors, B), so that each half of its factors lies
    together. Products are summed in place, degree by degree, which autograd could not go back through: the gradient is
    written out. The coefficient of degree (0, 0) is one in every factor, and is not multiplied with.
    """

    @staticmethod
    def forward(ctx: Any, up: Tensor, down: Tensor, plus: int, minus: int) -> Tensor:
        level = _pairs_of_leaves(up, down, plus, minus)
        levels = [level]
        while (count := level.shape[2]) > 1:
            half = count // 2
            left, right = level[:, :, :half], level[:, :, half : 2 * half]
            shape = _degrees(level.shape[0], plus), _degrees(level.shape[1], minus)
            level = up.new_zeros(*shape, half + count % 2, up.shape[1])
            product = level[:, :, :half]
            product[: right.shape[0], : right.shape[1]] = right
            for i, j in _degrees_above_zero(left, 2 ** len(levels)):
                part = right[: shape[0] - i, : shape[1] - j]
                product[i : i + part.shape[0], j : j + part.shape[1]].addcmul_(left[i, j], part)
            if count % 2:
                level[: left.shape[0], : left.shape[1], -1] = levels[-1][:, :, -1]
            levels.append(level)
        ctx.save_for_backward(up, down, *levels)
        out = up.new_zeros(plus + 1, minus + 1, up.shape[1])
        out[: level.shape[0], : level.shape[1]] = level[:, :, 0]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        up, down, *levels = ctx.saved_tensors
        grad = grads[0][: levels[-1].shape[0], : levels[-1].shape[1], None]
        for depth in range(len(levels) - 1, 0, -1):
            level = levels[depth - 1]
            half = level.shape[2] // 2
            left, right = level[:, :, :half], level[:, :, half : 2 * half]
            of_product, below = grad[:, :, :half], torch.empty_like(level)
            to_left, to_right = below[:, :, :half], below[:, :, half : 2 * half]
            to_left.copy_(of_product[: left.shape[0], : left.shape[1]])
            to_right.copy_(to_left)
            for i, j in _degrees_above_zero(left, 2**depth):
                part = right[: grad.shape[0] - i, : grad.shape[1] - j]
                back = of_product[i : i + part.shape[0], j : j + part.shape[1]]
                to_right[: part.shape[0], : part.shape[1]].addcmul_(left[i, j], back)
                for k, n in _degrees_above_zero(part, 2**depth):
                    to_left[i, j].addcmul_(back[k, n], part[k, n])
            if level.shape[2] % 2:
                below[:, :, -1] = grad[: left.shape[0], : left.shape[1], -1]
            grad = below
        return *_back_to_leaves(grad, up, down), None, None


def _pairs_of_leaves(up: Tensor, down: Tensor, plus: int, minus: int) -> Tensor:
    """The first level: (1 + x a + y b)(1 + x c + y d) for the two halves of the factors, and the one left over."""
    count = up.shape[0]
    half = count // 2
    (a, c), (b, d) = (up[:half], up[half : 2 * half]), (down[:half], down[half : 2 * half])
    level = up.new_zeros(min(plus, 2) + 1, min(minus, 2) + 1, half + count % 2, up.shape[1])
    level[0, 0] = 1.0
    if plus:
        torch.add(a, c, out=level[1, 0, :half])
    if minus:
        torch.add(b, d, out=level[0, 1, :half])
    if plus > 1:
        torch.mul(a, c, out=level[2, 0, :half])
    if minus > 1:
        torch.mul(b, d, out=level[0, 2, :half])
    if plus and minus:
        torch.mul(a, d, out=level[1, 1, :half]).addcmul_(b, c)
    if count % 2 and plus:
        level[1, 0, -1] = up[-1]
    if count % 2 and minus:
        level[0, 1, -1] = down[-1]
    return level


def _back_to_leaves(grad: Tensor, up: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of ``up`` and ``down`` from that of :func:`_pairs_of_leaves`."""
    plus, minus, count = grad.shape[0] - 1, grad.shape[1] - 1, up.shape[0]
    half = count // 2
    g = grad[:, :, :half]
    to_up, to_down = torch.zeros_like(up), torch.zeros_like(down)
    for mine, other in ((slice(0, half), slice(half, 2 * half)), (slice(half, 2 * half), slice(0, half))):
        if plus:
            to_up[mine] = g[1, 0]
        if minus:
            to_down[mine] = g[0, 1]
        if plus > 1:
            to_up[mine].addcmul_(g[2, 0], up[other])
        if minus > 1:
            to_down[mine].addcmul_(g[0, 2], down[other])
        if plus and minus:
            to_up[mine].addcmul_(g[1, 1], down[other])
            to_down[mine].addcmul_(g[1, 1], up[other])
    if count % 2 and plus:
        to_up[-1] = grad[1, 0, -1]
    if count % 2 and minus:
        to_down[-1] = grad[0, 1, -1]
    return to_up, to_down


def _degrees(before: int, most: int) -> int:
    """Number of degrees of a product of two polynomials with ``before`` each, cut off above ``most``."""
    return min(2 * (before - 1), most) + 1


def _degrees_above_zero(level: Tensor, most: int) -> list[tuple[int, int]]:
    """Degrees (i, j) that occur in a product of ``most`` factors, but for (0, 0), whose coefficient is one."""
    return [(i, j) for i in range(level.shape[0]) for j in range(level.shape[1]) if 0 < i + j <= most]


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
