"""What people use instead of predefined centers when classes are many: objectives whose size grows with the classes.

Each is a module with ``loss(embeddings, labels)``, so that a training step does not know which one it runs.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lsc.errors import UserError
from lsc.objectives import CrossEntropy


class PartialFC(nn.Module):
    """A classification layer of which every step uses a sample of the rows, on one device.

    An, Deng et al., "Killing two birds with one stone: Efficient and robust training of face recognition CNNs by
    Partial FC" (CVPR 2022): the rows of the batch's classes are always in the sample, rows drawn uniformly from the
    others fill it up to ``sample_rate`` of all; the softmax is over the sample, of scaled cosines; only the sampled
    rows have a gradient and only their weights and moments change. Its margin, which costs next to nothing, is left out.

    Args:
        num_classes, dim: shape of the layer.
        sample_rate: share of the rows that a step uses.
        scale: of the cosines, as published.

    The layer trains itself: call :meth:`update` after the backward pass.
    """

    weight: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    steps: Tensor

    def __init__(self, num_classes: int, dim: int, sample_rate: float = 0.1, scale: float = 64.0):
        super().__init__()
        if not 0 < sample_rate <= 1:
            raise UserError(f"sample_rate {sample_rate}: must be more than 0 and at most 1")
        self.sample_rate, self.scale = sample_rate, scale
        # Buffers, so that no optimiser and no gradient ever takes the whole layer.
        self.register_buffer("weight", torch.empty(num_classes, dim).normal_(0, 0.01))
        self.register_buffer("exp_avg", torch.zeros(num_classes, dim))
        self.register_buffer("exp_avg_sq", torch.zeros(num_classes, dim))
        self.register_buffer("steps", torch.zeros(()))
        self.sampled: nn.Parameter | None = None
        self.index: Tensor | None = None

    def sample(self, labels: Tensor) -> Tensor:
        """The rows of this step: int64, ascending, with every class in ``labels`` (B,) among them."""
        num_classes = len(self.weight)
        present = torch.unique(labels)
        wanted = max(int(self.sample_rate * num_classes), len(present))
        if wanted >= num_classes:
            return torch.arange(num_classes, device=labels.device)
        chance = torch.rand(num_classes, device=labels.device)
        chance[present] = 2.0
        return chance.topk(wanted, sorted=False).indices.sort().values

    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of ``embeddings`` (B, dim) over the sampled classes."""
        self.index = self.sample(labels)
        self.sampled = nn.Parameter(self.weight[self.index])
        cosines = F.linear(F.normalize(embeddings, dim=1), F.normalize(self.sampled, dim=1))
        return F.cross_entropy(self.scale * cosines.float(), torch.searchsorted(self.index, labels))

    @torch.no_grad()
    def update(self, learning_rate: float = 1e-3, weight_decay: float = 0.05) -> None:
        """One step of AdamW on the sampled rows, whose moments are taken out and put back."""
        if self.sampled is None or self.index is None:
            raise ValueError("update() needs a loss() and its backward pass before it")
        optimizer = torch.optim.AdamW([self.sampled], lr=learning_rate, weight_decay=weight_decay, fused=True)
        state = {"step": self.steps, "exp_avg": self.exp_avg[self.index], "exp_avg_sq": self.exp_avg_sq[self.index]}
        optimizer.state[self.sampled] = state
        optimizer.step()
        self.weight[self.index] = self.sampled
        self.exp_avg[self.index], self.exp_avg_sq[self.index] = state["exp_avg"], state["exp_avg_sq"]
        self.sampled = self.index = None


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


def least_bytes(name: str, num_classes: int, dim: int, batch: int, sample_rate: float) -> int:
    """Bytes that a step needs at the very least, from the sizes alone, all float32.

    Dense layers: weight and two moments (num_classes, dim), and then either the logits and their gradient (batch,
    num_classes) or the gradients of logits and weight. Partial FC: the same three whole, and of the sample the weight
    with logits and their gradient, or weight, gradient and two moments.
    """
    if name == "partial_fc":
        sampled = max(int(sample_rate * num_classes), min(batch, num_classes))
        return 4 * (3 * num_classes * dim + sampled * max(dim + 2 * batch, 4 * dim))
    return 4 * num_classes * (3 * dim + max(2 * batch, batch + dim))
