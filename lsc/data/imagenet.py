"""ImageNet-1K: what should be where. It may not be downloaded without an account, so all we can do is to check."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from lsc.data.file_index import FileIndex
from lsc.data.image_folder import FileOptions
from lsc.data.scanning import scan
from lsc.errors import UserError

NUM_CLASSES = 1000
COUNTS = {"train": 1_281_167, "test": 50_000}
ARCHIVES = {
    "train": ("ILSVRC2012_img_train.tar", "1d675b47d978889d74fa0da5fadfb00e"),
    "test": ("ILSVRC2012_img_val.tar", "29b22e2961454d5413ddabcf34fc5622"),
}
DEVKIT = ("ILSVRC2012_devkit_t12.tar.gz", "fa75699e90414af021442c21a62c3abf")


class ImagenetOptions(FileOptions):
    """ImageNet-1K in torchvision's layout: {train,val}/<wnid>/*.JPEG; the 50,000 images of val are the test split."""

    folders: ClassVar[dict[str, str]] = {"train": "train", "test": "val"}
    required: ClassVar[tuple[str, ...]] = ("train", "test")

    name: Literal["imagenet"] = "imagenet"
    root: str = Field(default="data/imagenet", description="folder with train/ and val/")


def check_imagenet(root: Path) -> FileIndex:
    """List ImageNet-1K below ``root`` and compare the numbers of classes and images with what they should be.

    Raises:
        UserError: a folder, class or image is missing; it says which archive goes where.
    """
    for split, name in ImagenetOptions.folders.items():
        if not (root / name).is_dir():
            raise UserError(f"{root / name} is missing: {where_it_goes(root, split)}")
    index = scan(root, ImagenetOptions.folders, required=("train", "test"))
    if len(index.class_names) != NUM_CLASSES:
        found = len(index.class_names)
        raise UserError(
            f"{root / 'train'} has {found} classes instead of {NUM_CLASSES}: {where_it_goes(root, 'train')}"
        )
    for split, expected in COUNTS.items():
        if (found := len(index.files[split])) != expected:
            folder = root / ImagenetOptions.folders[split]
            raise UserError(f"{folder} has {found} images instead of {expected}: {where_it_goes(root, split)}")
    return index


def where_it_goes(root: Path, split: str) -> str:
    """Which archive to get, and where to put what is in it."""
    archive, md5 = ARCHIVES[split]
    target = root / ImagenetOptions.folders[split]
    sorting = "" if split == "train" else f", sorted by the labels of {DEVKIT[0]} (md5 {DEVKIT[1]})"
    return f"unpack {archive} (md5 {md5}, from image-net.org) to {target}/<wnid>/*.JPEG{sorting}"
