"""Images that a run does without, named in a file, so that one broken picture among a million ends no training.

A training image that is left out keeps its place in the epochs, where the next one of its class is shown; so whoever finds a
broken image in the middle of a training names it and goes on from the checkpoint, even after the file was removed.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lsc.errors import UserError, in_one_line, warn
from lsc.files import shown, written_out


class LeaveOut(NamedTuple):
    """What a file names."""

    path: Path
    names: tuple[str, ...]  # below the root
    root: str = ""  # where it is absolute, so that a table may name its images with it

    @property
    def spellings(self) -> tuple[str, ...]:
        """Every way in which a data set may name what the file names."""
        return self.names + tuple(f"{self.root}/{name}" for name in self.names if self.root)

    def among(self, files: NDArray[np.bytes_]) -> NDArray[np.bool_]:
        """(N,) which of the files are left out."""
        return np.isin(files, np.array([name.encode() for name in self.spellings], dtype=np.bytes_))

    def stand_ins(
        self, absent: NDArray[np.bool_], labels: NDArray[np.int64], class_names: list[str]
    ) -> NDArray[np.int64]:
        """(N,) the position of the image that is shown in each place: its own, or the next of the class that is there.

        Raises:
            UserError: a class has none.
        """
        instead = np.arange(len(labels))
        for label in np.unique(labels[absent]):
            members = np.flatnonzero(labels == label)
            there = members[~absent[members]]
            if not len(there):
                raise UserError(f"{self.path} leaves no training images of the class {class_names[label]}: add some")
            gone = members[absent[members]]
            instead[gone] = there[np.searchsorted(there, gone) % len(there)]
        return instead

    def warn_of_strangers(self, files: Iterable[NDArray[np.bytes_]]) -> None:
        """A warning if the list names what the set does not have."""
        known = {name.decode() for part in files for name in part.tolist()}
        if self.root:
            known |= {name.removeprefix(f"{self.root}/") for name in known}
        strangers = [name for name in self.names if name not in known]
        if strangers:
            warn(
                f"{self.path}: {len(strangers)} of {len(self.names)} are no images of the set, the first {strangers[0]}"
            )


def read_left_out(path: Path, root: Path) -> LeaveOut:
    """Read a list: a path a line, below the root or with it; what follows a tab, and lines that begin with #, are remarks.

    Below the line that :func:`write_left_out` begins with, a path is written as it does that; elsewhere as it is.

    Raises:
        UserError: there is no such file, or it is no text.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise UserError(f"option leave_out: {path} is not UTF-8 text: write a path a line") from None
    except OSError as error:
        raise UserError(
            f"option leave_out: {shown(path)}: {error.strerror}; name a text file with a path a line"
        ) from None
    names, escaped = [], False
    for line in lines:
        line = line.rstrip("\r")
        if line.startswith("#"):
            escaped = escaped or line == _HEADER
            continue
        name = line.partition("\t")[0]
        names.append(_unescaped(name) if escaped else name.strip())
    prefix = f"{root.as_posix()}/"
    below = tuple(dict.fromkeys(name.removeprefix(prefix) for name in names if name))
    return LeaveOut(path, below, root.as_posix() if root.is_absolute() else "")


def write_left_out(path: Path, broken: Iterable[tuple[str, str]]) -> None:
    """Write a list of (name, why), as :func:`read_left_out` reads it: a tab and a line break in a name are escapes."""
    lines = [f"{_escaped(name)}\t{in_one_line(why)}\n" for name, why in broken]
    with written_out(path) as temporary:
        temporary.write_text("".join([f"{_HEADER}\n", *lines]), encoding="utf-8", newline="\n")


# Lists without this line have no escapes.
_HEADER = (
    r"# images to leave out, a path a line, in which \t, \n, \r, \# and \\ stand for tab, line breaks, # and backslash"
)
_ESCAPES = {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"}


def _escaped(name: str) -> str:
    """A name in a line: without what would end it, and without what a remark begins with."""
    text = "".join(_ESCAPES.get(letter, letter) for letter in name)
    return f"\\{text}" if text.startswith("#") else text


def _unescaped(text: str) -> str:
    letters = {escape: letter for letter, escape in _ESCAPES.items()} | {r"\#": "#"}
    return re.sub(r"\\[tnr#\\]", lambda found: letters[found[0]], text)
