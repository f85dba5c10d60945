"""A task owns the encoder and the objective: the training loop does not know which method it trains."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from lsc.centers import Centers
from lsc.encoders import Encoder
from lsc.objectives import CenterObjective, Objective
from lsc.objectives.examples import WithExamples
from lsc.training.self_supervised import vicreg


class Teaching(nn.Module, ABC):
    """What a task takes from a teacher: a term in the loss, beside that of the labels.

    Attributes:
        labels_weight: of the labels' term.
    """

    labels_weight: float

    @abstractmethod
    def loss(self, images: Tensor, embeddings: Tensor, objective: Objective) -> Tensor:
        """The teacher's term for a batch: images (B, C, H, W), the student's embeddings (B, dim) -> scalar."""


class Task(nn.Module):
    """An encoder, an objective and perhaps a teacher.

    With ``self_supervised`` the labels play no part: a batch is pairs of views, see :mod:`lsc.training.self_supervised`.
    With ``fixed_shapes`` every batch should have the size of the first, since it is compiled for that.
    With ``keeps_hidden`` the last batch's input of the read-out's last layer stays at hand as ``hidden``, (B, F).
    Encoder and classification layers run in the precision of the surrounding autocast, the losses in float32.
    """

    def __init__(self, encoder: Encoder, objective: Objective, distillation: "Teaching | None" = None):
        super().__init__()
        self.encoder = encoder
        self.objective = objective
        self.distillation = distillation
        self.keeps_hidden = False
        self.self_supervised = False
        self.fixed_shapes = False
        self.hidden: Tensor | None = None

    @property
    def centers(self) -> Centers | None:
        """The centers of the classes; None where the objective learns a layer."""
        objective = self.objective.known if isinstance(self.objective, WithExamples) else self.objective
        return objective.centers if isinstance(objective, CenterObjective) else None

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of a batch: images (B, C, H, W), labels (B,) -> scalar float32."""
        if self.self_supervised:
            # So that every parameter has a gradient, if one of zero, which several processes wait for.
            unused = sum((parameter.sum() for parameter in self.objective.parameters()), labels.new_zeros(()))
            return vicreg(self.encoder(images)) + 0.0 * unused
        if self.keeps_hidden:
            embeddings, hidden = self.encoder(images, with_hidden=True)
            self.hidden = hidden.detach()
        else:
            embeddings = self.encoder(images)
        embeddings = embeddings.float()
        if self.distillation is None:
            return self.objective(embeddings, labels)  # as a module: it may be compiled
        loss = self.distillation.loss(images, embeddings, self.objective)
        weight = self.distillation.labels_weight
        return loss + weight * self.objective(embeddings, labels) if weight else loss
