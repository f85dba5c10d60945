"""What processes share, and how exactly they compute; clipping belongs to the recipe that asks for it."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lsc.settings import digest
from lsc.training import devices
from lsc.training.options import TrainingOptions


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
