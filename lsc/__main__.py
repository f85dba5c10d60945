"""``python -m lsc`` is the command ``lsc``."""

from lsc.cli import command

command()
