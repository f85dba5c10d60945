"""``lsc runs``: what became of a study's runs."""

from pathlib import Path
from typing import Annotated

import typer


def runs(
    study: Annotated[Path, typer.Option(help="Study file.")] = Path("config/demo.yaml"),
    outdated: Annotated[
        bool, typer.Option("--outdated", help="Only finished runs whose code has changed since.")
    ] = False,
    paths: Annotated[
        bool,
        typer.Option("--paths", help="Print the paths of their summaries instead, as snakemake --forcerun takes them."),
    ] = False,
) -> None:
    """List the runs of a study: finished, missing, or made by other settings or other code.

    Runs of other settings are trained again by the workflow; runs of other code are kept, until they are asked for:

    snakemake --cores all --forcerun $(lsc runs --outdated --paths)
    """
    from lsc.study.code import run_states, runs_folder
    from lsc.study.configuration import read_study
    from lsc.study.plan import plan_of
    from lsc.training.records import SUMMARY

    plan = plan_of(read_study(study))
    folder = runs_folder(plan)
    listed = [found for found in run_states(plan, folder) if found.state == "other code" or not outdated]
    if paths:
        for found in listed:
            typer.echo(folder / found.run / SUMMARY)
        return
    width = max((len(found.run) for found in listed), default=0)
    for found in listed:
        commit, date = found.commit or "", (found.finished or "").partition("T")[0]
        typer.echo(f"{found.run:<{width}}  {found.state:<14}  {commit:<20}  {date}".rstrip())
