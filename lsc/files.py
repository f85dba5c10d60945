"""Files that are whole or not there: written under a temporary name, then renamed."""

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from lsc.errors import UserError

if TYPE_CHECKING:  # the workflow writes files without torch, which takes seconds to import
    from torch import Tensor


@contextmanager
def written_whole(path: Path, synced: bool = True) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on leaving without an error it is synced and takes the name ``path``.

    Args:
        synced: wait until the disk has it; without that, many small files take a moment less each, and a crash of the machine
            may leave some of them empty.

    Raises:
        UserError: the folder cannot be written to, or the disk is full; nothing is left behind and an old file stays.
    """
    temporary: Path | None = None
    try:
        descriptor, temporary = part_of(path)
        os.close(descriptor)
        yield temporary
        if synced:
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise disk_error(path, error) from error
    finally:
        if temporary is not None:
            with suppress(FileNotFoundError):
                temporary.unlink()


def write_bytes(path: Path, content: bytes, synced: bool = True) -> None:
    """Write a file, whole or not at all; as :func:`written_whole`."""
    with written_whole(path, synced) as temporary:
        temporary.write_bytes(content)


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file, whole or not at all, and wait until the disk has it.

    Raises:
        UserError: the disk is full or the file cannot be written; it is as it was.
    """
    try:
        with open(path, "ab", buffering=0) as file:
            before = file.tell()
            content = line.encode() + b"\n"
            try:
                if file.write(content) != len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except OSError:
                file.truncate(before)
                raise
    except OSError as error:
        raise disk_error(path, error) from error


def part_of(path: Path) -> tuple[int, Path]:
    """A new file beside ``path``, hidden and of a name of its own, opened for writing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.fchmod(descriptor, 0o666 & ~_umask())
    return descriptor, Path(name)


def make_folder(folder: Path, option: str = "--out") -> None:
    """Make a folder that ``option`` names, or say in one line why that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserError(f"{option} {folder}: is a file; give a folder") from None
    except OSError as error:
        raise UserError(f"{option} {folder}: {error.strerror}; give a folder that can be written") from None


def refuse_unwritable(path: Path, option: str = "--out") -> None:
    """Raise a UserError where the file that ``option`` names cannot be written: before the work whose result it would hold."""
    if path.is_dir():
        raise UserError(f"{option} {path}: is a folder; give a file")
    make_folder(path.parent, option)
    try:
        descriptor, temporary = part_of(path)
        os.close(descriptor)
        temporary.unlink()
    except OSError as error:
        raise UserError(f"{option} {path}: {error.strerror}; give a file that can be written") from None


@contextmanager
def folder_written_whole(folder: Path, option: str = "--out") -> Iterator[Path]:
    """Give an empty temporary folder beside ``folder``; on leaving without an error it takes that name.

    Raises:
        UserError: ``folder`` is a file or holds something, cannot be written, or the disk is full; nothing is left behind.
    """
    refuse_occupied(folder, option)
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part"))
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        os.replace(temporary, folder)  # in place of an empty folder, or of none
    except OSError as error:
        raise disk_error(folder, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def refuse_occupied(folder: Path, option: str = "--out") -> None:
    """Raise a UserError where ``folder`` is a file, or a folder that holds something."""
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{option} {folder}: holds something already; give another folder, or empty this one")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{option} {folder}: is a file; give a folder")


def save_tensors(path: Path, tensors: "dict[str, Tensor]", metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all; equal tensors and metadata make equal bytes.

    Raises:
        UserError: as :func:`written_whole`.
    """
    with written_whole(path) as temporary:
        write_tensors(temporary, tensors, metadata)


def write_tensors(temporary: Path, tensors: "dict[str, Tensor]", metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file under the name that :func:`written_whole` gives; equal content makes equal bytes.

    Raises:
        OSError: it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, temporary, metadata)
        _sort_metadata(temporary)
    except SafetensorError as error:
        full = "os error 28" in str(error) or "No space" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error)) from error


def _sort_metadata(path: Path) -> None:
    """Bring the metadata of a safetensors file into order: the library writes them as a hash map has them."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        if "__metadata__" not in header:
            return
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        content = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(content) <= length:  # as it is, but for a letter that the two write in ways of different lengths
            file.seek(8)
            file.write(content.ljust(length))


def open_regular(path: Path) -> BinaryIO:
    """A file, opened for reading.

    Raises:
        OSError: it cannot be read, or is a pipe or the like, for which one would wait for ever.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return open(descriptor, "rb")


def read_regular(path: Path) -> bytes:
    """The content of a file.

    Raises:
        OSError: as :func:`open_regular`.
    """
    with open_regular(path) as file:
        return file.read()


def disk_error(path: Path, error: OSError) -> UserError:
    """One line for a failure to write ``path``."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"the disk is full while writing {path}: free some space or choose another folder")
    return UserError(f"cannot write {path}: {error.strerror or error}")


def md5_of(path: Path) -> str:
    """Hexadecimal md5 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
