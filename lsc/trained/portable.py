"""A trained run as one module from pixels to classes, of operations that other runtimes know."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lsc.objectives import CenterObjective, CrossEntropy, LayerObjective, PartialFC
from lsc.objectives.examples import WithExamples
from lsc.trained.classifier import Classifier
from lsc.trained.ranking import score_of


class Portable(nn.Module):
    """Pixels in, embeddings and the best classes out.

    Shape: images (B, H, W, 3) RGB from 0 to 255, uint8 or float32 -> embeddings (B, dim), and with ``k`` int64 labels (B, k) and
    float32 scores (B, k), best first. A run on tensors that are no images takes them as they are, (B, ...) float32.

    Args:
        k: how many classes; 0: embeddings alone.
    """

    mean: Tensor
    std: Tensor
    rows: Tensor
    bias: Tensor

    def __init__(self, trained: Classifier, k: int) -> None:
        super().__init__()
        restored = trained.restored
        self.encoder = trained.task.encoder
        self.k = k
        self.takes_pictures = trained.takes_pictures
        self.grey = self.takes_pictures and trained.image_shape[0] == 1
        self.probability = score_of(trained.task.objective) == "probability"
        axes = (-1, 1, 1) if len(trained.image_shape) == 3 else (-1,)
        self.register_buffer("mean", torch.tensor(restored.mean or [0.0]).view(axes) * 255)
        self.register_buffer("std", torch.tensor(restored.std or [1 / 255]).view(axes) * 255)
        objective = trained.task.objective
        self.layer = objective if k and isinstance(objective, LayerObjective) and not _has_rows(objective) else None
        self.unit = not isinstance(objective, CrossEntropy)
        rows, bias = rows_of(trained) if k and self.layer is None else (torch.zeros(0), torch.zeros(0))
        self.register_buffer("rows", rows)
        self.register_buffer("bias", bias)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        x = images.float()
        if self.takes_pictures:
            x = x.permute(0, 3, 1, 2)
            # As files are read: a grey image is the rounded mean of its colours.
            x = x.mean(1, keepdim=True).round() if self.grey else x
        embeddings = self.encoder((x - self.mean) / self.std)
        if not self.k:
            return embeddings
        if self.layer is None:
            z = F.normalize(embeddings, dim=1, eps=1e-6) if self.unit else embeddings
            scores = z @ self.rows.T + self.bias
        else:
            scores = self.layer.logits(embeddings)
        if self.probability:
            scores = scores.softmax(1)
        best, labels = scores.topk(self.k, dim=1)
        return embeddings, labels, best


def _has_rows(objective: LayerObjective) -> bool:
    return isinstance(objective, CrossEntropy | PartialFC)


@torch.no_grad()
def rows_of(trained: Classifier) -> tuple[Tensor, Tensor]:
    """(num_classes, dim) unit centers, or the rows of a layer, and (num_classes,) its bias."""
    objective, device = trained.task.objective, trained.device
    if isinstance(objective, CrossEntropy):
        return objective.layer.weight.detach().cpu().float(), objective.layer.bias.detach().cpu().float()
    if isinstance(objective, PartialFC):
        return (objective.scale * F.normalize(objective.weight, dim=1)).cpu(), torch.zeros(objective.num_classes)
    known = objective.known if isinstance(objective, WithExamples) else objective
    assert isinstance(known, CenterObjective)
    rows = F.normalize(known.centers.vectors(torch.arange(known.num_classes, device=device)), dim=1)
    if isinstance(objective, WithExamples):
        rows = torch.cat([rows, objective.directions])
    return rows.cpu(), torch.zeros(len(rows))
