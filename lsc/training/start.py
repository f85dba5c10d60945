"""A training that begins with the weights of a finished run, whose classes keep their centers: ``lsc train --from``."""

import copy
from pathlib import Path

import torch
from torch import Tensor

from lsc.centers import Centers, CodedCenters
from lsc.data.base import Dataset
from lsc.errors import UserError
from lsc.objectives import CenterObjective, LayerObjective
from lsc.objectives.examples import WithExamples
from lsc.training.run import Run
from lsc.training.task import Task
from lsc.training.weights import Restored, load_task, weights_digest


def settings_from(folder: Path) -> Run:
    """Settings for a run that begins with a finished run's weights: those of that run, with the dimension spelt out.

    The least dimension that holds the classes would grow with them, and the weights would not fit. What belonged to one training
    alone, its groups of classes, is left out.

    Raises:
        UserError: the folder holds no finished run.
    """
    source = load_task(folder)
    centers = source.run.centers.model_copy(update={"dim": source.task.encoder.dim})
    return source.run.model_copy(update={"start": weights_digest(folder), "centers": centers, "lifelong": None})


@torch.no_grad()
def begin_from(folder: Path, source: Restored, task: Task, run: Run, dataset: Dataset, moves: bool) -> str:
    """Give an untrained task the encoder of a finished run, and to the classes that are in both what they had there.

    Classes are the same where their names are, or their numbers where they have none. Further ones get free vectors.

    Args:
        source: the run in ``folder``, as it was loaded.
        moves: centers are made anew in the training to come.

    Returns:
        a line on what was taken over.

    Raises:
        UserError: these are not the weights that the run names, or they do not fit it.
    """
    found = weights_digest(folder)
    if found != run.start:
        raise UserError(f"--from {folder}: holds the weights {found}, and the run begins with {run.start}")
    old = places = _places(source, dataset)
    try:
        task.encoder.load_state_dict(source.task.encoder.state_dict())
        new, learned = task.objective, source.task.objective
        learned = learned.known if isinstance(learned, WithExamples) else learned
        if isinstance(new, CenterObjective) and isinstance(learned, CenterObjective):
            # Those known by examples alone now get centers.
            old = torch.where(places < learned.num_classes, places, -1)
            new.centers.load_state_dict(_taken_over(learned.centers, old).state_dict())
            if type(new) is type(learned):  # what it learned besides, such as the scale of a softmax
                state = {key: value for key, value in learned.state_dict().items() if not key.startswith("centers.")}
                new.load_state_dict(state, strict=False)
        elif not (isinstance(new, LayerObjective) and new.take_over(learned, old)):
            old = torch.full_like(places, -1)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--from {folder}: its weights do not fit the settings ({reason})") from None
    kept = int((old >= 0).sum())
    gone = source.num_classes - int((places >= 0).sum())
    line = f"begins with the weights {run.start}: {kept:,} classes keep what they had, {len(old) - kept:,} are new"
    line += f"; {gone:,} classes of that run are none of {dataset.name}'s" if gone else ""
    return line + ("; all centers are made anew to fit the network as it trains" if moves else "")


def _places(source: Restored, dataset: Dataset) -> Tensor:
    """(num_classes,) int64: which class of a finished run each class of a data set is; -1: none."""
    if source.class_names is None and dataset.class_names is None:
        labels = torch.arange(dataset.num_classes)
        return torch.where(labels < source.num_classes, labels, -1)
    numbers = {source.name_of(label): label for label in range(source.num_classes)}
    names = dataset.class_names or [str(label) for label in range(dataset.num_classes)]
    return torch.tensor([numbers.get(name, -1) for name in names])


def _taken_over(centers: Centers, old: Tensor) -> Centers:
    """The centers of classes of which some are old: class c keeps the vector of class ``old[c]``, or has a free one for -1.

    Where no vector is free any more, a new class gets that of a class that is gone.
    """
    grown = copy.deepcopy(centers).cpu()
    is_new = old < 0
    wanted = int(is_new.sum())
    grown.extend(min(wanted, max(grown.room, 0)))
    gone = torch.ones(centers.num_classes, dtype=torch.bool)
    gone[old[~is_new]] = False
    free = torch.cat([torch.arange(centers.num_classes, grown.num_classes), gone.nonzero()[:, 0]])
    if len(free) < wanted:
        grown.check_room(len(old))
    order = old.clone()
    order[is_new] = free[:wanted]
    if torch.equal(order, torch.arange(grown.num_classes)):
        return grown
    if centers.perturbation and not torch.equal(order, torch.arange(len(order))):
        raise UserError(
            "--from: perturbed centers go with the numbers of the classes, which have others here: name the new classes so "
            "that they sort after the old ones, or train anew"
        )
    if isinstance(grown, CodedCenters):
        return CodedCenters(grown.system, len(old), grown.codes[order], radius=grown.radius, seed=grown.seed)
    table = grown.indexes(order)
    return Centers(
        grown.system,
        len(old),
        assignment=table,
        perturbation=grown.perturbation,
        radius=grown.radius,
        seed=grown.seed,
    )
