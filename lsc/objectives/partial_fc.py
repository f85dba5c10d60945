"""Partial FC: the classification layer that people use when classes are many. Every step trains a sample of its rows."""

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lsc.checks import check_count, check_embeddings, check_within
from lsc.errors import UserError
from lsc.objectives.base import LayerObjective, full_precision, leave_out, normalized_rows
from lsc.parameters import Setting
from lsc.systems.ranking import scan


class PartialFC(LayerObjective):
    """A classification layer of which every step uses a sample of the rows, on one device.

    An, Deng et al., "Killing two birds with one stone: Efficient and robust training of face recognition CNNs by
    Partial FC" (CVPR 2022): the rows of the batch's classes are always in the sample, rows drawn uniformly from the
    others fill it up to ``sample_rate`` of all; the softmax is over the sample, of scaled cosines; only the sampled
    rows have a gradient and only their weights and moments change. The whole layer is in memory all the same, with its
    two moments.

    Args:
        num_classes, dim: shape of the layer.
        sample_rate: share of the rows that a step uses.
        scale: of the cosines, 64 as published.
        margin: taken from the true class's cosine before scaling, as in CosFace (Wang et al., CVPR 2018).

    The layer trains itself: call :meth:`update` after the backward pass.
    """

    label, color, role = "Partial FC", "#CC79A7", "rival"
    trains_itself = True

    weight: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    steps: Tensor

    def __init__(
        self,
        num_classes: int,
        dim: int,
        sample_rate: Annotated[float, Setting("share of the classes that a step uses", gt=0, le=1)] = 0.1,
        scale: Annotated[float, Setting(gt=0)] = 64.0,
        margin: Annotated[float, Setting(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__()
        if not 0 < sample_rate <= 1:
            raise UserError(f"sample_rate {sample_rate}: must be more than 0 and at most 1")
        self.sample_rate, self.scale, self.margin = sample_rate, scale, margin
        # Buffers, so that no optimiser and no gradient ever takes the whole layer. A trained layer is its weight alone.
        self.register_buffer("weight", torch.empty(num_classes, dim).normal_(0, 0.01))
        self.register_buffer("exp_avg", torch.zeros(num_classes, dim), persistent=False)
        self.register_buffer("exp_avg_sq", torch.zeros(num_classes, dim), persistent=False)
        self.register_buffer("steps", torch.zeros(()), persistent=False)
        self.sampled: nn.Parameter | None = None
        self.index: Tensor | None = None

    @classmethod
    def least_bytes(cls, num_classes: int, dim: int, batch: int, *, sample_rate: float = 0.1, **_settings: Any) -> int:
        """As for any layer; beside weight and moments, of the sample the weight with logits and their gradient, or four of it."""
        sampled = max(int(sample_rate * num_classes), min(batch, num_classes))
        return 4 * (3 * num_classes * dim + sampled * max(dim + 2 * batch, 4 * dim))

    @property
    def num_classes(self) -> int:
        return self.weight.shape[0]

    @property
    def dim(self) -> int:
        return self.weight.shape[1]

    @property
    def trained_values(self) -> int:
        return self.weight.numel()

    def sample(self, labels: Tensor) -> Tensor:
        """The rows of this step: int64, ascending, with every class in ``labels`` (B,) among them.

        Where the rate allows for fewer rows than the batch has images there are as many rows as images: to count the
        classes of the batch instead would have the host wait for a GPU in every step.
        """
        wanted = max(int(self.sample_rate * self.num_classes), min(len(labels), self.num_classes))
        if wanted >= self.num_classes:
            return torch.arange(self.num_classes, device=labels.device)
        chance = torch.rand(self.num_classes, device=labels.device)
        chance[labels] = 2.0
        return chance.topk(wanted, sorted=False).indices.sort().values

    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of ``embeddings`` (B, dim) over the sampled classes, float32 whatever the autocast.

        bfloat16 would round a logit of 64 to quarters.

        Raises:
            IndexError: a label is no class (on the CPU; elsewhere a look would wait for the device).
        """
        self.check(embeddings, labels)
        check_within(labels, self.num_classes, "a label")
        self.index = self.sample(labels)
        self.sampled = nn.Parameter(self.weight[self.index])
        own = torch.searchsorted(self.index, labels)
        with full_precision(embeddings):
            cosines = normalized_rows(embeddings.float()) @ F.normalize(self.sampled.float(), dim=1).T
            if self.margin:
                cosines = cosines.scatter_add(1, own[:, None], cosines.new_full((len(own), 1), -self.margin))
            return F.cross_entropy(self.scale * cosines, own)

    @torch.no_grad()
    def update(
        self,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.05,
        betas: tuple[float, float] = (0.9, 0.999),
        norm: Tensor | None = None,
    ) -> None:
        """One step of AdamW on the sampled rows, whose moments are taken out and put back."""
        if self.sampled is None or self.index is None or self.sampled.grad is None:
            raise ValueError("update() needs a loss() and its backward pass before it")
        optimizer = torch.optim.AdamW(
            [self.sampled], lr=learning_rate, betas=betas, weight_decay=weight_decay, fused=True
        )
        state = {"step": self.steps, "exp_avg": self.exp_avg[self.index], "exp_avg_sq": self.exp_avg_sq[self.index]}
        optimizer.state[self.sampled] = state
        leave_out(optimizer, self.sampled.grad.norm() if norm is None else norm)
        optimizer.step()
        self.weight[self.index] = self.sampled
        self.exp_avg[self.index], self.exp_avg_sq[self.index] = state["exp_avg"], state["exp_avg_sq"]
        self.abandon()

    def abandon(self) -> None:
        self.sampled = self.index = None

    def optimizer_state(self) -> dict[str, Tensor]:
        return {"exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq, "steps": self.steps}

    def load_optimizer_state(self, state: dict[str, Tensor]) -> None:
        for name, value in state.items():
            self.get_buffer(name).copy_(value)

    def logits(self, embeddings: Tensor) -> Tensor:
        """Logits of all classes, sampled or not: (B, dim) -> float32 (B, num_classes)."""
        with full_precision(embeddings):
            return self.scale * normalized_rows(embeddings.float()) @ F.normalize(self.weight.float(), dim=1).T

    @torch.no_grad()
    def predict(self, embeddings: Tensor, k: int = 1) -> Tensor:
        check_embeddings(embeddings, self.dim)
        check_count(k)
        with full_precision(embeddings):
            return scan(
                normalized_rows(embeddings.float()),
                self.num_classes,
                k,
                lambda z, labels: z @ F.normalize(self.weight[labels].float(), dim=1).T,
            )[0]

    def extend(self, num_new_classes: int) -> None:
        new = self.weight.new_empty(num_new_classes, self.dim).normal_(0, 0.01)
        self.weight = torch.cat([self.weight, new])
        self.exp_avg = torch.cat([self.exp_avg, torch.zeros_like(new)])
        self.exp_avg_sq = torch.cat([self.exp_avg_sq, torch.zeros_like(new)])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        """A state with another number of classes is taken over, as centers do."""
        weight = state_dict.get(f"{prefix}weight")
        if weight is not None and len(weight) > self.num_classes:
            self.extend(len(weight) - self.num_classes)
        super()._load_from_state_dict(state_dict, prefix, *others)
