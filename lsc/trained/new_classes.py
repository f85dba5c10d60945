"""Images of further classes: where they lie, and which of the names are new."""

import sys
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lsc.data.scanning import EXTENSIONS, images_below
from lsc.errors import UserError
from lsc.trained.classifier import Classifier
from lsc.trained.images import loaded


class NewImages(NamedTuple):
    """Images with the name of the class of each; files are read when they are asked for."""

    images: Any  # files, or whatever Trained.embed takes
    names: list[str]
    are_files: bool

    def batches(self, trained: Classifier) -> Iterator[tuple[Tensor, list[str]]]:
        """(B, C, H, W) images as the network takes them with their names; a file that does not decode is left out and named."""
        if not self.are_files:
            start = 0
            for views in trained.views(self.images):
                yield views, self.names[start : start + len(views)]
                start += len(views)
            return
        names = iter(self.names)
        for batch in loaded(self.images, trained.read):
            named = [name for place in range(len(batch.paths)) if (name := next(names)) and place not in batch.faults]
            for fault in batch.faults.values():
                print(f"lsc: warning: {fault}; left out", file=sys.stderr)
            if named:
                yield batch.images, named


def new_images(images: Any, names: Sequence[str] | None) -> NewImages:
    """What :func:`lsc.trained.extending.extend` is given.

    Raises:
        UserError: a folder without class folders or images, or not a name for each image.
    """
    if names is None:
        if not isinstance(images, str | Path):
            raise UserError(
                "images: give a folder with a folder for each class, or the name of each image's class as names"
            )
        return in_class_folders(Path(images))
    if isinstance(images, str | Path) or not hasattr(images, "__len__"):
        raise UserError("images: with names, give a list of images or a tensor (B, C, H, W)")
    if len(images) != len(names) or not len(names):
        raise UserError(
            f"names: {len(names)} names for {len(images)} images; give one for each, and one image at least"
        )
    return NewImages(images, [str(name) for name in names], are_files=False)


def in_class_folders(root: Path) -> NewImages:
    """The images of ``root``, or of ``root/train`` where there is such a folder: a folder for each class.

    Raises:
        UserError: there are no class folders, or one of them holds no images.
    """
    if not root.is_dir():
        raise UserError(f"{root}: is no folder; give one with a folder of images for each class")
    root = root / "train" if (root / "train").is_dir() else root
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        loose = bool(images_below(root))
        reason = "holds images without class folders" if loose else "holds no class folders"
        raise UserError(f"{root}: {reason}; move its images to {root}/<class>/")
    files: list[Path] = []
    names: list[str] = []
    for folder in folders:
        below = images_below(folder)
        if not below:
            raise UserError(f"{folder}: a class without images ({', '.join(EXTENSIONS)}); fill it or remove it")
        files += below
        names += [folder.name] * len(below)
    return NewImages(files, names, are_files=True)


def labels_of(names: Sequence[str], known: Sequence[str]) -> dict[str, int]:
    """The label of each different name: that of a known class of this name, or the next free number in order of appearance.

    The same name in another Unicode normal form (as macOS writes accents) is the same class, which is said; names that differ
    in case alone are refused, since not every file system tells them apart.

    Raises:
        UserError: two names that are hard to tell apart, or one that is no text.
    """
    label_of = {name: label for label, name in enumerate(known)}
    by_form = {unicodedata.normalize("NFC", name): name for name in known}
    by_case = {form.casefold(): form for form in by_form}
    labels: dict[str, int] = {}
    for name in dict.fromkeys(names):
        form = unicodedata.normalize("NFC", name)
        if not form or any("\ud800" <= letter <= "\udfff" for letter in form):
            raise UserError(f"class {name!r}: is no readable name (UTF-8); rename it")
        if form in by_form and by_form[form] in labels:
            raise UserError(
                f"classes {by_form[form]!r} and {name!r}: differ in their Unicode form alone; make them one"
            )
        if form in by_form:
            if by_form[form] != name:
                print(
                    f"lsc: warning: class {name!r} is taken for {by_form[form]!r}: one name, two Unicode forms",
                    file=sys.stderr,
                )
            labels[name] = label_of[by_form[form]]
            continue
        if form.casefold() in by_case:
            raise UserError(f"classes {by_case[form.casefold()]!r} and {form!r}: differ in case alone; rename one")
        by_form[form], by_case[form.casefold()] = name, form
        labels[name] = label_of[name] = len(label_of)
    return labels


def as_labels(names: Sequence[str], label_of: dict[str, int], device: torch.device) -> Tensor:
    """(B,) int64 labels of names."""
    return torch.tensor([label_of[name] for name in names], device=device)
