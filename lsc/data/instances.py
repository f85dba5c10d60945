"""Every image a class of its own: 1,281,167 classes out of ImageNet-1K.

Training shows random views of an image under its own label. The test shows further views of the same images, drawn with
counters that no epoch has. Whether the embeddings are of use beyond that is measured on ``underlying``: its labels, and
its test images, which no class was made of.
"""

import hashlib
from collections.abc import Iterator
from typing import Literal, Self

import torch
from pydantic import Field, field_validator
from torch import Tensor

from lsc.data.base import SAMPLE, Batch, Dataset, Request, Requests
from lsc.data.delivery import sent
from lsc.data.options import Augmentation, DatasetOptions
from lsc.data.registry import DATASETS
from lsc.errors import UserError
from lsc.hashing import random_bits
from lsc.settings import named_block

# Epochs count from 0, and -1 stands for views of evaluation images: no training view is drawn with these.
_TEST_EPOCH, _TEST_VIEW_EPOCH = -2, -3


class InstancesOptions(DatasetOptions):
    """Every training image of another set as a class of its own; tested on fresh augmented views of the same images."""

    name: Literal["instances"] = "instances"
    of: named_block(DATASETS, "of") = Field(  # type: ignore[valid-type]
        description="the set whose images become classes, with its options"
    )
    limit: int | None = Field(default=None, ge=2, description="use so many images, evenly spaced, instead of all")
    test_images: int | None = Field(default=None, ge=1, description="test on so many random images, instead of all")

    @field_validator("of")
    @classmethod
    def _holds_images(cls, of: DatasetOptions) -> DatasetOptions:
        if of.name == "instances":
            raise ValueError("instances are made of images: name another set")
        return of

    def open(self) -> "Instances":
        return Instances(self.of.open(), self)

    @property
    def photographs(self) -> bool:
        return self.of.photographs

    def files(self) -> list[str]:
        return self.of.files()


class Instances(Dataset):
    """The training images of another set as classes.

    Attributes:
        underlying: that set, with its own labels and test split, for nearest-neighbour transfer.
        members: (num_classes,) positions of the classes' images in ``underlying``'s training split.
    """

    def __init__(self, underlying: Dataset, options: InstancesOptions) -> None:
        available = underlying.size("train")
        if options.limit is not None and options.limit > available:
            raise UserError(f"option limit: {options.limit} exceeds the {available} images of {underlying.name}/train")
        if getattr(options.of, "endless", False):
            raise UserError("option of.endless: the images of an instance run stay the same; leave it out")
        if getattr(options.of, "augment", None) == Augmentation():
            raise UserError("option of.augment: without it all views of an image are equal; set crop_padding, say")
        self.name = "instances"
        self.underlying = underlying
        self.num_classes = options.limit or available
        self.members = torch.arange(self.num_classes) * available // self.num_classes
        self.image_shape, self.mean, self.std = underlying.image_shape, underlying.mean, underlying.std
        self._tested = torch.arange(self.num_classes)
        if options.test_images is not None and options.test_images < self.num_classes:
            order = random_bits(0, SAMPLE, self._tested).argsort()
            self._tested = order[: options.test_images].sort().values

    @property
    def fingerprint(self) -> str:
        """As of any set, and of the one that the instances are of."""
        return hashlib.sha256(f"{super().fingerprint} {self.underlying.fingerprint}".encode()).hexdigest()[:12]

    def size(self, split: str) -> int:
        return len(self.labels(split))

    def labels(self, split: str) -> Tensor:
        self.check_split(split)
        return torch.arange(self.num_classes) if split == "train" else self._tested

    def images(self, split: str, indexes: Tensor) -> Tensor:
        return self.underlying.images("train", self.members[self.labels(split)[indexes.cpu()]])

    def normalised_by(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Self:
        changed = super().normalised_by(mean, std)
        changed.underlying = self.underlying.normalised_by(mean, std)  # which makes the batches
        return changed

    def load(self, requests: Requests, device: torch.device) -> Iterator[Batch]:
        batches = self.underlying.load(_PassedOn(self, requests), device)
        for request, batch in zip(requests, batches, strict=True):
            yield Batch(batch.images, sent(self._classes(request), device), sent(request.indexes, device))

    def _classes(self, request: Request) -> Tensor:
        """(B,) labels: training images are numbered as the classes are."""
        self.check_split(request.split)
        return request.indexes if request.split == "train" else self._tested[request.indexes]

    def asked_of_underlying(self, request: Request) -> Request:
        """The same views, as a request to the underlying set."""
        members = self.members[self._classes(request)]
        if request.split == "train":
            return request._replace(indexes=members)
        epoch = _TEST_EPOCH if request.positions is None else _TEST_VIEW_EPOCH
        return Request("train", members, request.seed, epoch, members)


class _PassedOn:
    """Requests of instances as requests of the set that they are of."""

    def __init__(self, instances: Instances, requests: Requests) -> None:
        self._instances, self._requests = instances, requests

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return map(self._instances.asked_of_underlying, self._requests)

    def __getitem__(self, place: int, /) -> Request:
        return self._instances.asked_of_underlying(self._requests[place])
