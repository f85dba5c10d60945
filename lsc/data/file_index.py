"""The frozen, sorted list of a folder's images: it fixes which image has which number, and which class which label."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lsc.errors import UserError, needing
from lsc.files import written_whole

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif")


class FileIndex(NamedTuple):
    """The images of a folder by split, class and name. Arrays, so that loading processes share them without copies."""

    class_names: list[str]
    files: dict[str, NDArray[np.bytes_]]  # split -> paths below the root, in UTF-8
    labels: dict[str, NDArray[np.int64]]  # split -> class ids

    @property
    def fingerprint(self) -> str:
        """sha256 of the whole list."""
        digest = hashlib.sha256("\n".join(self.class_names).encode())
        for split in self.files:
            digest.update(f"\n\n{split}\n".encode())
            digest.update(b"\n".join(self.files[split].tolist()))
        return digest.hexdigest()


def scan(root: Path, folders: dict[str, str], *, required: Iterable[str] = ("train",)) -> FileIndex:
    """List <root>/<folder>/<class>/<image> for every split.

    Args:
        folders: split -> name of its folder; a split without a folder is left out unless it is ``required``.

    Raises:
        UserError: something is missing or not laid out so; it names the folder and what should be there.
    """
    if not root.is_dir():
        raise UserError(f"{root} is no folder: --root should hold {'/, '.join(folders.values())}/ with <class>/<image>")
    present = {split: root / folder for split, folder in folders.items() if (root / folder).is_dir()}
    for split in required:
        if split not in present:
            raise UserError(f"{root / folders[split]} is missing: it should hold one folder of images for each class")
    class_names = _class_folders(present["train"])
    if len(class_names) < 2:
        raise UserError(f"{present['train']} has one class only, {class_names[0]}: training needs at least two")
    files, labels = {}, {}
    label_of = {name: label for label, name in enumerate(class_names)}
    for split, folder in present.items():
        paths: list[bytes] = []
        ids: list[int] = []
        for name in class_names if split == "train" else _class_folders(folder):
            if name not in label_of:
                raise UserError(
                    f"{folder / name} is a class that {present['train']} does not have: add it or remove it"
                )
            images = _images(folder / name)
            paths += [f"{folder.name}/{name}/{image}".encode() for image in images]
            ids += [label_of[name]] * len(images)
        files[split], labels[split] = np.array(paths), np.array(ids, dtype=np.int64)
    return FileIndex(class_names, files, labels)


def _class_folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
    names = sorted(name for name, is_folder in found if is_folder)
    if not names:
        loose = any(name.lower().endswith(EXTENSIONS) for name, _ in found)
        reason = "holds images without class folders" if loose else "holds no class folders"
        raise UserError(f"{folder} {reason}: move its images to {folder}/<class>/")
    return names


def _images(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if e.name.lower().endswith(EXTENSIONS) and not e.name.startswith("."))
    if not names:
        raise UserError(f"{folder} is a class without images ({', '.join(EXTENSIONS)}): fill it or remove it")
    for name in names:
        if not name.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in name):
            raise UserError(f"{folder} holds a file whose name is not UTF-8, {name!r}: rename it")
    return names


def save_index(index: FileIndex, path: Path) -> None:
    """Write an index as a Parquet table (split, label, file), with class names and fingerprint in its metadata."""
    with needing("data", "a frozen list of files"):
        import pyarrow as pa
        from pyarrow import parquet
    splits = np.repeat(list(index.files), [len(files) for files in index.files.values()])
    table = pa.table(
        {
            "split": pa.array(splits).dictionary_encode(),
            "label": np.concatenate(list(index.labels.values())),
            "file": [file.decode() for files in index.files.values() for file in files.tolist()],
        },
        metadata={"fingerprint": index.fingerprint, "class_names": "\n".join(index.class_names)},
    )
    with written_whole(path) as temporary:
        parquet.write_table(table, temporary, compression="zstd")


def load_index(path: Path) -> FileIndex:
    """Read what :func:`save_index` wrote.

    Raises:
        UserError: the file is missing, damaged or was changed.
    """
    with needing("data", f"the list of files {path}"):
        import pyarrow as pa
        from pyarrow import parquet
    if not path.is_file():
        raise UserError(f"{path} is missing: write it with `lsc data index`")
    try:
        table = parquet.read_table(path)
        metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        split = np.array(table["split"].to_pylist())
        files = np.array([name.encode() for name in table["file"].to_pylist()])
        label = table["label"].to_numpy()
        order = list(dict.fromkeys(split.tolist()))
        index = FileIndex(
            metadata["class_names"].split("\n"),
            {name: files[split == name] for name in order},
            {name: label[split == name] for name in order},
        )
    except (pa.ArrowException, KeyError, OSError) as error:
        raise UserError(f"{path} is no index or damaged: write it again with `lsc data index`") from error
    if index.fingerprint != metadata["fingerprint"]:
        raise UserError(f"{path} was changed since it was written: write it again with `lsc data index`")
    return index
