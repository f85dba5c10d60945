"""Training: one loop for every objective, data set and device. Read from top to bottom, :func:`train` is the experiment.

A run that finds a checkpoint of itself goes on from there, in this order:
    1. ``last.ckpt`` in its checkpoint folder;
    2. ``previous.ckpt``, if the last one is damaged (which is then named on stderr);
    3. otherwise it begins anew.
A checkpoint of another configuration is refused, never silently overwritten.

Batch t of epoch e is a function of (seed, e, t) alone, so a place in the data is two numbers and resuming within an
epoch costs nothing.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import nn

from lsc.data import open_dataset
from lsc.data.base import Batch, Dataset
from lsc.errors import UserError
from lsc.files import make_folder
from lsc.provenance import process_age
from lsc.training import records
from lsc.training.building import taken_means, task_for
from lsc.training.checkpoints import discard, read_checkpoint, refuse_other_configuration, write_checkpoint
from lsc.training.monitoring import Display, Watch, Writer, flops_per_step, peak_flops
from lsc.training.optimization import Learner, learning_rate
from lsc.training.options import TrainingOptions
from lsc.training.outcome import final_scores, measure, save_embeddings, summarise, transfer_set
from lsc.training.phases import Phase, plan_phases
from lsc.training.progress import Progress, account, share_losses
from lsc.training.run import Run
from lsc.training.signals import Interrupted, StopRequest
from lsc.training.task import Task
from lsc.training.weights import Restored, load_task, save_task


def train(
    run: Run,
    out: Path,
    *,
    checkpoints: Path | None = None,
    teacher: Path | None = None,
    restart: bool = False,
    accelerator: str = "auto",
    tensorboard: bool = False,
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

    Returns:
        the content of ``summary.json``.

    Raises:
        UserError: a mistake in the settings or the data, a full disk, a loss that is not finite.
        Interrupted: the process was asked to stop; a checkpoint was written, and the same call goes on from it.
    """
    options = run.training
    checkpoints = checkpoints or out / "checkpoints"

    # ---- device, processes, precision, determinism --------------------------------------------------------------
    fabric = make_fabric(options, accelerator)
    torch.manual_seed(run.seed)
    torch.use_deterministic_algorithms(options.deterministic)
    torch.backends.cudnn.benchmark = not options.deterministic

    # ---- data, checkpoint, encoder, objective -------------------------------------------------------------------
    dataset = open_dataset(run.data)
    if (run.teacher is None) != (teacher is None):
        needed = (
            f"learns from {run.teacher.run}: give that run's folder" if run.teacher else "names no teacher: leave out"
        )
        raise UserError(f"run {run.name} {needed} (--teacher)")
    run.check_processes(fabric.world_size)
    taught = load_task(teacher, fabric.device) if teacher is not None else None
    if taught is not None and teacher is not None:
        refuse_other_teacher(taught, run, dataset, teacher)
    judged = transfer_set(run, dataset)  # opened now: a mistake in it is better known before the training
    phases = plan_phases(run, dataset)
    settings = {key: value for key, value in run.plain().items() if key != "resources"}
    # What a checkpoint depends on beside its own settings.
    settings |= {"dataset": dataset.fingerprint, "taught_by": taught.run.digest if taught else None}
    if restart and fabric.is_global_zero:
        discard(checkpoints)
    fabric.barrier()
    state = read_checkpoint(checkpoints)
    if state is not None:
        refuse_other_configuration(state, settings, checkpoints)
    progress = Progress(processes=fabric.world_size) if state is None else Progress.restored(state, checkpoints)
    task = task_for(
        run,
        dataset,
        known_classes=phases[0].num_classes,
        class_means=None if state is None else state["class_means"],
        teacher=taught.task if taught else None,
    )
    if fabric.device.type == "cuda" and fabric.world_size > 1:
        task = nn.SyncBatchNorm.convert_sync_batchnorm(task)  # type: ignore[no-untyped-call]
    if options.compile and fabric.device.type == "cuda":
        task.encoder.compile()  # in place: the names of the weights stay what they are

    # ---- resume -------------------------------------------------------------------------------------------------
    if state is not None:
        learn_classes(task, state["num_classes"])
        task.load_state_dict(state["task"])
        restore_generators(state["generators"])
    progress.starts += 1
    if fabric.is_global_zero:
        make_folder(out)
        # What an earlier training left is not this one's, should it be stopped.
        for name in (records.SUMMARY, records.ENCODER, records.OBJECTIVE, records.EMBEDDINGS):
            (out / name).unlink(missing_ok=True)
        records.write_text(out / records.CONFIG, yaml.safe_dump(run.plain(), sort_keys=False))
        # Rows past the checkpoint are dropped, and those that a workflow cleared with a stopped job's outputs come back.
        records.write_rows(out / records.METRICS, progress.rows)
        make_folder(checkpoints, "--checkpoints")

    # ---- phases: one for ordinary training, one per group of classes for lifelong learning ----------------------
    startup_seconds = 0.0
    display = Display(run.name, phases[-1].end, progress.step, enabled=fabric.is_global_zero)
    if progress.processes != fabric.world_size:
        display.line(
            f"{run.name}: resumed on {fabric.world_size} processes instead of {progress.processes}: "
            "the batches are the same, the result no longer to the last bit"
        )
        progress.processes = fabric.world_size
    with StopRequest(fabric) as stop, Writer(out / "tensorboard", tensorboard and fabric.is_global_zero) as writer:
        for phase in phases:
            if progress.step >= phase.end and not progress.losses and phase is not phases[-1]:
                continue
            learn_classes(task, phase.num_classes)
            learner = Learner(task, fabric, options)
            if state is not None and progress.step > phase.start:
                learner.load_state_dict(state["learner"])
            state = None
            startup_seconds = startup_seconds or process_age()
            watch = Watch(progress, every=1 if fabric.device.type == "cpu" else 20)

            def save() -> None:
                watch.check(out)  # noqa: B023 - called within the iteration that made it
                share_losses(progress, fabric)
                if fabric.is_global_zero:
                    state = {
                        "settings": settings,
                        "progress": asdict(progress),
                        "num_classes": phase.num_classes,  # noqa: B023
                        "task": task.state_dict(),
                        "class_means": taken_means(task, run),
                        "learner": learner.state_dict(),  # noqa: B023
                        "generators": generators(),
                    }
                    write_checkpoint(checkpoints, state)

            saved = time.monotonic()
            flops = None
            while progress.step < phase.end or progress.losses:
                # ---- an epoch, or the rest of one ---------------------------------------------------------------
                learner.model.train()
                for batch, waited in timed(rest_of_epoch(dataset, run, phase, progress, fabric)):
                    began = time.perf_counter()
                    if flops is None and fabric.device.type == "cuda":
                        flops = count_flops(task, batch, fabric, options)
                    rate = learning_rate(progress.step, phase, options)
                    loss, norm = learner.step(batch, rate)
                    progress.step += 1
                    watch.add(progress.step, rate, loss, norm, batch.indexes)
                    if watch.due:
                        watch.check(out)
                    progress.epoch_seconds += time.perf_counter() - began + waited
                    progress.wait_seconds += waited
                    display.step(progress.losses)
                    due = time.monotonic() - saved > 60 * options.checkpoint_minutes
                    stopped, due = stop.agree(progress.step, save_due=due)
                    if stopped or due:
                        save()
                        saved = time.monotonic()
                    if stopped:
                        fabric.barrier()  # a process that ended now would have torchrun stop the one that writes
                        display.close()
                        raise Interrupted(stop.signal_name, progress.step, phases[-1].end)
                    if progress.step >= phase.end:
                        break

                # ---- its end: evaluate, record, save ------------------------------------------------------------
                began = time.perf_counter()
                watch.check(out)  # waits for the device, whose work belongs to the epoch's time
                progress.epoch_seconds += time.perf_counter() - began
                row = account(run, phase, progress, fabric)
                if flops is not None and (peak := peak_flops(options.precision)):
                    row["model_flops_utilisation"] = flops * len(progress.losses) / progress.epoch_seconds / peak
                if row["epoch"] % options.evaluate_every == 0 or progress.step >= phase.end:
                    row |= measure(learner.evaluated, dataset, run, phase, fabric)
                progress.start_epoch()
                if row.get("top1", -1.0) > progress.best:
                    progress.best, progress.best_step = row["top1"], progress.step
                progress.rows.append(row)
                if fabric.is_global_zero:
                    records.append_row(out / records.METRICS, row)
                writer.add(row)
                display.epoch(row)
                save()
                saved = time.monotonic()
    display.close()

    # ---- results ------------------------------------------------------------------------------------------------
    final = final_scores(learner.evaluated, dataset, judged, run, progress, fabric)
    if fabric.is_global_zero:
        save_embeddings(out, learner.evaluated, dataset, run, fabric)
        save_task(out, learner.evaluated, run, dataset)
        summary = summarise(run, dataset, learner.evaluated, fabric, progress, startup_seconds) | final
        records.write_json(out / records.SUMMARY, summary)
    fabric.barrier()
    return records.read_json(out / records.SUMMARY)


def make_fabric(options: TrainingOptions, accelerator: str) -> Fabric:
    """The devices of this process: those that torchrun gave it, or else one."""
    world_size = int(os.environ.get("WORLD_SIZE", 1)) if TorchElasticEnvironment.detect() else 1
    per_node = int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if world_size > 1 else 1
    if accelerator not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {accelerator!r}: use auto, cpu or cuda")
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no GPU is to be seen here; use --device cpu, or ask the cluster for one")
    if world_size > 1 and accelerator != "cpu" and 0 < torch.cuda.device_count() < per_node:
        raise UserError(
            f"--processes: {per_node} on this node, which has {torch.cuda.device_count()} GPUs; give each its own"
        )
    if options.deterministic:
        # cuBLAS reads it when it starts; the value is the one its documentation gives for repeatable results.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    fabric = Fabric(
        accelerator=accelerator,
        devices=per_node,
        num_nodes=max(1, world_size // per_node),
        strategy="ddp" if world_size > 1 else "auto",
        precision="bf16-mixed" if options.precision == "bfloat16" else "32-true",
        # Named, since Fabric would otherwise take a SLURM job of one task for its own launcher.
        plugins=[TorchElasticEnvironment() if world_size > 1 else LightningEnvironment()],
    )
    fabric.launch()
    return fabric


def refuse_other_teacher(taught: Restored, run: Run, dataset: Dataset, folder: Path) -> None:
    """Raise a UserError where a teacher knows other images or classes than those of the run."""
    wanted = {
        "image shape": (dataset.image_shape, taught.image_shape),
        "number of classes": (dataset.num_classes, taught.num_classes),
    }
    for what, (here, there) in wanted.items():
        if here != there:
            raise UserError(f"--teacher {folder}: its {what} is {there}, but run {run.name} has {here}")


def learn_classes(task: Task, num_classes: int) -> None:
    """Make room for new classes: vacant vectors, or new rows of a classification layer."""
    if num_classes > task.objective.num_classes:
        task.objective.extend(num_classes - task.objective.num_classes)


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


def generators() -> dict[str, Any]:
    """The states of torch's own random number generators; the data need none."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def restore_generators(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["cpu"])
    if len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
