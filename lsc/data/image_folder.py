"""Images in files, loaded by several processes: ImageNet-1K in torchvision's layout, or a user's own folder, or archives of them.

A loading process makes whole batches of uint8 views; the device does the rest. What a batch holds is fixed by its
request, so neither the number of processes nor their speed changes it.
"""

import hashlib
import json
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torchvision.transforms.v2.functional import horizontal_flip
from tqdm import tqdm

from lsc.data.archives import reading
from lsc.data.base import Batch, Dataset, Request, Requests
from lsc.data.decoding import NUM_DRAWS, central_part, decode, grey, random_part, view
from lsc.data.delivery import delivered
from lsc.data.file_index import FileIndex, load_index
from lsc.data.leaving_out import LeaveOut, read_left_out
from lsc.data.loading import default_workers, served
from lsc.data.options import DatasetOptions
from lsc.data.scanning import scan
from lsc.data.splitting import every_so_manieth, share_of_each_class
from lsc.errors import UserError, warn
from lsc.settings import later

# The usual statistics of ImageNet-1K.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# Images for each thread that wait to be looked at, where all of a list are.
_WAITING = 32

LEAVE_OUT = "name it in the file of option leave_out to go on without it"


class FileOptions(DatasetOptions):
    """The options of sets that consist of image files.

    Attributes:
        folders: split -> where it lies below the root.
        required: the splits that must be there.
    """

    folders: ClassVar[dict[str, str]]
    required: ClassVar[tuple[str, ...]] = ("train",)
    may_change: ClassVar[tuple[str, ...]] = ("leave_out", "workers")

    root: str
    index: str | None = Field(default=None, description="frozen list of files, as `lsc data index` writes it")
    valid_every: int = Field(default=0, ge=0, description="every n-th training image makes the split `valid`; 0: none")
    valid_share: float = later(
        0.0,
        as_before=0.0,
        ge=0,
        lt=1,
        description="share of each class's training images that makes the split `valid`, by the names of the files; 0: none",
    )
    leave_out: str | None = later(
        None,
        as_before=None,
        description="text file of images to do without, a path a line, as `lsc data check --leave-out` writes it; a run may "
        "begin to name one when it goes on",
    )
    image_size: int = Field(default=224, ge=8, description="side in pixels")
    min_area: float = Field(
        default=0.08, gt=0, le=1, description="least share of a training image's area that is cropped"
    )
    flip: bool = Field(default=True, description="mirror training images with probability 1/2")
    workers: int | None = Field(default=None, ge=0, description="loading processes; by default one per core of the job")

    def open(self) -> "ImageFolder":
        return open_image_folder(self)

    def list_files(self, listed: Sequence[str] = ()) -> FileIndex:
        """The images that there are now; those ``listed`` count as there."""
        return scan(Path(self.root), self.folders, required=self.required, listed=listed)

    @property
    def photographs(self) -> bool:
        return True

    def files(self) -> list[str]:
        return [] if self.index is None else [self.index]


class ImageFolder(Dataset):
    """Images in files, listed by an index."""

    def __init__(self, options: FileOptions, index: FileIndex, left_out: LeaveOut | None = None) -> None:
        self.name = options.name
        self.options = options
        self.class_names = index.class_names
        self.num_classes = len(index.class_names)
        self.image_shape = (getattr(options, "channels", 3), options.image_size, options.image_size)
        grey_only = self.image_shape[0] == 1
        self.mean, self.std = ((sum(MEAN) / 3,), (sum(STD) / 3,)) if grey_only else (MEAN, STD)
        self._files, self._labels = dict(index.files), {s: torch.from_numpy(v) for s, v in index.labels.items()}
        if options.valid_every or options.valid_share:
            self._keep_for_validation(options)
        self.splits = tuple(split for split in ("train", "valid", "test") if split in self._files)
        for split in self.splits:
            if not len(self._files[split]):
                raise UserError(f"{options.root}: the split {split} has no images: fill it or remove it")
        self._fingerprint = self._digest()
        self._read = reading(Path(options.root), index.packed)
        self._instead: NDArray[np.int64] | None = None
        if left_out:
            self._leave_out(left_out)

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

    def load(self, requests: Requests, device: torch.device) -> Iterator[Batch]:
        workers = default_workers() if self.options.workers is None else self.options.workers
        item_bytes = math.prod(self.image_shape)
        served_views = zip(requests, served(self.views, requests, workers, device, item_bytes), strict=True)
        parts = ((None, (views, self._labels[r.split][r.indexes], r.indexes)) for r, views in served_views)
        return delivered(parts, self._batch, device)

    def _batch(self, _: None, views: Tensor, labels: Tensor, indexes: Tensor) -> Batch:
        return Batch(self.normalise(views), labels, indexes)

    def views(self, request: Request) -> Tensor:
        """(B, C, H, W) uint8 views that a request asks for; this is what a loading process does."""
        self.check_split(request.split)
        all_draws = [None] * len(request.indexes) if request.positions is None else request.draws(NUM_DRAWS).tolist()
        pairs = zip(request.indexes.tolist(), all_draws, strict=True)
        return torch.stack([self._view(request.split, index, draws) for index, draws in pairs])

    @property
    def fingerprint(self) -> str:
        """Digest of the names of all files, of which split and class each is; those that are left out count, too."""
        return self._fingerprint

    def path(self, split: str, index: int) -> Path:
        """The file that an image is read from; below an archive, where it lies in one."""
        return Path(self.options.root) / self._name(split, index)

    def content(self, split: str, index: int) -> bytes:
        """The bytes of an image's file, as they are.

        Raises:
            UserError: it cannot be read.
        """
        try:
            return self._read(self._name(split, index))
        except OSError as error:
            path = self.path(split, index)
            raise UserError(f"{path} cannot be read ({error.strerror}): restore it, or {LEAVE_OUT}") from error

    def _name(self, split: str, index: int) -> str:
        if split == "train" and self._instead is not None:
            index = int(self._instead[index])
        return self._files[split][index].decode()

    def _view(self, split: str, index: int, draws: list[float] | None) -> Tensor:
        path, content = self.path(split, index), self.content(split, index)
        part = central_part if draws is None else random_part(draws, self.options.min_area)
        size = self.options.image_size
        shown = view(decode(content, str(path), f"replace it, or {LEAVE_OUT}", part, size), part, size)
        if draws is not None and self.options.flip and draws[4] < 0.5:
            shown = horizontal_flip(shown)
        return grey(shown) if self.image_shape[0] == 1 else shown

    def _keep_for_validation(self, options: FileOptions) -> None:
        every, share = options.valid_every, options.valid_share
        option = f"valid_every: {every}" if every else f"valid_share: {share:g}"
        if every and share:
            raise UserError(f"options valid_every: {every} and valid_share: {share:g}: give one of them")
        if "valid" in self._files:
            raise UserError(f"{options.root} has a split valid of its own: option {option.split(':')[0]} should be 0")
        files, labels = self._files["train"], self._labels["train"]
        if every:
            chosen = every_so_manieth(labels.numpy(), every)
        else:
            chosen = share_of_each_class(files.tolist(), labels.numpy(), share)
        for split, members in (("valid", chosen), ("train", ~chosen)):
            if not members.any() or every == 1:
                raise UserError(f"option {option} leaves no images for {split if every != 1 else 'train'}")
        for split, members in (("valid", chosen), ("train", ~chosen)):
            self._files[split], self._labels[split] = files[members], labels[members]

    def _leave_out(self, left_out: LeaveOut) -> None:
        """Show other training images of their classes in place of those that are left out, and test on the others.

        So the places of an epoch stay what they are, and a run can go on.
        """
        for split in self.splits:
            absent = left_out.among(self._files[split])
            if split == "train":
                self._instead = left_out.stand_ins(absent, self._labels[split].numpy(), self.class_names or [])
            else:
                self._files[split], self._labels[split] = self._files[split][~absent], self._labels[split][~absent]
                if absent.all():
                    raise UserError(f"{left_out.path} leaves no images of {split}: take some out of the list")

    def _digest(self) -> str:
        labels = {split: labels.numpy() for split, labels in self._labels.items()}
        files = FileIndex(self.class_names or [], self._files, labels).fingerprint
        return hashlib.sha256(json.dumps([self.name, self.image_shape, files]).encode()).hexdigest()[:12]


def listed_images(options: FileOptions) -> tuple[FileIndex, LeaveOut | None]:
    """The images of a folder by its frozen index if one is given, else by listing it now; and what is left out of them.

    What is left out is on the list whether the files are still there or not.
    """
    left_out = None if options.leave_out is None else read_left_out(Path(options.leave_out), Path(options.root))
    listed = () if left_out is None else left_out.spellings
    return options.list_files(listed) if options.index is None else load_index(Path(options.index)), left_out


def open_image_folder(options: FileOptions) -> ImageFolder:
    """Open a folder as :func:`listed_images` lists it; what was passed over is a warning."""
    index, left_out = listed_images(options)
    for note in index.notes:
        warn(note)
    if left_out is not None:
        left_out.warn_of_strangers(index.files.values())
    return ImageFolder(options, index, left_out)


def broken_images(root: Path, index: FileIndex) -> Iterator[tuple[str, str]]:
    """Decode every image of an index with a bar of progress, and yield the name of each that does not, and why."""
    names = (name.decode() for files in index.files.values() for name in files)
    read = reading(root, index.packed)
    workers = default_workers()
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=sum(map(len, index.files.values())), desc="decoding", unit=" images") as bar,
    ):
        # A window, since what is known of each image that waits takes 2 kB.
        waiting: deque[tuple[str, Future[str | None]]] = deque()
        try:
            while True:
                for name in islice(names, _WAITING * workers - len(waiting)):
                    waiting.append((name, pool.submit(_fault, root / name, read, name)))
                if not waiting:
                    return
                name, future = waiting.popleft()
                fault = future.result()
                bar.update()
                if fault is not None:
                    yield name, fault
        finally:
            for _, future in waiting:
                future.cancel()


def _fault(path: Path, read: Callable[[str], bytes], name: str) -> str | None:
    try:
        decode(read(name), str(path), "replace it")
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})"
    except UserError as error:
        return str(error).removesuffix(": replace it")
    return None
