"""ImageNet-1K: what should be where. It may not be downloaded without an account, so all we can do is to check.

The archives that are downloaded may stay as they are: that of train is a tar of a tar for each class, and the classes of
the other's images stand in the development kit.
"""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from lsc.data.archives import Listing, folder_of, list_archive, list_tar, packed
from lsc.data.file_index import FileIndex
from lsc.data.image_folder import FileOptions
from lsc.data.scanning import scan
from lsc.errors import UserError, needing
from lsc.files import looking_at

NUM_CLASSES = 1000
COUNTS = {"train": 1_281_167, "test": 50_000}
ARCHIVES = {
    "train": ("ILSVRC2012_img_train.tar", "1d675b47d978889d74fa0da5fadfb00e"),
    "test": ("ILSVRC2012_img_val.tar", "29b22e2961454d5413ddabcf34fc5622"),
}
DEVKIT = ("ILSVRC2012_devkit_t12.tar.gz", "fa75699e90414af021442c21a62c3abf")


# In the development kit: the classes by their numbers, and the number of each validation image.
SYNSETS, GROUND_TRUTH = "data/meta.mat", "data/ILSVRC2012_validation_ground_truth.txt"


class ImagenetOptions(FileOptions):
    """ImageNet-1K in torchvision's layout: {train,val}/<wnid>/*.JPEG; the 50,000 images of val are the test split. Or as
    it is downloaded: the two archives of images and the development kit.
    """

    folders: ClassVar[dict[str, str]] = {"train": "train", "test": "val"}
    required: ClassVar[tuple[str, ...]] = ("train", "test")

    name: Literal["imagenet"] = "imagenet"
    root: str = Field(default="data/imagenet", description="folder with train/ and val/, or with the archives")

    def list_files(self, listed: Sequence[str] = ()) -> FileIndex:
        root = Path(self.root)
        return _packed(root, self.folders, listed) if is_packed(root) else super().list_files(listed)


def is_packed(root: Path) -> bool:
    """Whether a folder holds the archives, and nothing that was unpacked."""
    with looking_at(root):
        unpacked = any((root / folder).is_dir() for folder in ImagenetOptions.folders.values())
        return not unpacked and any((root / archive).is_file() for archive, _ in ARCHIVES.values())


def _packed(root: Path, folders: dict[str, str], listed: Sequence[str]) -> FileIndex:
    """The images in the archives below ``root``, by the paths that they would have unpacked."""
    for split, (archive, _) in ARCHIVES.items():
        if not (root / archive).is_file():
            raise UserError(f"{root / archive} is missing: {where_it_goes(root, split)}")
    train = _list_train(root / ARCHIVES["train"][0]).below(folders["train"])
    test = _list_test(root / ARCHIVES["test"][0], root / DEVKIT[0]).below(folders["test"])
    both = Listing(train.files | test.files, train.folders | test.folders, train.lost | test.lost)
    index = scan(folder_of(both, str(root)), folders, required=("train", "test"), listed=listed)
    parts = (("train", train), ("test", test))
    archives = [(ARCHIVES[split][0], root / ARCHIVES[split][0], part.files) for split, part in parts]
    return index._replace(packed=packed(archives, index.files.values()))


def _list_train(archive: Path) -> Listing:
    """<wnid>/<image> of all training images, each class of which is a tar in the archive."""
    found = Listing({}, set(), set())
    classes = list_archive(archive).files
    with archive.open("rb") as stream:
        for name, (offset, size, _) in classes.items():
            inner = list_tar(stream, f"{archive}: {name}", offset, offset + size).below(name.removesuffix(".tar"))
            found.files.update(inner.files)
            found.folders.update(inner.folders)
            found.lost.update(inner.lost)
    return found


def _list_test(archive: Path, devkit: Path) -> Listing:
    """<wnid>/<image> of all validation images."""
    wnids = _validation_wnids(devkit)
    images = list_archive(archive).files
    if len(images) != len(wnids):
        raise UserError(
            f"{archive} has {len(images):,} images, and {devkit.name} tells the classes of {len(wnids):,}: {_again(archive)}"
        )
    # ILSVRC2012_val_00000001.JPEG and so on, in the order of their classes' numbers.
    pairs = zip(sorted(images), wnids, strict=True)
    return Listing({f"{wnid}/{name}": images[name] for name, wnid in pairs}, set(), set())


def _validation_wnids(devkit: Path) -> list[str]:
    """The class of every validation image, out of the development kit."""
    with needing("data", "the development kit"):
        from scipy.io import loadmat
    if not devkit.is_file():
        raise UserError(
            f"{devkit} is missing, which tells the classes of {ARCHIVES['test'][0]}: put it there (md5 {DEVKIT[1]})"
        )
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(devkit, "r:gz") as tar:
            for member in tar:
                ending = next((name for name in (SYNSETS, GROUND_TRUTH) if member.name.endswith(name)), None)
                if ending is not None and (stream := tar.extractfile(member)) is not None:
                    found[ending] = stream.read()
        synsets = loadmat(io.BytesIO(found[SYNSETS]), squeeze_me=True)["synsets"]
        wnid_of = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
        return [wnid_of[int(number)] for number in found[GROUND_TRUTH].split()]
    except Exception as error:  # whatever readers of archives and matrices run into
        raise UserError(f"{devkit} is damaged or another archive ({type(error).__name__}): {_again(devkit)}") from None


def _again(archive: Path) -> str:
    md5 = dict((*ARCHIVES.values(), DEVKIT))[archive.name]
    return f"compare it with md5 {md5}, and fetch it again"


def check_imagenet(root: Path) -> FileIndex:
    """List ImageNet-1K below ``root`` and compare the numbers of classes and images with what they should be.

    Raises:
        UserError: a folder, class or image is missing; it says which archive goes where.
    """
    for split, name in ImagenetOptions.folders.items():
        if not (root / name).is_dir() and not is_packed(root):
            raise UserError(f"{root / name} is missing: {where_it_goes(root, split)}")
    index = ImagenetOptions(root=str(root)).list_files()
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
    """Which archive to get, and where to put it or what is in it."""
    archive, md5 = ARCHIVES[split]
    target = root / ImagenetOptions.folders[split]
    sorting = "" if split == "train" else f", sorted by the labels of {DEVKIT[0]} (md5 {DEVKIT[1]})"
    beside = "" if split == "train" else f" beside {DEVKIT[0]}"
    return (
        f"unpack {archive} (md5 {md5}, from image-net.org) to {target}/<wnid>/*.JPEG{sorting}, or put it into {root} as it "
        f"is{beside}"
    )
