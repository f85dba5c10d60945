"""A linear map after which class means point in all directions alike, for codes near them to be found."""

import torch
from torch import Tensor

from lsc.errors import UserError
from lsc.hashing import random_normal

# The share of the largest variance below which a component is not blown up. In trials (docs/learning.md) a thousandth left so
# few components that classes got nearly the same codes, and 1e-7 let noise through.
FLOOR = 1e-5


def whitening(means: Tensor, power: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A map (dim, dim) and an origin (dim,), float64: (x - origin) @ map.T are whitened directions.

    The principal components of ``means`` (classes, dim) are multiplied by their variances to the power of minus ``power``,
    1/2 for equal variances and 0 for none of it, and turned by a random rotation, which spreads them over all coordinates. A
    component of a variance v far below the largest one is multiplied by v^(1 - power) instead, up to a constant: where class
    means do not differ there is nothing but noise to be seen.

    Raises:
        UserError: a mean is not finite.
    """
    means = means.double().cpu()
    if not bool(torch.isfinite(means).all()):
        raise UserError("the means of the embeddings are not finite: lower training.learning_rate")
    origin, dim = means.mean(0), means.shape[1]
    centered = means - origin
    variances, axes = torch.linalg.eigh(centered.T @ centered / len(means))
    gains = variances.clamp_min(0) ** (1 - power) / (variances + FLOOR * variances[-1]).clamp_min(1e-300)
    places = torch.arange(dim)
    rotation, _ = torch.linalg.qr(random_normal(seed, places[:, None], places))
    return rotation @ (axes * gains).T, origin
