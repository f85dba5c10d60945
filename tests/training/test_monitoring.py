"""What is watched: operations are counted, and counting leaves no trace."""

import copy
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from lightning_fabric import Fabric

from lsc.data import open_dataset
from lsc.data.base import Batch
from lsc.data.given import Given
from lsc.errors import UserError
from lsc.training import monitoring, records
from lsc.training.building import task_for
from lsc.training.devices import make_fabric
from lsc.training.evaluation import evaluate
from lsc.training.loop import count_flops, repeatable, train
from lsc.training.monitoring import Watch, flops_per_step, on_meta, peak_flops
from lsc.training.optimization import Learner
from lsc.training.progress import Progress
from lsc.training.weights import load_task
from tests.conftest import tiny_run


def test_operations_of_a_step_are_those_of_its_matrices() -> None:
    class Line(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(30, 20, bias=False)

        def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return self.layer(images).sum()

    # Two operations per multiply and add: forward, and the gradient of the weights; the images need none.
    assert flops_per_step(Line(), torch.randn(8, 30), torch.zeros(8)) == 2 * 2 * 8 * 30 * 20


def test_counting_leaves_no_trace() -> None:
    run = tiny_run(encoder={"norm": "batch"})
    dataset = open_dataset(run.data)
    task = task_for(run, dataset).train()
    before = copy.deepcopy(task.state_dict())
    batch = next(dataset.train_batches(16, seed=0, epoch=0))
    assert flops_per_step(task, batch.images, batch.labels) > 1e6
    assert task.training
    assert all(torch.equal(value, before[key]) for key, value in task.state_dict().items())
    assert all(parameter.grad is None for parameter in task.parameters())


def test_a_display_on_a_log_writes_a_plain_line_per_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    from lsc.training.monitoring import Display

    display = Display("a/b/seed_0", 10, 0, enabled=True)
    display.step([1.0])
    display.epoch({"epoch": 1, "step": 5, "train_loss": 0.5, "top1": 0.25, "images_per_second": 100.0})
    display.close()
    assert capsys.readouterr().err.startswith("epoch 1  step 5/10  loss 0.5000  top1 0.2500  100 images/s")
    silent = Display("a/b/seed_0", 10, 0, enabled=False)
    silent.epoch({"epoch": 1, "step": 5, "train_loss": 0.5, "images_per_second": 100.0})
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("objective", ["cross_entropy", "cosine", "euclidean", "orbit_softmax"])
@pytest.mark.parametrize("rate", [1e20, 1e38])
@pytest.mark.parametrize("duration", ["1 steps", "12 steps"])
def test_what_the_last_step_blows_up_is_refused(objective: str, rate: float, duration: str, tmp_path: Path) -> None:
    """The loss of a step is that before it; so a last step shows what it did in the weights and the embeddings alone."""
    options = {"duration": duration, "warmup": "0 steps", "learning_rate": rate}
    with pytest.raises(UserError, match=r"step \d+: .*learning_rate|embeddings of .* are not finite: lower") as caught:
        train(tiny_run(objective={"name": objective}, training=options), tmp_path)
    assert "\n" not in str(caught.value)
    left = {path.name for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size}
    assert left <= {"config.yaml", "nonfinite.json"}


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": {"name": "cosine"}},
        {"objective": {"name": "cross_entropy"}, "encoder": {"hidden": 16}},
        {"objective": {"name": "partial_fc", "sample_rate": 0.5}},
        {"objective": {"name": "orbit_softmax"}, "encoder": {"name": "vit_ti", "width": 24, "depth": 2}},
        {"objective": {"name": "cosine"}, "centers": {"system": "V21", "perturbation": 0.1}},
        {"objective": {"name": "center_softmax"}, "centers": {"system": "codes", "dim": 24, "fit": {}}},
    ],
    ids=lambda changes: changes["objective"]["name"],
)
@pytest.mark.apart
def test_operations_are_the_same_on_a_copy_without_numbers(changes: dict[str, Any]) -> None:
    run = tiny_run(**changes)
    dataset = open_dataset(run.data)
    task = task_for(run, dataset)
    batch = next(dataset.train_batches(16, seed=0, epoch=0))
    counted = flops_per_step(on_meta(task), batch.images.to("meta"), batch.labels.to("meta"))
    # Attention on the CPU does a product again on the way back, which is not counted as work of the model.
    assert counted == pytest.approx(flops_per_step(task, batch.images, batch.labels), rel=0.01)
    assert {value.device.type for value in task.state_dict().values()} == {"cpu"}


def test_a_network_that_asks_for_its_numbers_is_not_counted_and_trains_all_the_same() -> None:
    class Asks(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(64, 8)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.layer(images.flatten(1) / images.abs().max().item())

    run = tiny_run(encoder={"name": "given"})
    dataset = open_dataset(run.data)
    fabric = SimpleNamespace(device=torch.device("cuda:0"), world_size=1)
    task = task_for(run, dataset, backbone=Asks())
    assert count_flops(task, dataset, run, cast(Fabric, fabric)) is None
    plain = tiny_run()
    assert cast(float, count_flops(task_for(plain, dataset), dataset, plain, cast(Fabric, fabric))) > 1e6


@pytest.mark.apart
def test_a_teacher_is_counted_and_stays_where_it_is() -> None:
    run = tiny_run(teacher={"run": "a/b"})
    dataset = open_dataset(run.data)
    teacher = task_for(tiny_run(), dataset)
    task = task_for(run, dataset, teacher=teacher)
    images = torch.empty(16, *dataset.image_shape, device="meta")
    labels = torch.zeros(16, dtype=torch.int64, device="meta")
    alone = flops_per_step(on_meta(task_for(tiny_run(), dataset)), images, labels)
    assert flops_per_step(on_meta(task, [teacher]), images, labels) > 1.2 * alone
    assert next(teacher.parameters()).device.type == "cpu"


@pytest.mark.parametrize(
    ("card", "rate"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA T4", None),
    ],
)
def test_the_peak_rate_is_that_of_the_card(card: str, rate: float | None) -> None:
    assert peak_flops("bfloat16", card) == rate


def test_warm_up_is_no_part_of_any_time() -> None:
    progress = Progress()
    progress.count(30.0, 10.0, warm_up=True)
    progress.losses.append(1.0)
    assert progress.timed() == (1, 30.0)  # there is nothing else
    for _ in range(4):
        progress.count(0.5, 0.1, warm_up=False)
        progress.losses.append(1.0)
    assert progress.timed() == (4, 2.0)
    assert progress.wait_seconds == pytest.approx(0.4)


def test_a_score_on_no_images_is_none_but_a_line(tmp_path: Path) -> None:
    run = tiny_run(training={"duration": "2 steps"})
    dataset = run.data.open()
    train(run, tmp_path)
    restored = load_task(tmp_path)
    fabric = make_fabric(run.training, "cpu")
    with pytest.raises(UserError, match="no images of test to evaluate on"):
        evaluate(restored.task, dataset, "test", fabric=fabric, batch_size=8, subset=torch.zeros(0, dtype=torch.int64))


def test_a_group_of_classes_without_test_images_is_refused_before_training(tmp_path: Path) -> None:
    images = torch.zeros(40, 1, 8, 8, dtype=torch.uint8)
    train_set = torch.utils.data.TensorDataset(images, torch.arange(40) % 4)
    test_set = torch.utils.data.TensorDataset(images[:8], 2 + torch.arange(8) % 2)
    dataset = Given({"train": train_set, "test": test_set})
    run = tiny_run(
        data={"name": "given", "fingerprint": dataset.fingerprint},
        lifelong={"groups": 2},
        training={"duration": "1 epochs", "batch_size": 8},
    )
    with pytest.raises(UserError, match="test has no images of the first 2 classes"):
        train(run, tmp_path / "run", dataset=dataset)
    assert not (tmp_path / "run").exists()


def trained_values(learner: Learner) -> dict[str, torch.Tensor]:
    """All that a step changes: weights, the optimiser's moments and counts, and those of a layer that trains itself."""
    values = {**learner.task.state_dict(), **learner.task.objective.optimizer_state()}
    for number, state in learner.optimizer.state_dict()["state"].items():
        values |= {f"{number} {name}": value for name, value in state.items()}
    return {name: value.clone() for name, value in values.items()}


def spoiled(monkeypatch: pytest.MonkeyPatch, steps: set[int], factor: float = math.nan) -> list[bool]:
    """Multiply a gradient of each of these steps by ``factor``; the loss is finite. Says of each whether it changed a value."""
    changed: list[bool] = []
    descend = Learner.descend

    def descend_badly(learner: Learner, batch: Batch, rate: float) -> tuple[torch.Tensor, torch.Tensor]:
        bad = len(changed) + 1 in steps
        weight = next(parameter for parameter in learner.task.encoder.parameters() if parameter.requires_grad)
        handle = weight.register_hook(lambda gradient: gradient * factor if bad else gradient)
        before = trained_values(learner)
        found = descend(learner, batch, rate)
        handle.remove()
        after = trained_values(learner)
        changed.append(any(not torch.equal(after[name], before.get(name, 0 * after[name])) for name in after))
        return found

    monkeypatch.setattr(Learner, "descend", descend_badly)
    return changed


@pytest.mark.parametrize("factor", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("objective", "training"),
    [
        ("cosine", {"ema": 0.9}),
        ("cosine", {"optimizer": "sgd", "accumulate": 2}),
        ("cosine", {"optimizer": "sgd", "momentum": 0.0}),
        ("partial_fc", {}),
        ("partial_fc", {"clip_norm": None}),
    ],
)
def test_a_step_whose_gradient_is_not_finite_changes_nothing_and_is_told(
    objective: str, training: dict[str, Any], factor: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fused attention has such gradients now and then, in bfloat16 (docs/performance.md)."""
    changed = spoiled(monkeypatch, {1, 7, 8}, factor)
    settings = {"learning_rate": 0.01, "duration": "20 steps"} | training
    summary = train(tiny_run(objective={"name": objective}, training=settings), tmp_path)
    assert [step + 1 for step, did in enumerate(changed) if not did] == [1, 7, 8]
    rows = records.read_rows(tmp_path / records.METRICS)
    assert sum(row.get("steps_left_out", 0) for row in rows) == summary["steps_left_out"] == 3
    assert all(0 < row["gradient_norm"] < math.inf for row in rows)


def test_ten_such_steps_in_a_row_end_the_run_in_a_line_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoiled(monkeypatch, set(range(4, 100)))
    with pytest.raises(
        UserError, match=r"step 13: 10 gradients in a row .* left out; lower training\.learning_rate or len"
    ):
        train(tiny_run(training={"duration": "20 steps"}), tmp_path)
    assert json.loads((tmp_path / "nonfinite.json").read_text())["step"] == 13


def test_of_an_epoch_that_was_left_out_as_a_whole_no_gradient_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoiled(monkeypatch, {1, 2, 3})
    train(tiny_run(training={"duration": "3 steps"}), tmp_path)
    (row,) = records.read_rows(tmp_path / records.METRICS)
    assert row["steps_left_out"] == 3
    assert "gradient_norm" not in row
    assert "3 steps left out (gradient not finite)" in capsys.readouterr().err


def test_an_operation_that_cannot_be_repeated_is_named() -> None:
    said = "max_pool3d_with_indices_backward_cuda does not have a deterministic implementation, but you set ..."
    with (
        pytest.raises(UserError, match=r"^max_pool3d_with_indices_backward_cuda: .* set training\.deterministic=false"),
        repeatable(),
    ):
        raise RuntimeError(said)
    with pytest.raises(RuntimeError, match="of another kind"), repeatable():
        raise RuntimeError("of another kind")


def test_steps_left_out_before_a_checkpoint_count_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a run that is requeued again and again would never end."""
    run = tiny_run(training={"duration": "20 steps", "checkpoint_minutes": 1e-9})  # after every step
    spoiled(monkeypatch, set(range(4, 100)))
    with pytest.raises(UserError, match="step 13: 10 gradients in a row"):
        train(run, tmp_path)
    with pytest.raises(UserError, match="step 13: 10 gradients in a row"):
        train(run, tmp_path)


def test_a_loss_that_is_not_finite_in_another_process_ends_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients are common, so that all processes ask each other at the same steps."""
    watch = Watch(Progress(), make_fabric(tiny_run().training, "cpu"))
    asked = []
    monkeypatch.setattr(monitoring, "greatest", lambda broken, fabric: asked.append(broken) or [0.0, 1.0])
    for step, norm in enumerate([1.0, 1.0, 1.0, math.nan], start=1):
        watch.add(step, 0.1, torch.tensor(0.5), torch.tensor(norm), torch.arange(3))
        if step == 2:
            watch.check(tmp_path)
    with pytest.raises(UserError, match=r"step 4: loss nan, gradient norm nan"):
        watch.check(tmp_path)
    assert asked == [[0.0, 0.0]]
