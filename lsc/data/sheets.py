"""Sample sheets: what the images of a data set look like, a row for each class."""

from pathlib import Path

import torch
from torch import Tensor
from torchvision.io import encode_png
from torchvision.utils import make_grid

from lsc.data.base import Dataset
from lsc.errors import UserError
from lsc.files import write_bytes


def sheet(dataset: Dataset, split: str, *, classes: int, images: int) -> Tensor:
    """(3, H, W) uint8: the first ``images`` images of the first ``classes`` classes.

    Raises:
        UserError: a class has fewer images, or there are fewer classes.
    """
    labels = dataset.labels(split)
    if classes > dataset.num_classes:
        raise UserError(f"{dataset.name} has {dataset.num_classes} classes only, not {classes}")
    chosen = []
    for label in range(classes):
        members = (labels == label).nonzero()[:images, 0]
        if len(members) < images:
            raise UserError(f"class {label} of {dataset.name}/{split} has {len(members)} images only, not {images}")
        chosen.append(members)
    return make_grid(dataset.images(split, torch.cat(chosen)), nrow=images, padding=2, pad_value=128)


def write_sheet(dataset: Dataset, split: str, out: Path, *, classes: int, images: int) -> None:
    """Write a :func:`sheet` as a PNG file."""
    picture = sheet(dataset, split, classes=classes, images=images)
    write_bytes(out, encode_png(picture).numpy().tobytes())
