"""Images that lie in archives, read where they are: a million of them are one file, for disks that are slow with many.

An archive is a tar without compression or a zip. Where each image's bytes are is found once, by a look through the whole archive
(of a tar its headers, of a zip its table of contents); then an image is one read at its place, by any number of processes.
"""

import hashlib
import os
import posixpath
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lsc.errors import UserError
from lsc.files import looking_at, open_regular, read_regular

# The part of a zip's header of a member before its name, and where that tells the lengths of the name and of what follows it.
_ZIP_HEADER, _ZIP_LENGTHS = 30, slice(26, 30)
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
# How files begin that gzip, bzip2, xz and zstd made.
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
# Links to links that are followed.
_HOPS = 40
# Members, evenly spread, by which an archive is known again, and bytes before and after the beginning of each: in a tar, its
# header lies before.
_KNOWN_BY, _AROUND = 256, 512
_AGAIN = "write the list of its images again with `lsc data index`"


class Member(NamedTuple):
    """A file in an archive.

    Attributes:
        offset, size: where its bytes begin, in a zip with a header, and how many they are in the archive.
        deflated: whether they are compressed (RFC 1951).
    """

    offset: int
    size: int
    deflated: bool = False


class Listing(NamedTuple):
    """What an archive holds, by paths without ``.`` and doubled slashes.

    Attributes:
        files: all files; links count as what they lead to, and of one path the last counts, as in unpacking.
        folders: those that are named, which may be empty.
        lost: links that lead to nothing in the archive.
    """

    files: dict[str, Member]
    folders: set[str]
    lost: set[str]

    def below(self, folder: str) -> "Listing":
        """The same as if everything lay in a folder."""
        return Listing(
            {f"{folder}/{name}": member for name, member in self.files.items()},
            {f"{folder}/{name}" for name in self.folders},
            {f"{folder}/{name}" for name in self.lost},
        )


class Archive(NamedTuple):
    """An archive: its path below the root, empty where it is the root itself, its size, and a digest of parts of it."""

    name: str
    size: int
    digest: str


class Packed(NamedTuple):
    """Where the images of a list are.

    Attributes:
        archives: that they lie in.
        files: their paths below the root, as if everything were unpacked there: (N,), in order.
        places: of each, the archive's number, offset, size, and 1 if it is deflated: (N, 4) int64; the size is -1 for images that
            the list remembers though the archive does not have them.
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
        streams = [_opened(root / archive.name, f"restore it, or {_AGAIN}") for archive in self.archives]
        for number, (archive, stream) in enumerate(zip(self.archives, streams, strict=True)):
            if archive[1:] != _known_by(stream, self.places[self.places[:, 0] == number, 1]):
                raise UserError(f"{root / archive.name} has changed since it was looked through: {_AGAIN}")
        zips = [_is_zip(stream) for stream in streams]

        def read(name: str) -> bytes:
            number, offset, size, deflated = self.places[np.searchsorted(self.files, name.encode())].tolist()
            if size < 0:
                raise OSError(0, "it is not in the archive")
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
    """A function from an image's path below ``root`` to its bytes, out of ``packed`` archives or out of files of its own.

    Raises:
        UserError: the images do not lie in that way at ``root``.
    """
    with looking_at(root):
        is_file, is_folder = root.is_file(), root.is_dir()
    if packed is None:
        if is_file:
            raise UserError(f"{root} is an archive, and the list of its images is one of a folder: {_AGAIN}")
        return lambda name: read_regular(root / name)
    if is_folder and not all(archive.name for archive in packed.archives):
        raise UserError(f"{root} is a folder, and the list of its images is one of an archive: {_AGAIN}")
    return packed.opened(root)


def packed(archives: Iterable[tuple[str, Path, Mapping[str, Member]]], files: Iterable[NDArray[np.bytes_]]) -> Packed:
    """Where the ``files`` of a list are.

    Args:
        archives: of each its path below the root, its path, and its members by the paths that the list has for them.
    """
    wanted = np.sort(np.concatenate(list(files)))
    places = np.full((len(wanted), 4), -1, dtype=np.int64)
    kinds = []
    for number, (name, path, members) in enumerate(archives):
        for place, file in enumerate(wanted.tolist()):
            member = members.get(file.decode())
            if member is not None:
                places[place] = (number, *member)
        with _opened(path) as stream:
            kinds.append(Archive(name, *_known_by(stream, places[places[:, 0] == number, 1])))
    return Packed(tuple(kinds), wanted, places)


def _known_by(stream: BinaryIO, offsets: NDArray[np.int64]) -> tuple[int, str]:
    """The size of an archive, and a digest of what is around some of its members."""
    size = os.fstat(stream.fileno()).st_size
    digest = hashlib.sha256()
    if len(offsets):
        for place in np.unique(np.linspace(0, len(offsets) - 1, _KNOWN_BY).round().astype(int)).tolist():
            begin = max(int(offsets[place]) - _AROUND, 0)
            digest.update(os.pread(stream.fileno(), 2 * _AROUND, begin))
    return size, digest.hexdigest()


class PackedFolder:
    """A folder in an archive, as far as :mod:`lsc.data.scanning` asks a folder.

    Attributes:
        inside: its path in the archive, or below the folder there that stands for the whole.
        children: name -> the children of a folder, True for a file, False for a link that leads to nothing; None if there is no
            such folder.
    """

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

    def as_whole(self) -> "PackedFolder":
        """The same as if nothing else were in the archive."""
        return PackedFolder(self._shown, "", self.children)

    def is_dir(self) -> bool:
        return self.children is not None

    def entries(self) -> list["PackedEntry"]:
        return [PackedEntry(self, name, child) for name, child in (self.children or {}).items()]


class PackedEntry:
    """A folder, file or dead link in a folder of an archive, as :class:`os.DirEntry` is one on a disk."""

    def __init__(self, folder: PackedFolder, name: str, child: "dict[str, Any] | bool") -> None:
        self.name, self.path = name, str(folder / name)
        self.children = child if isinstance(child, dict) else None
        self._is_file = child is True

    def is_dir(self) -> bool:
        return self.children is not None

    def is_file(self) -> bool:
        return self._is_file

    def is_symlink(self) -> bool:
        return not self._is_file and not self.is_dir()


def folder_of(listing: Listing, shown: str) -> PackedFolder:
    """The folder that everything in an archive lies in.

    Raises:
        UserError: a path is one of a file and of a folder.
    """
    top: dict[str, Any] = {}

    def put(name: str, child: "dict[str, Any] | bool") -> None:
        *above, last = name.split("/")
        node = top
        for part in above:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                break
        if not isinstance(node, dict) or isinstance(node.get(last, child), dict) != isinstance(child, dict):
            raise UserError(f"{shown} has {name}, a part of whose path is a file and a folder: pack it again")
        node.setdefault(last, child)

    for names, child in ((listing.files, True), (listing.lost, False)):
        for name in names:
            put(name, child)
    for name in filter(None, listing.folders):  # that of . is the whole
        put(name, {})
    return PackedFolder(shown, "", top)


def list_archive(path: Path) -> Listing:
    """What an archive holds.

    Raises:
        UserError: it cannot be read, is damaged, cut off or of another kind, or a path leads out of it.
    """
    with _opened(path) as stream:
        return _list_zip(stream, path) if _is_zip(stream) else list_tar(stream, str(path))


def list_tar(stream: BinaryIO, where: str, start: int = 0, end: int | None = None) -> Listing:
    """What a tar holds, which may itself lie in a file from ``start`` to ``end``; links are the files that they lead to.

    Raises:
        UserError: it is none, is compressed, damaged or cut off, or has sparse files, which do not lie there as they are.
    """
    found = Listing({}, set(), set())
    links: dict[str, str] = {}
    try:
        stream.seek(start)
        if stream.read(6).startswith(_COMPRESSED):
            raise UserError(f"{where} is compressed: uncompress it, so that single images can be read")
        stream.seek(start)
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            while (entry := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # it would keep them all
                name = _clean(entry.name, where)
                if entry.issparse():
                    raise UserError(f"{where} has {name} as a sparse file: pack it without --sparse")
                if entry.isdir() or not name:
                    found.folders.add(name)
                    continue
                # The last of one path counts; a hard link is what the other path is at this moment.
                target = _clean(entry.linkname, where) if entry.islnk() else ""
                member = Member(entry.offset_data, entry.size) if entry.isreg() else found.files.get(target)
                found.files.pop(name, None)
                links.pop(name, None)
                if member is not None:
                    found.files[name] = member
                elif entry.islnk() or entry.issym():
                    links[name] = links.get(target, "") if entry.islnk() else _target(name, entry.linkname)
            stream.seek(tar.offset)
            size = (os.fstat(stream.fileno()).st_size if end is None else end) - tar.offset
            # tarfile takes whatever is no header for the end, which is zeros and nothing after them.
            whole = size >= tarfile.BLOCKSIZE and _are_zeros(stream, size)
    except UserError:
        raise
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        raise UserError(f"{where} is no tar or zip archive, or damaged ({error}): pack it again") from None
    if not whole:
        raise UserError(
            f"{where} is cut off or damaged after {len(found.files):,} files: fetch or pack it again, as one archive"
        )
    _follow(links, found)
    return found


def _list_zip(stream: BinaryIO, path: Path) -> Listing:
    found = Listing({}, set(), set())
    links: dict[str, str] = {}
    try:
        with zipfile.ZipFile(stream) as archive:
            for entry in archive.infolist():
                name = _clean(_zip_name(entry), str(path))
                if name.startswith("__MACOSX/"):
                    continue
                if entry.is_dir() or not name:
                    found.folders.add(name)
                    continue
                if entry.flag_bits & 1:
                    raise UserError(f"{path} is locked with a password: unpack it to a folder")
                if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise UserError(
                        f"{path} is compressed in another way than deflate: unpack it to a folder, or pack it again"
                    )
                found.files.pop(name, None)
                links.pop(name, None)
                if stat.S_ISLNK(entry.external_attr >> 16):
                    links[name] = _target(name, os.fsdecode(archive.read(entry)))
                else:
                    deflated = entry.compress_type == zipfile.ZIP_DEFLATED
                    found.files[name] = Member(entry.header_offset, entry.compress_size, deflated)
    except UserError:
        raise
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, NotImplementedError, EOFError) as error:
        raise UserError(f"{path} is damaged ({error}): fetch or pack it again") from None
    _follow(links, found)
    return found


def _follow(links: dict[str, str], found: Listing) -> None:
    """Add to what was ``found`` what links lead to, a file or all that a folder holds, as if it lay there twice.

    A link that leads to nothing is lost, and one that leads back to a folder that it lies in is an empty folder.
    """
    inside: dict[str, dict[str, None]] = {}  # folder -> the names in it, links among them, in order
    files = found.files.copy() if links else found.files
    for name in (*files, *links, *found.folders) if links else ():
        while name and name != ".":
            above, _, last = name.rpartition("/")
            known = inside.setdefault(above or ".", {})
            if last in known:
                break
            known[last] = None
            name = above
    for folder in found.folders if links else ():
        inside.setdefault(folder or ".", {})
    ends: dict[str, str] = {}

    def end(link: str, hops: int) -> str:
        """The path without links that one leads to; empty if there is none, as on a circle."""
        if link not in ends:
            ends[link] = ""
            ends[link] = real(links[link], hops - 1)
        return ends[link]

    def real(path: str, hops: int) -> str:
        """A path without links; empty if it leads to nothing."""
        if path == ".":
            return path
        place = ""
        for part in path.split("/"):
            place = f"{place}/{part}" if place not in ("", ".") else part
            if place in links:
                place = end(place, hops) if hops else ""
            if place not in files and place not in inside:
                return ""
        return place

    def put(name: str, target: str, trail: frozenset[str]) -> None:
        """What is at ``target``, as ``name``; ``trail`` are the folders that led there."""
        if target in files:
            found.files.setdefault(name, files[target])
        elif target not in inside:
            found.lost.add(name)
        else:
            found.folders.add(name)
            for part in inside[target] if target not in trail else ():
                below = f"{target}/{part}" if target != "." else part
                put(f"{name}/{part}", end(below, _HOPS) if below in links else below, trail | {target})

    for name in links:
        put(name, end(name, _HOPS), frozenset(map(str, PurePosixPath(name).parents)))


def _clean(name: str, where: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UserError(f"{where} has {name}, which leads out of it: pack it again")
    return "/".join(parts)


def _target(name: str, link: str) -> str:
    """Where a link leads, as a path in the archive, which is ``.``; empty if out of it."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(name), link))
    return "" if target.startswith(("/", "../")) or target == ".." else target


def _are_zeros(stream: BinaryIO, size: int) -> bool:
    """Whether the next ``size`` bytes are there, and all are zero."""
    while size:
        part = stream.read(min(size, 1 << 20))
        if not part or part.count(0) < len(part):
            return False
        size -= len(part)
    return True


def _zip_name(entry: zipfile.ZipInfo) -> str:
    """The path of a member. Some programs write UTF-8 and do not say so, which zipfile then takes for an older code."""
    if entry.flag_bits & 0x800:
        return entry.filename
    try:
        return entry.filename.encode("cp437").decode()
    except UnicodeError:
        return entry.filename


def _is_zip(stream: BinaryIO) -> bool:
    return os.pread(stream.fileno(), 4, 0) in _ZIP


def _opened(path: Path, remedy: str = "give an archive of images") -> BinaryIO:
    """The archive, to be closed by whoever asked or with the last reference to it."""
    try:
        return open_regular(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {remedy}") from None
