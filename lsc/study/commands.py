"""The end of the programs beside ``lsc`` (``python -m lsc.study.pages``, ``python -m lsc.study.reference``)."""

import sys
from collections.abc import Callable

from lsc.errors import UserError

CHANGES_NO_RESULT = True


def call(commands: Callable[[], object]) -> None:
    """Call commands; a :class:`~lsc.errors.UserError` becomes one line on stderr and exit code 2, as of ``lsc``."""
    try:
        commands()
    except UserError as error:
        print(f"lsc: error: {error}", file=sys.stderr)
        sys.exit(2)
