"""Training: one loop for every objective, data set and device. Read from top to bottom, :func:`train` is the experiment.

Batch t of epoch e is a function of (seed, e, t) alone, so a place in the data is two numbers and resuming within an
epoch costs nothing. How a run is taken up again: :mod:`lsc.training.session`.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from lsc.data.base import Batch, Dataset
from lsc.provenance import process_age
from lsc.training import growth, records
from lsc.training.checkpoints import write_checkpoint
from lsc.training.fitted import move_centers
from lsc.training.last_layer import LastLayer, refit
from lsc.training.monitoring import Writer, flops_per_step, peak_flops
from lsc.training.optimization import Learner, learning_rate
from lsc.training.options import TrainingOptions
from lsc.training.outcome import final_scores, measure, save_embeddings, summarise
from lsc.training.phases import Phase
from lsc.training.progress import Progress, account, share_losses
from lsc.training.run import Run
from lsc.training.session import Session, learn_classes, open_session
from lsc.training.signals import Interrupted, StopRequest
from lsc.training.task import Task
from lsc.training.weights import save_task


def train(
    run: Run,
    out: Path,
    *,
    checkpoints: Path | None = None,
    teacher: Path | None = None,
    restart: bool = False,
    accelerator: str = "auto",
    tensorboard: bool = False,
    dataset: Dataset | None = None,
    backbone: nn.Module | None = None,
) -> dict[str, Any]:
    """Train one run and write its folder: configuration, metrics, summary, encoder, objective, embeddings.

    Under ``torchrun`` every process calls this; otherwise one process trains on one device.

    Args:
        run: all settings.
        out: the run's folder, made if need be.
        checkpoints: folder of the checkpoints, ``out/checkpoints`` by default.
        teacher: the folder of the teacher's run, where the run names a teacher.
        restart: discard checkpoints instead of going on from them.
        accelerator: ``auto``, ``cpu`` or ``cuda``.
        tensorboard: also write event files for TensorBoard to ``out/tensorboard``.
        dataset: an open data set instead of that of ``run.data``.
        backbone: a network from images (B, C, H, W) to features (B, F) instead of that of ``run.encoder``.

    Returns:
        the content of ``summary.json``.

    Raises:
        UserError: a mistake in the settings or the data, a full disk, a loss that is not finite.
        Interrupted: the process was asked to stop; a checkpoint was written, and the same call goes on from it.
    """
    session = open_session(
        run,
        out,
        checkpoints or out / "checkpoints",
        teacher=teacher,
        restart=restart,
        accelerator=accelerator,
        dataset=dataset,
        backbone=backbone,
    )
    wanted = tensorboard and session.fabric.is_global_zero
    with StopRequest(session.fabric) as stop, Writer(out / "tensorboard", wanted) as writer:
        # One phase for ordinary training, one per group of classes for lifelong learning.
        for phase in session.phases:
            if is_over(session, phase) and phase is not session.phases[-1]:
                continue
            learner = begin_phase(session, phase)
            while session.progress.step < phase.end or session.progress.losses:
                train_epoch(session, phase, learner, stop)
                end_epoch(session, phase, learner, writer)
            if run.lifelong is not None and run.lifelong.sums and not growth.is_done(session, phase):
                record(session, phase, learner, writer, growth.take_in(session, phase))
    session.display.close()
    return finish(session, learner)


def is_over(session: Session, phase: Phase) -> bool:
    """Whether nothing of a phase is left to do."""
    if session.run.lifelong is not None and session.run.lifelong.sums:
        return growth.is_done(session, phase)
    return session.progress.step >= phase.end and not session.progress.losses


def begin_phase(session: Session, phase: Phase) -> Learner:
    """Make room for the phase's classes, with an optimiser of its own; a resumed phase takes its old one over."""
    learn_classes(session.task, phase.num_classes)
    learner = Learner(session.task, session.fabric, session.run.training, last_layer_of(session, phase))
    if session.resumed is not None and session.progress.step > phase.start:
        learner.load_state_dict(session.resumed["learner"])
    session.resumed = None
    session.startup_seconds = session.startup_seconds or process_age()
    session.saved, session.flops = time.monotonic(), None
    return learner


def last_layer_of(session: Session, phase: Phase) -> LastLayer | None:
    """What solves the read-out's last layer in a phase; None where it is trained by steps."""
    run, task, fabric = session.run, session.task, session.fabric
    if run.readout is None or run.readout.sums is None:
        return None
    return LastLayer(
        task, run, run.readout, phase, fabric, lambda: refit(task, session.dataset, run, fabric, phase.subset)
    )


def train_epoch(session: Session, phase: Phase, learner: Learner, stop: StopRequest) -> None:
    """Take the steps of an epoch, or those that are left of it.

    Raises:
        Interrupted: after a checkpoint, if the run was asked to stop.
    """
    run, progress, fabric = session.run, session.progress, session.fabric
    learner.model.train()
    for batch, waited in timed(rest_of_epoch(session.dataset, run, phase, progress, fabric)):
        began = time.perf_counter()
        if session.flops is None and fabric.device.type == "cuda":
            session.flops = count_flops(session.task, batch, fabric, run.training)
        rate = learning_rate(progress.step, phase, run.training)
        loss, norm = learner.step(batch, rate)
        progress.step += 1
        if progress.step in phase.moves:
            move_centers(session, learner)
        session.watch.add(progress.step, rate, loss, norm, batch.indexes)
        if session.watch.due:
            session.watch.check(session.out)
        progress.epoch_seconds += time.perf_counter() - began + waited
        progress.wait_seconds += waited
        session.display.step(progress.losses)
        due = time.monotonic() - session.saved > 60 * run.training.checkpoint_minutes
        stopped, due = stop.agree(progress.step, save_due=due)
        if stopped or due:
            save(session, phase, learner)
        if stopped:
            fabric.barrier()  # a process that ended now would have torchrun stop the one that writes
            session.display.close()
            raise Interrupted(stop.signal_name, progress.step, session.phases[-1].end)
        if progress.step >= phase.end:
            break


def end_epoch(session: Session, phase: Phase, learner: Learner, writer: Writer) -> None:
    """Evaluate where it is due, record the epoch, save."""
    run, progress, fabric = session.run, session.progress, session.fabric
    began = time.perf_counter()
    session.watch.check(session.out)  # waits for the device, whose work belongs to the epoch's time
    progress.epoch_seconds += time.perf_counter() - began
    row = account(run, phase, progress, fabric)
    if session.flops is not None and (peak := peak_flops(run.training.precision)):
        row["model_flops_utilisation"] = session.flops * len(progress.losses) / progress.epoch_seconds / peak
    if row["epoch"] % run.training.evaluate_every == 0 or progress.step >= phase.end:
        row |= measure(learner.evaluated, session.dataset, run, phase, fabric)
    progress.start_epoch()
    record(session, phase, learner, writer, row)


def record(session: Session, phase: Phase, learner: Learner, writer: Writer, row: dict[str, Any]) -> None:
    """Keep a row, wherever it is read, and save."""
    progress = session.progress
    if row.get("top1", -1.0) > progress.best:
        progress.best, progress.best_step = row["top1"], progress.step
    progress.rows.append(row)
    if session.fabric.is_global_zero:
        records.append_row(session.out / records.METRICS, row)
    writer.add(row)
    session.display.epoch(row)
    save(session, phase, learner)


def save(session: Session, phase: Phase, learner: Learner) -> None:
    """Write a checkpoint; every process calls it, the first one writes."""
    session.watch.check(session.out)
    share_losses(session.progress, session.fabric)
    if learner.last_layer is not None:
        learner.last_layer.gather()
    if session.fabric.is_global_zero:
        write_checkpoint(session.checkpoints, session.state(phase, learner))
    session.saved = time.monotonic()


def finish(session: Session, learner: Learner) -> dict[str, Any]:
    """Judge the trained task and write what the run leaves; gives the content of ``summary.json``."""
    run, out, dataset, fabric = session.run, session.out, session.dataset, session.fabric
    task = learner.evaluated
    refitted: dict[str, Any] = {}
    by_sums = run.lifelong is not None and run.lifelong.sums
    if run.readout is not None and run.readout.refit and not by_sums:
        refitted["top1_before_refit"] = final_scores(task, dataset, None, run, session.progress, fabric)["final_top1"]
        refitted |= refit(task, dataset, run, fabric, session.phases[-1].subset, last=True)
        session.progress.seconds += refitted["refit_seconds"]
    final = final_scores(task, dataset, session.judged, run, session.progress, fabric, again=bool(refitted)) | refitted
    if fabric.is_global_zero:
        save_embeddings(out, task, dataset, run, fabric)
        save_task(out, task, run, dataset)
        summary = summarise(run, dataset, task, fabric, session.progress, session.startup_seconds) | final
        records.write_json(out / records.SUMMARY, summary)
    fabric.barrier()
    return records.read_json(out / records.SUMMARY)


def rest_of_epoch(dataset: Dataset, run: Run, phase: Phase, progress: Progress, fabric: Fabric) -> Iterator[Batch]:
    """The batches that are left of the current epoch, this process's part of each.

    None, if the run was stopped after the last of them and only the epoch's end is still owed.
    """
    epoch, skip = divmod(progress.step - phase.start, phase.steps_per_epoch)
    if progress.losses and (skip == 0 or progress.step >= phase.end):
        return iter(())
    return dataset.train_batches(
        run.training.batch_size,
        seed=run.seed,
        epoch=phase.first_epoch + epoch,
        skip=skip,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        device=fabric.device,
        subset=phase.subset,
    )


def timed(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Each batch with the seconds that were spent waiting for it."""
    while True:
        began = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - began


def count_flops(task: Task, batch: Batch, fabric: Fabric, options: TrainingOptions) -> float:
    """Operations of this process's share of a step, counted on one accumulated part, as the step computes it."""
    images, labels = batch.images.chunk(options.accumulate)[0], batch.labels.chunk(options.accumulate)[0]
    with fabric.autocast():
        flops = options.accumulate * flops_per_step(task, images, labels)
    task.objective.abandon()
    torch.cuda.reset_peak_memory_stats(fabric.device)
    return flops
