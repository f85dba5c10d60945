"""The study of characters: it is read whole, and a miniature of it from the fonts that matplotlib brings is trained and shown."""

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import yaml

from lsc.settings import merge
from lsc.study.chapters import closed_form, lifelong, million_classes
from lsc.study.configuration import study_from
from lsc.study.tables import Records
from lsc.training.loop import train
from tests.conftest import ROOT

CHAPTERS = yaml.safe_load((ROOT / "workflow" / "chapters.yaml").read_text())
KEPT = {
    "million_classes": ["cosine_1000", "cross_entropy_1000"],
    "closed_form": ["cross_entropy", "cosine", "cosine_closed_form", "softmax_fitted_refit"],
    "lifelong": ["cosine_sums", "center_softmax_sums"],
}
TINY: dict[str, Any] = {
    "data": {
        "fonts": "matplotlib", "train_faces": ["DejaVu Sans", "DejaVu Serif"], "test_faces": ["DejaVu Sans Bold"],
        "characters": "U+0041-U+0054", "image_size": 8, "min_faces": 1, "cache": None,
    },
    "encoder": {"width": 2, "hidden": 8},
    "centers": {"dim": 8},
    "training": {"duration": "2 epochs", "batch_size": 16},
}  # fmt: skip


def miniature() -> dict[str, Any]:
    study = yaml.safe_load((ROOT / "config" / "glyphs.yaml").read_text())
    study["run"] = merge(study["run"], TINY)
    for name, kept in KEPT.items():
        block = study["experiments"][name]
        block["variants"] = {variant: block["variants"][variant] for variant in kept}
        block.get("run", {}).pop("training", None)
    for settings in study["experiments"]["million_classes"]["variants"].values():
        settings["data"]["num_classes"] = 10
    study["experiments"]["lifelong"]["run"]["data"] = {
        "characters": ["U+0041-U+0054", "U+0061-U+0070"],
        "once": "U+0061-U+0070",
    }
    return study


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, study = tmp_path_factory.mktemp("glyphs"), miniature()
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    checked = study_from(study)
    for experiment in checked.experiments:
        for name in checked.run_names(experiment):
            train(checked.run_of(name), folder / "runs" / name)
    return folder


def shown(notebook: str, results: Path) -> dict[str, Any]:
    """The names that the cells of a notebook leave behind, after all of them were run."""
    names: dict[str, Any] = {}
    for cell in json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
            if "study" in names and "records" not in names:
                names |= {"study": "glyphs", "runs": str(results / "runs"), "results": str(results)}
    plt.close("all")
    return names


def test_the_study_is_read_whole() -> None:
    study = study_from(yaml.safe_load((ROOT / "config" / "glyphs.yaml").read_text()))
    assert study.chapters == ["million_classes", "lifelong"]
    run = study.run_of("lifelong/cosine_sums/seed_0")
    assert run.lifelong is not None
    assert run.lifelong.groups == len(run.data.model_dump()["characters"])


@pytest.mark.parametrize("chapter", ["million_classes", "lifelong"])
def test_its_chapters_are_rendered_with_every_figure_and_table(chapter: str, results: Path) -> None:
    shown(CHAPTERS[chapter]["notebook"], results)
    for name in CHAPTERS[chapter]["figures"]:
        assert (results / "figures" / f"{name}.png").stat().st_size > 2000
        assert (results / "figures" / f"{name}.pdf").exists()
    for name in CHAPTERS[chapter]["tables"]:
        lines = (results / "tables" / f"{name}.csv").read_text().count("\n")
        assert lines >= (1 if name == "lifelong_scripts" else 3)  # the study has no scripts


def test_lifelong_learning_without_a_growing_layer_says_what_sums_give(results: Path) -> None:
    records = Records(results, results / "runs")
    runs = records.summaries("lifelong")
    text = lifelong.findings(lifelong.ends(records.metrics("lifelong")), runs)
    assert "against a growing classification layer" not in text
    for run in runs.itertuples():
        assert f"{100 * run.final_top1:.1f} % ({run.label})" in text


def test_a_chapter_is_rendered_without_its_experiments(tmp_path: Path) -> None:
    study = miniature()
    del study["experiments"]["million_classes"], study["experiments"]["closed_form"]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    shown(CHAPTERS["million_classes"]["notebook"], tmp_path)
    for name in CHAPTERS["million_classes"]["figures"]:
        assert (tmp_path / "figures" / f"{name}.png").exists()
    for name in CHAPTERS["million_classes"]["tables"]:
        assert (tmp_path / "tables" / f"{name}.csv").exists()


def test_nothing_is_said_of_runs_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({"study": "empty", "chapters": []}))
    records = Records(tmp_path, tmp_path / "runs")
    runs, metrics = records.summaries("million_classes"), records.metrics("million_classes")
    assert not records.has("million_classes")
    named = million_classes.with_methods(runs)
    solved = closed_form.with_methods(runs)
    assert million_classes.findings(named) == million_classes.protocol(runs) == ""
    assert closed_form.findings(metrics, solved) == closed_form.protocol(solved) == ""
    assert million_classes.overview(metrics, named).empty
    for figure in (
        million_classes.draw_scaling(named),
        million_classes.draw_loss(metrics, named),
        closed_form.draw(metrics, solved),
    ):
        assert ["This study has no" in text.get_text() for text in figure.texts] == [True]
        plt.close(figure)
