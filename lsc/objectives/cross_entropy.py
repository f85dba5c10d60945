"""Cross-entropy of a linear classification layer: what everyone does, to compare with."""

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lsc.checks import check_count, check_embeddings
from lsc.objectives.base import LayerObjective, Objective, full_precision
from lsc.parameters import Setting
from lsc.systems.ranking import scan


class CrossEntropy(LayerObjective):
    """Cross-entropy of a linear classification layer on the embedding: what everyone does, to compare with.

    The layer's weight (num_classes, dim) and bias grow with the number of classes, as do its logits (B, num_classes).
    """

    label, color, role = "cross-entropy", "#000000", "baseline"
    soft_logits, linear = True, True

    def __init__(
        self, num_classes: int, dim: int, label_smoothing: Annotated[float, Setting(ge=0, lt=1)] = 0.0
    ) -> None:
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
        self.check(embeddings, labels)
        # Autocast may run the layer itself in a lower precision, as is usual; the softmax is float32.
        return F.cross_entropy(self.logits(embeddings), labels, label_smoothing=self.label_smoothing)

    def logits(self, embeddings: Tensor) -> Tensor:
        """Logits of all classes: (B, dim) -> float32 (B, num_classes)."""
        return self.layer(embeddings.to(self.layer.weight.dtype)).float()

    @torch.no_grad()
    def take_layer(self, weight: Tensor, bias: Tensor) -> None:
        self.layer.weight.copy_(weight)
        self.layer.bias.copy_(bias)

    @torch.no_grad()
    def take_over(self, other: Objective, old: Tensor) -> bool:
        if not isinstance(other, CrossEntropy):
            return False
        for mine, theirs in zip(self.layer.parameters(), other.layer.parameters(), strict=True):
            mine[old >= 0] = theirs[old[old >= 0]]
        return True

    @torch.no_grad()
    def predict(self, embeddings: Tensor, k: int = 1) -> Tensor:
        check_embeddings(embeddings, self.dim)
        check_count(k)
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
