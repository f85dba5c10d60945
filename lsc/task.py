"""A task owns the encoder and the objective: the training loop does not know which method it trains."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lsc.centers import Centers
from lsc.config import Run, TeacherOptions
from lsc.data.base import Dataset
from lsc.encoders import Encoder, build_encoder
from lsc.errors import UserError
from lsc.objectives import CenterObjective, Cosine, CrossEntropy, Euclidean, Objective, OrbitSoftmax
from lsc.partial_fc import PartialFC
from lsc.systems import ExplicitSystem, System, parse_system

# Objectives that learn a row of a layer for each class. They take any dimension, and no centers.
LAYERS: dict[str, type[CrossEntropy] | type[PartialFC]] = {"cross_entropy": CrossEntropy, "partial_fc": PartialFC}


class Task(nn.Module):
    """An encoder, an objective and perhaps a teacher.

    Encoder and classification layers run in the precision of the surrounding autocast, the losses in float32.
    """

    def __init__(self, encoder: Encoder, objective: Objective, distillation: "Distillation | None" = None):
        super().__init__()
        self.encoder = encoder
        self.objective = objective
        self.distillation = distillation

    @property
    def centers(self) -> Centers | None:
        """The centers of the classes; None where the objective learns a layer."""
        return self.objective.centers if isinstance(self.objective, CenterObjective) else None

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of a batch: images (B, C, H, W), labels (B,) -> scalar float32."""
        embeddings = self.encoder(images).float()
        if self.distillation is None:
            return self.objective.loss(embeddings, labels)
        loss = self.distillation.loss(images, embeddings, self.objective)
        weight = self.distillation.options.labels_weight
        return loss + weight * self.objective.loss(embeddings, labels) if weight else loss


class Distillation(nn.Module):
    """A teacher's term in the loss. The teacher is frozen and none of its weights are saved with the student.

    ``embeddings``: one minus the cosine between the student's and the teacher's embeddings, which live in one space.
    ``logits``: the Kullback-Leibler divergence between softened class probabilities, times the squared temperature
    (Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015).
    """

    def __init__(self, teacher: Task, options: TeacherOptions):
        super().__init__()
        # In a list, so that the teacher is no submodule: neither trained, nor saved, nor wrapped for several processes.
        self._teacher = [teacher.eval().requires_grad_(False)]
        self.options = options

    @property
    def teacher(self) -> Task:
        return self._teacher[0]

    def loss(self, images: Tensor, embeddings: Tensor, objective: Objective) -> Tensor:
        """The teacher's term for a batch: images (B, C, H, W), the student's embeddings (B, dim) -> scalar."""
        if self.options.targets == "class_means":
            return embeddings.new_zeros(())
        if next(self.teacher.parameters()).device != images.device:
            self.teacher.to(images.device)
        with torch.no_grad():
            targets = self.teacher.encoder(images).float()
        if self.options.targets == "embeddings":
            return self.options.weight * (1 - F.cosine_similarity(embeddings, targets)).mean()
        if not isinstance(objective, CrossEntropy) or not isinstance(self.teacher.objective, CrossEntropy):
            raise UserError("teacher.targets 'logits' needs cross_entropy as the objective of both teacher and student")
        temperature = self.options.temperature
        student = F.log_softmax(objective.logits(embeddings) / temperature, dim=1)
        soft = F.log_softmax(self.teacher.objective.logits(targets) / temperature, dim=1)
        divergence = F.kl_div(student, soft, reduction="batchmean", log_target=True)
        return self.options.weight * temperature**2 * divergence


def build_task(
    run: Run,
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    known_classes: int | None = None,
    assignment: Tensor | None = None,
    class_means: Tensor | None = None,
    teacher: Task | None = None,
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

    Raises:
        UserError: settings that do not fit each other or the data.
    """
    try:
        system = _system(run, num_classes, class_means)
        dim = run.centers.dim if system is None else system.dim
        assert dim is not None
        options = run.encoder.model_dump()
        encoder = build_encoder(options.pop("name"), image_shape, dim, **options)
        objective = _objective(run, system, dim, known_classes or num_classes, assignment)
    except ValueError as error:
        raise UserError(f"run {run.name}: {error}") from None
    if run.teacher is None or teacher is None:
        return Task(encoder, objective)
    if run.teacher.targets == "embeddings" and teacher.encoder.dim != dim:
        raise UserError(f"run {run.name}: the teacher's embeddings have {teacher.encoder.dim} coordinates, these {dim}")
    return Task(encoder, objective, Distillation(teacher, run.teacher))


def _system(run: Run, num_classes: int, class_means: Tensor | None) -> System | None:
    """The vector system; None where a classification layer needs no more than a dimension."""
    centers = run.centers
    if centers.system == "teacher":
        if class_means is None:
            raise UserError(f"run {run.name}: centers from a teacher's class means need that teacher's run folder")
        return ExplicitSystem(class_means)
    if run.objective.name in LAYERS and centers.dim is not None:
        return None
    return parse_system(centers.system, centers.dim, num_classes)


def _objective(run: Run, system: System | None, dim: int, num_classes: int, table: Tensor | None) -> Objective:
    options = run.objective.model_dump(exclude={"name"})
    if run.objective.name in LAYERS:
        return LAYERS[run.objective.name](num_classes, dim, **options)
    assert system is not None
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
    kind = {"euclidean": Euclidean, "cosine": Cosine, "orbit_softmax": OrbitSoftmax}[run.objective.name]
    return kind(centers, **{key: value for key, value in options.items() if value is not None})


def taken_means(task: Task, run: Run) -> Tensor | None:
    """(num_classes, dim) centers that a run took from its teacher, for which there is no formula; else None."""
    centers = task.centers
    if run.centers.system != "teacher" or centers is None:
        return None
    system = centers.system
    assert isinstance(system, ExplicitSystem)
    return system.matrix.cpu().contiguous()


def task_for(
    run: Run,
    dataset: Dataset,
    *,
    known_classes: int | None = None,
    class_means: Tensor | None = None,
    teacher: Task | None = None,
) -> Task:
    """The untrained task of a run on an open data set; what it takes from the data is computed here.

    ``class_means`` of an earlier start are taken as they are: another machine would compute slightly others.
    """
    assignment = None
    if run.centers.assignment == "similarity" and run.objective.name not in LAYERS:
        from lsc.assignment import similarity_assignment

        system = _system(run, dataset.num_classes, None)
        assert system is not None
        assignment = similarity_assignment(mean_images(dataset), system)
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
    )


def mean_images(dataset: Dataset, per_class: int = 32, side: int = 16) -> Tensor:
    """(num_classes, C * S * S) float32: the mean of up to ``per_class`` training images of each class.

    Averaged down to at most S = ``side`` pixels a side: what classes share is coarse, and the similarity assignment
    works on the covariance of the pixels, which of 224 by 224 would not fit into any memory.
    """
    channels, height, width = dataset.image_shape
    small = (min(height, side), min(width, side))
    labels = dataset.labels("train")
    order = labels.argsort(stable=True)
    counts = torch.bincount(labels, minlength=dataset.num_classes)
    starts = counts.cumsum(0) - counts
    means = torch.zeros(dataset.num_classes, channels, *small)
    for label in range(dataset.num_classes):
        chosen = order[starts[label] : starts[label] + min(int(counts[label]), per_class)]
        if len(chosen):
            means[label] = F.adaptive_avg_pool2d(dataset.images("train", chosen).float().mean(0), small)
    return means.flatten(1)


@torch.no_grad()
def mean_embeddings(teacher: Task, dataset: Dataset, batch_size: int = 512) -> Tensor:
    """(num_classes, dim): the mean direction of a teacher's embeddings of each class's training images."""
    device = next(teacher.parameters()).device
    sums = torch.zeros(dataset.num_classes, teacher.encoder.dim, device=device)
    teacher.eval()
    for batch in dataset.eval_batches("train", batch_size, device=device):
        sums.index_add_(0, batch.labels, F.normalize(teacher.encoder(batch.images).float(), dim=1))
    return sums.cpu()
