"""The commands by which the workflow and the Makefile make, keep and check pages: python -m lsc.study.pages --help."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from lsc.errors import UserError
from lsc.settings import read_yaml, validated
from lsc.study.code import runs_folder
from lsc.study.commands import call
from lsc.study.configuration import Study
from lsc.study.pages import alone, kept, links
from lsc.study.pages.blocks import missing, read_blocks
from lsc.study.pages.contents import Chapter, read_contents
from lsc.study.pages.front import Front, front_of, front_page
from lsc.study.pages.html import chapter_page
from lsc.study.pages.markdown import chapter_markdown
from lsc.study.tables import STUDY_FILE
from lsc.training.records import write_text

commands = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False)
Results = Annotated[Path, typer.Option(help="Folder of a study's results.")]
# What speaks of a study's results beside its chapters.
DOCUMENTS = [Path("README.md"), Path("docs/performance.md")]


def _study(results: Path) -> Study:
    """The study of some results; its runs are not checked one by one, since records outlive the code of an objective."""
    return validated(Study, read_yaml(results / STUDY_FILE), str(results / STUDY_FILE))


def _chapters(results: Path) -> list[Chapter]:
    return read_contents(chosen=_study(results).chapters)


@commands.command()
def chapter(
    name: Annotated[str, typer.Argument(help="The chapter.")],
    notebook: Annotated[Path, typer.Option(help="Its executed notebook.")],
    results: Results,
) -> None:
    """Write a chapter's page, as HTML and as Markdown, of its executed notebook."""
    study, chapters = _study(results), _chapters(results)
    one = next((chapter for chapter in chapters if chapter.name == name), None)
    if one is None:
        raise UserError(f"{name}: study {study.study} has no such chapter")
    blocks = read_blocks(notebook)
    if left_out := missing(blocks, one):
        raise UserError(f"{notebook}: does not show {', '.join(left_out)}, which workflow/chapters.yaml names")
    write_text(results / "notebooks" / f"{one.file}.html", chapter_page(blocks, one, chapters, study.study))
    write_text(results / "notebooks" / f"{one.file}.md", chapter_markdown(blocks, one, chapters))


@commands.command()
def gather(
    files: Annotated[list[Path], typer.Argument(help="Pages, and what they show.")],
    results: Results,
    out: Annotated[Path, typer.Option(help="The folder that they are copied to.")],
) -> None:
    """Copy pages and what they show into a folder by itself, which no link leads out of."""
    for path in files:
        target = out / path.relative_to(results)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".html":
            write_text(target, links.within(path.read_text(encoding="utf-8"), path, results))
        else:
            shutil.copyfile(path, target)


def _front(results: Path) -> Front:
    study = _study(results)
    return front_of(study, results, runs_folder(study), _chapters(results))


@commands.command()
def front(results: Results) -> None:
    """Write a study's front page, of its chapters' pages."""
    write_text(results / "index.html", front_page(_front(results)))


@commands.command()
def keep(results: Results, folder: Annotated[Path, typer.Option(help="Where the chapters are kept.")]) -> None:
    """Keep the rendered chapters of a study in the repository."""
    kept.check_folder(results)
    kept.keep(_front(results), results, folder, DOCUMENTS)
    typer.echo(f"{folder}: {sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()) / 1e6:.1f} MB")


@commands.command()
def compare(results: Results, folder: Annotated[Path, typer.Option(help="Where the chapters are kept.")]) -> None:
    """Say where the kept chapters are not what the records render to; exit code 1 if anywhere."""
    kept.check_folder(results)
    _say(list(kept.differences(_front(results), results, folder, DOCUMENTS)), "make pages")


@commands.command()
def check(pages: Annotated[list[Path], typer.Argument(help="HTML files, or folders of them.")]) -> None:
    """Say what is wrong with pages: HTML that is not valid, links and anchors that lead nowhere; exit code 1 if anything."""
    files = [file for path in pages for file in (sorted(path.rglob("*.html")) if path.is_dir() else [path])]
    _say(list(links.faults(files)), "")
    typer.echo(f"{len(files)} pages are whole")


@commands.command()
def figure(
    name: Annotated[str, typer.Argument(help="Name of a figure, without ending.")],
    study: Annotated[Path, typer.Option(help="The study's configuration.")] = Path("config/demo.yaml"),
) -> None:
    """Draw one figure again, from the records of the study or, where it is not finished, from those kept for reference."""
    for path in alone.draw_alone(name, study):
        typer.echo(path)


def _say(faults: list[str], remedy: str) -> None:
    for line in faults:
        typer.echo(line, err=True)
    if faults:
        typer.echo(f"{len(faults)} faults{f'; {remedy}' if remedy else ''}", err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    call(commands)
