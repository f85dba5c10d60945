"""A small random displacement for every class, made from a hash of (seed, class) when it is needed."""

import math

import torch
from torch import Tensor

from lsc.hashing import random_bits

_HALF = 2**32 - 1


def norm_bound(relative_size: float, dim: int) -> float:
    """Largest norm that :func:`displacement` can have: three standard deviations above the mean, about."""
    return relative_size * (1.0 + 3.0 / math.sqrt(2.0 * dim))


def displacement(labels: Tensor, dim: int, relative_size: float, seed: int) -> Tensor:
    """Displacements e of ``labels`` (...): float32 (..., dim), on the labels' device.

    e = relative_size * g * min(1, b / |g|), where g has independent normal coordinates of variance 1 / dim, so that
    |g| is about 1, and b = 1 + 3 / sqrt(2 dim) is reached by about one class in a thousand (in high dimension; in two
    dimensions by one in 500). Hence |e| <= norm_bound(relative_size, dim), always.
    """
    pairs = torch.arange((dim + 1) // 2, device=labels.device)
    bits = random_bits(seed, labels.unsqueeze(-1), pairs)
    # One hash makes two uniform numbers of 32 bits, and these two normal ones (Box and Muller 1958).
    high = ((bits >> 32) & _HALF).float().add_(0.5).mul_(2.0**-32)
    angle = (bits & _HALF).float().mul_(2.0**-32 * 2.0 * math.pi)
    radius = high.log_().mul_(-2.0 / dim).sqrt_()
    # One half of the coordinates, then the other: faster to write than taking turns, and as random.
    normal = torch.cat([radius * angle.cos(), radius * angle.sin()], -1)[..., :dim]
    norm = normal.norm(dim=-1, keepdim=True)
    limit = norm_bound(1.0, dim)
    return normal * (relative_size * (limit / norm.clamp_min(1e-12)).clamp_max(1.0))
