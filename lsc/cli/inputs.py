"""What the commands that use a run share: its folder, the images that are meant, and lines that go out as they come."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO, TextIO

import typer

from lsc.cli.streams import forget_output, of_output
from lsc.errors import UserError

Folder = Annotated[Path, typer.Argument(help="Folder of a finished run.")]
Inputs = Annotated[
    list[str] | None, typer.Argument(help="Image files; folders, with all images below them; - for a list on stdin.")
]
FromFile = Annotated[Path | None, typer.Option("--from", help="A list of files and folders, one a line.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images that go through the network at a time.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Threads that read images; by default one per core.")]


def paths_from(inputs: list[str] | None, listing: Path | None) -> list[Path]:
    """The files that are meant, in their order.

    Raises:
        UserError: none, or a list that cannot be read or is none, or a folder without images.
    """
    from lsc.trained.images import listed

    named: list[str] = []
    for word in inputs or []:
        named += _lines(sys.stdin.buffer, "stdin") if word == "-" else [word]
    if listing is not None:
        try:
            with listing.open("rb") as stream:
                named += _lines(stream, f"--from {listing}")
        except OSError as error:
            raise UserError(f"--from {listing}: {error.strerror}; give a text file with a path on each line") from None
    if not named:
        raise UserError("no images: give files, folders, - for a list on stdin, or --from FILE")
    return listed(named)


def _lines(stream: BinaryIO, what: str) -> Iterator[str]:
    """The names on the lines of a list, as the system has them: one that is not UTF-8 stands for its bytes, too.

    Raises:
        UserError: it is no list of lines.
    """
    for line in stream:
        if b"\0" in line:
            raise UserError(
                f"{what}: holds NUL characters, as find -print0 writes them between names; give one name a line, without -print0"
            )
        if name := line.rstrip(b"\r\n"):
            yield os.fsdecode(name)


@contextmanager
def lines_to(out: Path | None) -> Iterator[TextIO]:
    """A stream of text: a file, written whole or not at all, or stdout, whose end is one line.

    Raises:
        UserError: it cannot be written.
    """
    from lsc.files import written_out

    if out is not None:
        # A name that is not UTF-8 goes out as the bytes that it is.
        with written_out(out) as temporary, temporary.open("w", errors="surrogateescape", newline="") as stream:
            yield stream
        return
    try:
        yield sys.stdout
        sys.stdout.flush()
    except BrokenPipeError:  # its reader has seen enough, as head has
        forget_output()
        sys.exit(1)
    except OSError as error:
        if error.filename is not None or (wrong := of_output(error)) is None:
            raise
        forget_output()
        raise UserError(f"{wrong}; nothing more was written") from None
