"""The one exception for mistakes that the user can mend, and warnings, which are a line on stderr."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """A user's mistake, in one line that names the thing at fault and the remedy.

    The command line prints the message after ``lsc: error:`` and exits with code 2; it never shows a traceback for it.
    What cannot be printed in a line, as a line break in the name of a file, is written as an escape.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(in_one_line(message))


def in_one_line(text: str) -> str:
    """``text`` with everything that does not print as an escape, such as a line break or half of a surrogate pair."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def warn(message: str) -> None:
    """A line on stderr about what goes on all the same; of several processes of a run the first one writes it."""
    if os.environ.get("RANK", "0") == "0" and sys.stderr is not None:
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
