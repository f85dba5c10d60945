"""``lsc doctor``: what this machine is, and what each study would take on it."""

from pathlib import Path
from typing import Annotated

import typer


def doctor(
    study: Annotated[
        list[Path] | None, typer.Option(help="Study to estimate, repeatable; by default all of config/, if it is here.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Time for the measurements of all studies together.")] = 45.0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; by default SLURM's, else OMP_NUM_THREADS, else all cores.")
    ] = None,
) -> None:
    """Say what this machine is, and about what each study would take on it, from a minute of measurements.

    The times are estimates of the training alone: a few steps of each encoder, times the images of the study.
    """
    import torch

    from lsc.cli.train import job_threads
    from lsc.cost.doctor import estimates, machine_lines
    from lsc.cost.timing import place_of
    from lsc.study.configuration import read_study

    studies = [read_study(path) for path in (study or sorted(Path("config").glob("*.yaml")))]
    torch.set_num_threads(job_threads(threads))
    place = place_of(
        "cuda" if device == "auto" and torch.cuda.is_available() else "cpu" if device == "auto" else device
    )
    for what, value in machine_lines(Path.cwd(), place):
        typer.echo(f"{what:<15} {value}")
    for each in studies:
        typer.echo(f"\nstudy {each.study}: estimated time of training on this machine, one run after another")
        total, complete = 0.0, True
        for found in estimates(each, place, seconds / len(studies)):
            if found.seconds is None:
                complete = False
                typer.echo(f"  {found.experiment:<16} {found.runs:>3} runs  not estimated: {found.reason}")
                continue
            total += found.seconds
            rate = found.images / found.seconds
            typer.echo(
                f"  {found.experiment:<16} {found.runs:>3} runs  about {spoken(found.seconds)} ({rate:,.0f} images/s)"
            )
        if complete:
            typer.echo(f"  {'in all':<16} {'':>3}       about {spoken(total)}")


def spoken(seconds: float) -> str:
    """A time with two digits at most, in the unit that suits it."""
    for unit, length in (("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 1.5 * length:
            amount = seconds / length
            return f"{amount:.0f} {unit}" if amount >= 10 else f"{amount:.1f} {unit}"
    return f"{seconds:.0f} seconds"
