"""Keep the records of a finished study under results/reference, without weights: python -m lsc.study.reference STUDY."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from lsc.errors import UserError
from lsc.files import disk_error
from lsc.settings import read_yaml, validated
from lsc.study.commands import call
from lsc.study.configuration import Study
from lsc.study.pages.contents import read_contents
from lsc.study.tables import STUDY_FILE
from lsc.training.records import CONFIG, EMBEDDINGS, METRICS, SUMMARY

CHANGES_NO_RESULT = True

RESULTS = Path("results")
# What is kept of each run; and what a chapter draws besides, of the runs of one experiment.
_OF_A_RUN = (CONFIG, METRICS, SUMMARY)
_BESIDES = {"low_dim": (EMBEDDINGS,)}
_MEASURED = ("step", "decode", "hnsw")

commands = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@commands.command(help=__doc__)
def keep(study: Annotated[str, typer.Argument(help="Name of the study, whose results lie in results/STUDY.")]) -> None:
    """Put the records of every run that a study names, and of its measurements, in the place of those kept before.

    Everything is checked first and copied beside them, so that the old ones stay where the study is not finished.

    Raises:
        UserError: there are no results, or something that the study names is missing; the old records are as they were.
    """
    if not re.fullmatch(r"[a-z0-9_]+", study):
        raise UserError(f"STUDY={study}: no name of a study, such as demo")
    results, kept = RESULTS / study, RESULTS / "reference" / study
    files = list(_files(_study(study, results), results))
    for path in files:
        if not path.exists():
            raise UserError(f"{path}: is missing, so that the study is not finished; {_remedy(results)}")
    new: Path | None = None
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f".{study}-", dir=kept.parent))
        new.chmod(0o755)
        for path in files:
            target = new / path.relative_to(results)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        _exchange(new, kept)
    except OSError as error:
        raise disk_error(kept, error) from error
    finally:
        if new is not None:
            shutil.rmtree(new, ignore_errors=True)
    typer.echo(f"{kept}: {len(files)} files")


def _study(name: str, results: Path) -> Study:
    """The study as it was run; its runs are not checked one by one, since records outlive the code of an objective."""
    if not (results / "runs").is_dir():
        raise UserError(f"{results / 'runs'}: there is no such folder, so that nothing can be kept; {_remedy(results)}")
    path = next((path for path in (results / STUDY_FILE, Path(f"config/{name}.yaml")) if path.exists()), None)
    if path is None:
        raise UserError(f"{results / STUDY_FILE}: is missing and says which runs are kept; {_remedy(results)}")
    return validated(Study, read_yaml(path), str(path))


def _files(study: Study, results: Path) -> Iterator[Path]:
    """What is kept of a study, whether it is there or not: of the experiments that its chapters read."""
    read = {name for chapter in read_contents(chosen=study.chapters) for name in chapter.experiments}
    for experiment in filter(read.__contains__, study.experiments):
        for run in study.run_names(experiment):
            for name in (*_OF_A_RUN, *_BESIDES.get(experiment, ())):
                yield results / "runs" / run / name
    measured = {results / "cost" / f"{name}.jsonl" for name in _MEASURED if "cost" in study.chapters}
    others = {path for path in (results / "cost").rglob("*") if path.is_file()}
    yield from sorted(measured | others)


def _remedy(results: Path) -> str:
    path = results / STUDY_FILE
    file = path if path.exists() else Path("config") / f"{results.name}.yaml"
    return f"first: snakemake --cores all --configfile {file}"


def _exchange(new: Path, kept: Path) -> None:
    """Give ``new`` the name ``kept``; what bore it is removed."""
    if not kept.exists():
        new.rename(kept)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{kept.name}-", dir=kept.parent))
    kept.rename(old / kept.name)
    try:
        new.rename(kept)
    except OSError:
        (old / kept.name).rename(kept)
        raise
    finally:
        shutil.rmtree(old)


if __name__ == "__main__":
    call(commands)
