"""Training: one loop for every objective, data set and device. Read from top to bottom, :func:`train` is the experiment.

A run that finds a checkpoint of itself goes on from there, in this order:
    1. ``last.ckpt`` in its checkpoint folder;
    2. ``previous.ckpt``, if the last one is damaged (it is named on stderr);
    3. otherwise it begins anew.
A checkpoint of another configuration is refused, never silently overwritten.
"""

import math
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lsc import records
from lsc.checkpoints import BEST, discard, read_checkpoint, refuse_other_configuration, write_checkpoint
from lsc.config import Run, TrainingOptions
from lsc.data import open_dataset
from lsc.data.base import Batch, Dataset
from lsc.encoders import parameter_count
from lsc.errors import UserError
from lsc.evaluation import center_cosines, embed, evaluate, neighbour_accuracy
from lsc.monitoring import Display, Watch, flops_per_step, peak_flops, peak_memory_mb, reset_peak_memory
from lsc.phases import Phase, class_groups, plan_phases
from lsc.signals import Interrupted, StopRequest
from lsc.task import Task, build_task
from lsc.trained import load_task, save_task


@dataclass
class Progress:
    """Where a run stands; part of every checkpoint."""

    step: int = 0  # optimiser steps done, over all phases
    seconds: float = 0.0  # of training, evaluation left out
    epoch_seconds: float = 0.0
    epoch_steps: int = 0  # steps of this epoch that this account covers
    wait_seconds: float = 0.0
    loss_sum: float = 0.0
    gradient_norm_sum: float = 0.0
    best: float = -1.0
    best_step: int = 0
    processes: int = 1
    rows: list[dict[str, Any]] = field(default_factory=list)  # evaluations at the ends of phases


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
        checkpoints: where checkpoints are kept, ``out/checkpoints`` by default.
        teacher: the folder of the teacher's run, where the run names a teacher.
        restart: discard checkpoints instead of going on from them.
        accelerator: ``auto``, ``cpu`` or ``cuda``.
        tensorboard: also write event files for TensorBoard to ``out/tensorboard``.

    Returns:
        the content of ``summary.json``.

    Raises:
        UserError: a mistake in the settings or the data, a full disk, a loss that is not finite.
        Interrupted: the process was asked to stop; a checkpoint was written and the run can be resumed.
    """
    options = run.training
    checkpoints = checkpoints or out / "checkpoints"

    # ---- devices, precision, determinism ------------------------------------------------------------------------
    fabric = make_fabric(options, accelerator)
    first = fabric.global_rank == 0
    torch.manual_seed(run.seed)
    torch.use_deterministic_algorithms(options.deterministic)
    torch.backends.cudnn.benchmark = not options.deterministic
    if first:
        make_folder(out)
        records.write_atomically(out / records.CONFIG, yaml.safe_dump(run.plain(), sort_keys=False))

    # ---- data, encoder, objective -------------------------------------------------------------------------------
    dataset = open_dataset(run.data)
    teacher_task = load_task(teacher)[0] if run.teacher is not None and teacher is not None else None
    if run.teacher is not None and teacher is None:
        raise UserError(f"run {run.name} learns from {run.teacher.run}: give that run's folder with --teacher")
    groups = class_groups(run, dataset)
    phases = plan_phases(run, dataset, groups)
    total_steps = phases[-1].end
    split = "valid" if "valid" in dataset.splits else "test"

    # ---- resume -------------------------------------------------------------------------------------------------
    progress = Progress(processes=fabric.world_size)
    if restart and first:
        discard(checkpoints)
    fabric.barrier()
    state = read_checkpoint(checkpoints)
    settings = {key: value for key, value in run.plain().items() if key != "resources"}
    if state is not None:
        refuse_other_configuration(state, settings, checkpoints)
        progress = Progress(**state["progress"])
    if first:
        records.keep_rows(out / records.METRICS, progress.step)

    display = Display(run.name, total_steps, progress.step, enabled=first)
    if progress.processes != fabric.world_size:
        display.line(
            f"resumed on {fabric.world_size} processes instead of {progress.processes}: "
            "the same batches, but no longer the same to the last bit"
        )
        progress.processes = fabric.world_size
    writer = tensorboard_writer(out / "tensorboard") if tensorboard and first else None
    watch = Watch(every=1 if fabric.device.type == "cpu" else 20)
    reset_peak_memory()

    # ---- phases: one for ordinary training, one per group of classes for lifelong learning ----------------------
    with StopRequest(fabric) as stop:
        for phase in phases:
            if progress.step >= phase.end and phase is not phases[-1]:
                continue
            torch.manual_seed(run.seed)
            task = build_task(run, dataset, num_classes=phases[0].num_classes, teacher=teacher_task)
            if phase.index:
                carry_over(task, phases, phase, state, checkpoints, progress)
            if options.channels_last:
                task.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if options.compile and fabric.device.type != "cpu":
                task.encoder.compile()
            if fabric.world_size > 1 and fabric.device.type == "cuda":
                task = nn.SyncBatchNorm.convert_sync_batchnorm(task)
            optimizer = make_optimizer(task, options)
            resumed = state is not None and progress.step > phase.start or (state is not None and phase.index == 0)
            if resumed:
                assert state is not None
                load_task_state(task, state["task"], phase.num_classes)
            model, optimizer = fabric.setup(task, optimizer)  # type: ignore[assignment]
            average = AveragedModel(task, multi_avg_fn=get_ema_multi_avg_fn(options.ema)) if options.ema else None
            if resumed:
                assert state is not None
                optimizer.load_state_dict(state["optimizer"])
                if average is not None:
                    average.load_state_dict(state["average"])
                restore_generators(state["generators"])
            state = None
            evaluated: Task = average.module if average is not None else task

            def save(name: str = "last.ckpt") -> None:
                watch.check(progress)
                if first:
                    write_checkpoint(
                        checkpoints,
                        {
                            "settings": settings,
                            "progress": asdict(progress),
                            "task": task.state_dict(),  # noqa: B023  (called within the iteration that made it)
                            "average": average.state_dict() if average is not None else None,  # noqa: B023
                            "optimizer": optimizer.state_dict(),  # noqa: B023
                            "generators": generators(),
                        },
                        name,
                    )

            # ---- epochs ---------------------------------------------------------------------------------------
            flops: float | None = None
            last_save = time.monotonic()
            while progress.step < phase.end:
                epoch, skip = divmod(progress.step - phase.start, phase.steps_per_epoch)
                batches = dataset.train_batches(
                    options.batch_size,
                    seed=run.seed,
                    epoch=phase.first_epoch + epoch,
                    skip=skip,
                    rank=fabric.global_rank,
                    world_size=fabric.world_size,
                    device=fabric.device,
                    subset=phase.subset,
                )
                model.train()
                for batch, waited in timed(batches):
                    began = time.perf_counter()
                    if flops is None and fabric.device.type == "cuda":
                        flops = flops_per_step(task, batch.images, batch.labels)
                    rate = learning_rate(progress.step, phase, options)
                    for group in optimizer.param_groups:
                        group["lr"] = rate
                    loss = accumulate(fabric, model, batch, options)
                    norm = clip(fabric, model, optimizer, options)
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
                    if average is not None:
                        average.update_parameters(task)
                    progress.step += 1
                    progress.epoch_steps += 1
                    watch.add(progress.step, rate, loss, norm, batch.indexes)
                    if watch.full:
                        watch.check(progress, out if first else None)
                    took = time.perf_counter() - began + waited
                    progress.seconds += took
                    progress.epoch_seconds += took
                    progress.wait_seconds += waited
                    display.step(progress.step, watch.last_loss)
                    if stop.agreed(progress.step):
                        save()
                        display.close()
                        raise Interrupted(stop.signal_name, progress.step, total_steps)
                    if time.monotonic() - last_save > 60 * options.checkpoint_minutes:
                        save()
                        last_save = time.monotonic()
                    if progress.step >= phase.end:
                        break

                # ---- end of an epoch: evaluate, record, save ---------------------------------------------------
                watch.check(progress, out if first else None)
                whole_epochs = math.ceil((progress.step - phase.start) / phase.steps_per_epoch)
                ended = progress.step >= phase.end
                row: dict[str, Any] = {
                    "epoch": phase.first_epoch + whole_epochs,
                    "step": progress.step,
                    "examples": progress.step * options.batch_size,
                    "train_loss": progress.loss_sum / progress.epoch_steps,
                    "gradient_norm": progress.gradient_norm_sum / progress.epoch_steps,
                    "learning_rate": learning_rate(progress.step - 1, phase, options),
                    "images_per_second": progress.epoch_steps * options.batch_size / progress.epoch_seconds,
                    "data_wait_share": progress.wait_seconds / progress.epoch_seconds,
                    "seconds": progress.seconds,
                    "peak_memory_mb": peak_memory_mb(fabric.device),
                }
                if flops is not None and (peak := peak_flops(options.precision)) is not None:
                    used = flops * progress.epoch_steps / progress.epoch_seconds
                    row["model_flops_utilisation"] = used / peak
                if len(phases) > 1:
                    row |= {"phase": phase.index, "classes_seen": phase.num_classes}
                if ended or whole_epochs % options.evaluate_every == 0:
                    row |= evaluate(
                        evaluated,
                        dataset,
                        split,
                        fabric=fabric,
                        batch_size=options.evaluation_batch_size,
                        subset=phase.test_subset(dataset, split),
                        groups=groups,
                    )
                    sample = embed(evaluated, dataset, split, count=min(options.embeddings, 500), device=fabric.device)
                    row |= center_cosines(evaluated, sample)
                progress.loss_sum = progress.gradient_norm_sum = progress.epoch_seconds = progress.wait_seconds = 0.0
                progress.epoch_steps = 0
                improved = "top1" in row and row["top1"] > progress.best
                if improved:
                    progress.best, progress.best_step = row["top1"], progress.step
                if first:
                    records.append_row(out / records.METRICS, row)
                    if writer is not None:
                        for key, value in row.items():
                            if isinstance(value, float):
                                writer.add_scalar(key, value, progress.step)
                display.epoch(row)
                save()
                if improved:
                    save(BEST)
                last_save = time.monotonic()

    # ---- results ------------------------------------------------------------------------------------------------
    display.close()
    if writer is not None:
        writer.close()
    summary = summarise(run, dataset, evaluated, fabric, progress, split, out)
    if first:
        save_task(out, evaluated, run, dataset)
        records.write_json(out / records.SUMMARY, summary)
    fabric.barrier()
    return summary
