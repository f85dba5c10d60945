"""On a real GPU, skipped without one: the losses of the CPU, training in bfloat16, compiled blocks, going on again."""

from pathlib import Path
from typing import Any

import pytest
import torch

import lsc
from lsc.data import open_dataset
from lsc.errors import UserError
from lsc.objectives import OBJECTIVES
from lsc.objectives.base import leave_out
from lsc.systems import parse_system
from lsc.training import records
from lsc.training.loop import train
from tests.conftest import tiny_run
from tests.training.test_device_waits import EVERYTHING, FRACTALS, made

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@pytest.mark.parametrize("classes", [90, 5000])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_gradients_and_predictions_are_those_of_the_cpu(name: str, classes: int) -> None:
    objective = made(
        name, {"sample_rate": 1.0} if name == "partial_fc" else {}, classes, parse_system("A", None, classes)
    )
    embeddings, labels = torch.randn(64, objective.dim), torch.randint(classes, (64,))
    found = []
    for device in ("cpu", "cuda"):
        objective.to(device)
        z = embeddings.to(device).clone().requires_grad_()
        loss = objective.loss(z, labels.to(device))
        loss.backward()  # type: ignore[no-untyped-call]
        objective.abandon()
        assert z.grad is not None
        found.append((loss.detach().cpu(), z.grad.cpu(), objective.predict(z.detach(), 2).cpu()))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-4, atol=1e-5)
    if name != "center_softmax" or classes == 90:  # else it draws its classes on the device
        torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-3, atol=1e-6)
    # Rows of a layer differ in the last bits, so neighbours may swap.
    assert (found[1][2] == found[0][2]).float().mean() > (0.95 if name in ("cross_entropy", "partial_fc") else 0.999)


@pytest.mark.parametrize(
    "options", [{"name": "digits", "augment": EVERYTHING}, {**FRACTALS, "endless": True, "color": True}]
)
def test_batches_are_those_of_the_cpu(options: dict[str, Any]) -> None:
    dataset = open_dataset(**options)
    here, there = (list(dataset.train_batches(16, seed=0, epoch=0, device=device)) for device in ("cpu", "cuda"))
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one.labels, other.labels.cpu())
        # A sine of another library moves a point to the next pixel now and then.
        assert (one.images - other.images.cpu()).abs().mean() < 0.02


@pytest.mark.parametrize("compiled", [False, True])
def test_a_run_trains_in_bfloat16_and_goes_on_where_it_stopped(
    compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lsc.training import loop

    run = tiny_run(
        encoder={"name": "vit_ti", "width": 64, "heads": 2, "depth": 2, "patch": 4},
        training={"duration": "6 epochs", "precision": "bfloat16", "compile": compiled, "checkpoint_minutes": 1e-9},
    )
    summary = train(run, tmp_path / "whole", accelerator="cuda")
    assert summary["final_top1"] > 1.5 / 6
    rows = records.read_rows(tmp_path / "whole" / records.METRICS)
    assert all(0 <= row["data_wait_share"] < 1 for row in rows)
    assert all(0 < row.get("model_flops_utilisation", 0.5) < 1 for row in rows)

    class Stopped(Exception):
        pass

    write = loop.write_checkpoint

    def write_and_stop(folder: Path, state: dict[str, Any]) -> None:
        write(folder, state)
        if state["progress"]["step"] == 15:
            raise Stopped

    monkeypatch.setattr(loop, "write_checkpoint", write_and_stop)
    with pytest.raises(Stopped):
        train(run, tmp_path / "stopped", accelerator="cuda")
    monkeypatch.setattr(loop, "write_checkpoint", write)
    train(run, tmp_path / "stopped", accelerator="cuda")
    again = records.read_rows(tmp_path / "stopped" / records.METRICS)
    for one, other in zip(rows, again, strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=1e-3)


@pytest.mark.parametrize("name", ["cosine", "center_softmax", "orbit_softmax"])
def test_a_compiled_loss_of_many_classes_is_what_it_was(name: str) -> None:
    """Of more than 4,096, whose vectors are found by a permutation that is computed."""
    objective = made(name, {}, 5000, parse_system("V22", None, 5000)).to("cuda")
    embeddings, labels = torch.randn(64, objective.dim, device="cuda"), torch.randint(5000, (64,), device="cuda")
    plain = objective(embeddings, labels)
    objective.compile(dynamic=False)
    torch.testing.assert_close(objective(embeddings, labels), plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_a_step_whose_gradient_is_not_finite_is_left_out(kind: Any) -> None:
    weight = torch.nn.Parameter(torch.ones(5, device="cuda"))
    optimizer = kind([weight], lr=0.1, fused=True, **({"momentum": 0.9} if kind is torch.optim.SGD else {}))
    for value in (torch.nan, 1.0, torch.inf, 1.0):
        weight.grad = torch.full_like(weight, value)
        before = weight.detach().clone()
        leave_out(optimizer, weight.grad.norm())
        optimizer.step()
        assert torch.equal(weight, before) == (value != 1.0)
    assert torch.isfinite(weight).all()


def test_a_network_of_ones_own_is_used_after_its_training_and_goes_on(tmp_path: Path) -> None:
    """It lies on the GPU from then on, and what it was given as a copy is tried there."""
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.AvgPool2d(3), torch.nn.Flatten())
    images = torch.randint(256, (64, 1, 8, 8), dtype=torch.uint8)
    data = torch.utils.data.TensorDataset(images, torch.arange(64) % 2)
    for _ in range(2):
        trained = lsc.fit(network, data, tmp_path / "run", device="cuda", training={"duration": "3 epochs"})
        assert trained.predict(images[:5]).shape == (5, 1)
    pooled = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
    with pytest.raises(UserError, match=r"adaptive_avg_pool2d_backward_cuda: .* set training\.deterministic=false"):
        lsc.fit(pooled, data, tmp_path / "pooled", device="cuda", training={"duration": "3 epochs"})


def test_a_frozen_network_has_no_gradient_once_its_last_layer_is_solved_for(tmp_path: Path) -> None:
    readout = {"start": "4 steps", "every": "2 steps"}
    run = tiny_run(encoder={"frozen": True}, readout=readout, training={"duration": "12 steps"})
    assert train(run, tmp_path, accelerator="cuda")["steps"] == 12
