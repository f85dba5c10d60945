"""The rendered chapters that lie in the repository, under ``docs/chapters/<study>``: how they are kept and compared.

Texts and tables are compared word by word, pictures by the digests of their data, which stand in the texts.
"""

import csv
import difflib
import io
import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from lsc.errors import UserError
from lsc.files import written_whole
from lsc.study.pages.contents import Chapter
from lsc.study.pages.front import Front, chapters_markdown, claims_markdown, front_markdown
from lsc.training.records import write_text

_WIDTH, _COLORS = 1100, 128
_NOTE = "<!-- Made from the reference records by `make pages`; what is changed here by hand is lost. -->\n\n"
# In a document: <!-- demo: claims --> ... <!-- end -->; or chapters, or a table, table_cost_targets.
_SECTION = re.compile(r"(<!-- (\w+): (claims|chapters|table_\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def kept_texts(front: Front, results: Path) -> dict[str, str]:
    """The texts to be kept of a rendered study, by the paths of their files."""
    texts = {"README.md": _NOTE + front_markdown(front)}
    for chapter in front.chapters:
        page = (results / "notebooks" / f"{chapter.file}.md").read_text(encoding="utf-8")
        texts[f"{chapter.file}.md"] = _NOTE + page.replace("](../figures/", "](figures/").replace(
            "](../tables/", "](tables/"
        )
        for item in chapter.items:
            if item.kind == "table":
                texts[f"tables/{item.name}.csv"] = (results / "tables" / f"{item.name}.csv").read_text(encoding="utf-8")
    return texts


def keep(front: Front, results: Path, folder: Path, documents: list[Path]) -> None:
    """Keep the chapters of a rendered study in ``folder``, and renew what ``documents`` say of it.

    What the folder held of other chapters is removed.
    """
    texts = kept_texts(front, results)
    pictures = _pictures(front.chapters, texts)
    for name, text in texts.items():
        write_text(folder / name, text)
    for name in pictures:
        _keep_picture(results / name, folder / name)
    for path in folder.rglob("*"):
        if path.is_file() and str(path.relative_to(folder)) not in {*texts, *pictures}:
            path.unlink()
    for document in documents:
        write_text(document, renewed(document.read_text(encoding="utf-8"), front, results))


def differences(front: Front, results: Path, folder: Path, documents: list[Path]) -> Iterator[str]:
    """Where what is kept is not what the records render to, a line each."""
    texts = kept_texts(front, results)
    for name, text in texts.items():
        path = folder / name
        if not path.exists():
            yield f"{path}: is missing"
        elif (found := path.read_text(encoding="utf-8")) != text:
            yield f"{path}: {_first_difference(found, text)}"
    pictures = _pictures(front.chapters, texts)
    for name in pictures:
        if not (folder / name).exists():
            yield f"{folder / name}: is missing"
    known = {*texts, *pictures}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if str(path.relative_to(folder)) not in known:
            yield f"{path}: no chapter has it"
    for document in documents:
        text = document.read_text(encoding="utf-8")
        made = renewed(text, front, results)
        if made != text:
            yield f"{document}: {_first_difference(text, made)}"


def renewed(text: str, front: Front, results: Path) -> str:
    """A document with its marked sections about a study as the records have them now."""

    def section(found: re.Match[str]) -> str:
        begin, study, what, end = found.groups()
        if study != front.study:
            return found[0]
        folder = f"docs/chapters/{study}/"
        if what.startswith("table_"):
            made = _table(results / "tables" / f"{what.removeprefix('table_')}.csv")
        else:
            made = claims_markdown(front, folder) if what == "claims" else chapters_markdown(front, folder)
        return f"{begin}\n{made}\n\n{end}"

    return _SECTION.sub(section, text)


def _table(path: Path) -> str:
    """A table in Markdown; a line that says so where it has no rows."""
    rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    if len(rows) < 2:
        return "This was not measured."
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _pictures(chapters: list[Chapter], texts: dict[str, str]) -> list[str]:
    """The pictures of the figures that ``texts`` show: of one that could not be drawn they say why."""
    names = [f"figures/{item.name}.png" for chapter in chapters for item in chapter.items if item.kind == "figure"]
    return [name for name in names if any(f"]({name})" in text for text in texts.values())]


def _keep_picture(source: Path, target: Path) -> None:
    """A picture of moderate size, with as few colours as it needs."""
    with Image.open(source) as opened:
        image = opened.convert("RGB")
    if image.width > _WIDTH:
        image = image.resize((_WIDTH, round(image.height * _WIDTH / image.width)), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.quantize(_COLORS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        stream, "PNG", optimize=True
    )
    with written_whole(target) as temporary:
        temporary.write_bytes(stream.getvalue())


def _first_difference(kept: str, made: str) -> str:
    changed = [
        line
        for line in difflib.unified_diff(kept.splitlines(), made.splitlines(), lineterm="", n=0)
        if not line.startswith(("---", "+++", "@@"))
    ]
    shown = " / ".join(line if len(line) < 160 else f"{line[:160]} ..." for line in changed[:2])
    return f"is not what the records render to ({len(changed)} lines): {shown}"


def check_folder(folder: Path) -> None:
    """Raise a UserError where nothing was rendered into a folder yet."""
    if not (folder / "index.html").exists():
        raise UserError(f"{folder}: no study was rendered here; snakemake --cores all --config records=reference")
