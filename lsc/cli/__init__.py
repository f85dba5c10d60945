"""The command ``lsc``. Each subcommand lives in a module of its own and imports what it needs when it runs."""

import sys

import typer

from lsc.cli import cost, data
from lsc.cli.centers import centers
from lsc.cli.train import train
from lsc.cli.use import evaluate, predict
from lsc.errors import UserError

app = typer.Typer(
    name="lsc",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _commands() -> None:
    """Train image encoders on any number of classes with predefined class centers."""


app.command()(train)
app.command()(evaluate)
app.command()(predict)
app.command()(centers)
app.add_typer(data.app, name="data")
app.add_typer(cost.app, name="cost")


def main() -> None:
    """Run ``lsc``; a :class:`~lsc.errors.UserError` becomes one line on stderr and exit code 2."""
    try:
        app()
    except UserError as error:
        print(f"lsc: error: {error}", file=sys.stderr)
        sys.exit(2)
