"""The squared Euclidean distance between embedding and center, or the geometric loss with a cluster radius."""

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from lsc.centers import Centers
from lsc.errors import UserError
from lsc.objectives.base import CenterObjective, full_precision
from lsc.parameters import Setting

_LARGEST_EXPONENT = 20.0


class Euclidean(CenterObjective):
    """Mean squared Euclidean distance |z - c_y|^2 between embedding and center.

    With ``cluster_radius`` r, the geometric loss of Gabdullin (arXiv 2402.08441) instead, averaged over the batch:
    exp(ReLU(|z - c_y| - r)) - 1, zero inside the cluster. Its exponent is continued linearly above 20, where float32
    would soon overflow.
    """

    label, color, role, pulls_by = "Euclidean", "#D55E00", "paper", "euclidean"
    learns = False

    def __init__(self, centers: Centers, cluster_radius: Annotated[float | None, Setting(gt=0)] = None) -> None:
        super().__init__(centers)
        if cluster_radius is not None and not cluster_radius >= 0:
            raise UserError(f"cluster_radius {cluster_radius}: must be 0 or more")
        self.cluster_radius = cluster_radius

    def targets(self, labels: Tensor) -> Tensor:
        return self.centers.vectors(labels)

    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        self.check(embeddings, labels)
        with full_precision(embeddings):
            squared = (embeddings.float() - self.centers.vectors(labels)).square().sum(1)
            if self.cluster_radius is None:
                return squared.mean()
            # The gradient of a square root at zero is infinite: there, the distance is replaced by a constant.
            apart = squared != 0  # true of NaN, which must come through
            distance = torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)
            excess = F.relu(distance - self.cluster_radius)
            far = F.relu(excess - _LARGEST_EXPONENT)
            return (torch.expm1(excess.clamp_max(_LARGEST_EXPONENT)) + far * math.exp(_LARGEST_EXPONENT)).mean()
