"""The coefficient of x^p y^m in a product of factors 1 + x a_k + y b_k, and its gradient, by prefix sums over the factors.

With R_ij(k) the coefficient of x^i y^j in the product of the factors before the k-th, every term found at the last factor
that it has,

    R_ij(k) = R_ij(0) + sum over l < k of (a_l R_{i-1,j}(l) + b_l R_{i,j-1}(l)),

so all coefficients of one degree i + j are one prefix sum, once those of degree i + j - 1 are known. R(0) is what the
factors are multiplied with. The same over the factors in reverse, S_ij, gives the derivatives: that by a_k is the sum of
R_ij(k) S_{p-1-i,m-j}(k) over i and j, that by R_ij(0) the last of S_{p-i,m-j}. All terms are positive: nothing cancels, no
digit is lost, whatever the factors.
"""

import torch
from torch import Tensor


def coefficient(factors: Tensor, start: Tensor, bound: int) -> Tensor:
    """The coefficient of the highest degree of the polynomial ``start`` times all factors.

    Args:
        factors: all a_k, and all b_k: (2, B, D), float64, not negative.
        start: coefficients (p + 1, m + 1, B), that of degree (0, 0) being 1.
        bound: from this factor on, factors take part only in terms that ``start`` or one before them takes part in.

    Returns:
        (B,).
    """
    return _prefix_sums(factors, start, bound, len(start[0, 0]))[-1, -1, :, -1]


def coefficient_and_gradient(factors: Tensor, start: Tensor, bound: int) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`coefficient`, with the derivatives.

    Returns:
        the coefficient (B,); its derivatives by log a_k less those by log b_k, (B, D); those by ``start``, a constant at (0, 0).
    """
    batch = start.shape[2]
    one = torch.zeros_like(start)
    one[0, 0] = 1.0
    both = _prefix_sums(torch.cat([factors, factors.flip(2)], 1), torch.cat([start, one], 2), bound, batch)
    before = both[:, :, :batch, :-1]
    reverse = both[:, :, batch:].flip(0, 1)  # of degree (p - i, m - j) at (i, j)
    after = reverse[..., :-1].flip(3)
    slope = (before[:-1] * after[1:]).sum((0, 1)).mul_(factors[0])
    slope.sub_((before[:, :-1] * after[:, 1:]).sum((0, 1)).mul_(factors[1]))
    return both[-1, -1, :batch, -1], slope, reverse[..., -1]


def _prefix_sums(factors: Tensor, start: Tensor, bound: int, bounded: int) -> Tensor:
    """R_ij(k), k = 0, ..., D: (p + 1, m + 1, rows, D + 1); ``bound`` is for the first ``bounded`` rows."""
    (_, rows, count), (across, along, _) = factors.shape, start.shape
    up, down = factors.unbind()
    # A border of zeros stands for degrees below 0. Degrees of one sum lie evenly apart in the flat grid.
    grid = factors.new_zeros(across + 1, along + 1, rows, count + 1)
    grid[1:, 1:, :, 0] = start
    grid[1, 1] = 1.0
    grid[1, 1, :bounded, bound:] = 0.0
    flat = grid.flatten(0, 1)
    before, after = flat[..., :-1], flat[..., 1:]
    ones = _ones_for(flat)
    for degree in range(1, across + along - 1):
        lowest, highest = max(0, degree - along + 1), min(across - 1, degree)
        begin, length = (lowest + 1) * (along + 1) + degree - lowest + 1, (highest - lowest) * along + 1
        less_up, less_down = begin - along - 1, begin - 1
        new = after[begin : begin + length : along]
        new.addcmul_(before[less_up : less_up + length : along], up)
        new.addcmul_(before[less_down : less_down + length : along], down)
        add_up(flat[begin : begin + length : along], ones)
    return grid[1:, 1:]


def _ones_for(terms: Tensor) -> Tensor | None:
    """On a GPU prefix sums are a product with ones, since torch's deterministic ones may take memory of N^2 a row."""
    return upper_ones(terms) if terms.is_cuda else None


def upper_ones(terms: Tensor) -> Tensor:
    """With which a product is the prefix sums of ``terms`` (..., N): ones on the diagonal and above it, (N, N)."""
    return terms.new_ones(terms.shape[-1], terms.shape[-1]).triu_()


def add_up(terms: Tensor, ones: Tensor | None) -> None:
    """Replace ``terms`` (..., N) by their prefix sums: by a product with ``ones`` (N, N), or without one."""
    if ones is None:
        terms.cumsum_(-1)
    else:
        terms.copy_(terms @ ones)
