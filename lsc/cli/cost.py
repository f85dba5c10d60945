"""``lsc cost``: measure what things cost on this machine."""

import typer

from lsc.cost.data import data

app = typer.Typer(help="Measure what things cost on this machine.", no_args_is_help=True)


@app.callback()
def _commands() -> None:
    """Measure what things cost on this machine."""


app.command()(data)
