"""The one exception for mistakes that the user can mend."""


class UserError(ValueError):
    """A user's mistake, in one line that names the thing at fault and the remedy.

    The command line prints the message after ``lsc: error:`` and exits with code 2; it never shows a traceback for it.
    """
