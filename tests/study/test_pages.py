"""Pages are made of what notebooks show, are whole, and those that are kept are compared word by word."""

import ast
import re
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from lsc.errors import UserError
from lsc.study import plots, shown
from lsc.study.brief import told
from lsc.study.pages import alone, kept, links
from lsc.study.pages.blocks import Block, missing, read_blocks
from lsc.study.pages.contents import Chapter, Item, read_contents
from lsc.study.pages.front import Front, front_page
from lsc.study.pages.html import chapter_page
from lsc.study.pages.markdown import chapter_markdown
from tests.conftest import ROOT

CONTENTS = read_contents(ROOT / "workflow" / "chapters.yaml")
FIGURE = Item("figure", "points", "1.1", "Two *points*.", "Two points on a line")
TABLE = Item("table", "numbers", "1.1", "Some numbers.")
ONE = Chapter("one", "1_one", "1", "One", "points", (FIGURE, TABLE))
TWO = Chapter("two", "2_two", "2", "Two")
BOTH = [ONE, TWO]


def notebook(path: Path, *cells: str | shown.Shown) -> Path:
    """An executed notebook: texts as they are, and cells that show something."""
    book = nbformat.v4.new_notebook()
    for cell in cells:
        if isinstance(cell, str):
            book.cells.append(nbformat.v4.new_markdown_cell(cell))
            continue
        output = nbformat.v4.new_output("execute_result", data=cell._repr_mimebundle_(), execution_count=1)
        book.cells.append(nbformat.v4.new_code_cell("...", outputs=[output]))
    nbformat.write(book, path)
    return path


def rendered(folder: Path, data: float = 2.0, sentence: str = "All is well.") -> Path:
    """The results of a small study of two chapters."""
    results = folder / "results" / "small"
    drawn, axes = plt.subplots()
    axes.plot([1, 2], [1, data])
    numbers = pd.DataFrame(
        {"name": ["a", "b"], "value": [1234.5, float("nan")], "range": ["97.5 (97.2 to 97.8)", None]}
    )
    blocks = read_blocks(
        notebook(
            folder / "one.ipynb",
            "# 1. One",
            shown.summary(sentence),
            "## A section & more\n\nSee [](ref:points), [the table](ref:table_numbers), [](ref:gone) and [docs](README.md).",
            shown.figure(drawn, results, "points"),
            shown.table(numbers, results, "numbers"),
            shown.today("Some runs are **old**."),
            shown.today(""),
        )
    )
    (results / "notebooks").mkdir(exist_ok=True)
    (folder / "README.md").write_text("# A study\n<!-- small: chapters -->\n<!-- end -->\n")
    for chapter, own in ((ONE, blocks), (TWO, [Block("text", "# 2. Two\n\n## Only")])):
        (results / "notebooks" / f"{chapter.file}.html").write_text(chapter_page(own, chapter, BOTH, "small"))
        (results / "notebooks" / f"{chapter.file}.md").write_text(chapter_markdown(own, chapter, BOTH))
    return results


def front(sentence: str = "All is well.") -> Front:
    row = {"claim": "C1", "says": "It works", "verdict": "holds", "came out": "90 %", "evidence": "points", "rule": "x"}
    return Front("small", BOTH, {"one": sentence, "two": ""}, [row], {"Runs": "2"}, ["x/y/seed_0"])


def test_a_page_is_whole_and_says_everything(tmp_path: Path) -> None:
    pytest.importorskip("html5lib")
    results = rendered(tmp_path)
    for name in ("docs/replication.md", "docs/learning.md", "docs/performance.md", "docs/cluster.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("# A document\n")
    (results / "index.html").write_text(front_page(front()))
    pages = [results / "index.html", *sorted((results / "notebooks").glob("*.html"))]
    assert list(links.faults(pages)) == []
    page = pages[1].read_text()
    assert "Figure 1.1" in page
    assert "<em>points</em>" in page
    assert 'href="#a-section-more"' in page
    assert 'href="#table_numbers"' in page
    assert ", the table" not in page
    assert "Some runs are <strong>old</strong>" in page
    assert "1,234.50" in page
    assert '<td class="range">97.5 (97.2 to 97.8)</td>' in page
    assert '<td class="range">—' not in page
    assert 'rel="next" href="2_two.html"' in page
    told_in_front = pages[0].read_text()
    assert 'class="verdict holds" href="notebooks/1_one.html#points"' in told_in_front
    assert "x/y/seed_0" in told_in_front
    # Every kind of fault is found.
    broken = (
        page.replace('id="points"', 'id="other"').replace("1_one.html", "gone.html").replace("</main>", "</b></main>")
    )
    pages[1].write_text(broken.replace(' alt="Two points on a line"', ""))
    found = "\n".join(links.faults(pages))
    for words in ("leads to no anchor", "has no alternative text", "unexpected"):
        assert words in found, words


def test_what_is_true_of_todays_code_alone_is_not_kept(tmp_path: Path) -> None:
    page = (rendered(tmp_path) / "notebooks" / "1_one.md").read_text()
    assert "> **In short.** All is well." in page
    assert "old" not in page
    assert "| b | — |" in page
    assert "See [Figure 1.1](#points), [the table](#table_numbers), gone and [docs](../../../README.md)." in page


def test_kept_pages_are_compared(tmp_path: Path) -> None:
    results, folder, document = rendered(tmp_path), tmp_path / "docs", tmp_path / "README.md"

    def differences(told_in_front: Front) -> list[str]:
        return list(kept.differences(told_in_front, results, folder, [document]))

    assert any("is missing" in line for line in differences(front()))
    kept.keep(front(), results, folder, [document])
    assert differences(front()) == []
    assert "| [1. One](docs/chapters/small/1_one.md) | All is well. |" in document.read_text()
    assert "](figures/points.png)" in (folder / "1_one.md").read_text()
    # The same records drawn once more, on a machine with other fonts, are the same; other records are not.
    with plt.rc_context({"font.size": 14}):
        rendered(tmp_path)
    kept.keep(front(), results, folder, [document])
    assert differences(front()) == []
    rendered(tmp_path, data=3.0)
    assert [line.partition(":")[0] for line in differences(front())] == [str(folder / "1_one.md"), str(document)]
    kept.keep(front(), results, folder, [document])
    (folder / "figures" / "points.png").unlink()
    (folder / "extra.md").write_text("left over")
    assert [line.rpartition(": ")[2] for line in differences(front())] == ["is missing", "no chapter has it"]
    assert any("Changed." in line for line in differences(front("Changed.")))


def test_what_a_page_does_not_know_is_refused(tmp_path: Path) -> None:
    book = nbformat.v4.new_notebook()
    output = nbformat.v4.new_output("display_data", data={"text/html": "<b>x</b>"})
    book.cells.append(nbformat.v4.new_code_cell("...", outputs=[output]))
    nbformat.write(book, tmp_path / "x.ipynb")
    with pytest.raises(UserError, match=r"x.ipynb: a cell shows text/html"):
        read_blocks(tmp_path / "x.ipynb")
    assert missing([Block("figure", "x", "points")], ONE) == ["Table 1.1"]
    with pytest.raises(UserError, match="chapter one has no figure 'other'"):
        chapter_markdown([Block("figure", "x", "other")], ONE, BOTH)


def test_of_what_could_not_be_drawn_the_words_are_shown_and_no_picture_is_kept(tmp_path: Path) -> None:
    results = tmp_path / "results"
    words = "No runs of that kind."
    shown_pieces = [
        shown.figure(plots.nothing(words), results, "points"),
        shown.table(pd.DataFrame(), results, "numbers"),
    ]
    blocks = read_blocks(notebook(tmp_path / "one.ipynb", "# 1. One", *shown_pieces))
    assert not missing(blocks, ONE)
    assert (results / "figures" / "points.pdf").exists()  # which the workflow waits for
    for page in (chapter_page(blocks, ONE, BOTH, "small"), chapter_markdown(blocks, ONE, BOTH)):
        assert words in page
        assert "nothing to list" in page
        assert "points.png" not in page
        assert FIGURE.caption not in page
    text = chapter_markdown(blocks, ONE, BOTH)
    assert kept._pictures(BOTH, {"1_one.md": text}) == []
    assert kept._pictures(BOTH, {"1_one.md": "![x](figures/points.png)"}) == ["figures/points.png"]


def test_data_differ_where_what_is_drawn_does() -> None:
    def digest(y: float, kind: str = "plot", **style: str) -> str:
        drawn, axes = plt.subplots()
        getattr(axes, kind)([1, 2], [1, y], **style)
        axes.fill_between([1, 2], [0, y], 3)
        found = shown.drawn_data(drawn)
        plt.close(drawn)
        return found

    assert digest(2) == digest(2 + 1e-9) == digest(2, color="red")
    assert len({digest(2), digest(2.1), digest(2, "scatter"), digest(2.1, "scatter")}) == 4


@pytest.mark.parametrize("chapter", CONTENTS, ids=lambda chapter: chapter.name)
def test_a_notebook_shows_each_figure_once_and_by_itself(chapter: Chapter) -> None:
    cells = nbformat.read(ROOT / "notebooks" / f"{chapter.file}.ipynb", as_version=4).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert not re.search(r"\$.*\$", prose), "formulas need the internet; write them as HTML"
    trees = [ast.parse(cell.source) for cell in cells if cell.cell_type == "code"]
    for item in (item for item in chapter.items if item.kind == "figure"):
        assert item.alt
        assert item.caption.endswith((".", ")."))
        showing = [
            statement for tree in trees for statement in tree.body
            if isinstance(statement, ast.Expr) and not alone._shows_another(statement, item.name)
        ]  # fmt: skip
        assert len([statement for statement in showing if item.name in ast.unparse(statement)]) == 1
    assert chapter.headline is None or chapter.item("figure", chapter.headline)


@pytest.mark.parametrize("chapter", CONTENTS, ids=lambda chapter: chapter.name)
def test_figures_and_tables_are_numbered_as_they_follow_on_the_page(chapter: Chapter) -> None:
    cells = nbformat.read(ROOT / "notebooks" / f"{chapter.file}.ipynb", as_version=4).cells
    trees = [ast.parse(cell.source) for cell in cells if cell.cell_type == "code"]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for kind, calls_of in (("figure", ["figure"]), ("table", ["table", "data"])):
        of_kind = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr in calls_of]
        words = [argument.value for call in of_kind for argument in call.args if isinstance(argument, ast.Constant)]
        numbered = [item.name for item in chapter.items if item.kind == kind]
        assert sorted(numbered, key=words.index) == numbered


def test_a_figure_is_drawn_alone_from_reference_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("workflow", "config", "notebooks"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "reference").symlink_to(ROOT / "results" / "reference")
    monkeypatch.chdir(tmp_path)
    paths = alone.draw_alone("distillation_accuracy", Path("config/demo.yaml"))
    assert [str(path) for path in paths] == [
        f"results/demo-reference/figures/distillation_accuracy.{kind}" for kind in ("png", "pdf")
    ]
    assert sorted(path.name for path in Path("results/demo-reference").rglob("*.*")) == [
        "distillation_accuracy.pdf", "distillation_accuracy.png", "study.yaml"
    ]  # fmt: skip
    with pytest.raises(UserError, match="nothing: no chapter of study demo has such a figure"):
        alone.draw_alone("nothing", Path("config/demo.yaml"))
    with pytest.raises(UserError, match="the study is not finished, and there are no reference records"):
        alone.draw_alone("distillation_accuracy", Path("config/paper.yaml"))


def test_links_out_of_a_folder_become_words(tmp_path: Path) -> None:
    page = (
        '<p><a href="../tables/a.csv">CSV</a>, <a href="2.html#x">2</a>, <a href="https://x.org/">x</a>, '
        '<a href="../../../docs/a.md">docs/a.md</a>, <a href="../../../docs/b.md#part">How <b>so</b></a></p>'
    )
    place = tmp_path / "results" / "demo" / "notebooks" / "1.html"
    kept, turned = page.split(', <a href="../../../docs/a.md">')[0], ", docs/a.md, How <b>so</b> (docs/b.md)</p>"
    assert links.within(page, place, tmp_path / "results" / "demo") == kept + turned


def test_a_run_is_told_in_few_lines() -> None:
    lines = [
        "Building DAG of jobs...",
        "Job stats:",
        "job   count",
        "-----  ----",
        "train   20",
        "total   22",
        "",
        "Error in rule x:",
    ]
    for done in range(1, 21):
        lines += [
            "[Thu Nov 26 02:51:15 2026]",
            f"Finished jobid: {done} (Rule: train)",
            f"{done} of 22 steps (1%) done",
        ]
    lines += ["Finished jobid: 21 (Rule: low_dim)", "21 of 22 steps (95%) done", "Finished in 3 min 2 s. Open x"]
    text = "".join(told((f"{line}\n" for line in lines), terminal=False)).splitlines()
    assert text == [
        "Error in rule x:", "10 of 22 jobs done: train", "20 of 22 jobs done: train", "21 of 22 jobs done: low_dim",
        "Finished in 3 min 2 s. Open x",
    ]  # fmt: skip
    assert "".join(told(["Finished jobid: 1 (Rule: a)\n", "1 of 2 steps\n", "Done\n"], terminal=True)).endswith(
        "\nDone\n"
    )


DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "config").glob("*.md")])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_documents_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        found = path if not file else path.parent / file
        assert found.exists(), target
        if anchor and found.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", found.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs or f'id="{anchor}"' in found.read_text(), target


def test_every_kept_study_has_its_pages() -> None:
    studies = [path.parent.name for path in (ROOT / "results" / "reference").glob("*/runs")]
    assert studies
    for study in studies:
        folder = ROOT / "docs" / "chapters" / study
        assert (folder / "README.md").exists(), "make pages"
        assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 3e6


def test_a_picture_that_is_kept_keeps_its_colours_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of few points among many greys and shades."""
    image = np.tile(np.linspace(0, 255, 1200)[None, :, None], (400, 1, 3))
    image[:200] = image[:200] * [0.3, 0.6, 0.9]
    colors = [np.round(255 * np.array(to_rgb(color))) for color in plots.CLASS_COLORS]
    for number, color in enumerate(colors):
        image[20:25, 100 * number : 100 * number + 5] = color
    Image.fromarray(image.astype(np.uint8)).save(tmp_path / "drawn.png")
    monkeypatch.setattr(kept, "_WIDTH", 1200)
    kept._keep_picture(tmp_path / "drawn.png", tmp_path / "kept.png")
    found = np.asarray(Image.open(tmp_path / "kept.png").convert("RGB")).astype(float)
    for number, color in enumerate(colors):
        assert np.abs(found[22, 100 * number + 2] - color).max() < 30
