"""What processes share, and how exactly they compute; clipping belongs to the recipe that asks for it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lsc.settings import digest
from lsc.training import devices, session
from lsc.training.loop import train
from lsc.training.options import TrainingOptions
from lsc.training.weights import load_task
from tests.conftest import tiny_run


@pytest.mark.parametrize(("precision", "matrices"), [("bfloat16", "high"), ("float32", "highest")])
def test_matrices_in_float32_are_as_exact_as_in_the_measurements(
    precision: Any, matrices: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    fabric = SimpleNamespace(launch=lambda: None, device=torch.device("cuda:0"))
    monkeypatch.setattr(devices, "Fabric", lambda **_: fabric)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", asked.append)
    devices.make_fabric(TrainingOptions(precision=precision), "auto")
    assert asked == [matrices]
    # The CPU computes as it did.
    fabric.device = torch.device("cpu")
    devices.make_fabric(TrainingOptions(precision=precision), "cpu")
    assert asked == [matrices]


@pytest.mark.parametrize(
    ("gpus", "accelerator", "sends"), [(True, "auto", False), (True, "cpu", True), (False, "auto", True)]
)
def test_statistics_are_sent_where_processes_have_their_own(
    gpus: bool, accelerator: str, sends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus)
    strategy = devices._exchange(accelerator)
    assert strategy._ddp_kwargs == {"gradient_as_bucket_view": True, "broadcast_buffers": sends}


def test_gradients_are_clipped_where_it_was_asked_for_or_by_adamw() -> None:
    assert TrainingOptions().clip_norm == 1
    assert TrainingOptions(optimizer="sgd").clip_norm is None
    assert TrainingOptions(optimizer="sgd", clip_norm=1).clip_norm == 1
    assert TrainingOptions(clip_norm=None).clip_norm is None
    # Settings that were written out stay what they are.
    for options in (TrainingOptions(optimizer="sgd"), TrainingOptions(optimizer="sgd", clip_norm=1), TrainingOptions()):
        again = TrainingOptions.model_validate(options.model_dump(mode="json"))
        assert again == options
        assert digest(again) == digest(options)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"centers": {"perturbation": 0.2}, "objective": {"name": "euclidean"}},
        {"objective": {"name": "orbit_softmax"}},
        {"objective": {"name": "partial_fc", "sample_rate": 0.5}, "centers": {"dim": 8}},
        {"centers": {"system": "codes", "dim": 16, "fit": {}}, "objective": {"name": "center_softmax"}},
        {"encoder": {"hidden": 64}, "readout": {}},
        {"encoder": {"name": "vit_ti", "width": 16, "depth": 1, "heads": 2, "patch": 4}},
        {"lifelong": {"groups": 3, "sums": True}, "encoder": {"hidden": 64}},
    ],
    ids=lambda changes: "-".join(str(value.get("name", key)) for key, value in changes.items()) or "cosine",
)
def test_no_training_reads_memory_that_nobody_wrote(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Filled with NaN before, as torch may do, it would show."""
    run = tiny_run(**changes)
    weights = []
    for fills in (False, True):

        def repeat_exactly(wanted: bool, fills: bool = fills) -> None:
            devices.repeat_exactly(wanted)
            torch.utils.deterministic.fill_uninitialized_memory = fills

        monkeypatch.setattr(session, "repeat_exactly", repeat_exactly)
        train(run, tmp_path / str(fills))
        weights.append(load_task(tmp_path / str(fills)).task.state_dict())
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())
