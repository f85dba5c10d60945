"""A data set of one's own in Python: any map-style torch data set of (image or tensor, label)."""

import hashlib
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor
from torch.utils.data import Subset, TensorDataset
from torchvision.transforms.v2.functional import pil_to_tensor

from lsc.checks import described
from lsc.data.base import Batch, Dataset, Request, Requests
from lsc.data.decoding import deep_grey
from lsc.data.delivery import delivered
from lsc.data.loading import served
from lsc.data.memory import channel_statistics
from lsc.data.options import DatasetOptions
from lsc.errors import UserError
from lsc.hashing import random_bits

# First counter of the streams that seed what a set draws for itself.
_ITEMS = 104
# Items, evenly spread, whose labels are compared with those that a set keeps for all.
_LOOKS = 16
# Training images from which the mean and the deviation of a channel are taken.
_SAMPLE = 256


class GivenOptions(DatasetOptions):
    """A data set that was given to `lsc.fit` in Python; it is opened by giving it again."""

    name: Literal["given"] = "given"
    fingerprint: str = Field(description="digest of its classes, sizes and labels")

    def open(self) -> Dataset:
        raise UserError(
            "data set given: it was made in Python; give it to lsc.fit again, or use a folder or another set"
        )


class Given(Dataset):
    """Map-style torch data sets as the splits of one set.

    An item is (image, label): a uint8 tensor (C, H, W), a PIL image or a uint8 array (H, W[, C]), which are normalised by the
    statistics of the training images, or a float tensor of any shape, which is taken as it is; the label is a whole number.
    All items have one shape. What an item draws at random (from torch, numpy or random) is drawn from a seed that belongs
    to its batch, so training repeats and resumes to the bit, whatever the number of loading processes.

    A photograph that lies on its side by its EXIF orientation is to be turned by the first transform, e.g.
    ``PIL.ImageOps.exif_transpose``; a trained run turns the files and PIL images that it is given.

    Args:
        splits: "train" and, if there are any, "valid" and "test" -> data set.
        num_classes: labels lie below it; one more than the largest training label by default.
        class_names: one per class; the sets' ``classes`` by default, if they have as many, and no ``target_transform`` or the
            like makes items have other labels than the sets' ``targets``.
        workers: loading processes; 0 loads within the training.

    Raises:
        UserError: an item is no pair, an image has another shape or type, or a label is none.
    """

    def __init__(
        self,
        splits: Mapping[str, Any],
        *,
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        workers: int = 0,
    ) -> None:
        self.name = "given"
        self.splits = tuple(split for split in ("train", "valid", "test") if splits.get(split) is not None)
        if "train" not in self.splits:
            raise UserError("data: give a training set")
        self._sets = {split: splits[split] for split in self.splits}
        self._workers = workers
        read = {split: _labels_of(items, split) for split, items in self._sets.items()}
        self._labels = {split: labels for split, (labels, _) in read.items()}
        self.num_classes = num_classes or int(self._labels["train"].max()) + 1
        for split, labels in self._labels.items():
            if int(labels.min()) < 0 or int(labels.max()) >= self.num_classes:
                raise UserError(f"data: a label of {split} lies outside of 0 to {self.num_classes - 1}")
        if self.num_classes < 2:
            raise UserError("data: training needs two classes at least, and all labels are 0")
        names = class_names or (getattr(self._sets["train"], "classes", None) if read["train"][1] else None)
        self.class_names = list(map(str, names)) if names is not None and len(names) == self.num_classes else None
        with _seeded(0):
            first = self._item("train", 0)
        self.image_shape = tuple(first.shape)  # type: ignore[assignment]
        self._dtype = first.dtype
        self.mean, self.std = self._statistics()

    def size(self, split: str) -> int:
        self.check_split(split)
        return len(self._labels[split])

    def labels(self, split: str) -> Tensor:
        self.check_split(split)
        return self._labels[split]

    def images(self, split: str, indexes: Tensor) -> Tensor:
        self.check_split(split)
        return self._views(Request(split, indexes.cpu()))

    def load(self, requests: Requests, device: torch.device) -> Iterator[Batch]:
        item_bytes = math.prod(self.image_shape) * self._dtype.itemsize
        served_views = zip(requests, served(self._views, requests, self._workers, device, item_bytes), strict=True)
        parts = ((None, (views, self._labels[r.split][r.indexes], r.indexes)) for r, views in served_views)
        return delivered(parts, self._batch, device)

    def _batch(self, _: None, views: Tensor, labels: Tensor, indexes: Tensor) -> Batch:
        return Batch(self.normalise(views), labels, indexes)

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(super().fingerprint.encode())
        for split in self.splits:
            digest.update(self._labels[split].numpy().tobytes())
        return digest.hexdigest()[:12]

    def _views(self, request: Request) -> Tensor:
        """(B, ...) items of a request, drawn from the seed of its batch."""
        positions = request.indexes if request.positions is None else request.positions
        seed = int(random_bits(request.seed, _ITEMS, request.epoch, positions[:1])) & (2**63 - 1)
        with _seeded(seed):
            return torch.stack([self._item(request.split, index) for index in request.indexes.tolist()])

    def _item(self, split: str, index: int) -> Tensor:
        image = as_tensor(_pair(self._sets[split], split, index)[0], f"item {index} of {split}")
        if hasattr(self, "_dtype") and (tuple(image.shape) != self.image_shape or image.dtype != self._dtype):
            raise UserError(
                f"data: item {index} of {split} is {described(image)}, and the first is of shape {self.image_shape}: make "
                "them alike, e.g. by a transform that resizes"
            )
        return image

    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        if self._dtype == torch.uint8:
            size = self.size("train")
            return channel_statistics(
                self.images("train", torch.arange(min(size, _SAMPLE)) * size // min(size, _SAMPLE))
            )
        return (), ()  # floats are taken as they are


def as_tensor(image: Any, what: str) -> Tensor:
    """An image as a uint8 tensor (C, H, W), or floats as they are.

    Raises:
        UserError: it is neither; the message says ``what`` it is.
    """
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (2, 3):
        pixels = torch.from_numpy(image.copy())
        return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()
    if isinstance(image, np.ndarray) and image.dtype.kind == "f":
        return torch.from_numpy(image.copy()).float()  # torch takes no array that is read backwards
    if isinstance(image, Image.Image):
        return _pixels(image, what)
    if isinstance(image, Tensor) and (image.is_floating_point() or (image.dtype == torch.uint8 and image.ndim == 3)):
        return image.float() if image.is_floating_point() else image
    raise UserError(
        f"data: {what} is {described(image)}: give a uint8 tensor (C, H, W), a float tensor, a PIL image or an array"
    )


def _pixels(image: Image.Image, what: str) -> Tensor:
    """A PIL image as it is, but as colours where its numbers are a palette's or a printer's, and grey of 16 bits as of 8.

    It is not turned upright by its EXIF orientation, which outlives whatever a transform has done to it: that is the transform's.
    """
    if image.mode.startswith("I"):
        return deep_grey(image)[None]
    if image.mode in ("P", "PA"):  # its palette may hold transparency, which conversion to RGB would warn of
        image = image.convert("RGBA").convert("RGB")
    elif image.mode in ("CMYK", "YCbCr", "HSV"):
        image = image.convert("RGB")
    elif image.mode == "1":
        image = image.convert("L")
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        raise UserError(f"data: {what} is a PIL image of mode {image.mode}, of no known range: make it one of L or RGB")
    return pil_to_tensor(image)


def labels_of(items: Any, split: str) -> Tensor:
    """(N,) int64 labels of a torch data set: its ``targets`` or ``labels`` where items have those, else read item by item.

    Raises:
        UserError: it has no length, no items, or a label that is no whole number.
    """
    return _labels_of(items, split)[0]


def _labels_of(items: Any, split: str) -> tuple[Tensor, bool]:
    """The labels, and whether they may be what the set's ``classes`` are the names of."""
    try:
        size = len(items)
    except TypeError:
        raise UserError(f"data: the {split} set has no length; give a map-style data set") from None
    if size == 0:
        raise UserError(f"data: the {split} set is empty")
    known = kept = _kept_labels(items, size)
    transformed = _transforms_labels(items)
    with _seeded(0):  # what items draw at random is to change nothing outside
        places = sorted({place * (size - 1) // (_LOOKS - 1) for place in range(_LOOKS)})
        if (
            transformed
            or kept is None
            or not all(_same(_pair(items, split, place)[1], kept, place) for place in places)
        ):
            known = [_pair(items, split, index)[1] for index in range(size)]
    labels = _as_numbers(known, split)
    if known is kept:
        return labels, True
    return labels, not transformed if kept is None else _are_same(labels, kept)


def _transforms_labels(items: Any) -> bool:
    """Whether labels are made others when an item is read."""
    if isinstance(items, Subset) and _transforms_labels(items.dataset):
        return True
    return getattr(items, "target_transform", None) is not None


def _kept_labels(items: Any, size: int) -> Any:
    """The labels that a data set keeps for all of its items; None if it does not."""
    if isinstance(items, Subset):
        try:
            below = _kept_labels(items.dataset, len(items.dataset))  # type: ignore[arg-type]
        except TypeError:
            return None
        return None if below is None else [below[index] for index in items.indices]
    known: Any = items.tensors[-1] if isinstance(items, TensorDataset) else None
    for name in ("targets", "labels"):
        known = getattr(items, name, None) if known is None else known
    try:
        return known if len(known) == size and not isinstance(known, str) else None
    except TypeError:
        return None


def _same(label: Any, kept: Any, place: int) -> bool:
    try:
        return bool(np.array_equal(np.asarray(label), np.asarray(kept[place])))
    except (LookupError, TypeError, ValueError, RuntimeError):
        return False


def _are_same(labels: Tensor, kept: Any) -> bool:
    try:
        return torch.equal(labels, torch.as_tensor(kept).long())
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return False


def _as_numbers(known: Any, split: str) -> Tensor:
    """Labels as a tensor.

    Raises:
        UserError: one is no whole number.
    """
    try:
        labels = torch.as_tensor(known)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        strange = next((place for place, label in enumerate(known) if not _is_number(label)), 0)
        shown = repr(known[strange])[:60] if isinstance(known[strange], str) else described(known[strange])
        raise UserError(
            f"data: the label of item {strange} of {split} is {shown}: give whole numbers from 0 to C - 1, one for each class"
        ) from None
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise UserError(f"data: labels must be whole numbers, one per item; those of {split} are {described(labels)}")
    return labels.long()


def _is_number(label: Any) -> bool:
    try:
        return torch.as_tensor(label).ndim == 0
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return False


def _pair(items: Any, split: str, index: int) -> tuple[Any, Any]:
    item = items[index]
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise UserError(f"data: item {index} of {split} is {described(item)}; it must be (image or tensor, label)")
    return item[0], item[1]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """torch, numpy and random draw from ``seed`` within, and go on afterwards as if nothing had been drawn."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs as well, which are the training's
        random.seed(seed)
        np.random.seed(seed % 2**32)
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
