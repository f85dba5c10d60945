"""Objectives: what turns embeddings and labels into a loss, and embeddings into predicted labels.

All share one interface, ``loss(embeddings, labels)`` and ``predict(embeddings, k)``, so that training does not know
which one it runs. Embeddings (B, dim) of any float type are cast to float32 first, inside autocast too; nothing of size
(B, classes) or (classes, dim) is built, except by :class:`CrossEntropy`, whose layer has that size, and by
:class:`lsc.partial_fc.PartialFC`.
"""

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lsc.centers import Centers
from lsc.errors import UserError
from lsc.systems import OrbitSystem
from lsc.systems.ranking import scan


class Objective(nn.Module, ABC):
    """What training and evaluation ask of an objective."""

    @property
    @abstractmethod
    def num_classes(self) -> int: ...

    @property
    @abstractmethod
    def dim(self) -> int: ...

    @abstractmethod
    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of ``embeddings`` (B, dim) with class ``labels`` (B,): a float32 scalar."""

    @abstractmethod
    def predict(self, embeddings: Tensor, k: int = 1) -> Tensor:
        """The ``k`` most likely labels of ``embeddings`` (B, dim): int64 (B, k), best first."""

    @abstractmethod
    def extend(self, num_new_classes: int) -> None:
        """Make room for new classes; the old ones keep what they had."""

    @property
    def trained_values(self) -> int:
        """Number of values that training changes."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)

    def update(
        self, learning_rate: float = 1e-3, weight_decay: float = 0.05, betas: tuple[float, float] = (0.9, 0.999)
    ) -> None:
        """End a step after its backward pass. For what an optimiser of all parameters cannot train; most have nothing."""

    def abandon(self) -> None:
        """Forget a step whose loss was taken and that :meth:`update` will not end."""

    def optimizer_state(self) -> dict[str, Tensor]:
        """What :meth:`update` keeps from step to step beside the trained values, for a checkpoint."""
        return {}

    def load_optimizer_state(self, state: dict[str, Tensor]) -> None:
        """Take over what :meth:`optimizer_state` gave."""

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return self.loss(embeddings, labels)


class CrossEntropy(Objective):
    """Cross-entropy of a linear classification layer on the embedding: what everyone does, to compare with.

    The layer's weight (num_classes, dim) and bias grow with the number of classes, as do its logits (B, num_classes).
    """

    def __init__(self, num_classes: int, dim: int, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.layer = nn.Linear(dim, num_classes)
        self.label_smoothing = label_smoothing

    @property
    def num_classes(self) -> int:
        return self.layer.out_features

    @property
    def dim(self) -> int:
        return self.layer.in_features

    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        # Autocast may run the layer itself in a lower precision, as is usual; the softmax is float32.
        return F.cross_entropy(self.logits(embeddings), labels, label_smoothing=self.label_smoothing)

    def logits(self, embeddings: Tensor) -> Tensor:
        """Logits of all classes: (B, dim) -> float32 (B, num_classes)."""
        return self.layer(embeddings.to(self.layer.weight.dtype)).float()

    @torch.no_grad()
    def predict(self, embeddings: Tensor, k: int = 1) -> Tensor:
        weight, bias = self.layer.weight, self.layer.bias
        with full_precision(embeddings):
            # A chunk of classes at a time: all logits of a batch would be the largest tensor there is.
            return scan(
                embeddings.to(weight.dtype),
                self.num_classes,
                k,
                lambda z, labels: F.linear(z, weight[labels], bias[labels]).float(),
            )[0]

    def extend(self, num_new_classes: int) -> None:
        """Add freshly initialised rows. The layer's parameters are new objects: give them to the optimiser again."""
        old = self.layer
        self.layer = _layer_like(old, old.out_features + num_new_classes)
        with torch.no_grad():
            self.layer.weight[: old.out_features] = old.weight
            self.layer.bias[: old.out_features] = old.bias

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        """A state with another number of classes is taken over, as centers do; then, too, the parameters are new."""
        weight = state_dict.get(f"{prefix}layer.weight")
        if weight is not None and weight.shape[0] != self.num_classes:
            self.layer = _layer_like(self.layer, weight.shape[0])
        super()._load_from_state_dict(state_dict, prefix, *others)


def _layer_like(layer: nn.Linear, num_classes: int) -> nn.Linear:
    weight = layer.weight
    return nn.Linear(layer.in_features, num_classes, device=weight.device, dtype=weight.dtype)


class CenterObjective(Objective):
    """An objective whose classes have predefined centers; the nearest center is the prediction."""

    def __init__(self, centers: Centers) -> None:
        super().__init__()
        self.centers = centers

    @property
    def num_classes(self) -> int:
        return self.centers.num_classes

    @property
    def dim(self) -> int:
        return self.centers.dim

    @torch.no_grad()
    def predict(self, embeddings: Tensor, k: int = 1) -> Tensor:
        with full_precision(embeddings):
            return self.centers.nearest(embeddings, k)[0]

    def extend(self, num_new_classes: int) -> None:
        self.centers.extend(num_new_classes)


class Euclidean(CenterObjective):
    """Mean squared Euclidean distance |z - c_y|^2 between embedding and center.

    With ``cluster_radius`` r, the geometric loss of Gabdullin (arXiv 2402.08441) instead, averaged over the batch:
    exp(ReLU(|z - c_y| - r)) - 1, zero inside the cluster. Its exponent is continued linearly above 20, where float32
    would soon overflow.
    """

    def __init__(self, centers: Centers, cluster_radius: float | None = None) -> None:
        super().__init__(centers)
        if cluster_radius is not None and cluster_radius < 0:
            raise UserError(f"cluster_radius {cluster_radius}: must be 0 or more")
        self.cluster_radius = cluster_radius

    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        with full_precision(embeddings):
            squared = (embeddings.float() - self.centers.vectors(labels)).square().sum(1)
            if self.cluster_radius is None:
                return squared.mean()
            # The gradient of a square root at zero is infinite: there, the distance is replaced by a constant.
            apart = squared > 0
            distance = torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)
            excess = F.relu(distance - self.cluster_radius)
            far = F.relu(excess - _LARGEST_EXPONENT)
            return (torch.expm1(excess.clamp_max(_LARGEST_EXPONENT)) + far * math.exp(_LARGEST_EXPONENT)).mean()


class Cosine(CenterObjective):
    """Mean of 1 - cos(z, c_y). An embedding of norm zero has cosine 0 and is pulled as one of norm 1 would be."""

    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        with full_precision(embeddings):
            cosines = (normalized_rows(embeddings.float()) * self.centers.vectors(labels)).sum(1) / self.centers.radius
            return (1 - cosines).mean()


class OrbitSoftmax(CenterObjective):
    """Cross-entropy of the softmax over ALL vectors of an :class:`~lsc.systems.OrbitSystem`, exact, in O(dim).

    With ``normalize`` the logit of a vector v is scale * cos(z, v), otherwise scale * z.v. The normaliser is that of
    :mod:`lsc.systems.partition`. Where there are fewer classes than vectors, the vacant vectors take part as further
    negatives: embeddings keep away from them, which leaves room for classes to come.

    Args:
        centers: unperturbed centers in an orbit system, of any assignment.
        normalize: use the direction of the embedding alone.
        scale: initial scale (inverse temperature). None: sqrt(2) log(capacity - 1), the fixed scale of AdaCos (Zhang et
            al., CVPR 2019) if ``normalize``, and 1 otherwise.
        learn_scale: train the logarithm of the scale; it stays between 1/100 and ``max_scale``.
        margin: taken from the true class's cosine (from z.v without ``normalize``) before scaling, as in CosFace
            (Wang et al., CVPR 2018).
    """

    log_scale: Tensor

    def __init__(
        self,
        centers: Centers,
        normalize: bool = True,
        scale: float | None = None,
        learn_scale: bool = True,
        margin: float = 0.0,
        max_scale: float = 100.0,
    ) -> None:
        super().__init__(centers)
        if not isinstance(centers.system, OrbitSystem):
            raise UserError(
                f"the exact softmax needs an orbit system such as A or V21, not {centers.system.name}: "
                "change the system or use the cosine objective"
            )
        if centers.perturbation != 0:
            raise UserError(
                "the exact softmax needs unperturbed centers: set perturbation to 0 or use the cosine objective"
            )
        if scale is None:
            scale = math.sqrt(2) * math.log(max(centers.system.capacity - 1, 3)) if normalize else 1.0
        if not 0.01 <= scale <= max_scale:
            raise UserError(f"scale {scale}: must be between 0.01 and {max_scale:g}")
        if margin < 0:
            raise UserError(f"margin {margin}: must be 0 or more")
        self.system = centers.system
        self.normalize, self.margin, self.max_scale = normalize, margin, max_scale
        log_scale = torch.tensor(math.log(scale))
        if learn_scale:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    @property
    def scale(self) -> Tensor:
        """Current scale, a float32 scalar."""
        return self.log_scale.float().clamp(math.log(0.01), math.log(self.max_scale)).exp()

    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        with full_precision(embeddings):
            z = embeddings.float()
            z = normalized_rows(z) / self.system.norm if self.normalize else z
            places = self.system.positions(self.centers.indexes(labels))
            logits = self.scale * z
            # Two coordinates of a unit vector differ by sqrt(2) at most.
            spread = math.sqrt(2) * self.max_scale / self.system.norm if self.normalize else None
            rest = self.system.log_rest_at(logits, *places, spread=spread)
            own = logits.gather(1, places[0]).sum(1) - logits.gather(1, places[1]).sum(1)
            # log(exp(own) + exp(rest)) - own, precise also where the loss is tiny.
            return F.softplus(rest - own + self.scale * self.margin, threshold=_SOFTPLUS_THRESHOLD).mean()


_LARGEST_EXPONENT = 20.0
# Above it softplus is the identity to float32 precision; torch's default, too.
_SOFTPLUS_THRESHOLD = 20.0


def normalized_rows(z: Tensor) -> Tensor:
    """Rows of unit norm; a row shorter than 1e-6 is left as it is, so that its gradient does not explode."""
    norm = torch.linalg.vector_norm(z.detach(), dim=1, keepdim=True)
    return torch.where(norm > 1e-6, F.normalize(z, dim=1, eps=1e-6), z)


def full_precision(embeddings: Tensor) -> torch.autocast:
    """Autocast off: matrix products and norms in here are float32 whatever the surroundings."""
    return torch.autocast(embeddings.device.type, enabled=False)
