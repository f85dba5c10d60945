"""Images that lie in archives, read where they are: a million of them are one file, for disks that are slow with many.

An archive is a tar without compression or a zip. Where each image's bytes are is found once, by a look through the whole archive
(of a tar its headers, of a zip its table of contents); then an image is one read at its place, by any number of processes.
"""

import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lsc.errors import UserError
from lsc.files import read_regular

# The part of a zip's header of a member before its name, and where that tells the lengths of the name and of what follows it.
_ZIP_HEADER, _ZIP_LENGTHS = 30, slice(26, 30)
_GZIP, _ZIP = b"\x1f\x8b", (b"PK\x03\x04", b"PK\x05\x06")
# Links to links that are followed.
_HOPS = 40


class Member(NamedTuple):
    """A file in an archive: its path there, and its bytes.

    Attributes:
        offset, size: where they begin, in a zip with a header, and how many they are in the archive.
        deflated: whether they are compressed (RFC 1951).
    """

    name: str
    offset: int
    size: int
    deflated: bool = False


class Archive(NamedTuple):
    """An archive by its path below the root, which is empty where it is the root itself, and the size that it had."""

    name: str
    size: int


class Packed(NamedTuple):
    """Where the images of a list are.

    Attributes:
        archives: that they lie in.
        files: their paths below the root, as if everything were unpacked there: (N,), in order.
        places: of each, the archive's number, offset, size, and 1 if it is deflated: (N, 4) int64.
    """

    archives: tuple[Archive, ...]
    files: NDArray[np.bytes_]
    places: NDArray[np.int64]

    def places_of(self, files: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Places (M, 4) of some of the files."""
        return self.places[np.searchsorted(self.files, files)]

    def opened(self, root: Path) -> Callable[[str], bytes]:
        """A function from an image's path below ``root`` to its bytes; it raises an OSError where these cannot be read.

        Raises:
            UserError: an archive is missing, or is not the one that was looked through.
        """
        streams = [
            _opened(root / archive.name, "restore it, or write the list of its images again with `lsc data index`")
            for archive in self.archives
        ]
        for archive, stream in zip(self.archives, streams, strict=True):
            found = os.fstat(stream.fileno()).st_size
            if found != archive.size:
                raise UserError(
                    f"{root / archive.name} has {found:,} bytes instead of {archive.size:,}, so the list of its images is of "
                    "another archive: write it again with `lsc data index`"
                )
        zips = [_is_zip(stream) for stream in streams]

        def read(name: str) -> bytes:
            number, offset, size, deflated = self.places[np.searchsorted(self.files, name.encode())].tolist()
            descriptor = streams[number].fileno()
            if zips[number]:
                header = os.pread(descriptor, _ZIP_HEADER, offset)[_ZIP_LENGTHS]
                offset += _ZIP_HEADER + int.from_bytes(header[:2], "little") + int.from_bytes(header[2:], "little")
            content = os.pread(descriptor, size, offset)
            if len(content) < size:
                raise OSError(0, "the archive ends before it")
            try:
                return zlib.decompress(content, wbits=-zlib.MAX_WBITS) if deflated else content
            except zlib.error:
                raise OSError(0, "its compressed bytes are damaged") from None

        return read


def reading(root: Path, packed: Packed | None) -> Callable[[str], bytes]:
    """A function from an image's path below ``root`` to its bytes, out of ``packed`` archives or out of files of its own."""
    return (lambda name: read_regular(root / name)) if packed is None else packed.opened(root)


class PackedFolder:
    """A folder in an archive, as far as :mod:`lsc.data.scanning` asks a folder."""

    def __init__(self, shown: str, inside: str, children: "dict[str, Any] | None") -> None:
        self._shown, self.inside, self.children = shown, inside, children

    def __str__(self) -> str:
        return f"{self._shown}/{self.inside}" if self.inside else self._shown

    def __truediv__(self, name: str) -> "PackedFolder":
        below = (self.children or {}).get(name)
        inside = f"{self.inside}/{name}" if self.inside else name
        return PackedFolder(self._shown, inside, below if isinstance(below, dict) else None)

    @property
    def name(self) -> str:
        return PurePosixPath(self.inside).name

    def is_dir(self) -> bool:
        return self.children is not None

    def entries(self) -> list["PackedEntry"]:
        return [PackedEntry(self, name, child) for name, child in (self.children or {}).items()]


class PackedEntry:
    """A folder or file in a folder of an archive, as :class:`os.DirEntry` is one on a disk."""

    def __init__(self, folder: PackedFolder, name: str, child: "dict[str, Any] | Member") -> None:
        self.name, self.path = name, str(folder / name)
        self.children = child if isinstance(child, dict) else None

    def is_dir(self) -> bool:
        return self.children is not None

    def is_file(self) -> bool:
        return not self.is_dir()

    def is_symlink(self) -> bool:
        return False


def folder_of(members: Mapping[str, Member], shown: str) -> PackedFolder:
    """The folder that some members make up, by their paths.

    Raises:
        UserError: a path leads out of the archive, or is one of a file and of a folder.
    """
    top: dict[str, Any] = {}
    for name, member in members.items():
        *above, last = name.split("/")
        node = top
        for part in above:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                break
        if not isinstance(node, dict) or isinstance(node.get(last), dict):
            raise UserError(f"{shown} has {name}, a part of whose path is a file and a folder: pack it again")
        node[last] = member
    return PackedFolder(shown, "", top)


def members_of(path: Path) -> dict[str, Member]:
    """The files in an archive by their paths.

    Raises:
        UserError: it cannot be read, is damaged, cut off or of another kind, or a path leads out of it.
    """
    with _opened(path) as stream:
        if _is_zip(stream):
            found = _members_of_zip(stream, path)
        else:
            found = tar_members(stream, str(path))
        members: dict[str, Member] = {}
        for member in found:
            parts = [part for part in member.name.split("/") if part not in ("", ".")]
            if ".." in parts:
                raise UserError(f"{path} has {member.name}, which leads out of it: pack it again")
            members["/".join(parts)] = member  # of one path the last counts, as in unpacking
    return members


def packed(archives: Iterable[tuple[str, Path, Mapping[str, Member]]], files: Iterable[NDArray[np.bytes_]]) -> Packed:
    """Where the ``files`` of a list are.

    Args:
        archives: of each its path below the root, its path, and its members by the paths that the list has for them.
    """
    wanted = np.sort(np.concatenate(list(files)))
    places = np.zeros((len(wanted), 4), dtype=np.int64)
    found = np.zeros(len(wanted), dtype=bool)
    kinds = []
    for number, (name, path, members) in enumerate(archives):
        kinds.append(Archive(name, path.stat().st_size))
        for place, file in enumerate(wanted.tolist()):
            member = members.get(file.decode())
            if member is not None:
                places[place], found[place] = (number, member.offset, member.size, member.deflated), True
    assert found.all()
    return Packed(tuple(kinds), wanted, places)


def tar_members(stream: BinaryIO, where: str, start: int = 0, end: int | None = None) -> Iterator[Member]:
    """The files in a tar, which may itself lie in a file from ``start`` to ``end``; links are the files that they lead to.

    Raises:
        UserError: it is none, is compressed, damaged or cut off.
    """
    stream.seek(start)
    if stream.read(2) == _GZIP:
        raise UserError(f"{where} is compressed: unpack it with gunzip, so that single images can be read")
    stream.seek(start)
    places: dict[str, Member] = {}
    links: dict[str, str] = {}
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            while (found := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # it would keep them all
                name = found.name
                if found.isreg() and not found.issparse():
                    places[name] = Member(name, found.offset_data, found.size)
                elif found.islnk():
                    links[name] = found.linkname
                elif found.issym():
                    links[name] = os.path.normpath(f"{PurePosixPath(name).parent}/{found.linkname}")
            stream.seek(tar.offset)
            whole = end is None or tar.offset < end
    except tarfile.TarError as error:
        raise UserError(f"{where} is no tar or zip archive, or damaged ({error}): pack it again") from None
    # tarfile takes whatever is no header for the end.
    if not whole or stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise UserError(f"{where} is cut off or damaged after {len(places):,} files: fetch or pack it again")
    yield from places.values()
    for name, target in links.items():
        for _ in range(_HOPS):
            if target in places:
                yield places[target]._replace(name=name)
            if target not in links:
                break
            target = links[target]


def _is_zip(stream: BinaryIO) -> bool:
    return os.pread(stream.fileno(), 4, 0) in _ZIP


def _members_of_zip(stream: BinaryIO, path: Path) -> Iterator[Member]:
    try:
        with zipfile.ZipFile(stream) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): fetch or pack it again") from None
    for entry in entries:
        name = _zip_name(entry)
        if entry.is_dir() or name.startswith("__MACOSX/") or stat.S_ISLNK(entry.external_attr >> 16):
            continue
        if entry.flag_bits & 1:
            raise UserError(f"{path} is locked with a password: unpack it to a folder")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UserError(
                f"{path} is compressed in another way than deflate: unpack it to a folder, or pack it again"
            )
        yield Member(name, entry.header_offset, entry.compress_size, entry.compress_type == zipfile.ZIP_DEFLATED)


def _zip_name(entry: zipfile.ZipInfo) -> str:
    """The path of a member. Some programs write UTF-8 and do not say so, which zipfile then takes for an older code."""
    if entry.flag_bits & 0x800:
        return entry.filename
    try:
        return entry.filename.encode("cp437").decode()
    except UnicodeError:
        return entry.filename


def _opened(path: Path, remedy: str = "give an archive of images") -> BinaryIO:
    """The archive, to be closed by whoever asked or with the last reference to it."""
    try:
        stream = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {remedy}") from None
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        raise UserError(f"{path} is no regular file: {remedy}")
    return stream
