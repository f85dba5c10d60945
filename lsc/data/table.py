"""Images whose classes stand in a table beside them: ``labels.csv``, or the same as Parquet.

A row has the image's path below the table's folder and its class, and perhaps its split, ``train`` where it has none.
"""

import csv
import io
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lsc.data.file_index import FileIndex
from lsc.data.scanning import USUAL_NAMES, alike, class_name, without_images
from lsc.errors import UserError, needing
from lsc.files import looking_at

# Column -> the names that it goes by, in small letters.
COLUMNS = {
    "path": ("path", "file", "filename", "file_name", "image"),
    "class": ("class", "label", "class_name"),
    "split": ("split",),
}
SPLITS = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
    "testing": "test",
}


def table_in(root: Path) -> Path | None:
    """The table that a folder holds, if it holds one."""
    return next((root / name for name in USUAL_NAMES if (root / name).is_file()), None)


def read_table(path: Path, root: Path, listed: Sequence[str] = ()) -> FileIndex:
    """The images that a table lists.

    Args:
        path: of the table; ``.parquet`` is read as Parquet, all else as text with a comma, semicolon or tab between columns.
        root: the folder that its paths start from.
        listed: paths of images that may be missing.

    Raises:
        UserError: as :func:`classes_in`; or there are fewer than two classes to train on, or one that is not among them.
    """
    return _index(classes_in(path, root, listed), path)


def classes_in(path: Path, root: Path, listed: Sequence[str] = ()) -> dict[str, tuple[str, str]]:
    """Path -> (split, class) of the images that a table lists; see :func:`read_table`.

    Raises:
        UserError: a column is missing, a row has no class, an unknown split or a path where no file is, or a file has two
            classes; it names the first such row.
    """
    rows = _parquet_rows(path) if path.suffix.lower() == ".parquet" else _csv_rows(path)
    found: dict[str, tuple[str, str]] = {}
    spelled: dict[str, str] = {}  # a file -> its path as the first of its rows has it
    absent = []
    for number, (name, label, split) in rows:
        where = f"{path}, row {number}"
        if not name or not label:
            raise UserError(f"{where}: has no {'class' if name else 'path'}: fill it in or remove the row")
        if split.lower() not in SPLITS:
            raise UserError(f"{where}: {split!r} is no split: write train, valid or test")
        entry = SPLITS[split.lower()], class_name(label, where)
        first = spelled.setdefault(posixpath.normpath(posixpath.join(root, name)), name)
        if found.setdefault(first, entry) != entry:
            spelling = "" if first == name else f", where it is {first}"
            raise UserError(
                f"{where}: {name} has another class or split than in a row before{spelling}: keep one of them"
            )
        if first != name:
            continue
        with looking_at(f"{where}: {name}"):
            there = (root / name).is_file()
        if not there and name not in listed:
            absent.append(f"{name} (row {number})")
    if absent:
        raise UserError(
            f"{path}: {len(absent)} of {len(found)} files are missing from {root}, the first {absent[0]}: put them there, "
            "or mend their paths"
        )
    return found


def _index(found: dict[str, tuple[str, str]], path: Path) -> FileIndex:
    """The list out of path -> (split, class)."""
    classes = sorted({label for split, label in found.values() if split == "train"})
    if len(classes) < 2:
        raise UserError(f"{path} has {len(classes) or 'no'} classes to train on: training needs at least two")
    label_of = {name: label for label, name in enumerate(classes)}
    notes = alike(classes, path)
    files, labels = {}, {}
    for split in dict.fromkeys(SPLITS.values()):
        members = sorted((name, label) for name, (part, label) in found.items() if part == split)
        unknown = next((label for _, label in members if label not in label_of), None)
        if unknown is not None:
            raise UserError(f"{path}: {unknown} is a class of {split} that train does not have: add it or remove it")
        if members:
            try:
                files[split] = np.array([name.encode() for name, _ in members], dtype=np.bytes_)
            except UnicodeEncodeError as error:
                raise UserError(f"{path} has a path that is not UTF-8, {error.object!r}: rename it") from None
            labels[split] = np.array([label_of[label] for _, label in members], dtype=np.int64)
            notes += without_images(split, classes, set(labels[split].tolist()))
    return FileIndex(classes, files, labels, tuple(notes))


def _csv_rows(path: Path) -> Iterator[tuple[int, tuple[str, str, str]]]:
    """Number of the line, path, class and split of every row."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path} is missing: option labels names a table below root") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): make it readable") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8: save it as such") from None
    first = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=first.count), strict=True)
    try:
        header = next(reader, [])
        places = _columns(header, path)
        for row in reader:
            if row:
                cells = [row[place].strip() if 0 <= place < len(row) else "" for place in places]
                yield reader.line_num, (cells[0], cells[1], cells[2] if places[2] >= 0 else "train")
    except csv.Error as error:
        raise UserError(f"{path}, row {reader.line_num}: {error}: mend the row") from None


def _parquet_rows(path: Path) -> Iterable[tuple[int, tuple[str, str, str]]]:
    with needing("data", f"the table {path}"):
        import pyarrow as pa
        from pyarrow import parquet
    with looking_at(path):
        there = path.is_file()
    if not there:
        raise UserError(f"{path} is missing: option labels names a table below root")
    try:
        table = parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is no Parquet file or damaged ({' '.join(str(error).split())[:80]})") from None
    places = _columns(table.column_names, path)
    for place, column in zip(places, COLUMNS, strict=True):
        kind = None if place < 0 else table.schema.field(place).type
        if kind is not None and (
            pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
        ):
            shown = str(kind) if len(str(kind)) <= 80 else f"{str(kind)[:80]}..."
            what = "no paths of images" if column == "path" else "no text"
            raise UserError(
                f"{path}: its column {table.column_names[place]} holds {what} but {shown}: write the images to files, and a "
                "table of path, class and split beside them"
            )
    columns = [["train"] * len(table) if place < 0 else table.column(place).to_pylist() for place in places]
    return enumerate(zip(*([_cell(value) for value in column] for column in columns), strict=True), start=1)


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def _columns(header: Sequence[str], path: Path) -> list[int]:
    """Where path, class and split stand; -1 for no split."""
    names = [name.strip().lower() for name in header]
    places = []
    for column, known in COLUMNS.items():
        hits = [place for place, name in enumerate(names) if name in known]
        if len(hits) > 1 or (not hits and column != "split"):
            what = f"has two columns for the {column}" if hits else f"has no column {column}"
            raise UserError(
                f"{path} {what}; its first row is {', '.join(header) or 'empty'}: name them path, class, split"
            )
        places.append(hits[0] if hits else -1)
    return places
