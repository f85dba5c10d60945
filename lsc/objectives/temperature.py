"""The learned scale (inverse temperature) of a softmax over cosines, in one place for the objectives that have one."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from lsc.errors import UserError

SMALLEST = 0.01
LARGEST = 100.0


class Temperature(nn.Module):
    """A mixin for objectives: the logarithm of a scale as ``log_scale``, a parameter or, where it is not learned, a buffer.

    The scale stays between ``SMALLEST`` and ``max_scale``. At a limit the gradient that leads further out is dropped and
    the one that leads back is not, so that a scale that reached the limit can leave it again.
    """

    log_scale: Tensor
    max_scale: float

    def set_scale(self, scale: float, learned: bool, max_scale: float = LARGEST) -> None:
        """Begin with ``scale``; called once, by the constructor."""
        if not SMALLEST <= scale <= max_scale:
            raise UserError(f"scale {scale}: must be between {SMALLEST} and {max_scale:g}")
        self.max_scale = max_scale
        log_scale = torch.tensor(math.log(scale))
        if learned:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    @property
    def scale(self) -> Tensor:
        """Current scale, a float32 scalar."""
        limits = math.log(SMALLEST), math.log(self.max_scale)
        return torch.exp(_Within.apply(self.log_scale.float(), *limits))


class _Within(torch.autograd.Function):
    """Clamp whose gradient is dropped only where a step down it would lead further out."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, least: float, most: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.limits = least, most
        return x.clamp(least, most)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (x,), (grad,), (least, most) = ctx.saved_tensors, grads, ctx.limits
        inwards = torch.where(x >= most, grad.clamp_min(0), torch.where(x <= least, grad.clamp_max(0), grad))
        return inwards, None, None


def check_margin(margin: float) -> None:
    """Refuse a margin below zero, or none at all."""
    if not 0 <= margin < math.inf:
        raise UserError(f"margin {margin}: must be 0 or more")


def adacos_scale(count: int) -> float:
    """sqrt(2) log(count - 1), the fixed scale of AdaCos (Zhang et al., CVPR 2019) for so many classes."""
    return math.sqrt(2) * math.log(max(count - 1, 3))
