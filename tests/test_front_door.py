"""The front door: quick to open, and what it refuses is one line."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lsc
from tests.conftest import ROOT, tiny_run


def test_importing_it_imports_neither_torch_nor_pandas() -> None:
    code = "import sys, lsc; sys.exit(bool({'torch', 'numpy', 'pandas', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("name", [name for name in lsc.__all__ if not name.startswith("__")])
def test_every_name_of_the_door_is_there_with_its_docstring(name: str) -> None:
    assert getattr(lsc, name).__doc__
    assert name in dir(lsc)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Centres"):
        lsc.Centres  # noqa: B018


OBJECTIVES = [
    lsc.Cosine(lsc.Centers(lsc.OrbitSystem(1, 1, 4), 5)),
    lsc.Euclidean(lsc.Centers(lsc.OrbitSystem(1, 1, 4), 5)),
    lsc.OrbitSoftmax(lsc.Centers(lsc.OrbitSystem(1, 1, 4), 5)),
    lsc.CrossEntropy(5, 4),
    lsc.PartialFC(5, 4),
]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: type(objective).__name__)
def test_objectives_refuse_other_shapes_and_types(objective: lsc.Cosine) -> None:
    z, labels = torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64)
    for wrong in (torch.zeros(3, 5), torch.zeros(4), torch.zeros(3, 4, dtype=torch.int64)):
        with pytest.raises(lsc.UserError, match=r"embeddings must be floats of shape \(batch, 4\), not"):
            objective.loss(wrong, labels)
        with pytest.raises(lsc.UserError, match="embeddings must be floats"):
            objective.predict(wrong)
    for bad in (labels.float(), labels[:2], labels[:, None]):
        with pytest.raises(lsc.UserError, match=r"labels must be int64 class ids of shape \(3,\)"):
            objective.loss(z, bad)
    with pytest.raises(lsc.UserError, match="k must be 1 or more, not 0"):
        objective.predict(z, 0)


@pytest.mark.parametrize(
    "system", [lsc.OrbitSystem(1, 1, 4), lsc.parse_system("simplex", 4, 5)], ids=["orbit", "explicit"]
)
def test_systems_and_centers_refuse_other_shapes_and_types(system: lsc.OrbitSystem) -> None:
    centers = lsc.Centers(system, 5)
    for nearest in (system.nearest, centers.nearest):
        with pytest.raises(lsc.UserError, match=r"\(batch, 4\), not float32 of shape \(2, 3\)"):
            nearest(torch.zeros(2, 3))
        with pytest.raises(lsc.UserError, match="k must be 1 or more"):
            nearest(torch.zeros(2, 4), -1)
    with pytest.raises(lsc.UserError, match="labels must be int64, not float32"):
        centers.vectors(torch.zeros(2))
    with pytest.raises(lsc.UserError, match="indexes must be int64"):
        system.vectors(torch.zeros(2))


def test_encoders_and_trained_runs_refuse_other_images(tmp_path: Path) -> None:
    from lsc.training.loop import train

    encoder = lsc.build_encoder("small_cnn", (1, 8, 8), 4, width=4)
    with pytest.raises(lsc.UserError, match=r"takes floats.*not uint8 of shape \(2, 1, 8, 8\)"):
        encoder(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    train(tiny_run(training={"duration": "1 step"}), tmp_path / "run", accelerator="cpu")
    trained = lsc.load(tmp_path / "run")
    assert trained.image_shape == (1, 8, 8)
    with pytest.raises(lsc.UserError, match=r"must have shape \('B', 1, 8, 8\)"):
        trained.embed(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    assert trained.embed(torch.zeros(0, 1, 8, 8, dtype=torch.uint8)).shape == (0, trained.task.encoder.dim)
    with pytest.raises(lsc.UserError, match="no finished run"):
        lsc.load(str(tmp_path))
    with pytest.raises(lsc.UserError, match=r"none\.png"):
        trained.predict("none.png")
