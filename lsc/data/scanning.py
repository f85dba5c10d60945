"""A look through a folder of images, on a disk or in an archive: which there are, and what was left out and why."""

import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from lsc.data.archives import PackedEntry, PackedFolder, folder_of, list_archive, packed
from lsc.data.file_index import FileIndex
from lsc.errors import UserError
from lsc.files import looking_at

# What torchvision's own folder lists, what cameras and browsers write beside it, and what Pillow reads without a program's help.
EXTENSIONS = tuple(
    ".jpg .jpeg .jpe .jfif .png .webp .gif .bmp .dib .tif .tiff .ppm .pgm .pbm .pnm .avif".split()  # noqa: SIM905
)

_NO_IMAGE = f"it is none of {' '.join(EXTENSIONS)}"

# Tables of classes that a root is searched for, in this order.
USUAL_NAMES = ("labels.csv", "labels.parquet")

Folder = Path | PackedFolder
Entry = os.DirEntry[str] | PackedEntry


class LeftOut:
    """What a look through a folder passed over: for each reason how often, and the first."""

    def __init__(self, root: Folder) -> None:
        self._root = root
        self._found: dict[str, list[str]] = {}

    def add(self, reason: str, path: str) -> None:
        self._found.setdefault(reason, []).append(path)

    @property
    def notes(self) -> tuple[str, ...]:
        """A line for each reason."""
        return tuple(
            f"{self._root}: {len(paths)} left out, {'the first ' if len(paths) > 1 else ''}{min(paths)}: {reason}"
            for reason, paths in self._found.items()
        )


def scan(
    root: Folder,
    folders: Mapping[str, str],
    *,
    required: Sequence[str] = ("train",),
    also: Mapping[str, Sequence[str]] | None = None,
    listed: Sequence[str] = (),
) -> FileIndex:
    """List <root>/<folder>/<class>/<image> for every split; images may lie in folders below that of their class.

    Args:
        folders: split -> name of its folder; a split without a folder is left out unless it is ``required``.
        also: split -> other names that its folder may have, in small letters. Where this is given, case does not matter, and
            a root that has no folder of a split holds the classes themselves: all images are of ``train``.
        listed: paths below the root that belong to the list whether the files are still there or not.

    Raises:
        UserError: something is missing, not laid out so or cannot be read; it names the folder and what should be there.
    """
    with looking_at(str(root)):
        there = root.is_dir()
    if not there:
        raise UserError(
            f"{root} is no folder: give one that holds {'/, '.join(folders.values())}/ with <class>/<image>"
        )
    left_out = LeftOut(root)
    present = split_folders(root, folders, also, left_out)
    for split in required:
        if split not in present and also is not None and not present:
            raise UserError(
                f"{root} holds no folders of images: move them to {root}/<class>/ or {root}/train/<class>/"
                + (
                    ""
                    if isinstance(root, PackedFolder)
                    else ", or name their classes in labels.csv, with the columns path and class"
                )
            )
        if split not in present:
            raise UserError(f"{root / folders[split]} is missing: it should hold one folder of images for each class")
    remembered = [path for path in listed if path.lower().endswith(EXTENSIONS)]
    class_names: list[str] = []
    files, labels, notes = {}, {}, []
    for split in sorted(present, key=lambda name: name != "train"):
        folder = present[split]
        classes = class_folders(folder, left_out)
        if split == "train":
            class_names = sorted(classes)
            if len(class_names) < 2:
                raise UserError(f"{folder} has one class only, {class_names[0]}: training needs at least two")
            notes += alike(class_names, folder)
        label_of = {name: label for label, name in enumerate(class_names)}
        paths: list[bytes] = []
        ids: list[int] = []
        for name in sorted(classes):
            if name not in label_of:
                raise UserError(
                    f"{folder / name} is a class that {present['train']} does not have: add it or remove it"
                )
            images = _images(root, folder / classes[name], left_out, remembered)
            paths += images
            ids += [label_of[name]] * len(images)
        notes += without_images(split, class_names, set(ids))
        files[split], labels[split] = np.array(paths, dtype=np.bytes_), np.array(ids, dtype=np.int64)
    in_order = {split: files[split] for split in present}, {split: labels[split] for split in present}
    return FileIndex(class_names, *in_order, (*left_out.notes, *notes))


def scan_archive(
    path: Path, folders: Mapping[str, str], also: Mapping[str, Sequence[str]] | None = None, listed: Sequence[str] = ()
) -> FileIndex:
    """As :func:`scan` for an archive of such a folder, a tar without compression or a zip; with where its images are.

    Raises:
        UserError: as there; or the archive cannot be read, or holds a table by which the folder would be read if it were
            unpacked.
    """
    splits = {*folders.values(), *(name for names in (also or {}).values() for name in names)}
    listing = list_archive(path)
    top = _top(folder_of(listing, str(path)), splits)
    index = scan(top.as_whole(), folders, also=also, listed=listed)
    table = _table_of(top)
    if table is not None:
        note = f"{top / table} is not read, since {top} has train/; unpacked, labels: {table} would take it"
        index = index._replace(notes=(*index.notes, note))
    above = f"{top.inside}/" if top.inside else ""
    members = {name.removeprefix(above): member for name, member in listing.files.items() if name.startswith(above)}
    return index._replace(packed=packed([("", path, members)], index.files.values()))


def _top(folder: PackedFolder, splits: set[str]) -> PackedFolder:
    """The folder that stands for the whole archive: one that everything lies in is passed over, if it holds folders.

    Raises:
        UserError: one of them holds a table that would be read if it were unpacked.
    """
    while True:
        _refuse_table(folder)
        entries = [entry for entry in folder.entries() if not entry.name.startswith(".")]
        inner = [entry.name for entry in entries if entry.is_dir()]
        loose = any(entry.name.lower().endswith(EXTENSIONS) for entry in entries)
        if len(inner) != 1 or loose or inner[0].lower() in splits:
            return folder
        below = folder / inner[0]
        if not any(entry.is_dir() for entry in below.entries()):
            _refuse_table(below)
            return folder
        folder = below


def _refuse_table(folder: PackedFolder) -> None:
    table = _table_of(folder)
    if table is not None and not (folder / "train").is_dir():
        raise UserError(
            f"{folder} holds {table}, and a table is read beside files: unpack the archive, or take {table} out of it for a "
            "class for each folder"
        )


def _table_of(folder: PackedFolder) -> str | None:
    """The name of the table that a folder holds, if it holds one."""
    files = {entry.name for entry in folder.entries() if entry.is_file()}
    return next((name for name in USUAL_NAMES if name in files), None)


def images_below(folder: Path, left_out: LeftOut | None = None) -> list[Path]:
    """The images in a folder and in those below it, in order of their paths; what is hidden or no image is passed over.

    Links are followed, but for those that lead back to a folder that they lie in.

    Args:
        left_out: where what is passed over is noted.

    Raises:
        UserError: a folder cannot be read.
    """
    names = _walk(folder, "", LeftOut(folder) if left_out is None else left_out, _above(folder))
    return [folder / name for name in sorted(names, key=lambda name: name.split("/"))]


def alike(class_names: list[str], where: Folder) -> list[str]:
    """A line if some names of classes differ in nothing but case: often they are meant to be one."""
    seen: dict[str, str] = {}
    for name in class_names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            return [f"{where}: {other} and {name} are two classes whose names differ in case alone"]
    return []


def without_images(split: str, class_names: list[str], found: set[int]) -> list[str]:
    """A line if a split lacks some classes."""
    missing = [name for label, name in enumerate(class_names) if label not in found]
    return [f"{split} has no images of {len(missing)} classes, the first {missing[0]}"] if missing and found else []


def class_name(name: str, where: Folder | str) -> str:
    """The name of a class as it is compared, shown and stored: text in Unicode's composed form, on one line.

    A disk may hold "é" as one letter or as two, whichever the system that wrote it prefers.

    Raises:
        UserError: it is no UTF-8, or has a letter that does not print.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{where} has a class whose name is not UTF-8, {name!r}: rename it") from None
    if not name.isprintable():
        raise UserError(f"{where} has a class with a line break or the like in its name, {name!r}: rename it")
    return unicodedata.normalize("NFC", name)


def split_folders(
    root: Folder, folders: Mapping[str, str], also: Mapping[str, Sequence[str]] | None, left_out: LeftOut
) -> dict[str, Folder]:
    """The folder of every split that there is."""
    if also is None:
        return {split: root / folder for split, folder in folders.items() if (root / folder).is_dir()}
    found: dict[str, Folder] = {}
    others, loose = [], []
    for entry in _entries(root):
        if entry.name.startswith("."):
            continue
        if not _is_folder(entry):
            _refuse_dead(root, entry)
            loose.append(entry.name)
            continue
        taken = [split for split, name in folders.items() if entry.name.lower() in (name, *also.get(split, ()))]
        if not taken:
            others.append(f"{entry.name}/")
        elif taken[0] in found:
            raise UserError(
                f"{root} has {found[taken[0]].name}/ and {entry.name}/ for the split {taken[0]}: keep one of them"
            )
        else:
            found[taken[0]] = root / entry.name
    if not found and others:
        return {"train": root}
    for name in others:
        left_out.add(f"it is the folder of no split ({', '.join(folders.values())})", name)
    _leave_out_loose(root, [name for name in loose if name not in USUAL_NAMES] if found else [], left_out)
    return {split: found[split] for split in folders if split in found}


def class_folders(folder: Folder, left_out: LeftOut) -> dict[str, str]:
    """Class -> the name of its folder as the disk has it."""
    found: dict[str, str] = {}
    loose = []
    for entry in _entries(folder):
        if entry.name.startswith("."):
            continue
        if not _is_folder(entry):
            _refuse_dead(folder, entry)
            loose.append(entry.name)
            continue
        name = class_name(entry.name, folder)
        if name in found:
            raise UserError(
                f"{folder} has two folders of the class {name}, whose names differ in the encoding of a letter alone: "
                "move the images into one"
            )
        found[name] = entry.name
    if not found:
        images = any(name.lower().endswith(EXTENSIONS) for name in loose)
        reason = "holds images without class folders" if images else "holds no class folders"
        raise UserError(f"{folder} {reason}: move its images to {folder}/<class>/")
    _leave_out_loose(folder, loose, left_out)
    return found


def _refuse_dead(folder: Folder, entry: Entry) -> None:
    """Raise a UserError for a link that leads to nothing: the class or split that it stood for would be missing in silence."""
    if not entry.is_symlink():
        return
    if not isinstance(entry, PackedEntry):  # of which those alone are links that lead to nothing
        try:
            entry.stat()
        except OSError as error:
            reason = f" ({error.strerror})"
        else:
            return
    else:
        reason = " in the archive"
    raise UserError(f"{folder / entry.name} is a link that leads to nothing{reason}: mend it or remove it")


def _leave_out_loose(folder: Folder, names: Sequence[str], left_out: LeftOut) -> None:
    """Files beside folders that alone are looked into."""
    for name in names:
        is_image = name.lower().endswith(EXTENSIONS)
        left_out.add("it lies in no class folder" if is_image else _NO_IMAGE, str(folder / name))


def _images(root: Folder, folder: Folder, left_out: LeftOut, remembered: Sequence[str]) -> list[bytes]:
    """The sorted paths, below the root, of the images of a class."""
    inside = folder.inside if isinstance(folder, PackedFolder) else folder.relative_to(str(root)).as_posix()
    inside += "/"
    names = {inside + name for name in _walk(folder, "", left_out, _above(folder))}
    names.update(path for path in remembered if path.startswith(inside))
    if not names:
        raise UserError(f"{folder} is a class without images ({', '.join(EXTENSIONS)}): fill it or remove it")
    try:
        return [name.encode() for name in sorted(names)]
    except UnicodeEncodeError as error:
        raise UserError(f"{folder} holds a file whose name is not UTF-8, {error.object!r}: rename it") from None


def _walk(folder: Folder, inside: str, left_out: LeftOut, trail: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """The images in a folder and those below it; ``trail`` are the folders that led to this one."""
    trail = (*trail, _identity(folder))
    for entry in _entries(folder):
        name = f"{inside}{entry.name}"
        is_image = entry.name.lower().endswith(EXTENSIONS)
        if entry.name.startswith("."):
            if is_image:
                left_out.add("its name begins with a dot", entry.path)
        elif _is_folder(entry):
            if _identity(entry) in trail:
                left_out.add("the link leads back to a folder that it lies in", entry.path)
            else:
                yield from _walk(folder / entry.name, f"{name}/", left_out, trail)
        elif not is_image:
            left_out.add(_NO_IMAGE, entry.path)
        elif _is_file(entry):
            yield name
        elif entry.is_symlink():
            left_out.add("the link leads to no file", entry.path)
        else:
            left_out.add("it is no regular file", entry.path)


def _above(folder: Folder) -> tuple[tuple[int, int], ...]:
    """The folders that a folder lies in."""
    return () if isinstance(folder, PackedFolder) else tuple(_identity(parent) for parent in folder.absolute().parents)


def _identity(place: Folder | Entry) -> tuple[int, int]:
    """What tells a folder from all others, by whatever path; in an archive no link leads to one."""
    if isinstance(place, PackedFolder | PackedEntry):
        return 0, id(place.children)
    found = place.stat()
    return found.st_dev, found.st_ino


def _entries(folder: Folder) -> Sequence[Entry]:
    if isinstance(folder, PackedFolder):
        return folder.entries()
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}): make it readable or remove it") from None


def _is_folder(entry: Entry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def _is_file(entry: Entry) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False
