"""What every data set offers: sizes, labels, shuffled training batches and ordered evaluation batches on a device.

A training batch is a pure function of (seed, epoch, step): the order of an epoch and every random change of an image
come from counters, never from the state of a generator. So a run can resume anywhere by skipping batches, several
processes together see exactly what one would see, and the number of loading processes does not matter.
"""

import copy
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from lsc.errors import UserError
from lsc.hashing import random_bits, random_uniform

# First counters of the random streams, so that order, views and samples are drawn independently of each other.
ORDER, VIEW, SAMPLE = 101, 102, 103


# Epochs count from 0: the views of an evaluation are drawn with another number, so that no training view is among them.
_NO_EPOCH = -1


class Batch(NamedTuple):
    """Images with their classes, on one device."""

    images: Tensor  # (B, C, H, W) float32, normalised
    labels: Tensor  # (B,) int64 class ids
    indexes: Tensor  # (B,) int64 positions of the images in their split


class Request(NamedTuple):
    """One process's part of a batch, to be loaded: which images, and which random views of them."""

    split: str
    indexes: Tensor  # (B,) int64 on the CPU
    seed: int = 0
    epoch: int = 0
    positions: Tensor | None = None  # (B,) places in the epoch, the counters of the views; None: no augmentation

    def draws(self, count: int) -> Tensor:
        """(B, count) uniform random numbers in [0, 1), float32 on the CPU, that belong to these views."""
        if self.positions is None:
            raise ValueError("a request without positions has no random views")
        return random_uniform(self.seed, VIEW, self.epoch, self.positions[:, None], torch.arange(count)).float()


class Requests(Protocol):
    """Requests in an order, each to be had by its place: a list, or something that makes them as they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> Request: ...

    def __iter__(self) -> Iterator[Request]: ...


@dataclass
class TrainingRequests:
    """A process's parts of the shuffled batches of some epochs, each a pure function of its place.

    So every loading process can work out its own, however many epochs there are, and none is kept but the order of the epoch at
    hand (8 bytes per image).

    Attributes:
        steps: batches of an epoch.
        size: images of an epoch's order: those of the split, or of ``subset``.
        epoch: the first of ``epochs``, of which the first ``skip`` batches are left out.
        pairs: see :meth:`Dataset.train_batches`.
    """

    split: str
    size: int
    batch_size: int
    steps: int
    seed: int
    epoch: int
    epochs: int = 1
    skip: int = 0
    rank: int = 0
    world_size: int = 1
    subset: Tensor | None = None
    pairs: bool = False
    _order: tuple[int, Tensor] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return self.epochs * self.steps - self.skip

    def __iter__(self) -> Iterator[Request]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, place: int, /) -> Request:
        epochs, step = divmod(self.skip + range(len(self))[place], self.steps)
        epoch, share = self.epoch + epochs, self.batch_size // self.world_size
        positions = torch.arange(share) + step * self.batch_size + self.rank * share
        if self.pairs:
            positions = positions[: share // 2].repeat_interleave(2)
        indexes = self._order_of(epoch)[positions]
        if self.subset is not None:
            indexes = self.subset[indexes]
        if self.pairs:
            positions[1::2] += self.size  # of no other view of this epoch
        return Request(self.split, indexes, self.seed, epoch, positions)

    def _order_of(self, epoch: int) -> Tensor:
        """The order of an epoch; that of the last one asked for is kept."""
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, epoch_order(self.size, seed=self.seed, epoch=epoch)
        return self._order[1]


def with_draws(requests: Iterable[Request], count: int) -> Iterator[tuple[Request, Tensor | None]]:
    """Every request with its ``draws(count)``, or None where it has no views.

    They are drawn for several small batches at once, since the time goes into the number of calls.
    """
    waiting: list[Request] = []
    images = 0
    for request in requests:
        if waiting and (images > 2048 or request[2:4] != waiting[0][2:4] or request.positions is None):
            yield from _drawn(waiting, count)
            waiting, images = [], 0
        if request.positions is None:
            yield request, None
        else:
            waiting.append(request)
            images += len(request.indexes)
    if waiting:
        yield from _drawn(waiting, count)


def _drawn(requests: list[Request], count: int) -> Iterator[tuple[Request, Tensor]]:
    """Requests of one seed and epoch with their draws."""
    positions = torch.cat([request.positions for request in requests if request.positions is not None])
    draws = requests[0]._replace(positions=positions).draws(count)
    return zip(requests, torch.split(draws, [len(request.indexes) for request in requests]), strict=True)


def epoch_order(size: int, *, seed: int, epoch: int) -> Tensor:
    """(size,) int64: the random order of an epoch, the same on every machine."""
    return random_bits(seed, ORDER, epoch, torch.arange(size)).argsort()


def normalised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(B, C, H, W) images of values from 0 to 255 as float32, shifted and scaled per channel.

    Args:
        mean, std: per channel, of values between 0 and 1; empty: nothing is done.
    """
    if not mean:
        return images.float()
    shift, scale = _of_channels(mean, images.device), _of_channels(std, images.device)
    return (images.float() - shift) / scale


@lru_cache(maxsize=64)
def _of_channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """(C, 1, 1): values of the channels, times 255; copied to a device once, for the copy waits for it."""
    return torch.tensor(values, device=device).view(-1, 1, 1) * 255


class Dataset(ABC):
    """A labelled set of images with the splits ``train`` and ``test``, and perhaps ``valid``.

    Attributes:
        name: as in :func:`lsc.data.open_dataset`.
        num_classes: labels are 0 to num_classes - 1.
        image_shape: (channels, height, width) of a batch's images.
        class_names: one per class, or None where classes have none.
        splits: the splits there are.
        mean, std: normalisation per channel, of values between 0 and 1; empty where there is none.
        epoch_size: images of a training epoch where that is less than all of them.
        group_sizes: where the classes come in groups of their own, how many each group has, in the order of the class ids.
    """

    name: str
    num_classes: int
    image_shape: tuple[int, int, int]
    class_names: list[str] | None = None
    splits: tuple[str, ...] = ("train", "test")
    mean: tuple[float, ...]
    std: tuple[float, ...]
    epoch_size: int | None = None
    group_sizes: tuple[int, ...] | None = None

    @abstractmethod
    def size(self, split: str) -> int:
        """Number of images of a split."""

    @abstractmethod
    def labels(self, split: str) -> Tensor:
        """(size,) int64 class ids of a split, on the CPU."""

    @abstractmethod
    def images(self, split: str, indexes: Tensor) -> Tensor:
        """(B, C, H, W) uint8 images as they are, neither augmented nor normalised, on the CPU; for figures."""

    @abstractmethod
    def load(self, requests: Requests, device: torch.device) -> Iterator[Batch]:
        """The batches of ``requests``, in their order."""

    @property
    def is_normalised(self) -> bool:
        """Whether batches are normalised by ``mean`` and ``std``; floats of one's own are taken as they are, and have neither."""
        return bool(self.mean)

    def normalised_by(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Self:
        """A copy whose batches are normalised by these statistics, unless they are not normalised at all.

        The set itself stays, for it may be used again.
        """
        if not self.is_normalised:
            return self
        changed = copy.copy(self)
        changed.mean, changed.std = mean, std
        return changed

    def steps_per_epoch(self, batch_size: int, subset: Tensor | None = None, split: str = "train") -> int:
        """Number of whole batches of ``batch_size`` (over all processes) in an epoch; the rest is left out.

        Raises:
            UserError: there are fewer images than one batch needs.
        """
        size = self._epoch_length(split, subset)
        if size < batch_size:
            raise UserError(
                f"batch_size {batch_size} exceeds the {size} images of {self.name}/{split}: lower batch_size"
            )
        return size // batch_size

    def train_batches(
        self,
        batch_size: int,
        *,
        seed: int,
        epoch: int,
        skip: int = 0,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
        subset: Tensor | None = None,
        split: str = "train",
        pairs: bool = False,
        epochs: int = 1,
    ) -> Iterator[Batch]:
        """Shuffled, augmented batches; batch number t of an epoch is a pure function of (seed, epoch, t).

        Args:
            batch_size: of the global batch. Process ``rank`` of ``world_size`` gets its contiguous part of each.
            epoch: the first epoch.
            skip: leave out so many batches at the start, at no cost: this is how a run resumes within an epoch.
            subset: (M,) positions in the split to train on, repeats allowed; all images by default.
            pairs: each batch holds the first half of its images, each twice in a row, in two views.
            epochs: so many epochs, one after the other, by the same loading processes; they go on loading while nobody asks.

        Raises:
            UserError: the set is smaller than a batch, or the batch cannot be shared out evenly.
        """
        if batch_size % world_size:
            raise UserError(f"batch_size {batch_size} cannot be shared out evenly among {world_size} processes")
        requests = TrainingRequests(
            split,
            size=self.size(split) if subset is None else len(subset),
            batch_size=batch_size,
            steps=self.steps_per_epoch(batch_size, subset, split),
            seed=seed,
            epoch=epoch,
            epochs=epochs,
            skip=skip,
            rank=rank,
            world_size=world_size,
            subset=None if subset is None else subset.cpu(),
            pairs=pairs,
        )
        return self.load(requests, torch.device(device))

    def eval_batches(
        self,
        split: str,
        batch_size: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
        subset: Tensor | None = None,
        views: int | None = None,
    ) -> Iterator[Batch]:
        """Every image once over all processes together, in order and without padding, so the last batch may be small.

        Args:
            batch_size: of the global batch, as in :meth:`train_batches`; a process skips batches it has no part of.
            subset: (M,) positions in the split, all by default.
            views: None for the images as they are; a number for augmented views of them, another for other views.
        """
        chosen = torch.arange(self.size(split)) if subset is None else subset.cpu()
        requests = []
        for batch in torch.split(chosen, batch_size):
            part = batch[rank * len(batch) // world_size : (rank + 1) * len(batch) // world_size]
            if len(part):
                requests.append(Request(split, part, views or 0, _NO_EPOCH, None if views is None else part))
        return self.load(requests, torch.device(device))

    def normalise(self, images: Tensor) -> Tensor:
        """(B, C, H, W) uint8, or float between 0 and 255, to float32 with about zero mean and unit variance."""
        return normalised(images, self.mean, self.std)

    @property
    def fingerprint(self) -> str:
        """Digest of what labels and positions stand for: the classes with their names, and the sizes of the splits."""
        found = [self.name, self.num_classes, self.class_names, self.image_shape, list(map(self.size, self.splits))]
        return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:12]

    def check_split(self, split: str) -> None:
        """Raise a UserError that names the splits there are, if ``split`` is none of them."""
        if split not in self.splits:
            raise UserError(f"data set {self.name} has no split {split!r}; it has {', '.join(self.splits)}")

    def _epoch_length(self, split: str, subset: Tensor | None) -> int:
        size = self.size(split) if subset is None else len(subset)
        return min(size, self.epoch_size) if self.epoch_size else size
