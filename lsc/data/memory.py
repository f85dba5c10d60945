"""Sets that are small enough to live whole, as uint8, on the training device, where they are also augmented."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from lsc.data.augment import NUM_DRAWS, random_views
from lsc.data.base import Batch, Dataset, Request, with_draws
from lsc.data.delivery import delivered
from lsc.data.options import Augmentation
from lsc.errors import UserError


class Split(NamedTuple):
    """The images and labels of one split."""

    images: Tensor  # (N, C, H, W) uint8
    labels: Tensor  # (N,) int64


class MemoryDataset(Dataset):
    """A set held in memory.

    Args:
        name: of the set.
        data: split name -> images and labels.
        num_classes: labels must lie below it.
        mean, std: per channel; computed from the training images where None.
        augment: what a training view is.
    """

    def __init__(
        self,
        name: str,
        data: Mapping[str, Split],
        *,
        num_classes: int,
        augment: Augmentation,
        class_names: list[str] | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
    ) -> None:
        for split, (_, labels) in data.items():
            if len(labels) == 0:
                raise UserError(f"data set {name}: the split {split} has no images")
            if labels.min() < 0 or labels.max() >= num_classes:
                raise UserError(f"data set {name}: a label of {split} lies outside 0 to {num_classes - 1}")
        self.name, self.num_classes, self.class_names = name, num_classes, class_names
        self.splits = tuple(data)
        channels, height, width = next(iter(data.values())).images.shape[1:]
        self.image_shape = (channels, height, width)
        self.mean, self.std = (mean, std) if mean and std else channel_statistics(data["train"].images)
        self._augment = augment
        self._data = dict(data)
        self._resident: dict[tuple[str, torch.device], Split] = {}

    def size(self, split: str) -> int:
        self.check_split(split)
        return len(self._data[split].labels)

    def labels(self, split: str) -> Tensor:
        self.check_split(split)
        return self._data[split].labels

    def images(self, split: str, indexes: Tensor) -> Tensor:
        self.check_split(split)
        return self._data[split].images[indexes.cpu()]

    def load(self, requests: Iterable[Request], device: torch.device) -> Iterator[Batch]:
        drawn = with_draws(requests, NUM_DRAWS)
        parts = ((r.split, (r.indexes,) if draws is None else (r.indexes, draws)) for r, draws in drawn)
        return delivered(parts, self._batch, device, at_hand=True)

    def _batch(self, split: str, indexes: Tensor, draws: Tensor | None = None) -> Batch:
        stored = self._on_device(split, indexes.device)
        if draws is None:
            views = stored.images[indexes]
        else:
            views = random_views(stored.images, indexes, draws, self._augment)
        return Batch(self.normalise(views), stored.labels[indexes], indexes)

    def _on_device(self, split: str, device: torch.device) -> Split:
        self.check_split(split)
        if (split, device) not in self._resident:
            self._resident[split, device] = Split(*(part.to(device) for part in self._data[split]))
        return self._resident[split, device]


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of (N, C, H, W) uint8 images, of values between 0 and 1."""
    values = images.double() / 255
    return tuple(values.mean((0, 2, 3)).tolist()), tuple(values.std((0, 2, 3)).clamp(min=1e-6).tolist())


def choose_classes(labels: Tensor, classes: int | list[int] | None, num_classes: int) -> tuple[Tensor, list[int]]:
    """Which images to keep, and the old ids of the classes kept, when a set is limited to some of its classes.

    Returns:
        (N,) int64 new labels, -1 for the images of other classes; and the list of kept class ids in their new order.

    Raises:
        UserError: fewer than two classes, a repeated one, or one that does not exist.
    """
    chosen = list(range(num_classes)) if classes is None else classes
    if isinstance(chosen, int):
        if not 2 <= chosen <= num_classes:
            raise UserError(f"option classes: {chosen} lies outside 2 to {num_classes}")
        chosen = list(range(chosen))
    if len(chosen) < 2 or len(set(chosen)) < len(chosen) or not all(0 <= c < num_classes for c in chosen):
        raise UserError(f"option classes: {chosen} should be at least two different ids from 0 to {num_classes - 1}")
    renumbered = torch.full((num_classes,), -1)
    renumbered[torch.tensor(chosen)] = torch.arange(len(chosen))
    return renumbered[labels], chosen
