"""Sample sheets: what the images of a data set look like, a row for each class."""

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torchvision.io import encode_png
from torchvision.utils import make_grid

from lsc.data.base import Dataset
from lsc.errors import UserError
from lsc.files import write_bytes

_GROUND = 128


def sheet(dataset: Dataset, split: str, *, classes: int, images: int) -> Tensor:
    """(3, H, W) uint8: the first ``images`` images of the first ``classes`` classes; where a class has fewer, nothing.

    Raises:
        UserError: no class has so many images, or there are fewer classes.
    """
    tiles = []
    for members in _chosen(dataset, split, classes, images):
        tiles.append(dataset.images(split, members))
        tiles.append(torch.full((images - len(members), *dataset.image_shape), _GROUND, dtype=torch.uint8))
    return make_grid(torch.cat(tiles), nrow=images, padding=2, pad_value=_GROUND)


def write_sheet(dataset: Dataset, split: str, out: Path, *, classes: int, images: int) -> None:
    """Write a :func:`sheet` as a PNG file."""
    _write(sheet(dataset, split, classes=classes, images=images), out)


def write_pictures(dataset: Dataset, split: str, folder: Path, *, classes: int, images: int) -> Iterator[Path]:
    """Write the images of a :func:`sheet` one by one, as PNG files that bear the number and the name of their class."""
    for label, members in enumerate(_chosen(dataset, split, classes, images)):
        name = "" if dataset.class_names is None else dataset.class_names[label].partition(" (")[0]
        words = "_".join(re.findall(r"[A-Za-z0-9+-]+", name))[:80]
        for number, picture in enumerate(dataset.images(split, members)):
            path = folder / f"{'_'.join(filter(None, (f'{label:05}', words, str(number))))}.png"
            _write(picture, path)
            yield path


def _chosen(dataset: Dataset, split: str, classes: int, images: int) -> list[Tensor]:
    """For each class, the positions of its first images."""
    if classes > dataset.num_classes:
        raise UserError(f"{dataset.name} has {dataset.num_classes} classes only, not {classes}")
    labels = dataset.labels(split)
    chosen = [(labels == label).nonzero()[:images, 0] for label in range(classes)]
    most = max(map(len, chosen))
    if most < images:
        raise UserError(f"the classes of {dataset.name}/{split} have {most} images only, not {images}; lower --images")
    return chosen


def _write(picture: Tensor, out: Path) -> None:
    write_bytes(out, encode_png(picture).numpy().tobytes())
