"""One minus the cosine between embedding and center."""

from torch import Tensor

from lsc.objectives.base import CenterObjective, full_precision, normalized_rows


class Cosine(CenterObjective):
    """Mean of 1 - cos(z, c_y). An embedding of norm zero has cosine 0 and is pulled as one of norm 1 would be."""

    label, color, role, pulls_by = "cosine", "#0072B2", "paper", "cosine"
    learns = False

    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        self.check(embeddings, labels)
        with full_precision(embeddings):
            cosines = (normalized_rows(embeddings.float()) * self.centers.vectors(labels)).sum(1) / self.centers.radius
            return (1 - cosines).mean()
