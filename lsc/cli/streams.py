"""Standard input, output and error as a command finds them: closed, full, or broken off."""

import errno
import io
import os
import sys
from contextlib import suppress


def open_standard_streams() -> None:
    """Open the streams that were closed (``2>&-``) on nothing, or the next file would get their number, and all messages.

    Standard error forgets what it cannot write: a full disk under a log is no reason to end a training.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(_Forgetful()), encoding="utf-8", errors="backslashreplace", write_through=True
    )


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
        with suppress(OSError):  # what could not be written would be tried again at the end, with a traceback
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if (wrong := of_output(error)) is None:
            raise
        return wrong
    return None


def of_output(error: OSError) -> str | None:
    """What is wrong with standard output, if an error that names no file is of a kind that comes from writing to it."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF):
        return None
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"standard output: {'the disk is full' if full else error.strerror}; send it to another place"
