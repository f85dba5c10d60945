"""A self-supervised start: the published loss, pairs of views as batches, and a run that goes on to its classes."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lsc.data import open_dataset
from lsc.data.base import Request
from lsc.errors import UserError
from lsc.settings import merge
from lsc.training import records
from lsc.training.loop import train
from lsc.training.run import Run
from lsc.training.self_supervised import vicreg
from tests.conftest import tiny_run
from tests.training.test_training import assert_same, torchrun, train_killed


def started_run(**changes: Any) -> Run:
    return tiny_run(**merge({"self_supervised": {"epochs": 1}}, changes))


def test_the_loss_is_that_of_the_paper_written_out() -> None:
    torch.manual_seed(0)
    pairs = torch.randn(12, 5, dtype=torch.float64) * 0.7
    first, second = pairs[0::2], pairs[1::2]
    invariance = sum(float((a - b).square().sum()) for a, b in zip(first, second, strict=True)) / (6 * 5)
    variance = covariance = 0.0
    for views in (first, second):
        matrix = torch.cov(views.T)
        for j in range(5):
            variance += max(0.0, 1 - float((matrix[j, j] + 1e-4).sqrt())) / 5 / 2
            covariance += sum(float(matrix[i, j]) ** 2 for i in range(5) if i != j) / 5
    assert float(vicreg(pairs)) == pytest.approx(25 * invariance + 25 * variance + covariance, rel=1e-5)


def test_collapsed_embeddings_have_a_finite_gradient() -> None:
    pairs = torch.ones(8, 3, requires_grad=True)
    torch.autograd.backward(vicreg(pairs))
    assert pairs.grad is not None
    assert bool(torch.isfinite(pairs.grad).all())


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_batch_is_pairs_of_different_views(world_size: int) -> None:
    dataset = open_dataset(tiny_run().data)
    asked: list[Request] = []
    load = dataset.load
    dataset.load = lambda requests, device: asked.extend(requests) or load(requests, device)  # type: ignore[method-assign]
    for rank in range(world_size):
        batches = list(dataset.train_batches(32, seed=1, epoch=2, rank=rank, world_size=world_size, pairs=True))
        for batch in batches:
            assert torch.equal(batch.indexes[0::2], batch.indexes[1::2])
            assert not torch.equal(batch.images[0::2], batch.images[1::2])
    positions = torch.cat([request.positions for request in asked if request.positions is not None])
    assert len(positions.unique()) == len(positions)


def test_labels_play_no_part_in_it_and_then_they_do(tmp_path: Path) -> None:
    # At a larger rate it depends on the processor's rounding whether the encoder comes away from where the start leaves it.
    short = {"duration": "6 epochs", "batch_size": 32, "learning_rate": 0.003}
    run = started_run(training=short, encoder={"width": 8, "hidden": 32})
    summary = train(run, tmp_path / "run")
    rows = records.read_rows(tmp_path / "run" / records.METRICS)
    assert rows[0]["top1"] < 0.5 < summary["final_top1"]
    # The loss of the start is VICReg's, that of the rest is one minus a cosine.
    assert rows[0]["train_loss"] > 2 > rows[1]["train_loss"]


@pytest.mark.parametrize(
    "changes", [{}, {"readout": {"start": "2 steps", "every": "2 steps"}, "training": {"accumulate": 2}}]
)
def test_it_resumes_to_the_bit(changes: dict[str, Any], tmp_path: Path) -> None:
    run = started_run(**merge(changes, {"training": {"checkpoint_minutes": 1e-9}}))
    train(run, tmp_path / "whole")
    train_killed(run, tmp_path / "killed", 4)
    train(run, tmp_path / "killed")
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_two_processes_train_on_their_own_pairs(tmp_path: Path) -> None:
    run = started_run(objective={"name": "cross_entropy"})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run.plain()))
    done = torchrun(2, tmp_path, "train", "--config", "run.yaml", "--out", "two")
    assert done.returncode == 0, done.stderr
    assert records.read_json(tmp_path / "two" / records.SUMMARY)["processes"] == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lifelong": {"groups": 2}}, "leave lifelong out"),
        ({"objective": {"name": "partial_fc"}}, "another objective"),
        ({"data": {"augment": {"crop_padding": 0}}}, r"without data\.augment"),
        ({"data": {"name": "fractals", "endless": True, "image_size": 16}}, "endless"),
    ],
)
def test_what_it_cannot_do_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        started_run(**changes)


def test_a_batch_without_whole_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"training\.batch_size 6: a self-supervised start needs two whole pairs"):
        train(started_run(training={"batch_size": 6, "accumulate": 2}), tmp_path)
