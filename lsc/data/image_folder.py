"""Images in files, loaded by several processes: ImageNet-1K in torchvision's layout, or a user's own folder.

A loading process makes whole batches of uint8 views; the device does the rest. What a batch holds is fixed by its
request, so neither the number of processes nor their speed changes it.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from tqdm import tqdm

from lsc.data.base import Batch, Dataset, Request
from lsc.data.decoding import NUM_DRAWS, central_view, decode, random_view
from lsc.data.delivery import delivered
from lsc.data.file_index import FileIndex, load_index, scan
from lsc.data.loading import default_workers, served
from lsc.data.options import DatasetOptions
from lsc.errors import UserError

# The usual statistics of ImageNet-1K.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class FileOptions(DatasetOptions):
    """The options of sets that consist of image files.

    Attributes:
        folders: split -> where it lies below the root.
        required: the splits that must be there.
    """

    folders: ClassVar[dict[str, str]]
    required: ClassVar[tuple[str, ...]] = ("train",)

    root: str
    index: str | None = Field(default=None, description="frozen list of files, as `lsc data index` writes it")
    valid_every: int = Field(
        default=0, ge=0, description="every so manieth training image makes the split `valid`; 0: none"
    )
    image_size: int = Field(default=224, ge=8, description="side in pixels")
    min_area: float = Field(
        default=0.08, gt=0, le=1, description="least share of a training image's area that is cropped"
    )
    flip: bool = Field(default=True, description="mirror training images with probability 1/2")
    workers: int | None = Field(default=None, ge=0, description="loading processes; by default one per core of the job")

    def open(self) -> "ImageFolder":
        return open_image_folder(self)

    @property
    def photographs(self) -> bool:
        return True

    def files(self) -> list[str]:
        return [] if self.index is None else [self.index]


class ImageFolder(Dataset):
    """Images in files, listed by an index."""

    def __init__(self, options: FileOptions, index: FileIndex) -> None:
        self.name = options.name
        self.options = options
        self.class_names = index.class_names
        self.num_classes = len(index.class_names)
        self.image_shape = (3, options.image_size, options.image_size)
        self.mean, self.std = MEAN, STD
        self._files, self._labels = dict(index.files), {s: torch.from_numpy(v) for s, v in index.labels.items()}
        if options.valid_every:
            self._keep_for_validation(options.valid_every)
        self.splits = tuple(split for split in ("train", "valid", "test") if split in self._files)

    def size(self, split: str) -> int:
        self.check_split(split)
        return len(self._files[split])

    def labels(self, split: str) -> Tensor:
        self.check_split(split)
        return self._labels[split]

    def images(self, split: str, indexes: Tensor) -> Tensor:
        self.check_split(split)
        with ThreadPoolExecutor(default_workers()) as pool:
            return torch.stack(list(pool.map(lambda index: self._view(split, index, None), indexes.tolist())))

    def load(self, requests: list[Request], device: torch.device) -> Iterator[Batch]:
        workers = default_workers() if self.options.workers is None else self.options.workers
        served_views = zip(requests, served(self.views, requests, workers, device), strict=True)
        parts = ((None, (views, self._labels[r.split][r.indexes], r.indexes)) for r, views in served_views)
        return delivered(parts, self._batch, device)

    def _batch(self, _: None, views: Tensor, labels: Tensor, indexes: Tensor) -> Batch:
        return Batch(self.normalise(views), labels, indexes)

    def views(self, request: Request) -> Tensor:
        """(B, 3, H, W) uint8 views that a request asks for; this is what a loading process does."""
        self.check_split(request.split)
        all_draws = [None] * len(request.indexes) if request.positions is None else request.draws(NUM_DRAWS).tolist()
        pairs = zip(request.indexes.tolist(), all_draws, strict=True)
        return torch.stack([self._view(request.split, index, draws) for index, draws in pairs])

    def _view(self, split: str, index: int, draws: list[float] | None) -> Tensor:
        path = Path(self.options.root) / self._files[split][index].decode()
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): restore it or index the folder anew") from error
        image = decode(content, str(path), "replace it, or remove it and index the folder anew")
        if draws is None:
            return central_view(image, self.options.image_size)
        return random_view(
            image, self.options.image_size, draws, min_area=self.options.min_area, flip=self.options.flip
        )

    def _keep_for_validation(self, every: int) -> None:
        if "valid" in self._files:
            raise UserError(f"{self.options.root} has a folder valid/: option valid_every should be 0")
        chosen = np.arange(len(self._files["train"])) % every == every - 1
        for split, members in (("valid", chosen), ("train", ~chosen)):
            if not members.any():
                raise UserError(f"option valid_every: {every} leaves no images for {split}")
        self._files["valid"], self._files["train"] = self._files["train"][chosen], self._files["train"][~chosen]
        labels = self._labels["train"]
        self._labels["valid"], self._labels["train"] = labels[chosen], labels[~chosen]


def open_image_folder(options: FileOptions) -> ImageFolder:
    """Open a folder by its frozen index if one is given, else by listing it now."""
    if options.index is not None:
        return ImageFolder(options, load_index(Path(options.index)))
    return ImageFolder(options, scan(Path(options.root), options.folders, required=options.required))


def broken_images(root: Path, index: FileIndex) -> Iterator[str]:
    """Decode every image of an index with a bar of progress, and yield one line for each that does not decode."""
    paths = [root / name.decode() for files in index.files.values() for name in files.tolist()]
    with ThreadPoolExecutor(default_workers()) as pool:
        for line in tqdm(pool.map(_fault, paths), total=len(paths), desc="decoding", unit=" images"):
            if line is not None:
                yield line


def _fault(path: Path) -> str | None:
    try:
        decode(path.read_bytes(), str(path), "replace it")
    except (UserError, OSError) as error:
        return str(error)
    return None
