"""A network that stays as it is: one pass over the images solves the read-out, and nothing else changes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lsc.data import open_dataset
from lsc.errors import UserError
from lsc.trained.unknown import known_scores, ranked
from lsc.training import records
from lsc.training.loop import train
from lsc.training.run import Run
from lsc.training.weights import load_task
from tests.conftest import Called, tiny_run

# The last four digits, for a network that was trained on the first six.
OTHERS = {"name": "digits", "image_size": 8, "classes": [6, 7, 8, 9]}
ONE_PASS = {"duration": "0 steps", "batch_size": 8}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frozen") / "source"
    train(tiny_run(training={"duration": "30 steps"}), folder, accelerator="cpu")
    return folder


def frozen(source: Path, **changes: Any) -> Run:
    settings = {
        "data": OTHERS,
        "encoder": {"weights": str(source), "frozen": True, "hidden": 128},
        "centers": {"system": "V22", "dim": 32},
        "readout": {"ridge": 0.01},
        "training": ONE_PASS,
    }
    return tiny_run(**(settings | changes))


def test_one_pass_is_the_least_squares_solution(source: Path, tmp_path: Path) -> None:
    summary = train(frozen(source), tmp_path / "run", accelerator="cpu")
    assert summary["steps"] == 0
    # Features of six other digits in a network of four channels tell these four apart far beyond chance.
    assert summary["final_top1"] > 0.6
    restored, before = load_task(tmp_path / "run"), load_task(source)
    for name, value in before.task.encoder.backbone.state_dict().items():
        assert torch.equal(restored.task.encoder.backbone.state_dict()[name], value), name
    # Images are normalised as they were when the weights were trained, not by this set's own statistics.
    dataset = open_dataset(**OTHERS)
    assert (restored.mean, restored.std) == (before.mean, before.std) != (dataset.mean, dataset.std)
    encoder, centers = restored.task.encoder, restored.task.centers
    assert centers is not None
    with torch.no_grad():
        images = dataset.images("train", torch.arange(dataset.size("train")))
        hidden = encoder.hidden(restored.normalise(images)).double()
        rows = torch.cat([hidden, torch.ones(len(hidden), 1)], 1)
        targets = restored.task.objective.targets(dataset.labels("train")).double()  # type: ignore[operator]
        gram = rows.T @ rows
        gram += 0.01 * gram.diagonal().mean() * torch.eye(len(gram))
        solution = torch.linalg.solve(gram, rows.T @ targets)
    torch.testing.assert_close(encoder.last.weight.double(), solution[:-1].T, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(encoder.last.bias.double(), solution[-1], rtol=1e-2, atol=1e-3)


def test_it_repeats_and_goes_on_and_leaves_one_row(source: Path, tmp_path: Path) -> None:
    first = train(frozen(source), tmp_path / "run", accelerator="cpu")
    again = train(frozen(source), tmp_path / "run", accelerator="cpu")
    assert (again["starts"], again["final_top1"]) == (2, first["final_top1"])
    (row,) = records.read_rows(tmp_path / "run" / records.METRICS)
    assert (row["step"], row["examples"]) == (0, open_dataset(**OTHERS).size("train"))
    assert row["top1"] == first["final_top1"]


def test_the_read_out_alone_may_be_trained_by_steps(source: Path, tmp_path: Path) -> None:
    train(frozen(source, training={"duration": "5 steps"}), tmp_path / "run", accelerator="cpu")
    restored, before = load_task(tmp_path / "run"), load_task(source)
    for name, value in before.task.encoder.backbone.state_dict().items():
        assert torch.equal(restored.task.encoder.backbone.state_dict()[name], value), name


def test_what_would_train_nothing_is_refused(source: Path, tmp_path: Path) -> None:
    for changes in ({"readout": None}, {"readout": {"refit": False}}, {"lifelong": {"groups": 2}}):
        with pytest.raises(UserError, match=r"training\.duration 0 steps trains nothing but a read-out"):
            frozen(source, **changes)
    grey = tmp_path / "run"
    colour = {"name": "fractals", "num_classes": 4, "train_per_class": 40, "image_size": 8, "color": True}
    with pytest.raises(UserError, match=r"encoder\.weights .*here \(4, 3, 3, 3\)"):
        train(frozen(source, data=colour), grey, accelerator="cpu")


def test_views_of_instances_are_judged_as_they_were_trained(source: Path, lsc_here: Called, tmp_path: Path) -> None:
    """By the statistics of the weights, in ``lsc evaluate`` and for the scores by which an image is unknown."""
    run = frozen(source, data={"name": "instances", "of": OTHERS, "limit": 40}, training=ONE_PASS)
    summary = train(run, tmp_path / "run", accelerator="cpu")
    assert summary["final_top1"] > 0.05
    done = lsc_here("evaluate", tmp_path / "run")
    assert json.loads(done.stdout)["top1"] == pytest.approx(summary["final_top1"])
    restored = load_task(tmp_path / "run")
    dataset = run.data.open()
    assert (restored.mean, restored.std) != (dataset.mean, dataset.std)
    batch = next(iter(dataset.normalised_by(restored.mean, restored.std).eval_batches("test", 40)))
    with torch.no_grad():
        expected = ranked(restored.task.objective, restored.task.encoder(batch.images))[1][:, 0]
    torch.testing.assert_close(known_scores(tmp_path / "run", restored).scores, expected.sort().values)


def test_weights_of_no_step_have_no_average(source: Path) -> None:
    with pytest.raises(ValueError, match=r"training.ema averages the weights of steps, and .*0 steps has none"):
        frozen(source, training={"duration": "0 steps", "ema": 0.9})
