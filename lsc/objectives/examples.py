"""Classes that examples alone stand for, beside those with centers: for a network that is trained no further."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lsc.checks import check_count
from lsc.errors import UserError
from lsc.objectives.base import CenterObjective, Objective, full_precision


class WithExamples(Objective):
    """The classes of an objective with centers, and after them further ones, each known by the mean of its examples.

    An embedding belongs to the class whose center, or whose mean direction of examples, has the greatest cosine with it. That is
    nearest class mean (Mensink et al., "Distance-based image classification", PAMI 2013) where a class has come too late for
    a center to have pulled it. It predicts, and is not trained.

    Args:
        known: the objective whose classes have centers.
        sums: (M, dim) sums of the unit embeddings of the further classes' examples.
        counts: (M,) int64, how many examples each sum has.
    """

    label, color = "centers and examples", "#0072B2"
    learns = False
    sums: Tensor
    counts: Tensor

    def __init__(self, known: CenterObjective, sums: Tensor, counts: Tensor) -> None:
        super().__init__()
        self.known = known
        self.register_buffer("sums", sums.float())
        self.register_buffer("counts", counts)

    @property
    def num_classes(self) -> int:
        return self.known.num_classes + len(self.sums)

    @property
    def dim(self) -> int:
        return self.known.dim

    @property
    def directions(self) -> Tensor:
        """(M, dim): unit mean directions of the classes that examples stand for."""
        return F.normalize(self.sums, dim=1)

    @torch.no_grad()
    def nearest(self, embeddings: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """The ``k`` classes with the greatest cosines to (B, dim): int64 labels (B, k), float32 cosines (B, k), best first."""
        check_count(k)
        with full_precision(embeddings):
            labels, cosines = self.known.centers.nearest(embeddings, k)
            of_examples = F.normalize(embeddings.float(), dim=1) @ self.directions.T
            numbers = torch.arange(self.known.num_classes, self.num_classes, device=labels.device)
            labels = torch.cat([labels, numbers.expand(len(labels), -1)], 1)
            order = torch.cat([cosines, of_examples], 1).sort(dim=1, descending=True, stable=True)
        return labels.gather(1, order.indices[:, :k]), order.values[:, :k]

    def predict(self, embeddings: Tensor, k: int = 1) -> Tensor:
        return self.nearest(embeddings, k)[0]

    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        raise UserError(
            "classes that examples alone stand for are not trained: train with their images, lsc train --from"
        )

    def extend(self, num_new_classes: int) -> None:
        raise UserError("classes join by their examples here: lsc extend")
