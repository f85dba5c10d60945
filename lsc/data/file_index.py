"""The frozen, sorted list of a folder's images: it fixes which image has which number, and which class which label."""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lsc.data.archives import Archive, Packed
from lsc.errors import UserError, needing
from lsc.files import looking_at, written_out

# Columns of a list that say where an image lies in an archive.
_PLACE = ("archive", "offset", "size", "deflated")


class FileIndex(NamedTuple):
    """The images of a folder by split, class and name. Arrays, so that loading processes share them without copies.

    Attributes:
        notes: what somebody should know who takes the list for all that the folder holds, a line each.
        packed: where the images lie in archives; None if they are files of their own.
    """

    class_names: list[str]
    files: dict[str, NDArray[np.bytes_]]  # split -> paths below the root, in UTF-8
    labels: dict[str, NDArray[np.int64]]  # split -> class ids
    notes: tuple[str, ...] = ()
    packed: Packed | None = None

    @property
    def fingerprint(self) -> str:
        """sha256 of the whole list: which files there are, and of which split and class each one is, packed or not."""
        digest = hashlib.sha256(json.dumps(self.class_names).encode())
        for split, files in self.files.items():
            digest.update(f"\n\n{split}\n".encode())
            digest.update(b"\0".join(files.tolist()))
            digest.update(np.ascontiguousarray(self.labels[split], dtype="<i8").tobytes())
        return digest.hexdigest()

    @property
    def _fingerprint_before(self) -> str:
        """What lists had that were written before labels counted."""
        digest = hashlib.sha256("\n".join(self.class_names).encode())
        for split in self.files:
            digest.update(f"\n\n{split}\n".encode())
            digest.update(b"\n".join(self.files[split].tolist()))
        return digest.hexdigest()


def save_index(index: FileIndex, path: Path) -> None:
    """Write an index as a Parquet table (split, label, file), with class names and fingerprint in its metadata.

    Images in archives have their places there as further columns (archive, offset, size, deflated).
    """
    with needing("data", "a frozen list of files"):
        import pyarrow as pa
        from pyarrow import parquet
    splits = np.repeat(list(index.files), [len(files) for files in index.files.values()])
    metadata = {"fingerprint": index.fingerprint, "classes": json.dumps(index.class_names)}
    places = {}
    if index.packed is not None:
        metadata["archives"] = json.dumps(index.packed.archives)
        found = index.packed.places_of(np.concatenate(list(index.files.values())))
        places = dict(zip(_PLACE, found.T, strict=True))
    table = pa.table(
        {
            "split": pa.array(splits).dictionary_encode(),
            "label": np.concatenate(list(index.labels.values())),
            "file": [file.decode() for files in index.files.values() for file in files.tolist()],
            **places,
        },
        metadata=metadata,
    )
    with written_out(path) as temporary:
        parquet.write_table(table, temporary, compression="zstd")


def load_index(path: Path) -> FileIndex:
    """Read what :func:`save_index` wrote.

    Raises:
        UserError: the file is missing, damaged or was changed.
    """
    with needing("data", f"the list of files {path}"):
        import pyarrow as pa
        from pyarrow import parquet
    with looking_at(path):
        there = path.is_file()
    if not there:
        raise UserError(f"{path} is missing: write it with `lsc data index`")
    try:
        table = parquet.read_table(path)
        metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        split = np.array(table["split"].to_pylist())
        files = np.array([name.encode() for name in table["file"].to_pylist()], dtype=np.bytes_)
        label = table["label"].to_numpy()
        order = list(dict.fromkeys(split.tolist()))
        packed = None
        if "archives" in metadata:
            archives = tuple(Archive(*archive) for archive in json.loads(metadata["archives"]))
            places, sorting = np.stack([table[name].to_numpy() for name in _PLACE], axis=1), files.argsort()
            packed = Packed(archives, files[sorting], places[sorting])
        before, fingerprint = "class_names" in metadata, metadata["fingerprint"]
        index = FileIndex(
            metadata["class_names"].split("\n") if before else json.loads(metadata["classes"]),
            {name: files[split == name] for name in order},
            {name: label[split == name] for name in order},
            packed=packed,
        )
    except (pa.ArrowException, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no index or damaged: write it again with `lsc data index`") from error
    if (index._fingerprint_before if before else index.fingerprint) != fingerprint:
        raise UserError(f"{path} was changed since it was written: write it again with `lsc data index`")
    return index
