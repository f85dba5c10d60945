"""Small folders of the same layout as CINIC-10 and ImageNet-1K, filled with fractals.

The studies on the real sets can be tried on them, from archive to batch, with nothing to download.
"""

import io
import tarfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.io import encode_jpeg, encode_png

from lsc.data.cinic10 import CLASS_NAMES
from lsc.data.fractals import Fractals, FractalsOptions
from lsc.data.imagenet import ARCHIVES, DEVKIT, GROUND_TRUTH, SYNSETS
from lsc.errors import needing
from lsc.files import write_bytes, written_out, written_whole


def write_cinic10_tree(root: Path, *, per_class: int = 4) -> None:
    """Write {train,valid,test}/<class>/*.png of 32x32 pixels, ``per_class`` in each, in the ten classes of CINIC-10."""
    pictures = _pictures(len(CLASS_NAMES), 3 * per_class, 32)
    for place, split in enumerate(("train", "valid", "test")):
        for label, name in enumerate(CLASS_NAMES):
            folder = root / split / name
            for number in range(per_class):
                picture = pictures[label, place * per_class + number]
                write_bytes(folder / f"fractal-{split}-{number:05d}.png", _bytes(encode_png(picture)), synced=False)


def write_imagenet_tree(
    root: Path,
    *,
    num_classes: int = 10,
    train_per_class: int = 6,
    val_per_class: int = 2,
    image_size: int = 96,
    quality: int = 75,
) -> None:
    """Write train/<wnid>/*.JPEG and val/<wnid>/*.JPEG as torchvision lays ImageNet out; sides and colour modes vary."""
    pictures = _pictures(num_classes, train_per_class + val_per_class, image_size)
    for label in range(num_classes):
        wnid = f"n{10_000_000 + label:08d}"
        for number, picture in enumerate(pictures[label]):
            split = "train" if number < train_per_class else "val"
            folder = root / split / wnid
            narrow = picture[:, :, : image_size - 8 * (number % 3)]
            grey = number % 5 == 4  # some files of ImageNet are grey
            pixels = (narrow[:1] if grey else narrow).contiguous()
            write_bytes(folder / f"{wnid}_{number}.JPEG", _bytes(encode_jpeg(pixels, quality)), synced=False)


def write_archive(tree: Path, archive: Path) -> None:
    """Pack a folder's content as the .tar.gz that the set is given away as."""
    with written_out(archive) as temporary, tarfile.open(temporary, "w:gz", compresslevel=1) as tar:
        for path in sorted(tree.iterdir()):
            tar.add(path, arcname=path.name)


def write_imagenet_archives(root: Path, tree: Path) -> None:
    """Pack a tree of :func:`write_imagenet_tree` as image-net.org gives ImageNet away: two archives and the development kit."""
    with needing("data", "the development kit"):
        from scipy.io import savemat
    wnids = sorted(folder.name for folder in (tree / "train").iterdir())
    with written_whole(root / ARCHIVES["train"][0]) as temporary, tarfile.open(temporary, "w") as tar:
        for wnid in wnids:
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as of_class:
                for path in sorted((tree / "train" / wnid).iterdir()):
                    of_class.add(path, arcname=path.name)
            _add(tar, f"{wnid}.tar", inner.getvalue())
    images = sorted((tree / "val").glob("*/*"), key=lambda path: path.name[::-1])  # not in the order of their classes
    with written_whole(root / ARCHIVES["test"][0]) as temporary, tarfile.open(temporary, "w") as tar:
        for number, path in enumerate(images, start=1):
            tar.add(path, arcname=f"ILSVRC2012_val_{number:08d}.JPEG")
    synsets = np.array(
        [(number, wnid) for number, wnid in enumerate(wnids, start=1)],
        dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O")],
    )
    matrices = io.BytesIO()
    savemat(matrices, {"synsets": synsets})
    truth = "".join(f"{wnids.index(path.parent.name) + 1}\n" for path in images)
    with written_whole(root / DEVKIT[0]) as temporary, tarfile.open(temporary, "w:gz") as tar:
        _add(tar, f"ILSVRC2012_devkit_t12/{SYNSETS}", matrices.getvalue())
        _add(tar, f"ILSVRC2012_devkit_t12/{GROUND_TRUTH}", truth.encode())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _bytes(encoded: Tensor) -> bytes:
    return encoded.numpy().tobytes()


def _pictures(num_classes: int, per_class: int, image_size: int) -> Tensor:
    """(num_classes, per_class, 3, image_size, image_size) uint8."""
    source = Fractals(
        FractalsOptions(num_classes=num_classes, train_per_class=per_class, image_size=image_size, color=True)
    )
    pictures = source.images("train", torch.arange(num_classes * per_class))
    return pictures.view(num_classes, per_class, 3, image_size, image_size)
