"""ImageNet-1K: what should be where. It may not be downloaded without an account, so all we can do is to check."""

from pathlib import Path

from lsc.data.file_index import FileIndex, scan
from lsc.data.image_folder import FOLDERS
from lsc.errors import UserError

NUM_CLASSES = 1000
COUNTS = {"train": 1_281_167, "test": 50_000}
ARCHIVES = {
    "train": ("ILSVRC2012_img_train.tar", "1d675b47d978889d74fa0da5fadfb00e"),
    "test": ("ILSVRC2012_img_val.tar", "29b22e2961454d5413ddabcf34fc5622"),
}
DEVKIT = ("ILSVRC2012_devkit_t12.tar.gz", "fa75699e90414af021442c21a62c3abf")


def check_imagenet(root: Path) -> FileIndex:
    """List ImageNet-1K below ``root`` and compare the numbers of classes and images with what they should be.

    Raises:
        UserError: a folder, class or image is missing; it says which archive goes where.
    """
    for split, name in FOLDERS["imagenet"].items():
        if not (root / name).is_dir():
            raise UserError(f"{root / name} is missing: {where_it_goes(root, split)}")
    index = scan(root, FOLDERS["imagenet"], required=("train", "test"))
    if len(index.class_names) != NUM_CLASSES:
        found = len(index.class_names)
        raise UserError(
            f"{root / 'train'} has {found} classes instead of {NUM_CLASSES}: {where_it_goes(root, 'train')}"
        )
    for split, expected in COUNTS.items():
        if (found := len(index.files[split])) != expected:
            folder = root / FOLDERS["imagenet"][split]
            raise UserError(f"{folder} has {found} images instead of {expected}: {where_it_goes(root, split)}")
    return index


def where_it_goes(root: Path, split: str) -> str:
    """Which archive to get, and where to put what is in it."""
    archive, md5 = ARCHIVES[split]
    target = root / FOLDERS["imagenet"][split]
    sorting = "" if split == "train" else f", sorted by the labels of {DEVKIT[0]} (md5 {DEVKIT[1]})"
    return f"unpack {archive} (md5 {md5}, from image-net.org) to {target}/<wnid>/*.JPEG{sorting}"
