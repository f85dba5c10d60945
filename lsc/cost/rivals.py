"""What people use instead of predefined centers when classes are many: objectives whose size grows with the classes.

Each is a module with ``loss(embeddings, labels)``, so that a training step does not know which one it runs.
"""

from collections.abc import Callable

from torch import Tensor, nn

from lsc.errors import UserError
from lsc.objectives import CrossEntropy, LayerObjective
from lsc.objectives.partial_fc import PartialFC
from lsc.study.looks import GREY, Look


class MetricLearning(nn.Module):
    """A loss of pytorch-metric-learning with a learned vector per class: "arcface" or "proxy_nca"."""

    def __init__(self, name: str, num_classes: int, dim: int):
        super().__init__()
        try:
            from pytorch_metric_learning import losses
        except ImportError:
            raise UserError("pytorch-metric-learning is not installed: pip install 'lsc[bench]'") from None
        kind = {"arcface": losses.ArcFaceLoss, "proxy_nca": losses.ProxyNCALoss}[name]
        self.inner: nn.Module = kind(num_classes=num_classes, embedding_size=dim)

    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return self.inner(embeddings.float(), labels)


RIVALS: dict[str, Callable[[int, int, float], nn.Module]] = {
    "cross_entropy": lambda num_classes, dim, _: CrossEntropy(num_classes, dim),
    "partial_fc": PartialFC,
    "arcface": lambda num_classes, dim, _: MetricLearning("arcface", num_classes, dim),
    "proxy_nca": lambda num_classes, dim, _: MetricLearning("proxy_nca", num_classes, dim),
}

# How figures show what is measured here and is no objective of the library.
LOOKS = {
    "bare": Look("bare encoder", GREY),
    "arcface": Look("ArcFace", "#E69F00", "rival"),
    "proxy_nca": Look("ProxyNCA", "#56B4E9", "rival"),
}


def least_bytes(name: str, num_classes: int, dim: int, batch: int, sample_rate: float) -> int:
    """Bytes that a step needs at the very least, see :meth:`lsc.objectives.LayerObjective.least_bytes`."""
    if name == "partial_fc":
        return PartialFC.least_bytes(num_classes, dim, batch, sample_rate=sample_rate)
    return LayerObjective.least_bytes(num_classes, dim, batch)
