"""CINIC-10 (Darlow et al. 2018, DOI 10.7488/ds/2448, CC BY 4.0): fetched, packed into one file, held in memory.

The archive is never unpacked to 270,000 files: its images are read from the stream, decoded and written as uint8
tensors to one safetensors file, which is memory-mapped when it is read.
"""

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm import tqdm

from lsc.data.decoding import decode
from lsc.data.download import download
from lsc.data.memory import MemoryDataset, Split, choose_classes
from lsc.data.options import Augmentation, DatasetOptions
from lsc.errors import UserError
from lsc.files import md5_of, save_tensors

URL = "https://datashare.is.ed.ac.uk/bitstream/handle/10283/3192/CINIC-10.tar.gz"
MD5 = "6ee4d0c996905fe93221de577967a372"
ARCHIVE = "CINIC-10.tar.gz"
PACKED = "cinic10.safetensors"
SPLITS = ("train", "valid", "test")
CLASS_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
# Of its README, over the training images.
MEAN = (0.47889522, 0.47227842, 0.43047404)
STD = (0.24205776, 0.23828046, 0.25874835)


class Cinic10Options(DatasetOptions):
    """CINIC-10: 270,000 colour images of 32x32, 10 classes, three splits of 90,000 (DOI 10.7488/ds/2448)."""

    name: Literal["cinic10"] = "cinic10"
    root: str = Field(
        default="data/cinic10", description="folder with cinic10.safetensors, as `lsc data fetch cinic10` makes it"
    )
    train_on: Literal["train", "train+valid"] = Field(default="train", description="splits to train on")
    classes: int | list[int] | None = Field(
        default=None, description="the first so many classes, or a list of class ids"
    )
    augment: Augmentation = Field(
        default_factory=lambda: Augmentation(crop_padding=4, flip=True), description="training views"
    )

    def open(self) -> MemoryDataset:
        return open_cinic10(self)

    def files(self) -> list[str]:
        return [f"{self.root}/{PACKED}"]


def open_cinic10(options: Cinic10Options) -> MemoryDataset:
    """The packed set; with ``train_on: train+valid`` there is no split ``valid``."""
    path = Path(options.root) / PACKED
    if not path.is_file():
        raise UserError(f"{path} is missing: make it with `lsc data fetch cinic10 --root {options.root}`")
    names = SPLITS if options.train_on == "train" else ("train", "test")
    data = {}
    for split in names:
        sources = ["train", "valid"] if split == "train" and "valid" not in names else [split]
        parts = [_read(path, source) for source in sources]
        images, labels = (torch.cat(p) if len(p) > 1 else p[0] for p in zip(*parts, strict=True))
        labels, kept = choose_classes(labels, options.classes, len(CLASS_NAMES))
        if options.classes is not None:
            images, labels = images[labels >= 0], labels[labels >= 0]
        data[split] = Split(images, labels)
    return MemoryDataset(
        "cinic10",
        data,
        num_classes=len(kept),
        class_names=[CLASS_NAMES[label] for label in kept],
        augment=options.augment,
        mean=MEAN,
        std=STD,
    )


def _read(path: Path, split: str) -> Split:
    try:
        with safe_open(path, framework="pt") as packed:
            return Split(packed.get_tensor(f"{split}.images"), packed.get_tensor(f"{split}.labels"))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it and run `lsc data fetch cinic10` again") from error


def fetch_cinic10(root: Path, *, archive: Path | None = None, url: str = URL, md5: str = MD5) -> Path:
    """Make the packed file under ``root``, and return its path; nothing is done if it is there already.

    Args:
        archive: an archive, or a folder with its content, that the user already has; else it is downloaded to ``root``.
        md5: of the archive; it is compared before anything is read.

    Raises:
        UserError: no connection, wrong checksum, broken or unsafe archive, full disk; no packed file is made then.
    """
    packed = root / PACKED
    if packed.is_file():
        return packed
    if archive is not None and archive.is_dir():
        _pack(_images_in_folder(archive), packed, str(archive))
        return packed
    if archive is None:
        archive = root / ARCHIVE
        if not archive.is_file():
            download(url, archive, md5=md5)
    elif not archive.is_file():
        raise UserError(f"{archive} is missing: --archive should be {ARCHIVE} or the folder that it holds")
    found = md5_of(archive)
    if found != md5:
        raise UserError(f"{archive} has md5 {found} instead of {md5}: delete it and fetch it again from {url}")
    _pack(_images_in_archive(archive), packed, str(archive))
    return packed


def _images_in_archive(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the files in a .tar.gz, which is read once from start to end and never unpacked."""
    try:
        with tarfile.open(archive, "r|gz") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
                    raise UserError(f"{archive} is not safe: {member.name} leaves the folder or is a link; not used")
                stream = tar.extractfile(member) if member.isfile() else None
                if stream is not None:
                    yield member.name, stream.read()
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise UserError(f"{archive} is truncated or no .tar.gz ({error}): fetch it again") from error


def _images_in_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.glob("*/*/*.png")):
        yield path.relative_to(folder).as_posix(), path.read_bytes()


def _pack(files: Iterator[tuple[str, bytes]], packed: Path, source: str) -> None:
    """Decode all images and write them, sorted by class and name, so that the order is that of no archive."""
    found: dict[str, list[tuple[int, str, Tensor]]] = {split: [] for split in SPLITS}
    for name, content in tqdm(files, desc="packing", unit=" images"):
        parts = PurePosixPath(name).parts[-3:]
        if len(parts) == 3 and name.endswith(".png") and parts[0] in found and parts[1] in CLASS_NAMES:
            found[parts[0]].append((CLASS_NAMES.index(parts[1]), parts[2], _decode(content, f"{source}: {name}")))
    tensors = {}
    for split, images in found.items():
        absent = [name for label, name in enumerate(CLASS_NAMES) if label not in {image[0] for image in images}]
        if absent:
            raise UserError(
                f"{source} has no images of {split}/{absent[0]}: it should hold {{train,valid,test}}/<class>"
            )
        images.sort(key=lambda image: image[:2])
        tensors[f"{split}.labels"] = torch.tensor([image[0] for image in images])
        tensors[f"{split}.images"] = torch.stack([image[2] for image in images])
        images.clear()
    save_tensors(packed, tensors, {"source": source, "classes": " ".join(CLASS_NAMES)})


def _decode(content: bytes, name: str) -> Tensor:
    image = decode(content, name, "the archive is broken, fetch it again")
    if image.shape != (3, 32, 32):
        raise UserError(f"{name} has {image.shape[2]}x{image.shape[1]} pixels instead of 32x32")
    return image
