"""Which runs a figure speaks of follows from their settings alone."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from lsc.objectives import OBJECTIVES
from lsc.study.looks import look_of
from lsc.study.selection import around, baseline, pulled, reference, twin
from lsc.study.variants import is_stretch, shown_name
from lsc.training.run import run_from
from tests.conftest import ROOT
from tests.study.shipped import demo, opened


@pytest.mark.parametrize(
    ("variant", "objective", "shown"),
    [
        ("cosine", "cosine", "cosine"),
        ("cosine_dim_3", "cosine", "cosine, dim 3"),
        ("big_cosine", "cosine", "cosine, big"),
        ("x1", "cosine", "cosine, x1"),
        ("cosine_like", "cross_entropy", "cross-entropy, cosine like"),
    ],
)
def test_a_variant_is_shown_by_its_objective_and_the_rest_of_its_name(variant: str, objective: str, shown: str) -> None:
    assert shown_name(variant, objective, look_of(objective), {}) == shown
    assert shown_name(variant, objective, look_of(objective), {"centers.dim": 3, "training.clip_norm": 1.0}) == shown


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"centers.system": "V22", "centers.dim": 16}, "cosine, V22, dim 16"),
        ({"encoder.hidden": 2048}, "cosine, 2,048 hidden"),
        ({"centers.perturbation": 0.1}, "cosine, perturbed by 10 %"),
        ({"data.classes": 6, "centers.assignment": "similarity"}, "cosine, 6 classes, similar"),
        ({"centers.system": "polygon"}, "cosine, x1"),
    ],
)
def test_a_variant_is_shown_by_what_its_settings_make_of_it(changes: dict[str, Any], shown: str) -> None:
    assert shown_name("x1", "cosine", look_of("cosine"), changes) == shown


@pytest.mark.parametrize(
    ("duration", "classes", "stretch"),
    [("30 steps", 1_281_167, True), ("30 steps", 100, False), ("4000000 examples", 1_281_167, False),
     ("1000000 examples", 1_281_167, True), ("6 epochs", 1_281_167, False), ("0.5 epochs", 10, True)],
)  # fmt: skip
def test_a_stretch_meets_fewer_images_than_there_are_classes(duration: str, classes: int, stretch: bool) -> None:
    run = run_from({"data": {"name": "digits"}, "training": {"duration": duration, "batch_size": 128}})
    assert is_stretch(run, classes) == stretch


def low_dim(folder: Path, **variants: Any) -> Any:
    """The demo's low_dim with these settings for some of its variants, which must be there."""
    study = demo()
    for name, settings in variants.items():
        assert name in study["experiments"]["low_dim"]["variants"]
        study["experiments"]["low_dim"]["variants"][name] = settings
    return opened(folder, study).summaries("low_dim")


def test_the_reference_variant_is_the_one_with_the_shared_settings(tmp_path: Path) -> None:
    runs = low_dim(tmp_path)
    assert list(dict.fromkeys(reference(runs).variant)) == ["cross_entropy", "cosine", "euclidean", "orbit_softmax"]
    # An objective may need a learning rate of its own, but the shared one comes first where there are both.
    own_rate = {"training": {"learning_rate": 0.1}}
    runs = low_dim(
        tmp_path,
        euclidean={"objective": {"name": "euclidean"}} | own_rate,
        cosine={"objective": {"name": "cosine"}} | own_rate,
        cosine_perturbed_10={"objective": {"name": "cosine"}},
    )
    assert set(pulled(runs, "euclidean").variant) == {"euclidean"}
    assert set(pulled(runs, "cosine").variant) == {"cosine_perturbed_10"}


def test_a_setting_of_the_objective_itself_tells_variants_apart(tmp_path: Path) -> None:
    smooth = {"objective": {"name": "cross_entropy", "label_smoothing": 0.1}, "centers": {"dim": 4}}
    runs = low_dim(tmp_path, cross_entropy_dim_2=smooth)
    other = runs[runs.variant == "cross_entropy_dim_2"]
    assert other.changes.iloc[0]["objective.label_smoothing"] == 0.1
    assert set(baseline(runs).variant) == {"cross_entropy"}
    assert "cross_entropy_dim_2" not in set(around(runs, baseline(runs), "centers.dim").variant)
    assert set(twin(runs[runs.role == "baseline"], {}, "objective", "centers").variant) == {"cross_entropy"}


def test_layers_have_no_centers_but_a_dimension(tmp_path: Path) -> None:
    # Four coordinates are what the shared settings come to, so that naming them changes nothing.
    runs = low_dim(tmp_path, cross_entropy={"centers": {"dim": 4, "system": "V21", "perturbation": 0.2}})
    assert baseline(runs).changes.tolist() == [{}, {}]


def test_shared_settings_that_are_no_run_by_themselves(tmp_path: Path) -> None:
    study = demo()
    block = study["experiments"]["low_dim"]
    del study["run"]["data"]
    for settings in block["variants"].values():
        settings["data"] = {"name": "digits", "image_size": 16} | settings.get("data", {})
    runs = opened(tmp_path, study).summaries("low_dim")
    assert list(dict.fromkeys(reference(runs).variant)) == ["cross_entropy", "cosine", "euclidean", "orbit_softmax"]


def sources() -> dict[str, str]:
    """The code that draws and judges: that of the study room without its configuration, and of the notebooks."""
    code = {
        str(path.relative_to(ROOT)): path.read_text()
        for path in (ROOT / "lsc" / "study").rglob("*.py")
        if path.stem not in ("configuration", "measurements")
    }
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        code[path.name] = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return code


def test_nothing_that_draws_or_judges_names_an_objective() -> None:
    metrics = {"cosine", "euclidean"}  # by which embeddings are pulled to their centers
    names = {*OBJECTIVES, *(look_of(name).label for name in OBJECTIVES)} - metrics
    assert len(sources()) > 15
    for place, code in sources().items():
        words = {node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)}
        assert not words & names, place


def test_notebooks_are_short_cells() -> None:
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text())["cells"]:
            assert cell["cell_type"] != "code" or len(cell["source"]) <= 15, (path.name, cell["source"][0])
