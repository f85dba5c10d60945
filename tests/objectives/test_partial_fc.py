"""Partial FC does what is published, and trains as every other objective does."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lsc.data import open_dataset
from lsc.errors import UserError
from lsc.objectives.partial_fc import PartialFC
from lsc.training import records
from lsc.training.building import task_for
from lsc.training.devices import make_fabric
from lsc.training.loop import train
from lsc.training.monitoring import flops_per_step
from lsc.training.optimization import Learner
from lsc.training.weights import load_task
from tests.conftest import ROOT, assert_refused, tiny_run


def test_partial_fc_with_all_rows_is_dense_cross_entropy() -> None:
    torch.manual_seed(0)
    layer = PartialFC(30, 7, sample_rate=1.0)
    weight = layer.weight.clone().requires_grad_()
    z = torch.randn(5, 7, requires_grad=True)
    same_z = z.detach().clone().requires_grad_()
    labels = torch.tensor([3, 3, 29, 0, 11])
    loss = layer.loss(z, labels)
    dense = F.cross_entropy(64.0 * F.normalize(same_z, dim=1) @ F.normalize(weight, dim=1).T, labels)
    loss.backward()
    dense.backward()
    assert layer.sampled is not None
    torch.testing.assert_close(loss, dense)
    torch.testing.assert_close(z.grad, same_z.grad)
    torch.testing.assert_close(layer.sampled.grad, weight.grad)
    # The update is that of AdamW on the dense layer, in this step and the next.
    optimizer = torch.optim.AdamW([weight], lr=1e-2, weight_decay=0.1)
    for _ in range(2):
        optimizer.step()
        layer.update(1e-2, 0.1)
        torch.testing.assert_close(layer.weight, weight.detach())
        optimizer.zero_grad()
        layer.loss(z.detach(), labels).backward()
        dense = F.cross_entropy(64.0 * F.normalize(z.detach(), dim=1) @ F.normalize(weight, dim=1).T, labels)
        dense.backward()


def test_partial_fc_always_samples_the_batch_and_the_others_uniformly() -> None:
    torch.manual_seed(0)
    layer = PartialFC(200, 3, sample_rate=0.1)
    labels = torch.tensor([5, 5, 199, 0])
    counts = torch.zeros(200)
    for _ in range(2000):
        index = layer.sample(labels)
        assert len(index) == 20
        assert bool((index[1:] > index[:-1]).all())
        counts[index] += 1
    assert counts[[0, 5, 199]].tolist() == [2000.0] * 3
    others = torch.ones(200, dtype=torch.bool)
    others[[0, 5, 199]] = False
    expected = 2000 * 17 / 197
    assert (counts[others] - expected).abs().max() < 5 * expected**0.5
    # More classes in the batch than the rate allows: all of them, and no others.
    assert layer.sample(torch.arange(100, 150)).tolist() == list(range(100, 150))


def test_partial_fc_leaves_the_rows_outside_the_sample_alone() -> None:
    torch.manual_seed(0)
    layer = PartialFC(100, 4, sample_rate=0.1, scale=4.0)
    before = layer.weight.clone()
    layer.loss(torch.randn(3, 4), torch.tensor([1, 2, 3])).backward()
    assert layer.index is not None
    sampled = layer.index
    layer.update()
    for values, old in (
        (layer.weight, before),
        (layer.exp_avg, torch.zeros(100, 4)),
        (layer.exp_avg_sq, torch.zeros(100, 4)),
    ):
        changed = (values != old).any(dim=1).nonzero().flatten()
        assert changed.tolist() == sampled.tolist()
    assert [name for name, _ in layer.named_parameters()] == []


def test_partial_fc_refuses_an_impossible_rate() -> None:
    with pytest.raises(UserError, match="sample_rate 0"):
        PartialFC(10, 3, sample_rate=0.0)


def test_the_margin_is_taken_from_the_true_class() -> None:
    torch.manual_seed(0)
    layer = PartialFC(20, 6, sample_rate=1.0, scale=8.0, margin=0.35)
    z, labels = torch.randn(4, 6), torch.tensor([0, 19, 7, 7])
    cosines = F.normalize(z, dim=1) @ F.normalize(layer.weight, dim=1).T
    expected = F.cross_entropy(8.0 * (cosines - 0.35 * F.one_hot(labels, 20)), labels)
    torch.testing.assert_close(layer.loss(z, labels).detach(), expected)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_predictions_are_the_greatest_of_all_cosines(k: int) -> None:
    torch.manual_seed(0)
    layer, z = PartialFC(20, 6), torch.randn(9, 6)
    cosines = F.cosine_similarity(z[:, None], layer.weight[None], dim=2)
    assert torch.equal(layer.predict(z, k), cosines.argsort(dim=1, descending=True)[:, :k])
    torch.testing.assert_close(layer.logits(z), 64 * cosines)


def test_new_classes_leave_the_old_ones_alone_and_are_loaded_again() -> None:
    torch.manual_seed(0)
    layer = PartialFC(20, 6)
    layer.loss(torch.randn(3, 6), torch.tensor([1, 2, 3])).backward()
    layer.update()
    before = {name: value.clone() for name, value in layer.named_buffers()}
    layer.extend(5)
    assert (layer.num_classes, layer.trained_values) == (25, 150)
    assert all(torch.equal(value[:20], before[name]) for name, value in layer.named_buffers() if value.ndim)
    assert not layer.exp_avg[20:].any()
    fresh = PartialFC(20, 6)
    fresh.load_state_dict(layer.state_dict())
    fresh.load_optimizer_state(layer.optimizer_state())
    assert list(layer.state_dict()) == ["weight"]
    assert all(torch.equal(value, layer.get_buffer(name)) for name, value in fresh.named_buffers())


def partial(**changes: Any) -> Any:
    return tiny_run(objective={"name": "partial_fc", "sample_rate": 0.5}, **changes)


def test_it_trains_in_the_common_loop(tmp_path: Path) -> None:
    summary = train(partial(training={"duration": "10 epochs"}), tmp_path)
    assert summary["final_top1"] > 2 / 6
    assert summary["objective_parameters"] == 6 * summary["dim"]
    rows = records.read_rows(tmp_path / records.METRICS)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    trained = load_task(tmp_path).task.objective
    assert isinstance(trained, PartialFC)
    assert bool(trained.weight.any())


def test_its_rows_are_clipped_with_the_rest() -> None:
    run = partial(training={"clip_norm": 0.01})
    dataset = open_dataset(run.data)
    learner = Learner(task_for(run, dataset), make_fabric(run.training, "cpu"), run.training)
    norms: list[Tensor] = []

    def seen(*_: Any) -> None:
        layer = learner.task.objective
        assert isinstance(layer, PartialFC)
        assert layer.sampled is not None
        assert layer.sampled.grad is not None
        norms.append(layer.sampled.grad.norm())
        layer.abandon()

    learner.task.objective.update = seen  # type: ignore[method-assign]
    _, norm = learner.step(next(dataset.train_batches(128, seed=0, epoch=0)), 1e-3)
    assert norm > 0.01 > norms[0] > 0


def test_counting_operations_leaves_no_trace() -> None:
    run = partial()
    dataset = open_dataset(run.data)
    task = task_for(run, dataset)
    batch = next(dataset.train_batches(128, seed=0, epoch=0))
    before = torch.get_rng_state()
    assert flops_per_step(task, batch.images, batch.labels) > 0
    task.objective.abandon()
    assert torch.equal(torch.get_rng_state(), before)
    assert not any("sampled" in name for name, _ in task.named_parameters())


def test_groups_of_classes_add_rows(tmp_path: Path) -> None:
    run = partial(lifelong={"groups": 3, "replay": 5}, training={"duration": "4 epochs", "batch_size": 32})
    assert train(run, tmp_path)["objective_parameters"] == 6 * 3
    first = next(row for row in records.read_rows(tmp_path / records.METRICS) if "top1" in row)
    assert 0 <= first["novelty_auroc"] <= 1


def test_what_it_cannot_do_is_refused(lsc_here: Any, tmp_path: Path) -> None:
    for change in ({"accumulate": 2}, {"optimizer": "sgd"}, {"ema": 0.9}):
        with pytest.raises(UserError, match=r"partial_fc trains the rows of one sample"):
            partial(training=change)
    done = lsc_here(
        "train", "--study", ROOT / "config" / "demo.yaml", "--run", "low_dim/cosine/seed_0",
        "--set", "objective={name: partial_fc}", "--out", "out", "--processes", "2", "--device", "cpu",
    )  # fmt: skip
    assert_refused(done, "partial_fc", "--processes 1")


@pytest.mark.parametrize("rate", [0.2, 1.0])
@pytest.mark.parametrize("label", [-1, 20])
def test_a_label_of_no_class_is_refused(label: int, rate: float) -> None:
    with pytest.raises(IndexError, match=r"a label is outside of 0\.\.19"):
        PartialFC(20, 6, rate).loss(torch.randn(2, 6), torch.tensor([0, label]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_a_layer_of_another_type_has_float32_losses(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer, z, labels = PartialFC(20, 6, 1.0, margin=0.1).to(dtype), torch.randn(5, 6, dtype=dtype), torch.arange(5)
    same = PartialFC(20, 6, 1.0, margin=0.1)
    same.load_state_dict(layer.state_dict())
    loss = layer.loss(z, labels)
    loss.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, same.loss(z.float(), labels))
    assert torch.equal(layer.logits(z), same.logits(z.float()))
    assert torch.equal(layer.predict(z, 3), same.predict(z.float(), 3))
    before = layer.weight.clone()
    layer.update()
    assert layer.weight.dtype == dtype
    assert not torch.equal(layer.weight, before)
