"""Lifelong learning by sums: new classes without a step, in any order, resumed anywhere."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lsc.data import open_dataset
from lsc.errors import UserError
from lsc.settings import merge
from lsc.training import growth, records
from lsc.training.devices import make_fabric
from lsc.training.last_layer import add_pass, sums_for
from lsc.training.loop import train
from lsc.training.phases import Phase, plan_phases
from lsc.training.run import Run
from lsc.training.weights import load_task
from tests.conftest import tiny_run
from tests.training.test_training import assert_same, train_killed


def growing_run(**changes: Any) -> Run:
    settings: dict[str, Any] = {
        "encoder": {"hidden": 48, "width": 8}, "lifelong": {"groups": 2, "sums": True}, "readout": {}, "centers": {"dim": 16},
        "training": {"duration": "6 epochs", "batch_size": 32},
    }  # fmt: skip
    return tiny_run(**merge(settings, changes))


def test_groups_join_without_a_step(tmp_path: Path) -> None:
    run = growing_run()
    summary = train(run, tmp_path / "run")
    rows = [row for row in records.read_rows(tmp_path / "run" / records.METRICS) if row.get("by_sums")]
    assert [row["phase"] for row in rows] == [0, 1]
    assert [row["classes_seen"] for row in rows] == [3, 6]
    assert {row["step"] for row in rows} == {summary["steps"]}
    assert rows[0]["top1"] > 0.9
    # New classes are recognised, and old ones are not forgotten as they are where steps are taken on new images alone.
    assert min(rows[-1]["group_top1"]) > 0.3
    assert summary["final_top1"] > 0.5
    steps = tiny_run(**merge(run.plain(), {"lifelong": {"sums": False}, "readout": None}))
    train(steps, tmp_path / "steps")
    assert records.read_rows(tmp_path / "steps" / records.METRICS)[-1]["group_top1"][0] < 0.05


def test_the_read_out_is_that_of_all_images_whatever_their_order(tmp_path: Path) -> None:
    run = growing_run()
    train(run, tmp_path / "run")
    task, dataset = load_task(tmp_path / "run").task, open_dataset(run.data)
    assert run.readout is not None
    fabric = make_fabric(run.training, "cpu")
    phases = plan_phases(run, dataset)
    orders: list[list[Phase | None]] = [[*phases], [*phases[::-1]], [None]]
    solutions = []
    for order in orders:
        sums = sums_for(task, run.readout, torch.device("cpu"))
        for phase in order:
            add_pass(sums, task, dataset, run, fabric, None if phase is None else phase.subset)
        solutions.append(sums.solve())
    solutions.append((task.encoder.last.weight.detach(), task.encoder.last.bias.detach()))
    # What they make of images is the same; weights of activations that hardly vary are rounding.
    with torch.no_grad():
        hidden = task.eval().encoder.hidden(next(dataset.eval_batches("test", 100)).images)
    embeddings = [hidden @ weight.T + bias for weight, bias in solutions]
    for other in embeddings[1:]:
        assert float((other - embeddings[0]).abs().max()) < 1e-2


@pytest.mark.parametrize("moment", [5, 13, 14, 15])
def test_it_resumes_to_the_bit(moment: int, tmp_path: Path) -> None:
    """Checkpoints come after each of the 12 steps and their epoch's end, then after each group that was taken in."""
    run = growing_run(training={"duration": "12 steps", "checkpoint_minutes": 1e-9})
    train(run, tmp_path / "whole")

    train_killed(run, tmp_path / "killed", moment)
    train(run, tmp_path / "killed")
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_a_finished_run_takes_nothing_in_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = growing_run(training={"duration": "4 steps"})
    first = train(run, tmp_path)
    monkeypatch.setattr(growth, "take_in", None)
    assert train(run, tmp_path)["final_top1"] == first["final_top1"]


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(UserError, match=r"lifelong\.sums: cross_entropy has no read-out in closed form"):
        growing_run(objective={"name": "cross_entropy"}, readout=None)
    with pytest.raises(UserError, match="leave replay at 0"):
        growing_run(lifelong={"replay": 5})
