"""A linear map after which class means point in all directions alike, for codes near them to be found."""

import torch
from torch import Tensor

from lsc.hashing import random_normal

# Directions in which class means differ by a share of the largest variance below this are not blown up but left to shrink.
FLOOR = 1e-4


def whitening(means: Tensor, power: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A map (dim, dim) and an origin (dim,), float64: (x - origin) @ map.T are whitened directions.

    The principal components of ``means`` (classes, dim) are multiplied by their variances to the power of minus ``power``,
    1/2 for equal variances and 0 for none of it, and turned by a random rotation, which spreads them over all coordinates. A
    component of a variance v far below the largest one is multiplied by v^(1 - power) instead, up to a constant: where class
    means do not differ there is nothing but noise to be seen.
    """
    means = means.double().cpu()
    origin, dim = means.mean(0), means.shape[1]
    centered = means - origin
    variances, axes = torch.linalg.eigh(centered.T @ centered / len(means))
    gains = variances.clamp_min(0) ** (1 - power) / (variances + FLOOR * variances[-1]).clamp_min(1e-300)
    places = torch.arange(dim)
    rotation, _ = torch.linalg.qr(random_normal(seed, places[:, None], places))
    return rotation @ (axes * gains).T, origin
