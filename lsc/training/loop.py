"""Training: one loop for every objective, data set and device. Read from top to bottom, :func:`train` is the experiment.

Batch t of epoch e is a function of (seed, e, t) alone, so a place in the data is two numbers and resuming within an
epoch costs nothing. How a run is taken up again: :mod:`lsc.training.session`.
"""

import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning_fabric import Fabric
from torch import nn

from lsc.data.base import Batch, Dataset
from lsc.data.delivery import WAITING
from lsc.data.loading import LoadError
from lsc.errors import UserError
from lsc.provenance import process_age
from lsc.training import growth, records
from lsc.training.agreement import loading_together
from lsc.training.checkpoints import write_checkpoint
from lsc.training.devices import torch_as_before
from lsc.training.fitted import join, move_centers
from lsc.training.last_layer import LastLayer, refit
from lsc.training.monitoring import (
    Writer,
    flops_per_step,
    on_meta,
    peak_flops,
    refuse_not_finite,
    refuse_weights_not_finite,
)
from lsc.training.optimization import Learner, learning_rate
from lsc.training.options import TrainingOptions
from lsc.training.outcome import final_scores, measure, save_embeddings, summarise
from lsc.training.owner import owning
from lsc.training.phases import Phase
from lsc.training.progress import Progress, account, restoring, share_losses
from lsc.training.run import Run
from lsc.training.session import Session, learn_classes, open_session
from lsc.training.signals import Interrupted, StopRequest, StopWhileWaiting
from lsc.training.sums import save_sums
from lsc.training.task import Task
from lsc.training.weights import save_task

# What may be left of a step, in the order in which it is done.
READ_OUT, CENTERS = "read-out", "centers"


def train(
    run: Run,
    out: Path,
    *,
    checkpoints: Path | None = None,
    teacher: Path | None = None,
    start: Path | None = None,
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
        start: the folder of the run whose weights this one begins with, where it names any.
        restart: discard checkpoints instead of going on from them.
        accelerator: ``auto``, ``cpu`` or ``cuda``.
        tensorboard: also write event files for TensorBoard to ``out/tensorboard``.
        dataset: an open data set instead of that of ``run.data``.
        backbone: a network from images (B, C, H, W) to features (B, F) instead of that of ``run.encoder``.

    Returns:
        the content of ``summary.json``.

    Raises:
        UserError: a mistake in the settings or the data, a full disk, a loss or many gradients that are not finite.
        Interrupted: the process was asked to stop; a checkpoint was written, and the same call goes on from it.
    """
    checkpoints = checkpoints or out / "checkpoints"
    with owning(out, checkpoints) as owners, torch_as_before():
        session = open_session(
            run,
            out,
            checkpoints,
            teacher=teacher,
            start=start,
            restart=restart,
            accelerator=accelerator,
            dataset=dataset,
            backbone=backbone,
            owners=owners,
        )
        wanted = tensorboard and session.fabric.is_global_zero
        with StopRequest(session.fabric) as stop, Writer(out / "tensorboard", wanted) as writer, repeatable():
            learner = train_phases(session, stop, writer)
        session.display.close()
        return finish(session, learner)


@contextmanager
def repeatable() -> Iterator[None]:
    """Around a training.

    Raises:
        UserError: an operation cannot be repeated exactly on this device, and ``training.deterministic`` asks for that.
    """
    try:
        yield
    except RuntimeError as error:
        operation, found, _ = str(error).partition(" does not have a deterministic implementation")
        if not found:
            raise
        raise UserError(
            f"{operation.split()[-1]}: cannot be repeated exactly on this device; set training.deterministic=false, or use "
            "another operation in the network"
        ) from None


def train_phases(session: Session, stop: StopRequest, writer: Writer) -> Learner:
    """One phase for ordinary training, one per group of classes for lifelong learning."""
    run = session.run
    for phase in session.phases:
        if is_over(session, phase) and phase is not session.phases[-1]:
            continue
        learner = begin_phase(session, phase)
        batches = batches_of(session.dataset, run, phase, session.progress, session.fabric)
        with closing(batches):
            timed_batches = timed(batches, stop)
            while session.progress.step < phase.end or session.progress.losses:
                train_epoch(session, phase, learner, timed_batches, stop)
                end_epoch(session, phase, learner, writer, stop)
        if run.lifelong is not None and run.lifelong.sums and not growth.is_done(session, phase):
            record(session, phase, learner, writer, growth.take_in(session, phase))
        if phase.end == 0 and not session.progress.rows:
            record(session, phase, learner, writer, one_pass(session, phase))
    return learner


def is_over(session: Session, phase: Phase) -> bool:
    """Whether nothing of a phase is left to do."""
    if session.run.lifelong is not None and session.run.lifelong.sums:
        return growth.is_done(session, phase)
    # The account of an epoch that was begun since belongs to a later phase.
    return session.progress.step > phase.end or (session.progress.step == phase.end and not session.progress.losses)


def begin_phase(session: Session, phase: Phase) -> Learner:
    """Make room for the phase's classes, with an optimiser of its own; a resumed phase takes its old one over."""
    known = session.task.objective.num_classes
    if learn_classes(session.task, phase.num_classes) and session.run.centers.fit is not None:
        join(session, known)
    learner = Learner(session.task, session.fabric, session.run.training, last_layer_of(session, phase))
    if session.resumed is not None and session.progress.step > phase.start:
        with restoring(session.checkpoints):
            learner.load_state_dict(session.resumed["learner"])
    session.resumed = None
    session.startup_seconds = session.startup_seconds or process_age()
    session.saved, session.cold = time.monotonic(), True
    session.flops = count_flops(session.task, session.dataset, session.run, session.fabric)
    return learner


def last_layer_of(session: Session, phase: Phase) -> LastLayer | None:
    """What solves the read-out's last layer in a phase; None where it is trained by steps."""
    run, task, fabric = session.run, session.task, session.fabric
    if run.readout is None or run.readout.sums is None:
        return None
    return LastLayer(
        task, run, run.readout, phase, fabric, lambda: refit(task, session.dataset, run, fabric, phase.subset)
    )


def train_epoch(
    session: Session, phase: Phase, learner: Learner, batches: Iterator[tuple[Batch, float]], stop: StopRequest
) -> None:
    """Take the steps of an epoch, or those that are left of it.

    Raises:
        Interrupted: after a checkpoint, if the run was asked to stop.
        LoadError: after a checkpoint, if images could not be loaded, for a step or for what follows it.
    """
    run, progress, fabric = session.run, session.progress, session.fabric
    learner.model.train()
    session.task.self_supervised = is_self_supervised(run, phase, progress)
    if run.self_supervised and progress.step == phase.start + run.self_supervised.epochs * phase.steps_per_epoch:
        learner.forget_moments(session.task)  # those of a loss whose gradient is many times as large
    if progress.owed:  # images failed in that when the run was last taken up
        began = time.perf_counter()
        conclude_step(session, phase, learner)
        progress.epoch_seconds += time.perf_counter() - began
    for _ in range(steps_left(phase, progress)):
        began = time.perf_counter()
        try:
            with loading_together(fabric):
                batch, waited = next(batches)
        except LoadError as error:
            keep(session, phase, learner, error)
        except StopWhileWaiting:
            interrupt(session, phase, learner, stop)
        rate = learning_rate(progress.step, phase, run.training)
        loss, norm = learner.descend(batch, rate)
        progress.step += 1
        session.watch.add(progress.step, rate, loss, norm, batch.indexes)
        progress.owed = [READ_OUT, CENTERS] if progress.step in phase.moves else [READ_OUT]
        conclude_step(session, phase, learner, began, waited)
        due = session.save_due(run.training.checkpoint_minutes)
        stopped, due = stop.agree(progress.step, save_due=due)
        if session.watch.due or session.cold or stopped or due:
            session.watch.check(session.out)  # waits for the device, whose work belongs to the time of the steps
        progress.count(time.perf_counter() - began, waited, warm_up=session.cold)
        session.cold = False
        session.display.step(progress.losses)
        if stopped:
            interrupt(session, phase, learner, stop)
        if due:
            save(session, phase, learner)


def conclude_step(
    session: Session, phase: Phase, learner: Learner, began: float | None = None, waited: float = 0.0
) -> None:
    """Do what the last step still owes: the read-out is solved for, and the centers move, where it is time.

    Args:
        began, waited: when the step began, and for how long it waited for its batch; None: it was counted before.

    Raises:
        LoadError: images of a pass over the data could not be loaded; after a checkpoint that owes the rest.
    """
    progress = session.progress
    try:
        while progress.owed:
            if progress.owed[0] == READ_OUT:
                learner.conclude()
            else:
                move_centers(session, learner)
            progress.owed.pop(0)
    except LoadError as error:
        if began is not None:
            progress.count(time.perf_counter() - began, waited, warm_up=session.cold)
        keep(session, phase, learner, error)
    except UserError:
        session.watch.check(session.out)  # a loss that was not finite came first
        raise


def interrupt(session: Session, phase: Phase, learner: Learner, stop: StopRequest) -> NoReturn:
    """Save and stop, as was asked."""
    save(session, phase, learner)
    session.fabric.barrier()  # a process that ended now would have torchrun stop the one that writes
    session.display.close()
    raise Interrupted(stop.signal_name, session.progress.step, session.phases[-1].end)


def keep(session: Session, phase: Phase, learner: Learner, error: LoadError) -> NoReturn:
    """Save what was trained before images failed, and give up; every process calls it."""
    session.display.close()
    if session.progress.step == 0:
        raise error
    try:
        save(session, phase, learner)
    except UserError:
        raise error from None  # what failed first is what is told
    session.fabric.barrier()  # a process that ended now would have torchrun stop the one that writes
    error.args = (f"{error} (a checkpoint of step {session.progress.step} was written)",)
    raise error from None


def end_epoch(session: Session, phase: Phase, learner: Learner, writer: Writer, stop: StopRequest) -> None:
    """Evaluate where it is due, record the epoch, and save where that takes little of the time, or at a phase's end."""
    run, progress, fabric = session.run, session.progress, session.fabric
    began = time.perf_counter()
    session.watch.check(session.out)  # waits for the device, whose work belongs to the epoch's time
    progress.epoch_seconds += time.perf_counter() - began
    refuse_weights_not_finite(session.task, learner.evaluated, where=f"step {progress.step}")
    row = account(run, phase, progress, fabric)
    if session.flops is not None and (peak := peak_flops(run.training.precision)):
        share = session.flops / (run.training.batch_size / fabric.world_size)
        row["model_flops_utilisation"] = share * row["images_per_second"] / fabric.world_size / peak
    if evaluation_due(run.training, phase, progress, row["epoch"]):
        try:
            row |= measure(learner.evaluated, session.dataset, run, phase, fabric)
        except LoadError as error:
            progress.seconds -= progress.timed()[1]  # the epoch's end is still owed
            keep(session, phase, learner, error)
    refuse_not_finite(row, f"step {progress.step}")
    progress.start_epoch()
    # Unless it takes little of the time: an epoch may be of two steps.
    due = session.save_due(run.training.checkpoint_minutes, after_epoch=True)
    save_now = stop.agree_to_save(due) or progress.step >= phase.end
    record(session, phase, learner, writer, row, save_now=save_now)


def one_pass(session: Session, phase: Phase) -> dict[str, Any]:
    """Solve the read-out of a network that no step trains, from one pass over the training images: the row of the run."""
    task, run, tell = session.task, session.run, session.display.line
    session.sums, passed = refit(task, session.dataset, run, session.fabric, phase.subset, last=True, tell=tell)
    session.progress.seconds += passed["refit_seconds"]
    row = {"epoch": 1, "step": 0, "examples": passed["refit_images"], "seconds": session.progress.seconds}
    return row | measure(task, session.dataset, run, phase, session.fabric)


def evaluation_due(options: TrainingOptions, phase: Phase, progress: Progress, epoch: int) -> bool:
    """Whether an epoch that ends here is one after which the task is evaluated: every so manieth, and the last."""
    every, done = options.evaluate_every, progress.step - phase.start
    if progress.step >= phase.end:
        return True
    if isinstance(every, int):
        return epoch % every == 0
    steps = max(1, every.steps(phase.steps_per_epoch, options.batch_size))
    return done // steps > (done - len(progress.losses)) // steps


def record(
    session: Session, phase: Phase, learner: Learner, writer: Writer, row: dict[str, Any], save_now: bool = True
) -> None:
    """Keep a row, wherever it is read, and save."""
    progress = session.progress
    if row.get("top1", -1.0) > progress.best:
        progress.best, progress.best_step = row["top1"], progress.step
    progress.rows.append(row)
    session.check_owners()
    if session.fabric.is_global_zero:
        records.append_row(session.out / records.METRICS, row)
    writer.add(row)
    session.display.epoch(row)
    if save_now:
        save(session, phase, learner)


def save(session: Session, phase: Phase, learner: Learner) -> None:
    """Write a checkpoint; every process calls it, the first one writes."""
    began = time.monotonic()
    session.watch.check(session.out)
    refuse_weights_not_finite(session.task, where=f"step {session.progress.step}")
    share_losses(session.progress, session.fabric)
    if learner.last_layer is not None:
        learner.last_layer.gather()
    session.check_owners()
    if session.fabric.is_global_zero:
        write_checkpoint(session.checkpoints, session.state(phase, learner))
    session.saved = time.monotonic()
    session.save_seconds = session.saved - began


def finish(session: Session, learner: Learner) -> dict[str, Any]:
    """Judge the trained task and write what the run leaves; gives the content of ``summary.json``."""
    run, out, dataset, fabric = session.run, session.out, session.dataset, session.fabric
    task = learner.evaluated
    refitted: dict[str, Any] = {}
    # The read-out has been solved from the images already, where sums or one pass were all the training.
    by_sums = (run.lifelong is not None and run.lifelong.sums) or session.progress.step == 0
    if run.readout is not None and run.readout.refit and not by_sums:
        refitted["top1_before_refit"] = final_scores(task, dataset, None, run, session.progress, fabric)["final_top1"]
        session.sums, of_refit = refit(task, dataset, run, fabric, session.phases[-1].subset, last=True)
        refitted |= of_refit
        session.progress.seconds += refitted["refit_seconds"]
    final = final_scores(task, dataset, session.judged, run, session.progress, fabric, again=bool(refitted)) | refitted
    refuse_weights_not_finite(task, where=f"step {session.progress.step}")
    refuse_not_finite(final, f"step {session.progress.step}")
    session.check_owners()
    if fabric.is_global_zero:
        save_embeddings(out, task, dataset, run, fabric)
        save_task(out, task, run, dataset)
        if session.sums is not None and task.centers is not None:
            save_sums(out, session.sums, dataset.num_classes)
        summary = summarise(run, dataset, task, fabric, session.progress, session.startup_seconds) | final
        records.write_json(out / records.SUMMARY, summary)
    fabric.barrier()
    return records.read_json(out / records.SUMMARY)


def steps_left(phase: Phase, progress: Progress) -> int:
    """Steps of the current epoch that are still to be taken; none where only the epoch's end is owed."""
    taken = (progress.step - phase.start) % phase.steps_per_epoch
    if progress.losses and taken == 0:
        return 0
    return min(phase.steps_per_epoch - taken, phase.end - progress.step)


def batches_of(
    dataset: Dataset, run: Run, phase: Phase, progress: Progress, fabric: Fabric
) -> Generator[Batch, None, None]:
    """The batches that are left of a phase, this process's part of each.

    Epochs follow each other without a stop, by the same loading processes, but where a self-supervised start ends.
    """
    last = -(-(phase.end - phase.start) // phase.steps_per_epoch)
    while progress.step < phase.end:
        epoch, skip = divmod(progress.step - phase.start, phase.steps_per_epoch)
        pairs = is_self_supervised(run, phase, progress)
        until = min(run.self_supervised.epochs, last) if pairs and run.self_supervised else last
        yield from dataset.train_batches(
            run.training.batch_size,
            seed=run.seed,
            epoch=phase.first_epoch + epoch,
            epochs=until - epoch,
            skip=skip,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
            device=fabric.device,
            subset=phase.subset,
            pairs=pairs,
        )


def is_self_supervised(run: Run, phase: Phase, progress: Progress) -> bool:
    """Whether the current epoch belongs to a self-supervised start."""
    epoch = (progress.step - phase.start) // phase.steps_per_epoch
    return run.self_supervised is not None and epoch < run.self_supervised.epochs


def timed(batches: Iterator[Batch], stop: StopRequest | None = None) -> Iterator[tuple[Batch, float]]:
    """Each batch with the seconds that were spent waiting for it.

    On a GPU the host prepares batches ahead, and may be held up by a device that is busy: what counts is the wait at the
    queue of their parts (:mod:`lsc.data.delivery`), if they come from there.

    Raises:
        StopWhileWaiting: the run was asked to stop meanwhile.
    """
    while True:
        began, before = time.perf_counter(), WAITING.seconds
        with stop.waiting() if stop else nullcontext():
            batch = next(batches, None)
        if batch is None:
            return
        took = time.perf_counter() - began
        queued = WAITING.count > 0 and batch.images.device.type == "cuda"
        yield batch, min(WAITING.seconds - before, took) if queued else took


def count_flops(task: Task, dataset: Dataset, run: Run, fabric: Fabric) -> float | None:
    """Operations of this process's share of a step, counted on a copy without numbers.

    None where no rate is known, or where a network asks for its numbers: what is counted for people stops no training.
    """
    if fabric.device.type != "cuda":
        return None
    parts = run.training.accumulate
    size = run.training.batch_size // fabric.world_size // parts
    images = torch.empty(size, *dataset.image_shape, device="meta")
    labels = torch.empty(size, dtype=torch.int64, device="meta")
    teacher = getattr(task.distillation, "teacher", None)
    try:
        return parts * flops_per_step(on_meta(task, [] if teacher is None else [teacher]), images, labels)
    except Exception:  # whatever a network that asks for its numbers runs into
        return None
