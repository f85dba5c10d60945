"""Where a training begins: devices, data, teacher, checkpoint, and the task as it was left there.

A run that finds a checkpoint of itself goes on from there, in this order:
    1. ``last.ckpt`` in its checkpoint folder;
    2. ``previous.ckpt``, if the last one is damaged (which is then named on stderr);
    3. otherwise it begins anew.
A checkpoint of another configuration is refused, never silently overwritten.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning_fabric import Fabric
from pydantic import BaseModel
from torch import Tensor, nn

from lsc.data.base import Dataset
from lsc.encoders.closed_form import ClosedFormReadout
from lsc.encoders.weights import Statistics
from lsc.errors import UserError
from lsc.files import disk_error, make_folder
from lsc.objectives import LayerObjective
from lsc.training import records
from lsc.training.building import similar_classes, taken_means, task_for
from lsc.training.checkpoints import discard, read_checkpoint, refuse_disagreement, refuse_other_configuration
from lsc.training.class_means import mean_images_on
from lsc.training.compiling import compile_as_wanted
from lsc.training.devices import available_bytes, generators, make_fabric, repeat_exactly, restore_generators
from lsc.training.last_layer import on_the_first, sums_for
from lsc.training.monitoring import Display, Watch
from lsc.training.optimization import Learner
from lsc.training.options import ReadoutOptions
from lsc.training.outcome import scored_split, transfer_set
from lsc.training.owner import Owner
from lsc.training.phases import Phase, plan_phases
from lsc.training.progress import Progress, restoring
from lsc.training.run import Run
from lsc.training.start import begin_from
from lsc.training.task import Task
from lsc.training.weights import Restored, load_task

# After an epoch a checkpoint is written if so many times as long has passed as writing the last one took.
_SHARE = 20


@dataclass
class Session:
    """What a training works on.

    Attributes:
        judged: the data set on which nearest neighbours are judged at the end, if the run wants them.
        settings: what a checkpoint depends on: the run's settings, its data, its teacher.
        resumed: the checkpoint's state until the phase that it was written in has taken over its part.
        sums: what is remembered of the classes so far, in lifelong learning by sums; at the end, those of the last refit.
        startup_seconds: from the birth of the process to its first step.
        saved: when the last checkpoint was written, by the monotonic clock.
        owners: of the folders that are written, in the first process.
        statistics: by which images are normalised, where not by the data set's own.
        save_seconds: that it took to write it; 0 before the first.
        flops: operations of this process's share of a step in this phase, where they were counted.
        cold: the next step is the first of its phase: it compiles and makes room, and is kept out of every time.
    """

    run: Run
    out: Path
    checkpoints: Path
    fabric: Fabric
    dataset: Dataset
    judged: Dataset | None
    phases: list[Phase]
    settings: dict[str, Any]
    task: Task
    progress: Progress
    display: Display
    watch: Watch
    resumed: dict[str, Any] | None
    owners: list[Owner]
    statistics: Statistics | None
    sums: ClosedFormReadout | None = None
    startup_seconds: float = 0.0
    saved: float = 0.0
    save_seconds: float = 0.0
    flops: float | None = None
    cold: bool = True

    def check_owners(self) -> None:
        """Raise a UserError if another process has taken the folders over."""
        for owner in self.owners:
            owner.check()

    def save_due(self, minutes: float, after_epoch: bool = False) -> bool:
        """Whether it is time for a checkpoint; after an epoch also where writing one takes a twentieth of the time at most."""
        passed = time.monotonic() - self.saved
        return passed > 60 * minutes or (after_epoch and passed >= _SHARE * self.save_seconds)

    def state(self, phase: Phase, learner: Learner) -> dict[str, Any]:
        """Everything that going on needs, as tensors and plain containers."""
        return {
            "settings": self.settings,
            "progress": asdict(self.progress),
            "num_classes": phase.num_classes,
            "task": self.task.state_dict(),
            "class_means": taken_means(self.task, self.run),
            "learner": learner.state_dict(),
            "sums": None if self.sums is None else self.sums.state_dict(),
            "statistics": self.statistics,
            "generators": generators(),
        }


def open_session(
    run: Run,
    out: Path,
    checkpoints: Path,
    *,
    teacher: Path | None,
    start: Path | None,
    restart: bool,
    accelerator: str,
    dataset: Dataset | None,
    backbone: nn.Module | None,
    owners: list[Owner],
) -> Session:
    """Make or restore everything that a training needs, and bring its folder to the state of its checkpoint.

    Arguments are those of :func:`lsc.training.loop.train`, and the owners of its folders.
    """
    fabric = make_fabric(run.training, accelerator)
    torch.manual_seed(run.seed)
    repeat_exactly(run.training.deterministic)

    if (run.start is None) != (start is None):
        remedy = "leave --from out" if run.start is None else f"give the run with the weights {run.start} as --from"
        raise UserError(f"run {run.name}: start is {run.start}; {remedy}")
    weights = run.encoder.weights
    refuse_own_source(out, start, teacher, None if weights is None or weights == "cached" else Path(weights))
    dataset = run.data.open() if dataset is None else dataset
    run.check_processes(fabric.world_size)
    taught = load_teacher(run, dataset, teacher, fabric)
    judged = transfer_set(run, dataset)  # opened now: a mistake in it is better known before the training
    phases = plan_phases(run, dataset)
    refuse_unscored(phases, dataset)
    settings = {key: value for key, value in run.plain().items() if key != "resources"}
    settings["data"] = _without_changeable(run.data, settings["data"])
    settings |= {"dataset": dataset.fingerprint, "taught_by": taught.run.digest if taught else None}

    if restart and fabric.is_global_zero:
        discard(checkpoints)
    fabric.barrier()
    resumed = read_checkpoint(checkpoints)
    refuse_disagreement(resumed, checkpoints, fabric)
    if resumed is not None:
        refuse_other_configuration(resumed, settings, checkpoints)
    elif not restart and (out / records.SUMMARY).exists():
        raise UserError(
            f"{out}: holds a finished run without a checkpoint to go on from; choose another folder, or --restart to replace it"
        )
    progress = Progress(processes=fabric.world_size) if resumed is None else Progress.restored(resumed, checkpoints)
    task = task_for(
        run,
        dataset,
        known_classes=phases[0].num_classes,
        assigned=assignment_of(run, dataset, resumed, fabric),
        class_means=None if resumed is None else resumed["class_means"],
        teacher=taught.task if taught else None,
        backbone=backbone,
        free=available_bytes(fabric.device),
    )
    source = load_task(start) if start is not None and resumed is None else None
    statistics, of_what = statistics_for(task, run, start, source, resumed)
    if statistics is not None:
        before, dataset = dataset, normalised_by(statistics, of_what, dataset)
        if judged is before:
            judged = dataset
        elif judged is getattr(before, "underlying", None):  # the images of instances, which are held once
            judged = getattr(dataset, "underlying", None)
        elif judged is not None:
            judged = normalised_by(statistics, of_what, judged)
    begun = None
    if source is not None and start is not None:
        begun = begin_from(start, source, task, run, dataset, bool(phases[0].moves))
    if taught is not None:
        taught.sees(dataset)
    if fabric.device.type == "cuda" and fabric.world_size > 1:
        task = nn.SyncBatchNorm.convert_sync_batchnorm(task)  # type: ignore[no-untyped-call]
    compile_as_wanted(task, run.training, fabric.device)
    if resumed is not None:
        with restoring(checkpoints):
            learn_classes(task, resumed["num_classes"])
            task.load_state_dict(resumed["task"])
            restore_generators(resumed["generators"])
    progress.starts += 1
    if fabric.is_global_zero:
        _clear(out, checkpoints, run, progress)
    display = Display(run.name, phases[-1].end, progress.step, enabled=fabric.is_global_zero)
    if begun is not None:
        display.line(f"{run.name}: {begun}")
    if progress.processes != fabric.world_size:
        display.line(
            f"{run.name}: resumed on {fabric.world_size} processes instead of {progress.processes}: "
            "the batches are the same, the result no longer to the last bit"
        )
        progress.processes = fabric.world_size
    watch = Watch(progress, fabric)
    sums = None
    if resumed is not None and resumed["sums"] is not None:
        sums = sums_for(task, run.readout or ReadoutOptions(), fabric.device)
        with restoring(checkpoints):
            sums.load_state_dict(resumed["sums"])
        on_the_first(sums, fabric)
    return Session(
        run,
        out,
        checkpoints,
        fabric,
        dataset,
        judged,
        phases,
        settings,
        task,
        progress,
        display,
        watch,
        resumed,
        owners,
        statistics,
        sums,
    )


def _without_changeable(options: BaseModel, plain: dict[str, Any]) -> dict[str, Any]:
    """A data set's settings without those that a run may change when it goes on, in the sets within it, too."""
    kept = {key: value for key, value in plain.items() if key not in getattr(options, "may_change", ())}
    return {
        key: _without_changeable(getattr(options, key), value)
        if isinstance(getattr(options, key), BaseModel)
        else value
        for key, value in kept.items()
    }


def refuse_unscored(phases: list[Phase], dataset: Dataset) -> None:
    """Raise a UserError where a phase would be scored on no images at all."""
    split = scored_split(dataset)
    for phase in phases:
        subset = phase.test_subset(dataset.labels(split))
        if subset is not None and not len(subset):
            raise UserError(
                f"data set {dataset.name}: {split} has no images of the first {phase.num_classes} classes, which are trained "
                f"by the end of group {phase.index + 1}: add some"
            )


def assignment_of(run: Run, dataset: Dataset, resumed: dict[str, Any] | None, fabric: Fabric) -> Tensor | None:
    """Which class has which vector, where it is by similarity: out of the checkpoint, or from the first process to all."""
    if run.centers.assignment != "similarity" or issubclass(run.objective_class, LayerObjective):
        return None
    if resumed is not None:
        return resumed["task"]["objective.centers.table"]
    means = mean_images_on(dataset, fabric) if fabric.device.type == "cuda" else None
    assigned = similar_classes(run, dataset, means) if fabric.is_global_zero else None
    return assigned if fabric.world_size == 1 else fabric.broadcast(assigned)


def load_teacher(run: Run, dataset: Dataset, folder: Path | None, fabric: Fabric) -> Restored | None:
    """The teacher that a run learns from, out of its folder; None where it has none.

    Raises:
        UserError: the run names a teacher and there is no folder, or the other way round, or the teacher knows other
            images or classes.
    """
    if (run.teacher is None) != (folder is None):
        needed = (
            f"learns from {run.teacher.run}: give that run's folder" if run.teacher else "names no teacher: leave out"
        )
        raise UserError(f"run {run.name} {needed} (--teacher)")
    if folder is None:
        return None
    taught = load_task(folder, fabric.device)
    refuse_other_teacher(taught, run, dataset, folder)
    taught.sees(dataset)
    return taught


def refuse_other_teacher(taught: Restored, run: Run, dataset: Dataset, folder: Path) -> None:
    """Raise a UserError where a teacher knows other images or classes than those of the run.

    Whether classes are the same is seen by their names, where both have some; as many others will do where a student learns
    nothing but embeddings.
    """
    wanted = {
        "image shape": (dataset.image_shape, taught.image_shape),
        "number of classes": (dataset.num_classes, taught.num_classes),
    }
    for what, (here, there) in wanted.items():
        if here != there:
            raise UserError(f"--teacher {folder}: its {what} is {there}, but run {run.name} has {here}")
    if run.teacher is None or (run.teacher.targets == "embeddings" and run.teacher.labels_weight == 0):
        return
    for label, (mine, theirs) in enumerate(zip(dataset.class_names or (), taught.class_names or (), strict=False)):
        if mine != theirs:
            raise UserError(
                f"--teacher {folder}: its class {label} is {theirs!r}, but run {run.name} has {mine!r} there; from a "
                "teacher of other classes embeddings alone can be learned (teacher.labels_weight 0)"
            )


def refuse_own_source(out: Path, *sources: Path | None) -> None:
    """Raise a UserError where a run would be written over what it begins with: an interruption would lose both."""
    own = {out.resolve() / name for name in (".", *records.RUN_FILES, records.SUMS, records.EXAMPLES)}
    for source in sources:
        if source is not None and source.resolve() in own:
            raise UserError(
                f"{out}: the run begins with what is there, and would be written over it; choose another folder"
            )


def statistics_for(
    task: Task, run: Run, start: Path | None, source: Restored | None, resumed: dict[str, Any] | None
) -> tuple[Statistics | None, str]:
    """By which mean and deviation images are normalised, where not by the data set's own, and whose these are.

    A run that begins with another one's weights takes those by which that one was trained, and needs no other weights; a
    resumed one has all of it in its checkpoint. Otherwise the encoder is given its weights here.

    Raises:
        UserError: there are no such weights, or they do not fit the encoder.
    """
    if resumed is not None:
        return resumed["statistics"], "the checkpoint"
    if source is not None:
        found = (source.mean, source.std) if source.mean else task.encoder.start_from(None)
        return found, f"--from {start}"
    return task.encoder.start_from(run.encoder.weights), f"encoder.weights {run.encoder.weights}"


def normalised_by(statistics: Statistics, of_what: str, dataset: Dataset) -> Dataset:
    """The data set with its images normalised by the statistics of other weights.

    Raises:
        UserError: these are of images with another number of channels; the message says ``of_what`` they are.
    """
    if not dataset.is_normalised:
        return dataset
    if len(statistics[0]) != len(dataset.mean):
        raise UserError(f"{of_what}: of images with {len(statistics[0])} channels, here {len(dataset.mean)}")
    return dataset.normalised_by(*statistics)


def learn_classes(task: Task, num_classes: int) -> bool:
    """Make room for new classes: vacant vectors, or new rows of a classification layer. Gives whether there were any."""
    new = num_classes - task.objective.num_classes
    if new > 0:
        task.objective.extend(new)
    return new > 0


def _clear(out: Path, checkpoints: Path, run: Run, progress: Progress) -> None:
    """Bring the run's folder to where the checkpoint stands; what an earlier training left is not this one's."""
    make_folder(out)
    weights = (records.ENCODER, records.OBJECTIVE, records.SUMS, records.EXAMPLES)
    for name in (records.SUMMARY, records.EMBEDDINGS, *weights):
        try:
            (out / name).unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(out / name, error) from None
    records.write_text(out / records.CONFIG, yaml.safe_dump(run.plain(), sort_keys=False))
    # Rows past the checkpoint are dropped, and those that a workflow cleared with a stopped job's outputs come back.
    records.write_rows(out / records.METRICS, progress.rows)
    make_folder(checkpoints, "--checkpoints")
