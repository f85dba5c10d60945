"""Files that are whole or not there: written under a temporary name, then renamed."""

import errno
import hashlib
import json
import os
import re
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


# Letters of a path that is too long for a message, or for the system.
_SHOWN = 200


def shown(path: Path | str) -> str:
    """A path as a message has it: its beginning, where it is too long."""
    text = str(path)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


@contextmanager
def looking_at(path: Path | str) -> Iterator[None]:
    """Around questions whether there is a file or folder.

    Raises:
        UserError: the system does not let one ask, as below a folder that may not be entered, or takes no path as long as this.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{shown(path)} cannot be looked at ({error.strerror}): make it readable, or mend the path"
        ) from None


@contextmanager
def written_whole(path: Path, synced: bool = True) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on leaving without an error it is synced and takes the name ``path``.

    Args:
        synced: wait until the disk has it; without that, many small files take a moment less each, and a crash of the machine
            may leave some of them empty.

    Raises:
        UserError: the folder cannot be written to, or the disk is full; nothing is left behind and an old file stays.
    """
    with _written(path, path, synced) as temporary:
        yield temporary


@contextmanager
def written_out(path: Path) -> Iterator[Path]:
    """As :func:`written_whole`, for a file that a user names.

    Of a link, what it leads to is written, and the link stays. A device or a pipe stays, too: the content is written to it when
    it is whole.

    Raises:
        UserError: as there, or it is an open file of a process.
    """
    try:
        place = _replaceable(path)
    except OSError as error:
        raise disk_error(path, error) from error
    with _written(path, place) as temporary:
        yield temporary


@contextmanager
def _written(path: Path, place: Path | None, synced: bool = True) -> Iterator[Path]:
    """Give a temporary path, whose content comes to the regular file ``place``; without one, to ``path`` as it is."""
    temporary: Path | None = None
    try:
        descriptor, temporary = _anywhere() if place is None else part_of(place)
        os.close(descriptor)
        yield temporary
        if place is None:
            with temporary.open("rb") as content, path.open("ab") as stream:
                shutil.copyfileobj(content, stream)
        else:
            if synced:
                with temporary.open("rb") as content:
                    os.fsync(content.fileno())
            os.replace(temporary, place)
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
    with looking_at(f"{option} {path}"):
        if path.is_dir():
            raise UserError(f"{option} {path}: is a folder; give a file")
        place = _replaceable(path)
        if place is not None:
            _try(place, path, option, folder=False)
        elif not os.access(path, os.W_OK):
            raise UserError(f"{option} {path}: cannot be written to; give a file that can be written")


def refuse_unwritable_folder(folder: Path, option: str = "--out") -> None:
    """Raise a UserError where :func:`folder_written_whole` would find that it cannot write ``folder``: before the work."""
    refuse_file(folder, option)
    with looking_at(f"{option} {folder}"):
        if folder.is_dir():
            try:
                occupied = any(folder.iterdir())
            except OSError as error:
                raise UserError(f"{option} {folder}: {error.strerror}; give another folder") from None
            if occupied:
                raise UserError(f"{option} {folder}: holds something already; give another folder, or empty this one")
            if folder.samefile(Path.cwd()):
                raise UserError(
                    f"{option} {folder}: is the current folder, in whose place none can be put; give a new folder below it"
                )
            if os.path.ismount(os.path.realpath(folder)):
                raise UserError(
                    f"{option} {folder}: is where a disk is mounted, in whose place no folder can be put; give one below it"
                )
        _try(Path(os.path.realpath(folder)), folder, option, folder=True)


def refuse_file(folder: Path, option: str = "--out") -> None:
    """Raise a UserError where ``folder``, which ``option`` names, is something else than a folder or nothing."""
    with looking_at(f"{option} {folder}"):
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{option} {folder}: is a file; give a folder")


def _try(place: Path, named: Path, option: str, folder: bool) -> None:
    """Raise a UserError where no file, or no folder, of the path ``place`` can be made; what is made to find out is removed.

    Folders that it would lie in, and that are not there yet, are made for the trial within one of another name.
    """
    kind = "folder" if folder else "file"
    above = next(parent for parent in place.parents if parent.exists())
    if not above.is_dir():
        raise UserError(f"{option} {named}: {above} is a file; give a {kind} that can be written")
    *missing, last = place.relative_to(above).parts
    trial: Path | None = None
    try:
        inside = above
        if missing:
            trial = inside = Path(tempfile.mkdtemp(dir=above, prefix=".trial.", suffix=".part"))
            inside = inside.joinpath(*missing[1:])
            inside.mkdir(parents=True, exist_ok=True)
        if folder:
            _folder_part_of(inside / last).rmdir()
        else:
            descriptor, temporary = part_of(inside / last)
            os.close(descriptor)
            temporary.unlink()
    except OSError as error:
        raise UserError(f"{option} {shown(named)}: {error.strerror}; give a {kind} that can be written") from None
    finally:
        if trial is not None:
            shutil.rmtree(trial, ignore_errors=True)


def _replaceable(path: Path) -> Path | None:
    """The path of the regular file, there or not, that ``path`` leads to; None for a device or a pipe.

    Raises:
        OSError: it cannot be looked at, as a link in a circle.
        UserError: it leads to an open file, as ``/dev/stdout`` may: others would write over what is written.
    """
    place = Path(os.path.realpath(path))
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return place
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return None
    if _is_open(path):
        raise UserError(f"{path}: is a file that is open already; give its own name, or one that is not in use")
    return place


def _is_open(path: Path) -> bool:
    """Whether a path leads by way of a process's open files, as ``/dev/stdout`` does."""
    while path.is_symlink():
        if re.fullmatch(r"/proc/\d+(/task/\d+)?/fd", os.path.realpath(path.parent)):
            return True
        path = path.parent / path.readlink()
    return False


def _anywhere() -> tuple[int, Path]:
    """A new file where temporary files go, opened for writing."""
    descriptor, name = tempfile.mkstemp(suffix=".part")
    return descriptor, Path(name)


def _folder_part_of(folder: Path) -> Path:
    """A new folder beside ``folder``, hidden and of a name of its own."""
    return Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part"))


@contextmanager
def folder_written_whole(folder: Path, option: str = "--out") -> Iterator[Path]:
    """Give an empty temporary folder beside ``folder``; on leaving without an error it takes that name.

    Of a link to an empty folder, or to none, what it leads to is written, and the link stays.

    Raises:
        UserError: ``folder`` is a file, the current folder, or holds something, cannot be written, or the disk is full; nothing
            is left behind.
    """
    refuse_unwritable_folder(folder, option)
    place = Path(os.path.realpath(folder))
    temporary: Path | None = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = _folder_part_of(place)
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        os.replace(temporary, place)  # in place of an empty folder, or of none
    except OSError as error:
        raise disk_error(folder, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


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
        return UserError(f"the disk is full while writing {shown(path)}: free some space or choose another folder")
    return UserError(f"cannot write {shown(path)}: {error.strerror or error}")


def md5_of(path: Path) -> str:
    """Hexadecimal md5 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
