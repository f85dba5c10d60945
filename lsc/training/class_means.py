"""Means over the images of a class: of the pixels, which tell which classes are alike, and of a teacher's embeddings."""

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor

from lsc.data.base import Dataset
from lsc.data.delivery import sent
from lsc.data.instances import Instances
from lsc.training.task import Task

# Images that are looked at together: of 224 by 224 pixels in colour they take 600 MB as float32.
_IMAGES_AT_ONCE = 1024


def mean_images(dataset: Dataset, per_class: int = 32, side: int = 16) -> Tensor:
    """(num_classes, C * S * S) float32: the mean of up to ``per_class`` training images of each class.

    Averaged down to at most S = ``side`` pixels a side: what classes share is coarse, and the similarity assignment
    works on the covariance of the pixels, which of 224 by 224 would not fit into any memory.
    """
    channels, height, width = dataset.image_shape
    small = (min(height, side), min(width, side))
    order, starts, taken = _first_of_each(dataset, per_class)
    means = torch.zeros(dataset.num_classes, channels, *small)
    at_once = max(1, _IMAGES_AT_ONCE // per_class)
    for classes in torch.split(torch.arange(dataset.num_classes), at_once):
        of_image = torch.repeat_interleave(torch.arange(len(classes)), taken[classes])
        if not len(of_image):
            continue
        place = torch.arange(len(of_image)) - (taken[classes].cumsum(0) - taken[classes])[of_image]
        images = dataset.images("train", order[starts[classes][of_image] + place]).float()
        # Sums of bytes are exact in float32, in whatever order.
        sums = torch.zeros(len(classes), *images.shape[1:]).index_add_(0, of_image, images)
        whole = sums / taken[classes].clamp(min=1).view(-1, 1, 1, 1)
        means[classes] = F.adaptive_avg_pool2d(whole, small)
    return means.flatten(1)


@torch.no_grad()
def mean_images_on(dataset: Dataset, fabric: Fabric, per_class: int = 32, side: int = 16) -> Tensor:
    """As :func:`mean_images`, by all processes together on their GPUs: the same but for the last bits.

    Images come by the way of evaluations, where a set of files has its loading processes and fractals are drawn on the GPU.
    """
    channels, height, width = dataset.image_shape
    small = (min(height, side), min(width, side))
    order, starts, taken = _first_of_each(dataset, per_class)
    classes = torch.repeat_interleave(torch.arange(dataset.num_classes), taken)
    place = torch.arange(len(classes)) - (taken.cumsum(0) - taken)[classes]
    chosen = order[starts[classes] + place]
    # Instances show further views of their images in an evaluation; what is wanted is the images as they are.
    source = getattr(dataset, "underlying", dataset)
    chosen = dataset.members[chosen] if isinstance(dataset, Instances) else chosen
    mine = torch.arange(fabric.global_rank, len(chosen), fabric.world_size)
    sums = torch.zeros(dataset.num_classes, channels, *small, device=fabric.device)
    shift, scale = (sent(torch.tensor(v).view(-1, 1, 1) * 255, fabric.device) for v in (source.mean, source.std))
    parts = torch.split(sent(classes[mine], fabric.device), _IMAGES_AT_ONCE)
    batches = source.eval_batches("train", _IMAGES_AT_ONCE, device=fabric.device, subset=chosen[mine])
    for batch, of_class in zip(batches, parts, strict=True):
        sums.index_add_(0, of_class, F.adaptive_avg_pool2d(batch.images * scale + shift, small))
    sums = fabric.all_reduce(sums, reduce_op="sum")  # type: ignore[assignment]
    return (sums.cpu() / taken.clamp(min=1).view(-1, 1, 1, 1)).flatten(1)


def _first_of_each(dataset: Dataset, per_class: int) -> tuple[Tensor, Tensor, Tensor]:
    """Training images sorted by class, where each class begins among them, and how many of it are taken."""
    labels = dataset.labels("train")
    counts = torch.bincount(labels, minlength=dataset.num_classes)
    return labels.argsort(stable=True), counts.cumsum(0) - counts, counts.clamp(max=per_class)


@torch.no_grad()
def mean_embeddings(teacher: Task, dataset: Dataset, batch_size: int = 512) -> Tensor:
    """(num_classes, dim): the mean direction of a teacher's embeddings of each class's training images."""
    device = next(teacher.parameters()).device
    sums = torch.zeros(dataset.num_classes, teacher.encoder.dim, device=device)
    teacher.eval()
    for batch in dataset.eval_batches("train", batch_size, device=device):
        sums.index_add_(0, batch.labels, F.normalize(teacher.encoder(batch.images).float(), dim=1))
    return sums.cpu()
