"""From a run's settings to its untrained task."""

from torch import Tensor, nn

from lsc.centers import Centers, CodedCenters, rich_system
from lsc.data.base import Dataset
from lsc.encoders import Encoder, build_encoder, tried_encoder
from lsc.errors import UserError
from lsc.objectives import LayerObjective, Objective
from lsc.systems import ExplicitSystem, OrbitSystem, System, parse_system
from lsc.training.class_means import mean_embeddings, mean_images
from lsc.training.distillation import Distillation
from lsc.training.run import Run
from lsc.training.task import Task


def build_task(
    run: Run,
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    known_classes: int | None = None,
    assignment: Tensor | None = None,
    class_means: Tensor | None = None,
    teacher: Task | None = None,
    backbone: nn.Module | None = None,
    free: int | None = None,
) -> Task:
    """The untrained task of a run.

    Args:
        run: its settings.
        image_shape: (channels, height, width) of the images.
        num_classes: number of classes, which the vector system must hold.
        known_classes: those known at the start, where it is not all of them (lifelong learning).
        assignment: (num_classes,) vectors of the classes, where the run has them assigned by similarity; None gives
            them in order, which loading a trained state replaces.
        class_means: (num_classes, dim) centers, where the run takes them from a teacher.
        teacher: the trained teacher, where the run learns from its outputs.
        backbone: a network from images to features (B, F) instead of the one that the run's encoder names.
        free: bytes of memory; a classification layer that cannot be trained in them is refused before it is made.

    Raises:
        UserError: settings that do not fit each other or the data.
    """
    try:
        system = _system(run, num_classes, class_means)
        dim = run.centers.dim if system is None else system.dim
        assert dim is not None
        if free is not None and issubclass(run.objective_class, LayerObjective):
            refuse_too_large(run, run.objective_class, num_classes, dim, free)
        encoder = _encoder(run, image_shape, dim, backbone)
        objective = _objective(run, system, dim, known_classes or num_classes, assignment)
    except ValueError as error:
        raise UserError(f"run {run.name}: {error}") from None
    if run.teacher is None or teacher is None:
        return Task(encoder, objective)
    if run.teacher.targets == "embeddings" and teacher.encoder.dim != dim:
        raise UserError(f"run {run.name}: the teacher's embeddings have {teacher.encoder.dim} coordinates, these {dim}")
    task = Task(encoder, objective, Distillation(teacher, run.teacher))
    if isinstance(task.centers, CodedCenters) and isinstance(teacher.centers, CodedCenters):
        if task.centers.system != teacher.centers.system:
            raise UserError(
                f"run {run.name}: the teacher's codes have {teacher.centers.dim} coordinates: set centers.dim to that, or take "
                "another centers.system"
            )
        task.centers.own(teacher.centers.codes.to(task.centers.codes.device))  # where the teacher has its classes
    return task


def _encoder(run: Run, image_shape: tuple[int, int, int], dim: int, backbone: nn.Module | None) -> Encoder:
    if backbone is not None:
        return tried_encoder(backbone, image_shape, dim, run.encoder.hidden, run.encoder.frozen)
    options = run.encoder.model_dump(exclude={"weights"})  # they are read when a training begins, never to load one
    return build_encoder(options.pop("name"), image_shape, dim, **options)


def _system(run: Run, num_classes: int, class_means: Tensor | None) -> System | None:
    """The vector system; None where a classification layer needs no more than a dimension."""
    centers = run.centers
    if centers.system == "teacher":
        if class_means is None:
            raise UserError(f"run {run.name}: centers from a teacher's class means need that teacher's run folder")
        return ExplicitSystem(class_means)
    if issubclass(run.objective_class, LayerObjective) and centers.dim is not None:
        return None
    if centers.system == "codes":
        assert centers.dim is not None
        return rich_system(centers.dim)
    return parse_system(centers.system, centers.dim, num_classes)


def _objective(run: Run, system: System | None, dim: int, num_classes: int, table: Tensor | None) -> Objective:
    kind = run.objective_class
    options = run.objective.model_dump(exclude={"name"})
    if issubclass(kind, LayerObjective):
        return kind(num_classes, dim, **options)
    assert system is not None
    if run.centers.system == "codes":
        assert isinstance(system, OrbitSystem)
        return kind(CodedCenters(system, num_classes, radius=run.centers.radius, seed=run.seed), **options)
    assignment: str | Tensor = run.centers.assignment
    if run.centers.system == "teacher" or assignment == "similarity":
        assignment = "ordered" if table is None else table[:num_classes]
    centers = Centers(
        system,
        num_classes,
        assignment=assignment,
        perturbation=run.centers.perturbation,
        radius=run.centers.radius,
        seed=run.seed,
    )
    return kind(centers, **options)


def task_for(
    run: Run,
    dataset: Dataset,
    *,
    known_classes: int | None = None,
    assigned: Tensor | None = None,
    class_means: Tensor | None = None,
    teacher: Task | None = None,
    backbone: nn.Module | None = None,
    free: int | None = None,
) -> Task:
    """The untrained task of a run on an open data set; what it takes from the data is computed here.

    ``class_means`` of an earlier start are taken as they are: another machine would compute slightly others. So is the
    assignment by similarity, ``assigned``: of an earlier start it comes with the checkpoint, and of several processes one
    works it out. ``free`` and the rest as in :func:`build_task`.
    """
    assignment = assigned
    if assignment is None:
        assignment = similar_classes(run, dataset)
    if run.centers.system == "teacher" and class_means is None and teacher is not None:
        class_means = mean_embeddings(teacher, dataset)
    return build_task(
        run,
        dataset.image_shape,
        dataset.num_classes,
        known_classes=known_classes,
        assignment=assignment,
        class_means=class_means,
        teacher=teacher,
        backbone=backbone,
        free=free,
    )


def refuse_too_large(run: Run, kind: type[LayerObjective], num_classes: int, dim: int, free: int) -> None:
    """Raise a ValueError where a classification layer cannot be trained in the memory that is free, in bytes."""
    options = run.training
    needed = kind.least_bytes(
        num_classes, dim, options.batch_size // options.accumulate, **run.objective.model_dump(exclude={"name"})
    )
    if needed > free:
        raise ValueError(
            f"a layer of {run.objective.name} for {num_classes:,} classes in {dim} dimensions takes "
            f"{needed / 1e9:,.0f} GB to train, and {free / 1e9:,.1f} GB are free: take an objective with centers, such as "
            "cosine, whose memory does not grow with the classes, or fewer classes or dimensions"
        )


def similar_classes(run: Run, dataset: Dataset, means: Tensor | None = None) -> Tensor | None:
    """(num_classes,) vectors of a run's classes, those alike near each other; None where it has them assigned otherwise.

    Args:
        means: (num_classes, features) by which they are alike; mean images by default.
    """
    if run.centers.assignment != "similarity" or issubclass(run.objective_class, LayerObjective):
        return None
    from lsc.centers.assignment import similarity_assignment

    system = _system(run, dataset.num_classes, None)
    assert system is not None
    return similarity_assignment(mean_images(dataset) if means is None else means, system)


def taken_means(task: Task, run: Run) -> Tensor | None:
    """(num_classes, dim) centers that a run took from its teacher, for which there is no formula; else None."""
    centers = task.centers
    if run.centers.system != "teacher" or centers is None:
        return None
    system = centers.system
    assert isinstance(system, ExplicitSystem)
    return system.matrix.cpu().contiguous()
