"""The training engine: it learns, repeats itself to the bit, and survives being killed."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from lsc.data import open_dataset
from lsc.errors import UserError
from lsc.settings import digest, merge
from lsc.training import checkpoints, records
from lsc.training import loop as training
from lsc.training.building import task_for
from lsc.training.checkpoints import LAST, read_checkpoint
from lsc.training.loop import train
from lsc.training.options import TrainingOptions
from lsc.training.run import Run, run_from
from lsc.training.weights import load_task
from tests.conftest import ROOT, tiny_run


def outcome(out: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What must not differ between two runs: weights and metrics, timings left out."""
    weights = load_file(out / records.ENCODER) | load_file(out / records.OBJECTIVE)
    rows = records.read_rows(out / records.METRICS)
    return weights, [{key: value for key, value in row.items() if key not in records.TIMINGS} for row in rows]


def assert_same(one: Path, other: Path) -> None:
    (weights, rows), (other_weights, other_rows) = outcome(one), outcome(other)
    assert rows == other_rows
    assert weights.keys() == other_weights.keys()
    assert all(torch.equal(weights[key], other_weights[key]) for key in weights)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    train(tiny_run(), out)
    return out


def test_a_run_leaves_its_whole_folder(undisturbed: Path) -> None:
    assert all((undisturbed / name).is_file() for name in records.RUN_FILES)
    summary = records.read_json(undisturbed / records.SUMMARY)
    rows = records.read_rows(undisturbed / records.METRICS)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[-1]["step"] == summary["steps"] == 18
    assert rows[-1]["examples"] == 18 * 128
    for key in ("train_loss", "top1", "top5", "learning_rate", "images_per_second", "seconds", "gradient_norm"):
        assert rows[-1][key] >= 0
    assert summary["num_classes"] == 6
    assert summary["objective_parameters"] == 0
    assert summary["encoder_parameters"] == sum(
        tensor.numel() for tensor in load_file(undisturbed / records.ENCODER).values()
    )
    assert summary["starts"] == 1
    # Of the process that runs the tests; in a process of its own the training is a part of the whole.
    assert 0 < summary["startup_seconds"] < summary["process_seconds"]
    assert summary["seconds"] < summary["process_seconds"] - summary["startup_seconds"]
    assert summary["versions"]["torch"] == torch.__version__.split("+")[0]
    assert summary["final_top1"] > 1.5 / 6


def test_the_trained_task_can_be_used(undisturbed: Path) -> None:
    trained = load_task(undisturbed)
    task, run, dataset = trained.task, trained.run, open_dataset(trained.run.data)
    hits = total = 0
    for batch in dataset.eval_batches("test", 64):
        hits += int((task.objective.predict(task.encoder(batch.images), 1)[:, 0] == batch.labels).sum())
        total += len(batch.labels)
    assert hits / total == records.read_json(undisturbed / records.SUMMARY)["final_top1"]
    assert run == tiny_run()


def test_the_same_seed_repeats_itself_and_another_does_not(undisturbed: Path, tmp_path: Path) -> None:
    train(tiny_run(), tmp_path / "again")
    assert_same(undisturbed, tmp_path / "again")
    train(tiny_run(seed=1), tmp_path / "other")
    assert outcome(tmp_path / "other")[1] != outcome(undisturbed)[1]


@pytest.mark.parametrize(
    "objective",
    [
        {"name": "cross_entropy"},
        {"name": "euclidean"},
        {"name": "euclidean", "cluster_radius": 0.1},
        {"name": "cosine"},
        {"name": "orbit_softmax"},
    ],
    ids=lambda objective: "-".join(map(str, objective.values())),
)
def test_every_objective_learns_a_batch_by_heart(objective: dict[str, Any], tmp_path: Path) -> None:
    run = tiny_run(objective=objective, encoder={"width": 8})
    dataset = open_dataset(run.data)
    torch.manual_seed(0)
    task = task_for(run, dataset)
    batch = next(dataset.train_batches(32, seed=0, epoch=0))
    optimizer = torch.optim.Adam(task.parameters(), 0.01)
    for _ in range(240):
        optimizer.zero_grad()
        task(batch.images, batch.labels).backward()
        optimizer.step()
    assert (task.objective.predict(task.encoder(batch.images), 1)[:, 0] == batch.labels).all()


# A fork of a process that has torch and is otherwise fresh starts at once and can be killed for real; of this one it could not
# train where another test has had autograd start threads.
FRESH = multiprocessing.get_context("forkserver")
FRESH.set_forkserver_preload(["tests.training.test_training"])


def in_child(work: Callable[..., object], *arguments: Any) -> Any:
    """Start ``work``, a function that can be imported, in a process of its own, without what it says on stderr."""
    child = FRESH.Process(target=_quietly, args=(work, *arguments))
    child.start()
    return child


def _quietly(work: Callable[..., object], *arguments: Any) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    work(*arguments)


def train_killed(run: Run, out: Path, writes: int) -> None:
    """Train in a process of its own, which dies by SIGKILL as soon as it has written so many checkpoints."""
    child = in_child(_train_until_written, run.plain(), out, writes)
    child.join()
    assert child.exitcode == -signal.SIGKILL


def _train_until_written(settings: dict[str, Any], out: Path, writes: int) -> None:
    written = 0

    def write_and_die(*arguments: Any) -> None:
        nonlocal written
        checkpoints.write_checkpoint(*arguments)
        written += 1
        if written == writes:
            os.kill(os.getpid(), signal.SIGKILL)

    training.write_checkpoint = write_and_die
    train(run_from(settings), out)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _train(settings: dict[str, Any], out: Path) -> None:
    train(run_from(settings), out)


def test_twenty_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    """Killed by SIGKILL, in the middle of whatever it was doing, and started again until it is through."""
    run = tiny_run(training={"duration": "50 epochs", "evaluate_every": 5, "checkpoint_minutes": 1e-9})
    train(run, tmp_path / "whole")
    chance = random.Random(0)
    kills = 0
    while True:
        child = in_child(_train, run.plain(), tmp_path / "killed")
        # Moments are counted in the child's own CPU time: a busy machine then kills no earlier than an idle one.
        moment = chance.uniform(0.02, 0.2) if kills < 20 else 1e9
        while child.exitcode is None:
            with suppress(FileNotFoundError):  # it has just ended
                if cpu_seconds(child.pid) > moment:
                    child.kill()
                    kills += 1
                    child.join()
            time.sleep(0.002)
        if child.exitcode != -signal.SIGKILL:
            assert child.exitcode == 0
            break
    assert kills == 20
    assert_same(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_warning_leaves_a_checkpoint_and_asks_for_a_requeue(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tiny_run(training={"duration": "300 epochs"}).plain()))
    command = [sys.executable, "-m", "lsc", "train", "--config", "run.yaml", "--out", "out", "--threads", "1"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    while not (tmp_path / "out" / "checkpoints" / LAST).exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    # In the process's own time, which a busy machine does not stretch.
    asked = cpu_seconds(process.pid)
    process.send_signal(number)
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 75, errors
    assert usage.ru_utime + usage.ru_stime - asked < 10
    assert number.name in errors.splitlines()[-1]
    state = read_checkpoint(tmp_path / "out" / "checkpoints")
    assert state is not None
    assert 0 < state["progress"]["step"] < 1800


@pytest.mark.parametrize(
    "changes",
    [
        {"training": {"ema": 0.9, "optimizer": "sgd", "clip_norm": None}},
        {"training": {"duration": "20 steps"}, "objective": {"name": "orbit_softmax"}, "encoder": {"norm": "batch"}},
        {"objective": {"name": "partial_fc", "sample_rate": 0.5}},
    ],
    ids=["ema-sgd", "odd-end", "partial-fc"],
)
@pytest.mark.parametrize("step", [4, 6], ids=["mid-epoch", "before-the-epoch-is-recorded"])
def test_a_run_resumes_anywhere_whatever_it_holds(changes: dict[str, Any], step: int, tmp_path: Path) -> None:
    run = tiny_run(**merge(changes, {"training": {"checkpoint_minutes": 1e-9}}))  # after every step
    train(run, tmp_path / "whole")

    train_killed(run, tmp_path / "killed", step)
    state = checkpoints.read_checkpoint(tmp_path / "killed" / "checkpoints")
    assert state is not None
    assert state["progress"]["step"] == step
    train(run, tmp_path / "killed")
    assert_same(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_averaged_weights_are_as_good_as_the_last_ones(norm: str, tmp_path: Path) -> None:
    """The average of a short run with a long memory: neither the untrained weights nor others' statistics spoil it."""
    run = tiny_run(
        encoder={"width": 8, "norm": norm},
        training={"duration": "12 epochs", "batch_size": 64, "ema": 0.998, "schedule": "constant"},
    )
    assert train(run, tmp_path)["final_top1"] > 0.8


def _train_until_the_second_epoch(settings: dict[str, Any], out: Path, kept: Path) -> None:
    def write_and_die(folder: Path, state: dict[str, Any]) -> None:
        checkpoints.write_checkpoint(folder, state)
        if state["progress"]["step"] == 8:
            os.kill(os.getpid(), signal.SIGKILL)

    training.write_checkpoint = write_and_die
    train(run_from(settings), out, checkpoints=kept)


def test_a_run_outlives_the_loss_of_its_outputs(tmp_path: Path) -> None:
    """A workflow clears the declared outputs of a job that was stopped; the epochs before it must not be forgotten."""
    run = tiny_run(training={"checkpoint_minutes": 1e-9})
    train(run, tmp_path / "whole")
    out, kept = tmp_path / "killed", tmp_path / "checkpoints"

    child = in_child(_train_until_the_second_epoch, run.plain(), out, kept)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert len(records.read_rows(out / records.METRICS)) == 1
    shutil.rmtree(out)
    train(run, out, checkpoints=kept)
    assert_same(tmp_path / "whole", out)


def test_a_checkpoint_of_other_settings_is_refused(undisturbed: Path) -> None:
    with pytest.raises(UserError, match=r"training\.learning_rate: 0\.01 there, 0\.02 here"):
        train(tiny_run(training={"learning_rate": 0.02}), undisturbed)


def test_a_finished_run_is_not_trained_again(undisturbed: Path) -> None:
    before = outcome(undisturbed)[1], (undisturbed / "checkpoints" / LAST).stat().st_mtime_ns
    train(tiny_run(), undisturbed)
    assert before == (outcome(undisturbed)[1], (undisturbed / "checkpoints" / LAST).stat().st_mtime_ns)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path: Path) -> None:
    run = tiny_run(training={"learning_rate": 1e30, "optimizer": "sgd", "clip_norm": None, "warmup": "0 steps"})
    with pytest.raises(UserError, match="not finite; lower training"):
        train(run, tmp_path)
    report = json.loads((tmp_path / "nonfinite.json").read_text())
    assert report["step"] >= 1
    assert len(report["indexes"]) == 128


def test_accumulated_parts_give_the_gradient_of_the_whole(tmp_path: Path) -> None:
    # By SGD, which does not blow rounding up as Adam's division by a tiny second moment does.
    runs = {parts: tiny_run(training={"accumulate": parts, "optimizer": "sgd", "clip_norm": 1}) for parts in (1, 4)}
    summaries = [train(run, tmp_path / str(parts)) for parts, run in runs.items()]
    whole, parts = (load_file(tmp_path / str(number) / records.ENCODER) for number in (1, 4))
    assert all(torch.allclose(whole[key], parts[key], atol=1e-5) for key in whole)
    assert abs(summaries[0]["final_top1"] - summaries[1]["final_top1"]) < 0.05


def test_evaluations_may_be_counted_in_steps(tmp_path: Path) -> None:
    """Epochs of 6 steps, evaluated every 13: after the epoch in which the 13th, the 26th and the 39th lie, and the last."""
    run = tiny_run(training={"duration": "8 epochs", "evaluate_every": "13 steps", "embeddings": 0})
    train(run, tmp_path / "steps")
    rows = records.read_rows(tmp_path / "steps" / records.METRICS)
    assert [row["step"] for row in rows] == list(range(6, 49, 6))
    assert [row["step"] for row in rows if "top1" in row] == [18, 30, 42, 48]
    # Written out it stays what it is, as a number or as a duration.
    for every in (3, "13 steps"):
        options = TrainingOptions.model_validate({"evaluate_every": every})
        assert options.model_dump(mode="json")["evaluate_every"] == every
        assert digest(TrainingOptions.model_validate(options.model_dump(mode="json"))) == digest(options)
    with pytest.raises(UserError, match=r"training\.evaluate_every"):
        tiny_run(training={"evaluate_every": 0})


def test_short_epochs_are_not_all_followed_by_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as take a twentieth of the time, and the last; with each, a kill loses no more than what came after it."""
    written: list[int] = []

    def slow(folder: Path, state: dict[str, Any]) -> None:
        checkpoints.write_checkpoint(folder, state)
        written.append(state["progress"]["step"])
        time.sleep(0.2)

    monkeypatch.setattr(training, "write_checkpoint", slow)
    train(tiny_run(training={"duration": "20 epochs", "embeddings": 0}), tmp_path)
    assert written[0] == 6
    assert written[-1] == 120
    assert len(written) < 10
    assert len(records.read_rows(tmp_path / records.METRICS)) == 20


def torchrun(processes: int, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
        "-m",
        "lsc",
    ]
    return subprocess.run(
        [*command, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    run: Run = tiny_run(training={"optimizer": "sgd", "clip_norm": 1})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run.plain()))
    done = torchrun(2, tmp_path, "train", "--config", "run.yaml", "--out", "two", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    train(run, tmp_path / "one", accelerator="cpu")
    one, two = (load_file(tmp_path / name / records.ENCODER) for name in ("one", "two"))
    assert max(float((one[key] - two[key]).abs().max()) for key in one) < 1e-5
    rows = [records.read_rows(tmp_path / name / records.METRICS) for name in ("one", "two")]
    for first, second in zip(*rows, strict=True):
        assert first["train_loss"] == pytest.approx(second["train_loss"], rel=1e-3)
        assert first["top1"] == pytest.approx(second["top1"], abs=0.02)
    # Another number of processes goes on from the checkpoint, and says so.
    (tmp_path / "longer.yaml").write_text(yaml.safe_dump(run.plain()))
    state = torch.load(tmp_path / "two" / "checkpoints" / LAST, weights_only=True)
    assert state["progress"]["processes"] == 2
    done = torchrun(1, tmp_path, "train", "--config", "longer.yaml", "--out", "two", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "resumed on 1 processes instead of 2" in done.stderr
