"""The read-out in closed form within training: with everything else that a run may hold."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from lsc.data import open_dataset
from lsc.errors import UserError
from lsc.settings import merge
from lsc.training import checkpoints, records
from lsc.training import loop as training
from lsc.training.building import task_for
from lsc.training.devices import make_fabric
from lsc.training.last_layer import LastLayer
from lsc.training.loop import train
from lsc.training.phases import plan_phases
from lsc.training.run import Run
from lsc.training.weights import load_task
from tests.conftest import tiny_run
from tests.training.test_training import assert_same, torchrun, train_killed

READOUT: dict[str, Any] = {"start": "4 steps", "every": "2 steps", "half_life": 5}


def solved_run(readout: dict[str, Any] | None = None, **changes: Any) -> Run:
    return tiny_run(**merge({"encoder": {"hidden": 24}, "readout": READOUT | (readout or {})}, changes))


@pytest.mark.parametrize("sums", ["running", "passes", None])
@pytest.mark.parametrize("objective", ["cosine", "euclidean", "orbit_softmax", "center_softmax"])
def test_it_learns_with_every_objective_with_centers(sums: str | None, objective: str, tmp_path: Path) -> None:
    run = solved_run(
        {"sums": sums},
        objective={"name": objective},
        encoder={"width": 8},
        training={"duration": "6 epochs", "batch_size": 64},
    )
    summary = train(run, tmp_path)
    assert summary["final_top1"] > 0.7
    assert summary["refit_images"] == open_dataset(run.data).size("train") < 100 * 24
    assert 0 <= summary["top1_before_refit"] <= 1


def test_it_works_without_a_hidden_layer(tmp_path: Path) -> None:
    summary = train(solved_run(encoder={"hidden": None}), tmp_path)
    assert summary["final_top1"] > 0.4


@pytest.mark.parametrize("dim", [4, 32])
def test_a_classification_layer_is_refitted_once_it_has_trained(dim: int, tmp_path: Path) -> None:
    """By the least squares of its rank to one-hot targets; with as many coordinates as classes, by the dense solution."""
    run = solved_run(
        {"sums": None, "ridge": 1e-3},
        objective={"name": "cross_entropy"},
        centers={"dim": dim},
        encoder={"width": 8},
        training={"duration": "4 epochs", "batch_size": 64},
    )
    summary = train(run, tmp_path)
    assert summary["final_top1"] > 0.6
    assert summary["refit_images"] == open_dataset(run.data).size("train")
    assert not (tmp_path / records.SUMS).exists()  # of a layer that grows by training alone
    restored, dataset = load_task(tmp_path), open_dataset(run.data)
    task, labels = restored.task.eval(), dataset.labels("train")
    batch = next(dataset.eval_batches("train", len(labels)))
    with torch.no_grad():
        rows = torch.cat([task.encoder.hidden(batch.images), torch.ones(len(labels), 1)], 1).double()
        logits = task.objective.logits(task.encoder(batch.images))  # type: ignore[operator]
    gram = rows.T @ rows
    gram.diagonal().add_(1e-3 * gram.diagonal().mean())
    dense = rows @ torch.linalg.solve(gram, rows.T @ torch.eye(6, dtype=torch.float64)[labels])
    assert torch.allclose(logits.double(), dense, atol=2e-3) == (dim == 32)
    assert torch.linalg.matrix_rank(logits, rtol=1e-4) == min(dim, 6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objective": {"name": "cross_entropy"}}, "add sums: null, which refits it once it has trained"),
        ({"objective": {"name": "partial_fc"}, "readout": {"sums": None}}, "form: leave the block out"),
        (
            {"objective": {"name": "cross_entropy"}, "readout": {"sums": None}, "lifelong": {"groups": 2}},
            "leave the block or lifelong out",
        ),
    ],
)
def test_layers_have_no_closed_form_as_they_train(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        solved_run(**changes)


def test_the_last_layer_is_solved_and_trained_by_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is solved it stays as it is to the next solution, whatever the steps between do."""
    seen: dict[int, torch.Tensor] = {}
    write = training.write_checkpoint

    def write_and_look(folder: Path, state: dict[str, Any]) -> None:
        seen[state["progress"]["step"]] = state["task"]["encoder.projection.2.weight"].clone()
        write(folder, state)

    monkeypatch.setattr(training, "write_checkpoint", write_and_look)
    run = solved_run({"refit": False, "start": "6 steps", "every": "6 steps"}, training={"checkpoint_minutes": 1e-9})
    train(run, tmp_path)
    same = [torch.equal(seen[step], seen[step + 1]) for step in range(1, 18)]
    # Trained up to the fifth step, solved after the sixth, the twelfth and the eighteenth.
    assert same == [False] * 5 + [True] * 5 + [False] + [True] * 5 + [False]
    assert torch.equal(load_file(tmp_path / records.ENCODER)["projection.2.weight"], seen[18])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"readout": {"sums": "passes"}},
        {"training": {"ema": 0.9, "accumulate": 2}},
        {"training": {"precision": "bfloat16"}},
        {"lifelong": {"groups": 2, "replay": 5}},
    ],
    ids=["plain", "passes", "ema-accumulated", "bfloat16", "lifelong"],
)
def test_it_resumes_to_the_bit(changes: dict[str, Any], tmp_path: Path) -> None:
    run = solved_run(**merge(changes, {"training": {"checkpoint_minutes": 1e-9}}))  # after every step
    train(run, tmp_path / "whole")

    train_killed(run, tmp_path / "killed", 7)
    train(run, tmp_path / "killed")
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_accumulated_parts_give_the_sums_of_the_whole(tmp_path: Path) -> None:
    ends = {}
    for parts in (1, 4):
        # Not solved within these steps: a solution would blow up the rounding by which the gradients differ.
        train(
            solved_run({"start": "50 steps"}, training={"accumulate": parts, "optimizer": "sgd", "clip_norm": 1}),
            tmp_path / str(parts),
        )
        state = checkpoints.read_checkpoint(tmp_path / str(parts) / "checkpoints")
        assert state is not None
        ends[parts] = state["learner"]["last_layer"]["sums"]
    for name in ("gram", "cross"):
        assert (ends[1][name] - ends[4][name]).abs().max() < 1e-5 * ends[1][name].abs().max()


@pytest.mark.slow
def test_two_processes_add_their_sums_up(tmp_path: Path) -> None:
    run = solved_run(training={"optimizer": "sgd", "clip_norm": 1})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run.plain()))
    done = torchrun(2, tmp_path, "train", "--config", "run.yaml", "--out", "two", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    train(run, tmp_path / "one", accelerator="cpu")
    sums = [
        torch.load(tmp_path / name / "checkpoints" / checkpoints.LAST, weights_only=True)["learner"]["last_layer"][
            "sums"
        ]
        for name in ("one", "two")
    ]
    for name in ("gram", "cross"):
        assert (sums[0][name] - sums[1][name]).abs().max() < 1e-3 * sums[0][name].abs().max()
    # A solution blows rounding up in the weights, but not in what they do.
    for first, second in zip(
        *(records.read_rows(tmp_path / name / records.METRICS) for name in ("one", "two")), strict=True
    ):
        assert first["train_loss"] == pytest.approx(second["train_loss"], rel=1e-3)
        assert first["top1"] == pytest.approx(second["top1"], abs=0.02)


def test_a_checkpoint_changes_no_sum() -> None:
    """When one is written depends on the clock; it holds what all processes have together."""
    run = solved_run()
    fabric = make_fabric(run.training, "cpu")
    dataset = run.data.open()
    task = task_for(run, dataset)
    assert run.readout is not None
    last = LastLayer(task, run, run.readout, plan_phases(run, dataset)[0], fabric, lambda: None)
    last.add(torch.randn(30, task.encoder.last.in_features), torch.arange(30) % 6)
    last.fabric = SimpleNamespace(world_size=2, is_global_zero=True, all_reduce=lambda part, reduce_op: 2 * part)  # type: ignore[assignment]
    before = {name: part.clone() for name, part in last.sums.state_dict().items()}
    last.gather()
    for name, part in last.sums.state_dict().items():
        assert torch.equal(part, before[name])
        assert torch.equal(last.state_dict()["sums"][name], 2 * part)


def test_a_student_of_a_teacher_has_it_too(tmp_path: Path) -> None:
    train(tiny_run(), tmp_path / "teacher")
    run = solved_run({"images": 300}, teacher={"run": "own/own"})
    assert train(run, tmp_path / "student", teacher=tmp_path / "teacher")["refit_images"] == 300


def test_a_layer_has_no_closed_form() -> None:
    with pytest.raises(UserError, match=r"readout: the targets of cross_entropy move.*take an objective with centers"):
        solved_run(objective={"name": "cross_entropy"})


def test_runs_without_it_are_what_they_were() -> None:
    """The block came later: it changes no digest and no weight of a run that does not have it."""
    run = tiny_run()
    assert run.readout is None
    plain = {key: value for key, value in run.plain().items() if key != "readout"}
    assert tiny_run().digest == Run.model_validate(plain).digest
    assert solved_run().digest != tiny_run(encoder={"hidden": 24}).digest


def test_sums_that_are_not_finite_stop_the_run_in_one_line(tmp_path: Path) -> None:
    run = solved_run(training={"learning_rate": 1e30, "optimizer": "sgd", "clip_norm": None, "warmup": "0 steps"})
    with pytest.raises(UserError, match=r"step \d+: .*not finite"):
        train(run, tmp_path)
    assert not (tmp_path / records.SUMMARY).exists()
