"""Means over the images of a class: of the pixels, which tell which classes are alike, and of a teacher's embeddings."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lsc.data.base import Dataset
from lsc.training.task import Task


def mean_images(dataset: Dataset, per_class: int = 32, side: int = 16) -> Tensor:
    """(num_classes, C * S * S) float32: the mean of up to ``per_class`` training images of each class.

    Averaged down to at most S = ``side`` pixels a side: what classes share is coarse, and the similarity assignment
    works on the covariance of the pixels, which of 224 by 224 would not fit into any memory.
    """
    channels, height, width = dataset.image_shape
    small = (min(height, side), min(width, side))
    labels = dataset.labels("train")
    order = labels.argsort(stable=True)
    counts = torch.bincount(labels, minlength=dataset.num_classes)
    starts = counts.cumsum(0) - counts
    means = torch.zeros(dataset.num_classes, channels, *small)
    for label in range(dataset.num_classes):
        chosen = order[starts[label] : starts[label] + min(int(counts[label]), per_class)]
        if len(chosen):
            means[label] = F.adaptive_avg_pool2d(dataset.images("train", chosen).float().mean(0), small)
    return means.flatten(1)


@torch.no_grad()
def mean_embeddings(teacher: Task, dataset: Dataset, batch_size: int = 512) -> Tensor:
    """(num_classes, dim): the mean direction of a teacher's embeddings of each class's training images."""
    device = next(teacher.parameters()).device
    sums = torch.zeros(dataset.num_classes, teacher.encoder.dim, device=device)
    teacher.eval()
    for batch in dataset.eval_batches("train", batch_size, device=device):
        sums.index_add_(0, batch.labels, F.normalize(teacher.encoder(batch.images).float(), dim=1))
    return sums.cpu()
