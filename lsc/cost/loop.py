"""What the training loop costs on top of the network: the whole loop against the bare steps on one batch, in turns."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import torch

from lsc.cost.timing import Record, machine
from lsc.data import open_dataset
from lsc.data.base import Batch
from lsc.errors import UserError
from lsc.training.building import task_for
from lsc.training.compiling import compile_as_wanted
from lsc.training.devices import make_fabric
from lsc.training.loop import batches_of, timed
from lsc.training.monitoring import Display, Watch
from lsc.training.optimization import Learner
from lsc.training.phases import plan_phases
from lsc.training.progress import Progress
from lsc.training.run import Run

# Of the steps, which change no weights: hundreds of them on one batch would train to no end.
_RATE = 0.0


def loop_records(run: Run, steps: int, repetitions: int, accelerator: str) -> Iterator[Record]:
    """Images per second of a run's training loop and of its bare optimisation steps.

    The loop draws, augments and moves batches, keeps its accounts and watches for numbers that are not finite, as
    :func:`lsc.training.loop.train` does between two evaluations. The bare steps repeat one batch that lies on the device.

    Args:
        run: what is trained; nothing is written.
        steps: of each side in one repetition; both start warm.
        accelerator: ``auto``, ``cpu`` or ``cuda``.

    Yields:
        a record per repetition: ``loop_images_per_second``, ``bare_images_per_second``, ``ratio`` of the former to the
        latter, and the machine.
    """
    if run.teacher is not None:
        raise UserError(f"run {run.name} has a teacher, which this does not measure: take one without")
    fabric = make_fabric(run.training, accelerator)
    torch.manual_seed(run.seed)
    dataset = open_dataset(run.data)
    phase = plan_phases(run, dataset)[0]
    task = task_for(run, dataset, known_classes=phase.num_classes)
    compile_as_wanted(task, run.training, fabric.device)
    learner = Learner(task, fabric, run.training)
    learner.model.train()
    progress = Progress()
    watch = Watch(progress, fabric)
    display = Display(run.name, steps, 0, enabled=False)

    def one_step(batch: Batch) -> None:
        loss, norm = learner.step(batch, _RATE)
        watch.add(1, _RATE, loss, norm, batch.indexes)

    def loop() -> None:
        with closing(batches_of(dataset, run, phase, progress, fabric)) as batches:
            for batch, _ in islice(timed(batches), steps):
                one_step(batch)
                if watch.due:
                    watch.check(Path(folder))
                display.step(progress.losses)
        progress.start_epoch()

    resident = next(batches_of(dataset, run, phase, progress, fabric))

    def bare() -> None:
        for _ in range(steps):
            learner.step(resident, _RATE)

    with tempfile.TemporaryDirectory() as folder:
        loop()
        bare()
        for repetition in range(repetitions):
            measured = {}
            for name, side in (("loop", loop), ("bare", bare)):
                began = time.perf_counter()
                side()
                if fabric.device.type == "cuda":
                    torch.cuda.synchronize()
                measured[name] = steps * run.training.batch_size / (time.perf_counter() - began)
            yield {
                "run": run.name,
                "repetition": repetition,
                "loop_images_per_second": measured["loop"],
                "bare_images_per_second": measured["bare"],
                "ratio": measured["loop"] / measured["bare"],
                **machine(fabric.device),
            }


def summary(records: list[Record]) -> str:
    """One line: medians and the spread of the ratio."""
    ratios = [record["ratio"] for record in records]
    rates = {
        side: statistics.median(record[f"{side}_images_per_second"] for record in records) for side in ("loop", "bare")
    }
    return (
        f"{records[0]['run']}: {rates['loop']:,.0f} images/s in the loop, {rates['bare']:,.0f} bare: "
        f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}, {len(ratios)} repetitions)"
    )
