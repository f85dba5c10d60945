"""The command ``lsc``. Each subcommand lives in a module of its own and imports what it needs when it runs."""

import atexit
import os
import sys
from typing import Annotated, Any

import typer

from lsc import __version__
from lsc.cli import cost, data
from lsc.cli.centers import centers
from lsc.cli.doctor import doctor
from lsc.cli.embed import embed
from lsc.cli.evaluate import evaluate
from lsc.cli.export import export
from lsc.cli.extend import extend
from lsc.cli.fit import fit
from lsc.cli.predict import predict
from lsc.cli.runs import runs
from lsc.cli.streams import flush_output, of_output, open_standard_streams
from lsc.cli.train import train
from lsc.errors import UserError, in_one_line, out_of_memory
from lsc.files import shown
from lsc.training.launch import is_first, is_worker, lost_another

DEVELOPING = sys.flags.dev_mode

app = typer.Typer(
    name="lsc",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"lsc {__version__}")
        raise typer.Exit


@app.callback()
def _commands(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Train image encoders on any number of classes with predefined class centers."""


app.command()(fit)
app.command()(train)
app.command()(evaluate)
app.command()(predict)
app.command()(embed)
app.command()(extend)
app.command()(export)
app.command()(centers)
app.command()(runs)
app.command()(doctor)
app.add_typer(data.app, name="data")
app.add_typer(cost.app, name="cost")


def main() -> None:
    """Run ``lsc``; a :class:`~lsc.errors.UserError` becomes one line on stderr and exit code 2.

    So does an error of the system that names a file. In Python's development mode (``python -X dev``, PYTHONDEVMODE=1) that one
    keeps its traceback, which tells where it came from.
    """
    try:
        app()
    except UserError as error:
        if is_first() or not error.shared:
            print(f"lsc: error: {error}", file=sys.stderr, flush=True)
        if error.shared:
            from lsc.training.agreement import wait_for_all

            wait_for_all()  # one that ended sooner would have torchrun stop the first before it has said why
        sys.exit(2)
    except (RuntimeError, MemoryError) as error:
        if (what := out_of_memory(error)) is not None:
            print(f"lsc: error: {what}", file=sys.stderr)
            sys.exit(2)
        if not lost_another(error):
            raise
        print(f"lsc: process {os.environ['RANK']} ends, since another one has", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        wrong = of_output(error) if error.filename is None else _of_file(error)
        if wrong is None:
            raise
        print(f"lsc: error: {wrong}", file=sys.stderr)
        sys.exit(2)


def _of_file(error: OSError) -> str | None:
    """What to say of an error that names a file; None in Python's development mode."""
    names = [name for name in (error.filename, error.filename2) if isinstance(name, str | bytes | os.PathLike)]
    if not names or DEVELOPING:
        return None
    return in_one_line(f"{' -> '.join(shown(os.fsdecode(name)) for name in names)}: {error.strerror or error}")


def command() -> None:
    """As :func:`main`, and then the end of the process: to take torch apart module by module takes another second."""
    open_standard_streams()
    try:
        main()
        code: Any = 0
    except SystemExit as ending:
        code = ending.code
    if is_worker() or not isinstance(code, int | None):
        sys.exit(code)
    atexit._run_exitfuncs()
    try:
        wrong = flush_output()
    except BrokenPipeError:
        wrong, code = None, code or 1
    if wrong is not None:
        print(f"lsc: error: {wrong}", file=sys.stderr)
        code = code or 2
    sys.stderr.flush()
    os._exit(code or 0)
