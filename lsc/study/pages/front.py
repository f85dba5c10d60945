"""A study's front page: what was asked, the claims with their verdicts, three figures, the chapters, how it was made."""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from lsc.errors import UserError
from lsc.study.code import RunState, run_states
from lsc.study.configuration import Study
from lsc.study.pages.contents import Chapter
from lsc.study.pages.html import VERDICTS, figure_html, inline_html, page
from lsc.study.pages.markdown import caption, linked, picture
from lsc.study.plan import plan_of
from lsc.training.records import SUMMARY, read_json, read_rows

PAPER = "https://arxiv.org/abs/2510.04090"
ASKED = (
    f"Can an image classifier do without its classification layer? [The paper]({PAPER}) gives every class a "
    "predefined vector, its "
    "center, and trains the network so that its embedding of an image points to the center of the image's class: the nearest "
    "center is the prediction, and the network is the same for ten classes or for 1.28 million. This study tests the paper's "
    "claims, and compares with cross-entropy throughout."
)
_SUMMARY = "> **In short.** "
_DOCUMENTS = {
    "docs/replication.md": "What the paper states and what we chose",
    "docs/learning.md": "Why centers learn slowly, and a remedy",
    "docs/performance.md": "Performance",
    "docs/cluster.md": "Running on a cluster",
}


@dataclass(frozen=True)
class Front:
    """What a front page says.

    Attributes:
        chapters: those of the study, in their order.
        summaries: a sentence of each, by name.
        claims: the rows of the table of claims; none if the study has no such chapter.
        facts: how it was made, in Markdown, by heading.
        older: the runs that other code than today's made.
        undrawn: the figures for which there was nothing to draw.
    """

    study: str
    chapters: list[Chapter]
    summaries: dict[str, str]
    claims: list[dict[str, str]]
    facts: dict[str, str]
    older: list[str]
    undrawn: frozenset[str] = frozenset()


def front_of(study: Study, results: Path, runs: Path, chapters: list[Chapter]) -> Front:
    """What the front page of a rendered study says.

    Args:
        results: folder of its results, with the chapters' Markdown and tables.
        runs: folder of its runs.
    """
    states = _states(study, runs)
    claims = results / "tables" / "claims.csv"
    named = any(chapter.name == "claims" for chapter in chapters)
    pages = {
        chapter.name: (results / "notebooks" / f"{chapter.file}.md").read_text(encoding="utf-8") for chapter in chapters
    }
    return Front(
        study=study.study,
        chapters=chapters,
        summaries={name: _summary(page) for name, page in pages.items()},
        claims=list(csv.DictReader(claims.read_text(encoding="utf-8").splitlines())) if named else [],
        facts=dict(_facts(states, runs)),
        older=[state.run for state in states if state.state == "other code"],
        undrawn=frozenset(
            chapter.headline
            for chapter in chapters
            if chapter.headline and f"figures/{chapter.headline}.png)" not in pages[chapter.name]
        ),
    )


def _states(study: Study, runs: Path) -> list[RunState]:
    """Every run with what became of it; an experiment of which code cannot be imported any more is of "other code"."""
    states: list[RunState] = []
    for name, block in study.experiments.items():
        try:
            states += run_states(plan_of(study.model_copy(update={"experiments": {name: block}})), runs)
        except (UserError, ImportError):
            states += [
                RunState(run, "other code" if (runs / run / SUMMARY).exists() else "missing")
                for run in study.run_names(name)
            ]
    return states


def _summary(page: str) -> str:
    """The chapter in short, as its page says it, with links left as words."""
    said = [line for line in page.splitlines() if line.startswith(_SUMMARY)]
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", said[0].removeprefix(_SUMMARY)) if said else ""


def _facts(states: list[RunState], runs: Path) -> Iterator[tuple[str, str]]:
    """How a study was made, as its runs account for it."""
    files = [runs / state.run / SUMMARY for state in states]
    made = [read_json(path) for path in files if path.exists()]
    if not made:
        return
    seeds = sorted({summary["seed"] for summary in made})
    seconds = sum(summary.get("process_seconds", summary["seconds"]) for summary in made)
    yield "Runs", f"{len(made)}, seeds {', '.join(map(str, seeds))}"
    yield "Hardware", _listed(made, lambda one: f"{one['device']} ({one['processor']})")
    yield "Took", f"{_minutes(seconds)} of all runs together{_whole(runs.parent / 'cost' / 'workflow.jsonl')}"
    days = sorted(
        {str(datetime.fromisoformat(summary["finished"]).date()) for summary in made if "finished" in summary}
    )
    if days:
        yield "Date", days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    yield "Code", "commit " + _listed(made, lambda one: f"`{one['commit']}`")
    yield "Versions", _listed(made, lambda one: f"Python {one['versions']['python']}, torch {one['versions']['torch']}")


def _listed(made: list[dict[str, Any]], words: Any) -> str:
    return ", ".join(dict.fromkeys(words(summary) for summary in made))


def _whole(measured: Path) -> str:
    """How long the study took from nothing, where that was measured."""
    rows = [row for row in read_rows(measured) if row["what"] == "whole"]
    return f"; the study from nothing, with {rows[-1]['cores']} cores, {_minutes(rows[-1]['seconds'])}" if rows else ""


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def front_page(front: Front) -> str:
    """The front page as HTML; it lies above the folder of the chapters' pages."""
    parts = [
        f"<h1>Results of the study “{escape(front.study)}”</h1>",
        f"<p>{inline_html(ASKED)}</p>",
        *_claims_html(front),
        *_headlines_html(front),
        '<h2 id="chapters">Chapters</h2>\n<ol class="chapters">',
        *(_chapter_html(front, chapter) for chapter in front.chapters),
        "</ol>",
        *_facts_html(front),
        '<h2 id="documents">Documents</h2>\n<ul>',
        *(f'<li><a href="../../{path}">{escape(title)}</a></li>' for path, title in _DOCUMENTS.items()),
        '<li><a href="../../README.md">The repository’s README</a>: how to run all of this</li>\n</ul>',
    ]
    return page(f"lsc: {front.study}", '<main class="front">\n' + "\n".join(parts) + "\n</main>\n<footer></footer>")


def _claims_html(front: Front) -> Iterator[str]:
    if not front.claims:
        return
    yield '<h2 id="claims">The claims</h2>'
    yield "<p>Verdicts are computed from the records, by rules that the chapter on them gives. A mark leads to the evidence.</p>"
    yield '<ul class="claims">'
    for row in front.claims:
        first, *_ = row["evidence"].split()
        evidence = linked(_evidence(row), front.chapters, "html", folder="notebooks/")
        where = linked(f"[x](ref:{first})", front.chapters, "html", folder="notebooks/")
        target = where.partition("](")[2].rstrip(")")
        mark = f'class="verdict {VERDICTS[row["verdict"]][1]}"'
        words = escape(row["verdict"])
        verdict = f'<a {mark} href="{target}">{words}</a>' if target else f"<span {mark}>{words}</span>"
        yield (
            f"<li><p>{verdict}</p><div><p><b>{escape(row['claim'])}.</b> {inline_html(row['says'])}.</p>"
            f'<p class="out">{inline_html(row["came out"])}. {inline_html(evidence)}</p></div></li>'
        )
    yield "</ul>"


def _evidence(row: dict[str, str]) -> str:
    return ", ".join(f"[](ref:{anchor})" for anchor in row["evidence"].split())


def _headlines(front: Front) -> Iterator[Any]:
    for chapter in front.chapters:
        if chapter.headline and chapter.headline not in front.undrawn:
            yield chapter, chapter.item("figure", chapter.headline)


def _headlines_html(front: Front) -> Iterator[str]:
    figures = [figure_html(item, "figures/", anchored=False) for _, item in _headlines(front)]
    if figures:
        yield '<h2 id="figures">Three figures</h2>' if len(figures) == 3 else '<h2 id="figures">Figures</h2>'
        yield '<div class="headlines">' + "\n".join(figures) + "</div>"


def _chapter_html(front: Front, chapter: Chapter) -> str:
    link = f'<a href="notebooks/{chapter.file}.html">{escape(chapter.heading)}</a>'
    files = {
        kind: ", ".join(
            f'<a href="{folder}/{item.name}.{ending}">{escape(item.name)}</a>'
            for item in chapter.items
            if item.kind == kind
        )
        for kind, folder, ending in (("figure", "figures", "png"), ("table", "tables", "csv"))
    }
    shown = "; ".join(f"{kind}s: {links}" for kind, links in files.items() if links)
    said = inline_html(front.summaries[chapter.name])
    return f'<li><h3>{link}</h3><p>{said}</p><p class="files">{shown}</p></li>'


def _facts_html(front: Front) -> Iterator[str]:
    if not front.facts:
        return
    yield '<h2 id="made">How it was made</h2>\n<dl>'
    for heading, words in front.facts.items():
        yield f"<dt>{heading}</dt><dd>{inline_html(words)}</dd>"
    total = len(front.older)
    words = "none" if not total else f"{total}: " + ", ".join(front.older)
    yield f"<dt>Runs of other code than today’s</dt><dd>{escape(words)}</dd>"
    yield "</dl>"


def front_markdown(front: Front) -> str:
    """The front page as Markdown; it lies beside the chapters' pages."""
    parts = [f"# Results of the study “{front.study}”", ASKED]
    if front.claims:
        parts += ["## The claims", claims_markdown(front, "")]
    figures = [f"{picture(item, 'figures/')}\n\n{caption(item)}" for _, item in _headlines(front)]
    if figures:
        parts += ["## Figures", *figures]
    parts += ["## Chapters", chapters_markdown(front, "")]
    if front.facts:
        parts += ["## How it was made", "\n".join(f"- {heading}: {words}" for heading, words in front.facts.items())]
    return "\n\n".join(parts) + "\n"


def claims_markdown(front: Front, folder: str) -> str:
    """The claims with their verdicts and evidence as a table; ``folder`` is that of the chapters' pages."""
    lines = ["| | claim | what came out | evidence |", "|---|---|---|---|"]
    for row in front.claims:
        evidence = linked(_evidence(row), front.chapters, "md", folder=folder)
        verdict = f"{VERDICTS[row['verdict']][0]} {row['verdict']}".replace(" ", "\u00a0")
        lines.append(f"| {verdict} | **{row['claim']}.** {row['says']} | {row['came out']} | {evidence} |")
    return "\n".join(lines)


def chapters_markdown(front: Front, folder: str) -> str:
    """The chapters with a sentence of each as a table."""
    lines = ["| chapter | in short |", "|---|---|"]
    for chapter in front.chapters:
        lines.append(f"| [{chapter.heading}]({folder}{chapter.file}.md) | {front.summaries[chapter.name]} |")
    return "\n".join(lines)
