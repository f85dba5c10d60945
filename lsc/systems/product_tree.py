"""The product of the factors 1 + x a_k + y b_k, cut off at a degree in x and y: as a balanced tree, or one by one if few.

All terms are positive: nothing cancels, no digit is lost, whatever the factors.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

# So many factors at most are multiplied one by one, which takes fewer operations than a tree of them.
FEW = 32


def product(up: Tensor, down: Tensor, plus: int, minus: int) -> Tensor:
    """Coefficients of the product of the factors 1 + x up_k + y down_k, of degree i in x and j in y.

    Args:
        up, down: (number of factors, B), one factor at least, not negative, float64.

    Returns:
        (plus + 1, minus + 1, B).
    """
    if len(up) > FEW:
        return _ProductTree.apply(up, down, plus, minus)
    return extended(_constant_one(up, plus, minus), up, down)


def extended(start: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """The coefficients ``start`` (plus + 1, minus + 1, B) times a few factors 1 + x up_k + y down_k, cut off alike."""
    return _OneByOne.apply(start, up, down)


def _constant_one(up: Tensor, plus: int, minus: int) -> Tensor:
    """The coefficients (plus + 1, minus + 1, B) of the product of no factors."""
    one = up.new_zeros(plus + 1, minus + 1, up.shape[1])
    one[0, 0] = 1.0
    return one


def differentiable_product(up: Tensor, down: Tensor, plus: int, minus: int) -> Tensor:
    """As :func:`product`, by plain operations, which can be differentiated any number of times but take several times as long."""
    return _differentiable_extension(_constant_one(up, plus, minus), up, down)


class _OneByOne(torch.autograd.Function):
    """A few factors, multiplied one after the other, with all coefficients of a step in one operation."""

    @staticmethod
    def forward(ctx: Any, start: Tensor, up: Tensor, down: Tensor) -> Tensor:
        # With none, one, two, ... of the factors.
        products = start.new_empty(len(up) + 1, *start.shape)
        products[0] = start
        for before, after, a, b in zip(products[:-1], products[1:], up, down, strict=True):
            after.copy_(before)
            after[1:].addcmul_(before[:-1], a)
            after[:, 1:].addcmul_(before[:, :-1], b)
        ctx.save_for_backward(start, up, down, products)
        return products[-1].clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        start, up, down, products = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of the gradient is wanted
            again = _differentiable_extension(start, up, down)
            wanted = [part for part, needed in zip((start, up, down), ctx.needs_input_grad, strict=True) if needed]
            found = iter(torch.autograd.grad(again, wanted, grads[0], create_graph=True, materialize_grads=True))
            return tuple(next(found) if needed else None for needed in ctx.needs_input_grad)
        of_products = torch.empty_like(products)
        of_products[-1] = grads[0]
        for place in range(len(up), 0, -1):
            after, before = of_products[place], of_products[place - 1]
            before.copy_(after)
            before[:-1].addcmul_(after[1:], up[place - 1])
            before[:, :-1].addcmul_(after[:, 1:], down[place - 1])
        after, before = of_products[1:], products[:-1]
        to_up = (after[:, 1:] * before[:, :-1]).sum((1, 2))
        to_down = (after[:, :, 1:] * before[:, :, :-1]).sum((1, 2))
        return of_products[0], to_up, to_down


def _differentiable_extension(start: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """As :func:`extended`, by plain operations, which can be differentiated any number of times."""
    for a, b in zip(up, down, strict=True):
        by_x, by_y = pad(start[:-1], (0, 0, 0, 0, 1, 0)), pad(start[:, :-1], (0, 0, 1, 0))
        start = start + a * by_x + b * by_y
    return start


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
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        up, down, *levels = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of the gradient is wanted
            again = differentiable_product(up, down, grads[0].shape[0] - 1, grads[0].shape[1] - 1)
            return (
                *torch.autograd.grad(again, (up, down), grads[0], create_graph=True, materialize_grads=True),
                None,
                None,
            )
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
