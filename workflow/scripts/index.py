"""The page that lists a study's chapters, figures and tables with thumbnails."""

import html
from pathlib import Path
from typing import Any

import yaml

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>lsc: {study}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
section {{ margin: 2.5rem 0; border-top: 1px solid #ddd; }}
.figures {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1.5rem; }}
figure {{ margin: 0; }}
img {{ width: 100%; height: 11rem; object-fit: contain; background: #fafafa; border: 1px solid #eee; }}
figcaption, li {{ font-size: 0.85rem; color: #555; }}
</style>
<h1>Results of the study “{study}”</h1>
<p>Replication of <a href="https://arxiv.org/abs/2510.04090">arXiv 2510.04090</a>: predefined class centers instead of a
classification layer. Each chapter is a notebook; each figure and table was made by it from the records of the runs.</p>
{sections}
</html>
"""


def section(name: str, chapter: dict[str, Any]) -> str:
    """One chapter: link, figures with captions, tables."""
    figures = "\n".join(
        f'<figure><a href="figures/{figure}.pdf"><img src="figures/{figure}.png" alt="{html.escape(caption)}" '
        f'loading="lazy"></a><figcaption>{html.escape(caption)}</figcaption></figure>'
        for figure, caption in chapter["figures"].items()
    )
    tables = "\n".join(
        f'<li><a href="tables/{table}.csv">{table}.csv</a>: {html.escape(caption)}</li>'
        for table, caption in chapter["tables"].items()
    )
    number = chapter["notebook"].partition("_")[0]
    return (
        f'<section id="{name}"><h2><a href="notebooks/{chapter["notebook"]}.html">{number}. '
        f'{html.escape(chapter["title"])}</a></h2>\n<div class="figures">{figures}</div>\n<ul>{tables}</ul></section>'
    )


def index_page(study: str, chapters: dict[str, Any]) -> str:
    """The page as HTML."""
    return PAGE.format(study=study, sections="\n".join(section(name, block) for name, block in chapters.items()))


if "snakemake" in globals():
    job = globals()["snakemake"]
    everything = yaml.safe_load(Path(job.input.chapters).read_text())
    Path(job.output[0]).write_text(
        index_page(job.params.study, {name: everything[name] for name in job.params.chapters})
    )
