"""New classes for a finished run, without training: the network stays as it is.

By sums, where the run kept those of its read-out (:mod:`lsc.training.sums`): the new classes get free vectors of the system as
their centers (those nearest to their mean embeddings, where centers are made to fit), their images are added to the sums, and
the read-out's last layer is solved once more. No old image is needed, and old and new classes are treated alike: the read-out is
the one that all images together would give, but that each new class counts as much as 1.5 average old ones, however many images
of it were read. With its weight in images alone, a class of a few images that the network never trained on hardly reaches its
center; the factor was chosen in trials on fractals that no table shows.

By examples alone, where there are no sums: network and read-out stay, and a new class is known by the mean direction of its
examples' embeddings, beside the old centers (:class:`lsc.objectives.examples.WithExamples`).
"""

import copy
import shutil
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from lsc.centers import CodedCenters
from lsc.encoders.closed_form import ClosedFormReadout
from lsc.errors import UserError
from lsc.files import folder_written_whole, refuse_unwritable_folder
from lsc.objectives import CenterObjective
from lsc.objectives.examples import WithExamples
from lsc.provenance import provenance
from lsc.trained.classifier import Classifier
from lsc.trained.new_classes import NewImages, as_labels, labels_of, new_images
from lsc.training import records
from lsc.training.sums import images_in, load_sums, save_sums
from lsc.training.task import Task
from lsc.training.weights import Restored, save_task, weights_digest

# What a new class counts in the sums, in average old ones.
NEW_CLASS_WEIGHT = 1.5


def extend(
    trained: Classifier,
    images: Any,
    names: Sequence[str] | None = None,
    *,
    out: Path,
    enrol: bool = False,
    weight: float = NEW_CLASS_WEIGHT,
) -> dict[str, Any]:
    """Write a finished run with further classes to ``out``.

    Args:
        trained: the run; it is not changed.
        images: a folder with a folder of images for each class (or ``train/`` with these) or with a table of paths and classes,
            or images of any kind that :meth:`lsc.Trained.embed` takes.
        names: class of each image, where no folder was given. A class that the run has already gets more images, by sums.
        enrol: by examples alone, even if there are sums.
        weight: of a new class in the sums, in average old classes.

    Returns:
        the content of ``summary.json``.

    Raises:
        UserError: what is wrong with the images, the names or the run; nothing is written then.
    """
    refuse_unwritable_folder(out)
    began = time.perf_counter()
    given = new_images(images, names)
    if given.are_files:
        trained.check_pictures()
    objective = trained.task.objective
    if not isinstance(objective, CenterObjective | WithExamples):
        raise UserError(
            f"{trained.folder}: its objective {trained.run.objective.name} has a layer with a row for each class, which training "
            "alone can extend: use lsc train --from, or train with centers"
        )
    label_of = labels_of(given.names, trained.classes)
    found = (
        None if enrol or isinstance(objective, WithExamples) else load_sums(trained.folder, trained.task, trained.run)
    )
    if found is None:
        _refuse_known(trained, label_of, enrol)
        task, counts = _by_examples(trained, given, label_of)
        sums = None
    else:
        task, counts, sums = _by_sums(trained, given, label_of, *found, weight)
    empty = [name for name, label in label_of.items() if not counts[label]]
    if empty:
        raise UserError(f"class {empty[0]}: none of its images could be read; replace them, or leave the class out")
    summary = _summary(trained, task, label_of, counts, "examples" if sums is None else "sums")
    summary |= {"seconds": time.perf_counter() - began}
    _write(trained, task, sums, out, sorted(label_of, key=label_of.__getitem__), summary)
    return summary


def _by_sums(
    trained: Classifier,
    given: NewImages,
    label_of: dict[str, int],
    sums: ClosedFormReadout,
    classes_in_sums: int,
    weight: float,
) -> tuple[Task, Tensor, ClosedFormReadout]:
    """A copy of the task whose read-out has taken the images in, how many of each class, and the sums with them."""
    task, device = copy.deepcopy(trained.task), sums.gram.device
    objective = task.objective
    assert isinstance(objective, CenterObjective)
    old = objective.num_classes
    added = sum(label >= old for label in label_of.values())
    try:
        if isinstance(objective.centers, CodedCenters):
            objective.centers.extend(added, _mean_embeddings(trained, given, label_of, old, added))
        else:
            objective.extend(added)
    except UserError as error:
        raise UserError(
            f"{trained.folder}: no vector is free for {added} more classes ({error}); or give --enrol"
        ) from None
    sums.targets = objective.targets
    per_class = images_in(sums) / max(classes_in_sums, 1)
    listed = torch.bincount(as_labels(given.names, label_of, torch.device("cpu")), minlength=objective.num_classes)
    new = torch.arange(objective.num_classes) >= old

    def weights(images: Tensor) -> Tensor:
        """Of an image of each class, which has so many."""
        return torch.where(new, weight * per_class / images.clamp(min=1), 1.0).to(device)

    def add(images: NewImages, weights: Tensor) -> Tensor:
        """Take images in; gives how many of each class were read."""
        counts = torch.zeros_like(listed)
        for views, names in images.batches(trained):
            labels = as_labels(names, label_of, device)
            with torch.no_grad():
                hidden = task.encoder.hidden(trained.normalise(views.to(device)))
            sums.add(hidden, labels, weights[labels])
            counts += torch.bincount(labels.cpu(), minlength=len(counts))
        return counts

    counts = add(given, weights(listed))
    # Where files of a new class did not decode, each of the others counts for more: they are read again to add what is lacking.
    short = {name for name, label in label_of.items() if new[label] and 0 < counts[label] < listed[label]}
    if short:
        add(given.of_classes(short), weights(counts) - weights(listed))
    sums.solve_into(task.encoder.last)
    return task, counts, sums


@torch.no_grad()
def _mean_embeddings(trained: Classifier, given: NewImages, label_of: dict[str, int], first: int, count: int) -> Tensor:
    """(count, dim): the mean embedding of each class from label ``first`` on, zero where no image of it can be read."""
    device = next(trained.task.parameters()).device
    sums = torch.zeros(count + 1, trained.task.encoder.dim, device=device)
    for views, names in given.batches(trained):
        labels = as_labels(names, label_of, device)
        embeddings = trained.task.encoder(trained.normalise(views.to(device))).float()
        # More images of the old classes move no center: their sum is dropped.
        sums.index_add_(0, torch.where(labels >= first, labels - first, count), embeddings)
    return sums[:count]


def _by_examples(trained: Classifier, given: NewImages, label_of: dict[str, int]) -> tuple[Task, Tensor]:
    """A copy of the task that knows further classes by the mean directions of their embeddings; how many images of each."""
    task = copy.copy(trained.task)
    task._modules = dict(trained.task._modules)
    old = task.objective
    known = old.known if isinstance(old, WithExamples) else old
    assert isinstance(known, CenterObjective)
    first, total = known.num_classes, max(*label_of.values(), old.num_classes - 1) + 1
    device = next(task.parameters()).device
    sums = torch.zeros(total - first, known.dim, device=device)
    counts = torch.zeros(total, dtype=torch.int64)
    for views, names in given.batches(trained):
        labels = as_labels(names, label_of, device)
        with torch.no_grad():
            embeddings = task.encoder(trained.normalise(views.to(device))).float()
        sums.index_add_(0, labels - first, F.normalize(embeddings, dim=1))
        counts += torch.bincount(labels.cpu(), minlength=total)
    examples = counts[first:].to(device, copy=True)  # `counts` stays that of the new images
    if isinstance(old, WithExamples):
        sums[: len(old.sums)] += old.sums
        examples[: len(old.counts)] += old.counts
    task.objective = WithExamples(known, sums, examples).eval()
    return task, counts


def _refuse_known(trained: Classifier, label_of: dict[str, int], enrol: bool) -> None:
    """Raise a UserError where a class has a center already and examples are all that could be added."""
    centers = trained.task.centers
    assert centers is not None
    known = [name for name, label in label_of.items() if label < centers.num_classes]
    if known:
        reason = "with --enrol" if enrol else f"of a run without {records.SUMS}"
        raise UserError(
            f"class {known[0]}: the run has it already, and the center of a class takes no examples {reason}: rename it, "
            "leave it out, or train on with lsc train --from"
        )


def _summary(trained: Classifier, task: Task, label_of: dict[str, int], counts: Tensor, way: str) -> dict[str, Any]:
    before = trained.summary
    kept = (
        "seed",
        "objective",
        "steps",
        "dim",
        "encoder_parameters",
        "objective_parameters",
        "code",
        "final_on",
        "final_images",
        "final_top1",
    )
    old = trained.task.objective.num_classes
    new = [name for name, label in label_of.items() if label >= old]
    return {
        "run": trained.run.name,
        **{key: before[key] for key in kept if key in before},
        "num_classes": task.objective.num_classes,
        "extended": {
            "from": weights_digest(trained.folder),
            "by": way,
            "classes_before": old,
            "new_classes": len(new),
            "images": int(counts.sum()),
            "before": before.get("extended"),
        },
        "note": "final_top1 is that of the training, among the classes that it had; lsc evaluate --images judges all",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        **provenance(),
    }


def _write(
    trained: Classifier,
    task: Task,
    sums: ClosedFormReadout | None,
    out: Path,
    named: list[str],
    summary: dict[str, Any],
) -> None:
    # The least dimension that holds the classes grows with them: it is spelt out, so that the centers stay what they are.
    centers = trained.run.centers.model_copy(update={"dim": task.encoder.dim})
    run = trained.run.model_copy(update={"centers": centers})
    old = trained.classes
    names = old + named[len(named) - (task.objective.num_classes - len(old)) :]
    described = Restored(
        task, run, task.objective.num_classes, trained.image_shape, trained.restored.mean, trained.restored.std, names
    )
    with folder_written_whole(out) as folder:
        records.write_text(folder / records.CONFIG, yaml.safe_dump(run.plain(), sort_keys=False))
        if (trained.folder / records.METRICS).exists():
            shutil.copyfile(trained.folder / records.METRICS, folder / records.METRICS)
        save_task(folder, task, run, described)
        if sums is not None:
            save_sums(folder, sums, task.objective.num_classes)
        records.write_json(folder / records.SUMMARY, {**summary, "digest": run.digest})
