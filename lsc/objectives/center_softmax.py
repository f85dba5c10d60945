"""The softmax over the centers of the classes that are used: exact while they are few, over a sample of them beyond."""

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from lsc.centers import Centers
from lsc.errors import UserError
from lsc.objectives.base import CenterObjective, full_precision, normalized_rows
from lsc.objectives.temperature import LARGEST, Temperature, adacos_scale, check_margin
from lsc.parameters import Setting


class CenterSoftmax(Temperature, CenterObjective):
    """Cross-entropy of the softmax with logits scale * cos(z, c_j) over the centers c_j of the used classes.

    Up to ``sample`` classes all of them take part. Beyond, the classes of the batch and uniformly drawn ones do, shared by all
    embeddings of the batch: the sum over the other classes is estimated by the sum over those drawn, divided by the expected
    number of draws of a class (importance sampling; Bengio and Senecal 2003), so that its expectation is the exact sum.
    Memory is O(batch x sample + sample x dim); nothing but the scale is trained. Unlike
    :class:`~lsc.objectives.OrbitSoftmax` it takes any system, perturbed or not, and vacant vectors play no part.

    Args:
        centers: of the classes.
        sample: number of classes up to which, or of which, the sum is taken.
        scale: initial scale (inverse temperature). None: sqrt(2) log(classes - 1), the fixed scale of AdaCos (Zhang et al.,
            CVPR 2019).
        learn_scale: train the logarithm of the scale; it stays between 1/100 and 100.
        margin: taken from the true class's cosine before scaling, as in CosFace (Wang et al., CVPR 2018).
    """

    label, color = "softmax over used centers", "#882255"

    def __init__(
        self,
        centers: Centers,
        sample: Annotated[int, Setting("classes up to which, or of which, the sum is taken", ge=1)] = 8192,
        scale: Annotated[float | None, Setting(gt=0, le=LARGEST)] = None,
        learn_scale: bool = True,
        margin: Annotated[float, Setting(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__(centers)
        if sample < 1:
            raise UserError(f"sample {sample}: must be 1 or more")
        check_margin(margin)
        self.sample, self.margin = sample, margin
        self.set_scale(adacos_scale(centers.num_classes) if scale is None else scale, learn_scale)

    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        self.check(embeddings, labels)
        with full_precision(embeddings):
            z = normalized_rows(embeddings.float())
            others, share = self._others(labels)
            vectors = self.centers.vectors(torch.cat([labels, others])) / self.centers.radius
            own = (z * vectors[: len(labels)]).sum(1)
            drawn = self.num_classes > self.sample
            candidates, names = (vectors, torch.cat([labels, others])) if drawn else (vectors[len(labels) :], others)
            logits = self.scale * z @ candidates.T
            logits = logits.masked_fill(names == labels[:, None], -torch.inf)
            rest = logits.logsumexp(1) + math.log(share)
            # log(exp(own) + exp(rest)) - own, precise also where the loss is tiny.
            return F.softplus(rest - self.scale * (own - self.margin)).mean()

    def _others(self, labels: Tensor) -> tuple[Tensor, float]:
        """The classes that compete beside those of the batch, and for how many classes each stands."""
        if self.num_classes <= self.sample:
            return torch.arange(self.num_classes, device=labels.device), 1.0
        drawn = torch.randint(self.num_classes, (self.sample,), device=labels.device)
        # Every class is drawn with probability 1 / num_classes, an embedding's own one too, which is then left out.
        return drawn, self.num_classes / (self.sample + len(labels) - 1)
