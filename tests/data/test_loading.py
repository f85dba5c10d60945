"""Loading processes that die, fall silent, or have little to live on: the same batches, or one line and a checkpoint."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lsc.data import loading
from lsc.data.base import Batch, Request, Requests
from lsc.data.loading import LoadError, served
from lsc.errors import UserError
from lsc.training.checkpoints import read_checkpoint
from lsc.training.loop import train
from lsc.training.records import METRICS, read_rows
from lsc.training.signals import Interrupted
from tests.conftest import ROOT, tiny_run
from tests.data.images import two_classes

CPU = torch.device("cpu")
REQUESTS = [Request("train", torch.arange(4) + 4 * number) for number in range(7)]


def views(request: Request) -> Tensor:
    return request.indexes[:, None].expand(-1, 100).to(torch.uint8)


def loaders() -> list[BaseProcess]:
    """The loading processes of this one, but not those that multiprocessing keeps for other tests, such as its fork server."""
    return multiprocessing.active_children()


def batches(what: Any = views, workers: int = 2, item_bytes: int = 100) -> Iterator[Tensor]:
    return served(what, REQUESTS, workers, CPU, item_bytes)


@pytest.mark.parametrize("workers", [0, 1, 2, 3, 20])
@pytest.mark.parametrize("item_bytes", [100, 1])
def test_batches_come_in_order_and_are_their_own(workers: int, item_bytes: int) -> None:
    found = list(batches(workers=workers, item_bytes=item_bytes))
    assert len(found) == len(REQUESTS)
    assert all(torch.equal(batch, views(request)) for batch, request in zip(found, REQUESTS, strict=True))
    assert loaders() == []


@pytest.mark.parametrize("shape", [(4, 3, 2, 2), (4,), (0, 3)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.bool])
def test_views_of_any_shape_and_type(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    expected = (torch.arange(48)[: torch.Size(shape).numel()].view(shape) % 2).to(dtype)
    for found in batches(lambda request: expected):
        assert found.dtype == dtype
        assert torch.equal(found, expected)


def test_giving_up_early_leaves_no_process() -> None:
    some = batches()
    next(some)
    assert len(loaders()) == 2
    some.close()  # type: ignore[attr-defined]
    assert loaders() == []


def test_a_killed_process_is_one_line() -> None:
    some = batches()
    next(some)
    for child in loaders():
        child.kill()
    with pytest.raises(LoadError, match=r"killed by SIGKILL, as the system does where memory runs out: set .*workers"):
        list(some)
    assert loaders() == []


@pytest.mark.parametrize("workers", [0, 1])
def test_what_the_data_set_says_is_told_whichever_process_it_was(workers: int) -> None:
    def wrong(request: Request) -> Tensor:
        raise UserError("x.png does not decode: replace it")

    with pytest.raises(LoadError, match=r"^x\.png does not decode: replace it$"):
        list(batches(wrong, workers))

    def mistaken(request: Request) -> Tensor:
        raise KeyError("nine")

    with pytest.raises(KeyError if workers == 0 else RuntimeError, match="nine"):
        list(batches(mistaken, workers))

    def hungry(request: Request) -> Tensor:
        raise MemoryError

    with pytest.raises(MemoryError if workers == 0 else LoadError):
        list(batches(hungry, workers))


def test_an_ending_process_and_silence_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LoadError, match=r"ended \(exit code 3\): set the data set's option workers to 0"):
        list(batches(lambda request: os._exit(3)))
    monkeypatch.setattr(loading, "SILENCE", 0.3)
    with pytest.raises(LoadError, match=r"silent for 0\.3 s: see whether the disk"):
        list(batches(lambda request: time.sleep(60)))
    assert loaders() == []


# Loads a folder by eight processes at 224 pixels, as it is and with few files, and prints what came.
SCRIPT = """
import resource, sys, torch
from lsc.data import open_dataset
dataset = open_dataset("folder", root=sys.argv[1], image_size=224, workers=8)
for limit in (0, 24):
    if limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    try:
        images = torch.cat([batch.images for batch in dataset.train_batches(4, seed=0, epoch=0)])
        print(tuple(images.shape))
    except ValueError as error:
        print(error)
"""


def test_small_shared_memory_long_paths_and_few_files(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "images", 16, ["train"])
    long = tmp_path / ("x" * 60) / ("y" * 60)
    long.mkdir(parents=True)
    environment = os.environ | {"TMPDIR": str(long), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    private = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=64k none /dev/shm && exec "$@"', "sh"]
    may_mount = subprocess.run([*private, "true"], capture_output=True).returncode == 0
    words = [*(private if may_mount else ()), sys.executable, "-c", SCRIPT, str(root)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    shape, refused = done.stdout.splitlines()
    assert shape == "(32, 3, 224, 224)"
    assert refused.startswith("8 loading processes cannot be kept up (Too many open files): set the data set's option")


def test_processes_end_with_a_training_that_forgets_them() -> None:
    script = """
import torch
from lsc.data.base import Request
from lsc.data.loading import served
batches = served(lambda request: torch.zeros(4, 10), [Request("train", torch.arange(4))] * 50, 2, torch.device("cpu"), 40)
next(batches)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_processes_end_with_a_training_that_is_killed() -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        some = batches()
        next(some)
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(writer)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert os.read(reader, 1) == b""  # every process that had it open is gone
    os.close(reader)


class Breaking:
    """The loading of a data set that does something at the third batch of the second epoch."""

    def __init__(self, dataset: Any, then: Any) -> None:
        self._load, self._then, self._left = dataset.load, then, 1

    def __call__(self, requests: Requests, device: torch.device) -> Iterator[Batch]:
        of_second = 0
        for request, batch in zip(requests, self._load(requests, device), strict=True):
            of_second += request.epoch == 1
            if of_second == 3 and self._left:
                self._left -= 1
                self._then()
            yield batch


@pytest.mark.parametrize("kind", ["fails", "hangs"])
def test_a_training_keeps_what_it_has_when_images_fail(kind: str, tmp_path: Path) -> None:
    run = tiny_run(training={"duration": "3 epochs", "batch_size": 64})
    whole = train(run, tmp_path / "whole")

    def fail() -> None:
        raise LoadError("x.png does not decode: replace it")

    def hang() -> None:
        os.kill(os.getpid(), signal.SIGTERM)  # a handler runs before the next line of Python
        time.sleep(60)

    dataset = run.data.open()
    dataset.load = Breaking(dataset, fail if kind == "fails" else hang)  # type: ignore[method-assign]
    expected = (
        (LoadError, r"replace it \(a checkpoint of step (\d+) was written\)$")
        if kind == "fails"
        else (
            Interrupted,
            "stopped by SIGTERM at step",
        )
    )
    with pytest.raises(expected[0], match=expected[1]):
        train(run, tmp_path / "broken", dataset=dataset)
    state = read_checkpoint(tmp_path / "broken" / "checkpoints")
    assert state is not None
    per_epoch = whole["steps"] // 3
    assert state["progress"]["step"] == per_epoch + 2
    again = train(run, tmp_path / "broken", dataset=dataset)
    assert again["starts"] == 2
    same = [(tmp_path / name / "encoder.safetensors").read_bytes() for name in ("whole", "broken")]
    assert same[0] == same[1]


PASSES = {
    "refit": {"readout": {"sums": "passes", "start": "2 steps", "every": "2 steps", "refit": False}},
    "move": {"centers": {"system": "codes", "dim": 24, "fit": {"at": ["4 steps"]}}},
    "both": {
        "centers": {"system": "codes", "dim": 24, "fit": {"at": ["4 steps"]}},
        "readout": {"sums": "passes", "start": "4 steps", "every": "4 steps", "refit": False},
    },
}


@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("batch_size", [64, 700], ids=["within-an-epoch", "an-epoch-of-one-step"])
def test_a_pass_over_the_images_that_fails_is_owed_and_made_up_for(which: str, batch_size: int, tmp_path: Path) -> None:
    """A refit of the read-out, or the classes' means when centers move: the step before it is not lost, nor taken twice."""
    training = {"duration": "9 steps", "batch_size": batch_size, "ema": 0.9, "evaluate_every": 100}
    run = tiny_run(encoder={"hidden": 24}, training=training, **PASSES[which])
    train(run, tmp_path / "whole")

    dataset = run.data.open()
    passes, eval_batches = [0], dataset.eval_batches

    def breaking(split: str, *arguments: Any, **named: Any) -> Iterator[Batch]:
        passes[0] += split == "train"
        if passes[0] == 2 and split == "train":
            raise LoadError("x.png does not decode: replace it")
        return eval_batches(split, *arguments, **named)

    dataset.eval_batches = breaking  # type: ignore[assignment, method-assign]
    if which == "move":
        passes[0] = 1
    with pytest.raises(LoadError, match=r"replace it \(a checkpoint of step 4 was written\)$"):
        train(run, tmp_path / "broken", dataset=dataset)
    state = read_checkpoint(tmp_path / "broken" / "checkpoints")
    assert state is not None
    assert state["progress"]["step"] == 4
    train(run, tmp_path / "broken", dataset=dataset)
    same = [(tmp_path / name / "encoder.safetensors").read_bytes() for name in ("whole", "broken")]
    assert same[0] == same[1]
    rows = [read_rows(tmp_path / name / METRICS) for name in ("whole", "broken")]
    for key in ("step", "train_loss", "centers_moved"):
        assert [row.get(key) for row in rows[0]] == [row.get(key) for row in rows[1]]
