"""What training and evaluation ask of an objective, and what the objectives share."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from lsc.centers import Centers
from lsc.checks import check_embeddings, check_labels


class Objective(nn.Module, ABC):
    """What training and evaluation ask of an objective, and how figures show it.

    Attributes:
        label: its name for people.
        color: of its lines, "#rrggbb".
        role: its part in the replication's comparisons: a loss of the "paper", the "baseline", a "rival" with a layer, or
            "own", anything else.
        learns: whether it has values that training changes.
        trains_itself: whether :meth:`update` trains them, in one process, instead of the run's optimiser.
        soft_logits: whether a student can learn from its softened class probabilities.

    A constructor's parameters with defaults are the objective's settings (:mod:`lsc.parameters`).
    """

    label: ClassVar[str]
    color: ClassVar[str]
    role: ClassVar[Literal["paper", "baseline", "rival", "own"]] = "own"
    learns: ClassVar[bool] = True
    trains_itself: ClassVar[bool] = False
    soft_logits: ClassVar[bool] = False

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
        self,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.05,
        betas: tuple[float, float] = (0.9, 0.999),
        norm: Tensor | None = None,
    ) -> None:
        """End a step after its backward pass. For what an optimiser of all parameters cannot train; most have nothing.

        Args:
            norm: that of the whole network's gradient, a scalar: where it is not finite nothing changes (:func:`leave_out`).
        """

    def abandon(self) -> None:
        """Forget a step whose loss was taken and that :meth:`update` will not end."""

    def optimizer_state(self) -> dict[str, Tensor]:
        """What :meth:`update` keeps from step to step beside the trained values, for a checkpoint."""
        return {}

    def load_optimizer_state(self, state: dict[str, Tensor]) -> None:
        """Take over what :meth:`optimizer_state` gave."""

    def check(self, embeddings: Tensor, labels: Tensor) -> None:
        """Refuse a batch of other shapes or types than :meth:`loss` takes, in one line."""
        check_embeddings(embeddings, self.dim)
        check_labels(labels, len(embeddings))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return self.loss(embeddings, labels)


class LayerObjective(Objective):
    """An objective that learns a layer with a row for each class: made of ``num_classes`` and ``dim``.

    Attributes:
        linear: whether its logits are a linear layer, which :meth:`take_layer` sets.
    """

    linear: ClassVar[bool] = False

    @classmethod
    def least_bytes(cls, num_classes: int, dim: int, batch: int, **settings: Any) -> int:
        """Bytes that a step needs for the layer at the very least, from the sizes alone, all float32.

        Weight and two moments (num_classes, dim), and then either the logits and their gradient (batch, num_classes) or the
        gradients of logits and weight.
        """
        return 4 * num_classes * (3 * dim + max(2 * batch, batch + dim))

    @abstractmethod
    def logits(self, embeddings: Tensor) -> Tensor:
        """Logits of all classes: (B, dim) -> float32 (B, num_classes)."""

    def take_layer(self, weight: Tensor, bias: Tensor) -> None:
        """Set the layer's weight (num_classes, dim) and bias (num_classes,), where it is linear."""
        raise NotImplementedError(f"{type(self).__name__} has no linear layer")

    def take_over(self, other: Objective, old: Tensor) -> bool:
        """Begin with what ``other`` learned of some classes, of class ``old[c]`` (num_classes,) for class c, -1 for none.

        Gives whether there was something to take over; by default there is not.
        """
        return False


class CenterObjective(Objective):
    """An objective whose classes have predefined centers; the nearest center is the prediction.

    Attributes:
        pulls_by: the metric by which it pulls an embedding to its center, where it is one of the paper's two.
    """

    pulls_by: ClassVar[Literal["cosine", "euclidean"] | None] = None

    def __init__(self, centers: Centers) -> None:
        super().__init__()
        self.centers = centers

    @property
    def num_classes(self) -> int:
        return self.centers.num_classes

    @property
    def dim(self) -> int:
        return self.centers.dim

    def targets(self, labels: Tensor) -> Tensor:
        """Where the embeddings of classes (B,) belong: (B, dim), the centers' directions unless their norm matters."""
        return self.centers.vectors(labels) / self.centers.radius

    @torch.no_grad()
    def predict(self, embeddings: Tensor, k: int = 1) -> Tensor:
        with full_precision(embeddings):
            return self.centers.nearest(embeddings, k)[0]

    def extend(self, num_new_classes: int) -> None:
        self.centers.extend(num_new_classes)


def normalized_rows(z: Tensor) -> Tensor:
    """Rows of unit norm; a row shorter than 1e-6 is left as it is, so that its gradient does not explode."""
    norm = torch.linalg.vector_norm(z, dim=1, keepdim=True)
    return z / torch.where(norm > 1e-6, norm, 1.0)


def full_precision(embeddings: Tensor) -> AbstractContextManager[Any]:
    """Autocast off: matrix products and norms in here are float32 whatever the surroundings."""
    if embeddings.device.type == "meta":  # which has no autocast: operations are counted there
        return nullcontext()
    return torch.autocast(embeddings.device.type, enabled=False)


def leave_out(optimizer: torch.optim.Optimizer, norm: Tensor) -> None:
    """Have the next step of a fused optimiser change nothing where ``norm``, that of its gradient, is not finite.

    Its moments stay, too. No device is waited for: the optimiser's kernel looks, at the number by which torch's own gradient
    scaler tells it.
    """
    optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
    for group in optimizer.param_groups:
        if group.get("momentum"):
            # Those of SGD begin with its first step, and would with one that is left out, without values.
            for parameter in group["params"]:
                if parameter.grad is not None and optimizer.state[parameter].get("momentum_buffer") is None:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
