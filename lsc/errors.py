"""The one exception for mistakes that the user can mend."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """A user's mistake, in one line that names the thing at fault and the remedy.

    The command line prints the message after ``lsc: error:`` and exits with code 2; it never shows a traceback for it.
    """


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
