"""Fractal classes without end: rendered once and held in memory where they are few, afresh for each batch otherwise.

Every image has an address (stream, class, instance) from which its random numbers are hashed. Training, test and
endless images have different streams, so no training image can meet a test image.
"""

import hashlib
import math
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Literal, Self

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lsc.data import ifs
from lsc.data.augment import NUM_DRAWS, random_views
from lsc.data.base import SAMPLE, Batch, Dataset, Request
from lsc.data.delivery import delivered, has_idle_core
from lsc.data.memory import MemoryDataset, Split
from lsc.data.options import Augmentation, DatasetOptions
from lsc.files import save_tensors
from lsc.hashing import random_bits, random_uniform
from lsc.settings import later

# Streams of instances.
_STREAMS = {"train": 0, "test": 1, "valid": 3}
_ENDLESS = 2

# Part of the key of cached images: to be raised with every change of what `ifs` draws.
_VERSION = 1

# Images that a GPU draws in one go.
_AT_ONCE = 4096


class FractalsOptions(DatasetOptions):
    """Iterated function systems rendered on the fly: any number of classes, nothing to download."""

    name: Literal["fractals"] = "fractals"
    num_classes: int = Field(default=1000, ge=2, description="number of classes")
    first_class: int = Field(
        default=0, ge=0, description="the class ids start here: sets whose ranges do not meet share no class"
    )
    train_per_class: int = Field(default=24, ge=1, description="training images of a class")
    valid_per_class: int = later(
        0, as_before=0, ge=0, description="images of a class that make a split `valid`, to choose settings by"
    )
    test_per_class: int = Field(default=5, ge=1, description="test images of a class")
    test_images: int | None = Field(
        default=None,
        ge=1,
        description="test on so many images drawn from all classes, instead of test_per_class of each",
    )
    image_size: int = Field(default=32, ge=8, le=1024, description="side in pixels")
    color: bool = Field(
        default=False, description="three channels with colours of the class, instead of one grey channel"
    )
    jitter: float = Field(default=1.0, ge=0, le=3, description="how much the images of a class differ; 0: not at all")
    seed: int = Field(default=0, description="another seed gives other classes")
    endless: bool = Field(default=False, description="render every training image afresh in every epoch")
    epoch_size: int | None = Field(default=None, ge=1, description="images of an epoch, drawn from all training images")
    memory_mb: int = Field(
        default=1024, ge=0, description="a split up to this size is rendered once and held in memory"
    )
    cache: str | None = Field(default=None, description="folder that keeps the rendered images between runs")
    augment: Augmentation = Field(default_factory=Augmentation, description="training views")

    def open(self) -> "Fractals":
        return Fractals(self)


class Fractals(Dataset):
    """Classes of iterated function systems; see :mod:`lsc.data.ifs` for what they look like.

    Labels are 0 to num_classes - 1 and stand for the fractal classes from ``first_class`` on. Training image i is of
    class i // train_per_class; with ``test_images``, the class of a test image is drawn from all classes.
    """

    def __init__(self, options: FractalsOptions) -> None:
        self.name = "fractals"
        self.options = options
        self.num_classes = options.num_classes
        self.image_shape = (3 if options.color else 1, options.image_size, options.image_size)
        self.epoch_size = options.epoch_size
        if options.valid_per_class:
            self.splits = ("train", "valid", "test")
        # Of 4,000 images of 1,000 classes; hardly different at other sizes.
        self.mean, self.std = ((0.10, 0.10, 0.10), (0.21, 0.21, 0.21)) if options.color else ((0.16,), (0.29,))
        self._held: dict[str, MemoryDataset] = {}
        if options.cache is not None and not self._is_cached():
            print(f"lsc: warning: {self._why_cache_is_of_no_use()}", file=sys.stderr, flush=True)

    def size(self, split: str) -> int:
        self.check_split(split)
        if split == "train":
            return self.num_classes * self.options.train_per_class
        if split == "valid":
            return self.num_classes * self.options.valid_per_class
        return self.options.test_images or self.num_classes * self.options.test_per_class

    def labels(self, split: str) -> Tensor:
        return self._labels_of(split, torch.arange(self.size(split)))

    def images(self, split: str, indexes: Tensor) -> Tensor:
        if split in self._held:
            return self._held[split].images(split, indexes)
        self.check_split(split)
        return self._render_many(split, indexes.cpu(), torch.device("cpu"))

    def load(self, requests: Iterable[Request], device: torch.device) -> Iterator[Batch]:
        for (split, held), alike in groupby(requests, lambda request: (request.split, self._is_held(request))):
            if held:
                yield from self._hold(split, device).load(alike, device)
            else:
                yield from self._rendered_ahead(alike, device)

    def _is_held(self, request: Request) -> bool:
        return not self._is_afresh(request) and self._fits_in_memory(request.split)

    def _is_afresh(self, request: Request) -> bool:
        return self.options.endless and request.split == "train" and request.positions is not None

    def _rendered_ahead(self, requests: Iterable[Request], device: torch.device) -> Iterator[Batch]:
        """Batches rendered while the training works on earlier ones, if it has cores to spare; a GPU does both itself."""
        if device.type != "cpu":
            yield from self._rendered_there(requests, device)
            return
        helpers = min(4, torch.get_num_threads() - 1) or int(has_idle_core())
        if not helpers:
            yield from map(self._rendered_batch, requests)
            return
        pool = ThreadPoolExecutor(helpers)
        pending: deque[Future[Batch]] = deque()
        try:
            for request in requests:
                pending.append(pool.submit(self._rendered_batch, request))
                if len(pending) > helpers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _rendered_there(self, requests: Iterable[Request], device: torch.device) -> Iterator[Batch]:
        """Several batches at a time: what a GPU is told to draw takes some 750 calls, however much it is."""
        sizes: deque[list[int]] = deque()

        def parts() -> Iterator[tuple[Request, tuple[Tensor, ...]]]:
            for group in _together(requests):
                sizes.append([len(request.indexes) for request in group])
                whole = _as_one(group)
                yield whole, self._parts(whole)

        for whole in delivered(parts(), self._batch, device):
            each = sizes.popleft()
            yield from map(Batch, *(torch.split(tensor, each) for tensor in whole))

    def _rendered_batch(self, request: Request) -> Batch:
        return self._batch(request, *self._parts(request))

    def _parts(self, request: Request) -> tuple[Tensor, ...]:
        """What a batch is rendered from: positions in the split and, where it has views, places in the epoch and draws."""
        if request.positions is None:
            return (request.indexes,)
        if self.options.augment == Augmentation():
            return request.indexes, request.positions
        return request.indexes, request.positions, request.draws(NUM_DRAWS)

    def _batch(
        self, request: Request, indexes: Tensor, positions: Tensor | None = None, draws: Tensor | None = None
    ) -> Batch:
        """A batch, rendered where its parts are."""
        afresh = request._replace(positions=positions) if self._is_afresh(request) else None
        views = self._render(request.split, indexes, afresh)
        if draws is not None:
            views = random_views(views, torch.arange(len(views), device=views.device), draws, self.options.augment)
        return Batch(self.normalise(views), self._labels_of(request.split, indexes), indexes)

    def _labels_of(self, split: str, indexes: Tensor) -> Tensor:
        if split == "train":
            return indexes // self.options.train_per_class
        if split == "valid":
            return indexes // self.options.valid_per_class
        if self.options.test_images is None:
            return indexes // self.options.test_per_class
        return random_bits(self.options.seed, SAMPLE, indexes) % self.num_classes

    def _render(self, split: str, indexes: Tensor, afresh: Request | None = None) -> Tensor:
        """(B, C, H, W) uint8, where the indexes are; with ``afresh``, images that belong to that request alone."""
        device = indexes.device
        classes = self._labels_of(split, indexes) + self.options.first_class
        if afresh is not None and afresh.positions is not None:
            stream = _ENDLESS
            instances = random_bits(afresh.seed, SAMPLE, afresh.epoch, afresh.positions)
        else:
            stream, instances = _STREAMS[split], self._instances_of(split, indexes)
        draws = random_uniform(
            self.options.seed,
            stream,
            classes[:, None],
            instances[:, None],
            torch.arange(ifs.NUM_JITTER + ifs.NUM_VIEW, device=device),
        )
        return ifs.render(
            self.options.seed,
            classes,
            draws,
            image_size=self.options.image_size,
            color=self.options.color,
            jitter=self.options.jitter,
        )

    def _instances_of(self, split: str, indexes: Tensor) -> Tensor:
        if split == "train":
            return indexes % self.options.train_per_class
        if split == "valid":
            return indexes % self.options.valid_per_class
        return indexes % self.options.test_per_class if self.options.test_images is None else indexes

    def _render_many(self, split: str, indexes: Tensor, device: torch.device) -> Tensor:
        """(B, C, H, W) uint8 on the CPU; on the CPU one thread per core renders its share."""
        if device.type != "cpu":
            return torch.cat([self._render(split, part.to(device)).cpu() for part in torch.split(indexes, _AT_ONCE)])
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return torch.cat(list(pool.map(lambda part: self._render(split, part), torch.split(indexes, 1024))))

    def _fits_in_memory(self, split: str) -> bool:
        return self.size(split) * math.prod(self.image_shape) <= self.options.memory_mb * 2**20

    def normalised_by(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Self:
        changed = super().normalised_by(mean, std)
        changed._held = {split: held.normalised_by(mean, std) for split, held in self._held.items()}
        return changed

    def _hold(self, split: str, device: torch.device) -> MemoryDataset:
        if split not in self._held:
            images = self._rendered(split, device)
            self._held[split] = MemoryDataset(
                self.name,
                {split: Split(images, self.labels(split))},
                num_classes=self.num_classes,
                augment=self.options.augment,
                mean=self.mean,
                std=self.std,
            )
        return self._held[split]

    def _rendered(self, split: str, device: torch.device) -> Tensor:
        """All images of a split: from the cache folder if they are there, else rendered, and put there."""
        path = self._cache_file(split)
        if path is not None and path.is_file():
            try:
                return load_file(path)["images"]
            except (SafetensorError, KeyError, OSError):
                path.unlink(missing_ok=True)  # damaged: it is only a copy of what can be rendered again
        images = self._render_many(split, torch.arange(self.size(split)), device)
        if path is not None:
            save_tensors(path, {"images": images})
        return images

    def _is_cached(self) -> bool:
        """Whether the training images are held, and so kept in the cache folder."""
        return self._fits_in_memory("train") and not self.options.endless

    def _why_cache_is_of_no_use(self) -> str:
        if self.options.endless:
            return "data.cache keeps no training images of an endless set, which are drawn afresh in every epoch"
        size = -(-self.size("train") * math.prod(self.image_shape) // 2**20)
        return (
            f"data.cache keeps no training images: they take {size:,} MB and data.memory_mb is {self.options.memory_mb:,}, so "
            f"they are drawn anew for every batch; set memory_mb to {size:,} or more to draw them once"
        )

    def _cache_file(self, split: str) -> Path | None:
        if self.options.cache is None:
            return None
        content = self.options.model_dump_json(
            exclude={"cache", "memory_mb", "augment", "endless", "epoch_size", "valid_per_class"}
        )
        if split == "valid":
            content += f" {self.options.valid_per_class}"
        key = hashlib.sha256(f"{_VERSION} {split} {content}".encode()).hexdigest()[:16]
        return Path(self.options.cache) / f"fractals-{split}-{key}.safetensors"


def _together(requests: Iterable[Request]) -> Iterator[list[Request]]:
    """Requests of one split, seed and epoch, as many of them as are drawn in one go."""
    kinds = groupby(requests, lambda r: (r.split, r.seed, r.epoch, r.positions is None))
    for _, alike in kinds:
        group: list[Request] = []
        images = 0
        for request in alike:
            if group and images + len(request.indexes) > _AT_ONCE:
                yield group
                group, images = [], 0
            group.append(request)
            images += len(request.indexes)
        yield group


def _as_one(group: list[Request]) -> Request:
    """One request for all that is alike in a group."""
    whole = group[0]._replace(indexes=torch.cat([request.indexes for request in group]))
    positions = [request.positions for request in group if request.positions is not None]
    return whole._replace(positions=torch.cat(positions)) if positions else whole
