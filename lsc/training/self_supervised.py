"""A self-supervised start: for some epochs two views of each image are all that the network learns from, then come the classes.

The paper names such a hybrid as an avenue and gives no recipe, so the recipe is ours: VICReg (Bardes, Ponce and LeCun, ICLR
2022) on the embeddings themselves, with the read-out in the place of its expander.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# Weights of the three terms, and the variance below which a root is not taken, as published.
_INVARIANCE, _VARIANCE, _COVARIANCE, _EPSILON = 25.0, 25.0, 1.0, 1e-4


def vicreg(embeddings: Tensor) -> Tensor:
    """The loss of VICReg: scalar float32.

    Args:
        embeddings: (2 N, dim), the two views of an image one after the other, N of 2 or more.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        first, second = embeddings.float().view(-1, 2, embeddings.shape[1]).unbind(1)
        spread = _spread(first) + _spread(second)
        return _INVARIANCE * F.mse_loss(first, second) + spread


def _spread(views: Tensor) -> Tensor:
    """The terms of one view of each image: every coordinate varies, and no two vary together."""
    number, dim = views.shape
    centered = views - views.mean(0)
    deviation = (centered.square().sum(0) / (number - 1) + _EPSILON).sqrt()
    covariance = centered.T @ centered / (number - 1)
    apart = covariance.square().sum() - covariance.diagonal().square().sum()
    return _VARIANCE * F.relu(1 - deviation).mean() / 2 + _COVARIANCE * apart / dim
