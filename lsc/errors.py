"""The one exception for mistakes that the user can mend, and warnings, which are a line on stderr."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """A user's mistake, in one line that names the thing at fault and the remedy.

    The command line prints the message after ``lsc: error:`` and exits with code 2; it never shows a traceback for it.
    What cannot be printed in a line, as a line break in the name of a file, is written as an escape.

    Attributes:
        shared: every process of a run raises it alike, and the first one says it for all.
    """

    shared = False

    def __init__(self, message: str = "") -> None:
        super().__init__(in_one_line(message))


def in_one_line(text: str) -> str:
    """``text`` with everything that does not print as an escape, such as a line break or half of a surrogate pair."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def out_of_memory(error: Exception) -> str | None:
    """What to say where memory has run out, of the machine or of a GPU; None for any other error."""
    words = in_one_line(" ".join(str(error).split()))
    on_gpu = type(error).__name__ == "OutOfMemoryError"
    if not on_gpu and not isinstance(error, MemoryError) and "can't allocate memory" not in words:
        return None
    tried = re.search(r"allocate ([\d.]+) ?(bytes|[KMGT]iB)", words)
    size = f" ({_size(tried[1], tried[2])} more were asked for)" if tried else ""
    return (
        f"the memory of the {'GPU' if on_gpu else 'machine'} is full{size}: take smaller batches (training.batch_size, or more "
        "parts of them by training.accumulate), fewer images or classes, or a machine with more"
    )


def _size(amount: str, unit: str) -> str:
    return f"{float(amount) / 1e9:,.1f} GB" if unit == "bytes" else f"{amount} {unit}"


def warn(message: str) -> None:
    """A line on stderr about what goes on all the same; of several processes of a run the first one writes it."""
    first = "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("RANK") == "0"
    if first and sys.stderr is not None:
        print(f"lsc: warning: {in_one_line(message)}", file=sys.stderr, flush=True)


@contextmanager
def needing(extra: str, thing: str) -> Iterator[None]:
    """Around imports of packages that the core does without.

    Args:
        extra: the extra of lsc that brings them.
        thing: what needs them, for the message: "data set digits".

    Raises:
        UserError: a package is missing; it says which, and what to install.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "lsc"):  # a mistake in the library, which no extra mends
            raise
        raise UserError(f"{thing}: needs {missing}, which is not installed: pip install 'lsc[{extra}]'") from None
