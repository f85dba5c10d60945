"""Evaluation: exact accuracies over all processes, by the objective's own nearest class."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor

from lsc.centers import CodedCenters
from lsc.data.base import Dataset
from lsc.errors import UserError, needing
from lsc.objectives import LayerObjective
from lsc.training.agreement import loading_together
from lsc.training.compiling import in_full
from lsc.training.task import Task


@torch.no_grad()
def evaluate(
    task: Task,
    dataset: Dataset,
    split: str,
    *,
    fabric: Fabric,
    batch_size: int,
    subset: Tensor | None = None,
    groups: Tensor | None = None,
) -> dict[str, float | list[float | None]]:
    """Accuracies on a split; every image counts once, whatever the number of processes.

    Args:
        task: the trained task, on the fabric's device.
        subset: (M,) positions in the split to evaluate; all by default.
        groups: (num_classes,) group of each class; gives the accuracy per group as well.

    Returns:
        ``top1``; ``top5`` where there are more than 5 classes; ``group_top1``, a list, where groups were given,
        with None for a group without images.

    Raises:
        UserError: there are no images, or an embedding is not finite.
    """
    was_training = task.training
    task.eval()
    device = fabric.device
    num_groups = 0 if groups is None else int(groups.max()) + 1
    groups = None if groups is None else groups.to(device)
    # Images, top-1 hits, top-5 hits, embeddings that are not finite; then images and hits of each group. Counts are exact in
    # float64.
    counts = torch.zeros(4 + 2 * num_groups, dtype=torch.float64, device=device)
    k = 5 if dataset.num_classes > 5 else 1
    with loading_together(fabric):
        for batch in dataset.eval_batches(
            split, batch_size, rank=fabric.global_rank, world_size=fabric.world_size, device=device, subset=subset
        ):
            with fabric.autocast():
                embeddings = in_full(task, task.encoder, batch.images, -(-batch_size // fabric.world_size))
            hits = task.objective.predict(embeddings.float(), k) == batch.labels[:, None]
            broken = (~embeddings.isfinite()).any(1).sum()
            counts[0] += len(hits)
            counts[1:4] += torch.stack([hits[:, 0].sum(), hits.any(1).sum(), broken])
            if groups is not None:
                # By the matrix of who is of which group: it counts without a wait for the device.
                of_group = groups[batch.labels, None] == torch.arange(num_groups, device=device)
                counts[4 : 4 + num_groups] += of_group.sum(0)
                counts[4 + num_groups :] += (of_group & hits[:, :1]).sum(0)
    task.train(was_training)
    counts = fabric.all_reduce(counts, reduce_op="sum")  # type: ignore[assignment]
    images, top1, top5, broken_images = counts[:4].tolist()
    if images == 0:
        raise UserError(f"data set {dataset.name}: there are no images of {split} to evaluate on: add some")
    if broken_images:
        raise UserError(
            f"the embeddings of {broken_images:.0f} of {images:.0f} images of {split} are not finite: lower "
            "training.learning_rate or set training.clip_norm"
        )
    result: dict[str, float | list[float | None]] = {"top1": top1 / images}
    if k == 5:
        result["top5"] = top5 / images
    if groups is not None:
        seen, right = counts[4 : 4 + num_groups].tolist(), counts[4 + num_groups :].tolist()
        result["group_top1"] = [hits / images if images else None for hits, images in zip(right, seen, strict=True)]
    return result


@dataclass
class Sample:
    """Embeddings of a fixed sample of images, on the CPU."""

    embeddings: Tensor  # (N, dim) float32
    labels: Tensor  # (N,) int64
    indexes: Tensor  # (N,) int64 positions in the split


@torch.no_grad()
def embed(
    task: Task, dataset: Dataset, split: str, *, count: int, device: torch.device, batch_size: int = 512
) -> Sample:
    """Embeddings of ``count`` images, evenly spaced over the split (of all where there are fewer)."""
    size = dataset.size(split)
    if count == 0:
        none = torch.zeros(0, dtype=torch.int64)
        return Sample(torch.zeros(0, task.encoder.dim), none, none)
    was_training = task.training
    task.eval()
    chosen = torch.linspace(0, size - 1, min(count, size)).round().long()
    parts: list[list[Tensor]] = []
    for batch in dataset.eval_batches(split, batch_size, device=device, subset=chosen):
        embeddings = in_full(task, task.encoder, batch.images, batch_size).float()
        parts.append([part.cpu() for part in (embeddings, batch.labels, batch.indexes)])
    task.train(was_training)
    return Sample(*(torch.cat(column) for column in zip(*parts, strict=True)))


@torch.no_grad()
def center_cosines(task: Task, sample: Sample) -> dict[str, float]:
    """Mean cosine of a sample's embeddings to the own center and to the nearest other one.

    Empty for a classification layer, which has no centers.
    """
    centers = task.centers
    if centers is None:
        return {}
    device = next(task.parameters()).device
    embeddings, labels = sample.embeddings.to(device), sample.labels.to(device)
    own = F.cosine_similarity(embeddings, centers.vectors(labels))
    nearest, scores = centers.nearest(embeddings, 2, metric="cosine")
    # Of the two nearest centers at most one is the own: the best of those that are not is the nearest other.
    other = scores.masked_fill(nearest == labels[:, None], -torch.inf).amax(1)
    return {"own_cosine": own.mean().item(), "other_cosine": other.mean().item()}


@torch.no_grad()
def novelty(task: Task, sample: Sample, num_known: int) -> dict[str, float]:
    """How well images of classes that were never trained are told from those of known ones.

    Args:
        sample: embeddings of images of all classes, trained or not.
        num_known: classes below it are known.

    Returns:
        ``novelty_auroc``: area under the curve of the score (cosine to the nearest center of a known class, or the
        greatest class probability of a classification layer); 1/2 is chance. With centers also ``vacant_new``
        and ``vacant_known``: the shares of new and of known images whose nearest vector of the whole system belongs to
        no class; but not with codes, of which nearly all are vacant. Empty where every class is known.
    """
    known = sample.labels < num_known
    if bool(known.all()) or not bool(known.any()):
        return {}
    embeddings = sample.embeddings.to(next(task.parameters()).device)
    if isinstance(task.objective, LayerObjective):
        scores = task.objective.logits(embeddings).softmax(1).amax(1).cpu()
        return {"novelty_auroc": auroc(scores[known], scores[~known])}
    centers = task.centers
    assert centers is not None
    scores = centers.nearest(embeddings, 1, metric="cosine")[1][:, 0].cpu()
    result = {"novelty_auroc": auroc(scores[known], scores[~known])}
    if not isinstance(centers, CodedCenters):
        vacant = centers.vacant(embeddings).float().cpu()
        result |= {"vacant_new": vacant[~known].mean().item(), "vacant_known": vacant[known].mean().item()}
    return result


def auroc(positive: Tensor, negative: Tensor) -> float:
    """Probability that a score of ``positive`` (P,) exceeds one of ``negative`` (N,); ties count half."""
    difference = positive[:, None] - negative[None, :]
    return float(((difference > 0).double() + 0.5 * (difference == 0).double()).mean())


def neighbour_accuracy(train: Sample, test: Sample, k: int) -> float:
    """Share of test images whose label is that of the majority of their ``k`` nearest training images by cosine.

    The labels may be others than the trained ones: so transfer is measured.
    """
    with needing("data", "training.neighbours"):
        from sklearn.neighbors import KNeighborsClassifier

    def unit(sample: Sample) -> Tensor:
        return F.normalize(sample.embeddings, dim=1)

    # Between unit vectors the Euclidean order is that of the cosine, and it is what the fast searches know.
    classifier = KNeighborsClassifier(n_neighbors=min(k, len(train.labels)))
    classifier.fit(unit(train).numpy(), train.labels.numpy())
    return float(classifier.score(unit(test).numpy(), test.labels.numpy()))
