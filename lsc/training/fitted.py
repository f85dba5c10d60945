"""Centers that fit what the network already thinks: given anew a few times, early, from the means of the classes.

At each of the times of ``centers.fit`` a pass over a few training images per class, in evaluation mode, gives the mean
embedding of every class. These are whitened and turned, every class gets the code nearest to its mean, and the last layer is
followed by the same map, so that embeddings and centers move together and nothing that was learned is lost. With one image per
class this is the assignment of Noise As Targets (Bojanowski and Joulin, ICML 2017), without its table of targets.

In lifelong learning this is done within the first group. Classes of later groups get the codes nearest to their own means in the
latent space as it is by then, and the older ones keep theirs.

Memory: class means are held for a block of classes at a time, as floats, and for the pass alone; two bits a coordinate stay.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from lsc.centers import CodedCenters
from lsc.centers.codes import distinct, nearest_codes, random_codes
from lsc.centers.whitening import whitening
from lsc.objectives import CenterObjective
from lsc.training.agreement import loading_together
from lsc.training.optimization import Learner
from lsc.training.phases import replay_memory
from lsc.training.session import Session
from lsc.training.task import Task

# Classes whose means are held at a time; the whitening is that of so many classes, too.
_CLASSES_AT_ONCE = 32768


@torch.no_grad()
def move_centers(session: Session, learner: Learner) -> None:
    """Give the classes new centers and move the last layer along; every process calls it, the first one decides."""
    began = time.perf_counter()
    run, fabric, task = session.run, session.fabric, session.task
    assert run.centers.fit is not None
    assert isinstance(task.objective, CenterObjective)
    images = replay_memory(session.dataset.labels("train"), run.centers.fit.per_class, run.seed)
    count = task.objective.num_classes
    held = min(count, _CLASSES_AT_ONCE)
    found = class_means(torch.arange(held) * count // held, session, images)
    # A rotation of its own each time.
    matrix, origin = whitening(found.means[found.seen > 0], run.centers.fit.power, session.progress.step + run.seed)
    matrix, origin = fabric.broadcast((matrix, origin))
    blocks = [found] if held == count else _blocks(session, images, 0)
    codes = fabric.broadcast(_codes(task, 0, blocks, matrix, origin))
    # Embeddings become as long as their targets, unit vectors, on average.
    matrix = fabric.broadcast(matrix / found.spread(matrix, origin))
    for moved in learner.tasks:
        _move(moved, codes, matrix, origin)
    learner.forget_moments(task.encoder.last)
    if learner.last_layer is not None:
        learner.last_layer.sums.expect(task.encoder.last)
    session.progress.moves.append(time.perf_counter() - began)


@torch.no_grad()
def join(session: Session, first: int) -> None:
    """Give the classes from label ``first`` on the codes nearest to their means; every process calls it."""
    run, task = session.run, session.task
    assert run.centers.fit is not None
    images = replay_memory(session.dataset.labels("train"), run.centers.fit.per_class, run.seed)
    unchanged = torch.eye(task.encoder.dim, dtype=torch.float64), torch.zeros(task.encoder.dim, dtype=torch.float64)
    codes = session.fabric.broadcast(_codes(task, first, _blocks(session, images, first), *unchanged))
    assert isinstance(task.centers, CodedCenters)
    task.centers.own(codes.to(task.centers.codes.device))


@dataclass(frozen=True)
class ClassMeans:
    """The embeddings of some classes' images, over all processes, on the CPU."""

    means: Tensor  # (C, dim) float64; zero where a class has no images
    seen: Tensor  # (C,) numbers of images
    moment: Tensor  # (dim, dim) float64: the mean of z z' over all images

    def spread(self, matrix: Tensor, origin: Tensor) -> Tensor:
        """The root mean square length of matrix (z - origin) over the images."""
        middle = self.seen @ self.means / self.seen.sum().clamp_min(1)
        about = self.moment - torch.outer(middle, origin) - torch.outer(origin, middle) + torch.outer(origin, origin)
        return (matrix @ about @ matrix.T).trace().clamp_min(1e-300).sqrt()


def class_means(classes: Tensor, session: Session, images: Tensor) -> ClassMeans:
    """Mean embeddings of ``classes`` (C,), ascending, in evaluation mode and without augmentation.

    Args:
        images: positions of those training images that may be used.
    """
    task, dataset, run, fabric = session.task, session.dataset, session.run, session.fabric
    labels = dataset.labels("train")[images]
    chosen = classes[torch.searchsorted(classes, labels).clamp_max(len(classes) - 1)] == labels
    # The last column counts.
    sums = torch.zeros(len(classes), task.encoder.dim + 1, device=fabric.device)
    moment = torch.zeros(task.encoder.dim, task.encoder.dim, device=fabric.device)
    was_training = task.training
    task.eval()
    with loading_together(fabric):
        for batch in dataset.eval_batches(
            "train", run.training.evaluation_batch_size, rank=fabric.global_rank, world_size=fabric.world_size,
            device=fabric.device, subset=images[chosen],
        ):  # fmt: skip
            with fabric.autocast():
                embeddings = task.encoder(batch.images).float()
            rows = torch.searchsorted(classes.to(fabric.device), batch.labels)
            sums.index_add_(0, rows, nn.functional.pad(embeddings, (0, 1), value=1.0))
            moment.addmm_(embeddings.T, embeddings)
    task.train(was_training)
    sums, moment = (_over_all(part, fabric) for part in (sums, moment))
    seen = sums[:, -1]
    return ClassMeans(sums[:, :-1] / seen[:, None].clamp_min(1), seen, moment / seen.sum().clamp_min(1))


def _over_all(part: Tensor, fabric: Fabric) -> Tensor:
    """A sum over all processes, float64 on the CPU."""
    total = fabric.all_reduce(part, reduce_op="sum")
    assert isinstance(total, Tensor)
    return total.double().cpu()


def _blocks(session: Session, images: Tensor, first: int) -> Iterator[ClassMeans]:
    """The means of all classes from ``first`` on, a block of them at a time."""
    for classes in torch.split(torch.arange(first, session.task.objective.num_classes), _CLASSES_AT_ONCE):
        yield class_means(classes, session, images)


def _codes(task: Task, first: int, blocks: Iterable[ClassMeans], matrix: Tensor, origin: Tensor) -> Tensor:
    """Different codes for all classes: from ``first`` on near the means in ``blocks``, random ones for classes without images."""
    centers = task.centers
    assert isinstance(centers, CodedCenters)
    codes = centers.codes[:first].cpu()
    for block in blocks:
        unseen = block.seen == 0
        near = nearest_codes((block.means - origin) @ matrix.T, centers.system)
        near[unseen] = random_codes(len(codes) + unseen.nonzero()[:, 0], centers.system, centers.seed)
        codes = torch.cat([codes, near])
    return distinct(codes, centers.system, centers.seed)


def _move(task: Task, codes: Tensor, matrix: Tensor, origin: Tensor) -> None:
    """Give a task codes, and its last layer, z = W h + b, the map: W becomes M W, and b becomes M (b - origin)."""
    centers, layer = task.centers, task.encoder.last
    assert isinstance(centers, CodedCenters)
    centers.own(codes.to(centers.codes.device))
    weight, bias = layer.weight.double().cpu(), layer.bias.double().cpu()
    layer.weight.copy_(matrix @ weight)
    layer.bias.copy_(matrix @ (bias - origin))
