"""Nearest neighbours as they are published, which measure what features are good for beyond the classes trained on.

After Wu et al., "Unsupervised feature learning via non-parametric instance discrimination" (CVPR 2018), and Caron et al.,
"Emerging properties in self-supervised vision transformers" (ICCV 2021): the k training images that are nearest by cosine
vote with weights exp(cosine / 0.07). It is measured on the backbone's features, as is usual, and on the embedding.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lsc.data.base import Dataset
from lsc.training.compiling import in_full
from lsc.training.task import Task

_TEMPERATURE = 0.07
_TEST_IMAGES = 50_000
_COSINES_AT_ONCE = 2**26  # 256 MB


def neighbour_scores(
    task: Task, dataset: Dataset, split: str, *, k: int, per_class: int | None, device: torch.device, batch_size: int
) -> dict[str, Any]:
    """Shares of the images of ``split`` (50,000 at most) that their ``k`` nearest training images put into their class.

    Args:
        per_class: training images of each class, evenly spaced; None: all.

    Returns:
        ``neighbour_top1`` of the embedding, ``neighbour_backbone_top1`` of the backbone's features, and in words
        ``neighbour_protocol``.
    """
    chosen = evenly_of_each(dataset.labels("train"), per_class)
    size = dataset.size(split)
    tested = torch.arange(min(size, _TEST_IMAGES)) * size // min(size, _TEST_IMAGES)
    known, labels = _features(task, dataset, "train", chosen, device, batch_size)
    asked, truths = _features(task, dataset, split, tested, device, batch_size)
    right = [
        float((weighted_votes(*pair, labels, k) == truths).float().mean()) for pair in zip(asked, known, strict=True)
    ]
    of_each = "all training images" if per_class is None else f"{per_class} training images of each class"
    return {
        "neighbour_top1": right[1],
        "neighbour_backbone_top1": right[0],
        "neighbour_protocol": f"k {k}, weights exp(cosine / {_TEMPERATURE}), {of_each}",
    }


def evenly_of_each(labels: Tensor, per_class: int | None) -> Tensor:
    """Positions of up to ``per_class`` items of each class, evenly spaced among its own, in order of the positions."""
    if per_class is None:
        return torch.arange(len(labels))
    order = labels.argsort(stable=True)
    counts = torch.bincount(labels)
    place = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[order]]
    count = counts[labels[order]]
    # The j-th of n is taken where j * m // n begins a new of the m shares.
    share = place * per_class // count
    before = (place - 1) * per_class // count
    return order[(share > before) | (count <= per_class)].sort().values


@torch.no_grad()
def weighted_votes(asked: Tensor, known: Tensor, labels: Tensor, k: int) -> Tensor:
    """(Q,) classes of unit vectors (Q, F) by the ``k`` nearest of the unit vectors (N, F) with class ids (N,)."""
    k = min(k, len(known))
    votes = []
    for rows in torch.split(asked, max(1, _COSINES_AT_ONCE // len(known))):
        cosines, nearest = (rows @ known.T).topk(k, dim=1)
        weights = (cosines / _TEMPERATURE).exp()
        # The sum of the weights of each neighbour's class: no table of all classes for each image.
        alike = labels[nearest][:, :, None] == labels[nearest][:, None, :]
        best = (alike * weights[:, None, :]).sum(2).argmax(1, keepdim=True)
        votes.append(labels[nearest].gather(1, best)[:, 0])
    return torch.cat(votes)


@torch.no_grad()
def _features(
    task: Task, dataset: Dataset, split: str, chosen: Tensor, device: torch.device, batch_size: int
) -> tuple[list[Tensor], Tensor]:
    """Unit vectors of images, of the backbone and of the embedding, and the classes of the images; on the device."""
    was_training = task.training
    task.eval()
    encoder = task.encoder
    backbone, embedded, labels = [], [], []
    for batch in dataset.eval_batches(split, batch_size, device=device, subset=chosen):
        features = in_full(task, encoder.features, batch.images, batch_size)
        backbone.append(F.normalize(features.float(), dim=1))
        embedded.append(F.normalize(encoder.projection(features).float(), dim=1))
        labels.append(batch.labels)
    task.train(was_training)
    return [torch.cat(backbone), torch.cat(embedded)], torch.cat(labels)
