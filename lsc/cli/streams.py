"""Standard input, output and error as a command finds them: closed, full, or broken off."""

import errno
import io
import os
import sys
from contextlib import suppress


def open_standard_streams() -> None:
    """Open the streams that were closed (``2>&-``) on nothing, or the next file would get their number, and all messages.

    Standard error forgets what it cannot write: a full disk under a log is no reason to end a training. Standard output
    escapes what its encoding lacks, such as the name of a class where that is ASCII. A width of no columns is none.
    """
    if not os.environ.get("COLUMNS", "0").strip("0"):
        os.environ.pop("COLUMNS", None)  # or help would be wrapped to nothing
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=_errors_of(sys.stdout))
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(_Forgetful()), encoding="utf-8", errors="backslashreplace", write_through=True
    )


def _errors_of(stream: io.TextIOWrapper) -> str:
    """How a stream writes what its encoding lacks: file names that are no UTF-8 as they are, where it is that; else escaped."""
    return "surrogateescape" if stream.encoding.lower().replace("-", "") == "utf8" else "backslashreplace"


class _Forgetful(io.RawIOBase):
    """Standard error, but for the errors of writing to it."""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2

    def isatty(self) -> bool:
        return os.isatty(2)

    def write(self, content: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        try:
            return os.write(2, content)
        except OSError:
            return len(content)


def flush_output() -> str | None:
    """Write what is left of standard output; gives what is wrong with it, if anything is.

    Raises:
        BrokenPipeError: its reader had seen enough.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        forget_output()
        if (wrong := of_output(error)) is None:
            raise
        return wrong
    return None


def forget_output() -> None:
    """Let what could not be written go nowhere: it would be tried again at the end, with a traceback."""
    with suppress(OSError), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def of_output(error: OSError) -> str | None:
    """What is wrong with standard output, if an error that names no file is of a kind that comes from writing to it."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF):
        return None
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"standard output: {'the disk is full' if full else error.strerror}; send it to another place"
