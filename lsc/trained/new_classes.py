"""Images of further classes: where they lie, and which of the names are new."""

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lsc.data.folder import FolderOptions
from lsc.data.scanning import EXTENSIONS, LeftOut, class_folders, images_below, split_folders
from lsc.data.table import classes_in, table_in
from lsc.errors import UserError, warn
from lsc.files import looking_at
from lsc.trained.classifier import Classifier
from lsc.trained.images import loaded


@dataclass
class NewImages:
    """Images with the name of the class of each; files are read when they are asked for."""

    images: Any  # files, or whatever Trained.embed takes
    names: list[str]
    are_files: bool

    def batches(self, trained: Classifier) -> Iterator[tuple[Tensor, list[str]]]:
        """(B, C, H, W) images as the network takes them with their names.

        A file that does not decode is left out and named, and after a whole pass it is one of the images no more: it is
        neither read nor named again.
        """
        start = 0
        if not self.are_files:
            for views in trained.views(self.images):
                yield views, self.names[start : start + len(views)]
                start += len(views)
            return
        read: list[int] = []
        for batch in loaded(self.images, trained.read):
            good = [start + place for place in range(len(batch.paths)) if place not in batch.faults]
            for fault in batch.faults.values():
                warn(f"{fault}; left out")
            if good:
                yield batch.images, [self.names[place] for place in good]
            read += good
            start += len(batch.paths)
        self.images, self.names = [self.images[place] for place in read], [self.names[place] for place in read]

    def of_classes(self, names: set[str]) -> "NewImages":
        """Those files whose classes have these names."""
        chosen = [place for place, name in enumerate(self.names) if name in names]
        return NewImages([self.images[place] for place in chosen], [self.names[place] for place in chosen], True)


def new_images(images: Any, names: Sequence[str] | None) -> NewImages:
    """What :func:`lsc.trained.extending.extend` is given.

    Raises:
        UserError: a folder without class folders or images, or not a name for each image.
    """
    if names is None:
        if not isinstance(images, str | Path):
            raise UserError(
                "images: give a folder with a folder for each class or a table, or the name of each image's class as names"
            )
        return images_to_add(Path(images))
    if isinstance(images, str | Path) or not hasattr(images, "__len__"):
        raise UserError("images: with names, give a list of images or a tensor (B, C, H, W)")
    if len(images) != len(names) or not len(names):
        raise UserError(
            f"names: {len(names)} names for {len(images)} images; give one for each, and one image at least"
        )
    return NewImages(images, [str(name) for name in names], are_files=False)


def images_to_add(root: Path) -> NewImages:
    """The images of ``root`` by which a run learns new classes: those that :class:`lsc.data.folder.FolderOptions` would train on.

    They lie in a folder for each class, in ``root`` or in the folder of its split train (Train/ and training/, too); or a table
    in ``root`` names them. What was passed over is a warning.

    Raises:
        UserError: there are no class folders, or one of them holds no images; or there are splits, and train is none of them.
    """

    def choose(splits: Sequence[str], named: Mapping[str, str]) -> str:
        if "train" in splits:
            return "train"
        raise UserError(
            f"{root}: has {named[splits[0]]} and no {_counterpart(named[splits[0]], 'train')}, whose images would be taken; give "
            "the folder that holds the folders of the classes, or rename it if it is one"
        )

    return _classes_below(root, choose)[0]


def images_to_judge(root: Path) -> tuple[NewImages, str | None]:
    """The images of ``root`` by which a run is judged, with their split: test, or the only one that there is.

    They lie and are named as those of :func:`images_to_add`; of class folders alone the split is None. What was passed over is a
    warning.

    Raises:
        UserError: there are no class folders, or one of them holds no images; or there are several splits, and test is none
            of them.
    """

    def choose(splits: Sequence[str], named: Mapping[str, str]) -> str:
        if "test" in splits or len(splits) == 1:
            return "test" if "test" in splits else splits[0]
        raise UserError(
            f"{root}: has {' and '.join(named[split] for split in splits)} and no {_counterpart(named[splits[0]], 'test')}, by "
            "which a run is judged; give the folder of the split that is meant, or a table of its images alone"
        )

    return _classes_below(root, choose)


# Gives which of some splits is meant; the mapping has what each is called in messages.
_Choose = Callable[[Sequence[str], Mapping[str, str]], str]


def _counterpart(named: str, split: str) -> str:
    """What a split would be called beside one that is called ``named``."""
    return f"{split}/" if named.endswith("/") else f"rows of {split}"


def _classes_below(root: Path, choose: _Choose) -> tuple[NewImages, str | None]:
    """The images of one split of ``root`` with their classes, by folders or by a table, and which split it is."""
    with looking_at(root):
        if not root.is_dir():
            raise UserError(f"{root}: is no folder; give one with a folder of images for each class")
        table, has_folder = table_in(root), (root / "train").is_dir()
    left_out = LeftOut(root)
    if table is None or has_folder:
        found, split = _in_class_folders(root, choose, left_out)
    else:
        found, split = _in_table(table, root, choose, left_out)
    for note in left_out.notes:
        warn(note)
    if table is not None and has_folder:
        warn(f"{table} is not read, since {root} has train/")
    return found, split


def _in_class_folders(root: Path, choose: _Choose, left_out: LeftOut) -> tuple[NewImages, str | None]:
    splits = split_folders(root, FolderOptions.folders, FolderOptions.also, left_out)
    place, split = root, None
    if splits and splits != {"train": root}:
        split = choose(list(splits), {name: f"{folder.name}/" for name, folder in splits.items()})
        for other, folder in splits.items():
            if other != split:
                left_out.add(f"it is the folder of another split than {split}", f"{folder.name}/")
        place = Path(str(splits[split]))
    files: list[Path] = []
    names: list[str] = []
    for name, found in sorted(class_folders(place, left_out).items()):
        folder = place / found
        below = images_below(folder, left_out)
        if not below:
            raise UserError(f"{folder}: a class without images ({', '.join(EXTENSIONS)}); fill it or remove it")
        files += below
        names += [name] * len(below)
    return NewImages(files, names, are_files=True), split


def _in_table(table: Path, root: Path, choose: _Choose, left_out: LeftOut) -> tuple[NewImages, str | None]:
    rows = classes_in(table, root)
    if not rows:
        raise UserError(f"{table}: lists no images; give a row of path and class for each")
    splits = [split for split in FolderOptions.folders if any(split == part for part, _ in rows.values())]
    split = choose(splits, {name: f"rows of {name}" for name in splits})
    for path, (part, _) in rows.items():
        if part != split:
            left_out.add(f"{table.name} has it in another split than {split}", path)
    chosen = sorted((name, path) for path, (part, name) in rows.items() if part == split)
    images = NewImages([root / path for _, path in chosen], [name for name, _ in chosen], are_files=True)
    return images, None if splits == ["train"] else split  # as it is where the table has no splits


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
                warn(f"class {name!r} is taken for {by_form[form]!r}: one name, two Unicode forms")
            labels[name] = label_of[by_form[form]]
            continue
        if form.casefold() in by_case:
            raise UserError(f"classes {by_case[form.casefold()]!r} and {form!r}: differ in case alone; rename one")
        by_form[form], by_case[form.casefold()] = name, form
        labels[name] = label_of[name] = len(label_of)
    return labels


def as_labels(names: Sequence[str], label_of: dict[str, int], device: torch.device) -> Tensor:
    """(B,) int64 labels of names."""
    return torch.tensor([label_of[name] for name in names], dtype=torch.int64, device=device)
