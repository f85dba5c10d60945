"""A training that begins with the weights of a finished run, whose classes keep their centers: ``lsc train --from``."""

import copy
from pathlib import Path

import torch
from torch import Tensor

from lsc.centers import Centers, CodedCenters
from lsc.data.base import Dataset
from lsc.errors import UserError
from lsc.objectives import CenterObjective, LayerObjective
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
def begin_from(folder: Path, task: Task, run: Run, dataset: Dataset) -> str:
    """Give an untrained task the encoder of a finished run, and to the classes that are in both what they had there.

    Classes are the same where their names are, or their numbers where they have none. Further ones get free vectors.

    Returns:
        a line on what was taken over.

    Raises:
        UserError: these are not the weights that the run names, or they do not fit it.
    """
    source = load_task(folder)
    found = weights_digest(folder)
    if found != run.start:
        raise UserError(f"--from {folder}: holds the weights {found}, and the run begins with {run.start}")
    try:
        task.encoder.load_state_dict(source.task.encoder.state_dict())
        old = _places(source, dataset)
        new = task.objective
        if isinstance(new, CenterObjective) and source.task.centers is not None:
            old[old >= source.task.centers.num_classes] = -1  # known by examples alone: now they get centers
            new.centers.load_state_dict(_taken_over(source.task.centers, old).state_dict())
            if type(new) is type(source.task.objective):  # what it learned besides, such as the scale of a softmax
                state = source.task.objective.state_dict().items()
                new.load_state_dict(
                    {key: value for key, value in state if not key.startswith("centers.")}, strict=False
                )
        elif not (isinstance(new, LayerObjective) and new.take_over(source.task.objective, old)):
            old = torch.full_like(old, -1)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--from {folder}: its weights do not fit the settings ({reason})") from None
    kept = int((old >= 0).sum())
    gone = source.num_classes - kept
    line = f"begins with the weights {run.start}: {kept:,} classes keep what they had, {len(old) - kept:,} are new"
    line += f"; {gone:,} classes of that run are none of {dataset.name}'s" if gone else ""
    return line + ("" if run.centers.fit is None else "; all centers are made anew to fit the network as it trains")


def _places(source: Restored, dataset: Dataset) -> Tensor:
    """(num_classes,) int64: which class of a finished run each class of a data set is; -1: none."""
    if source.class_names is None and dataset.class_names is None:
        labels = torch.arange(dataset.num_classes)
        return torch.where(labels < source.num_classes, labels, -1)
    numbers = {source.name_of(label): label for label in range(source.num_classes)}
    names = dataset.class_names or [str(label) for label in range(dataset.num_classes)]
    return torch.tensor([numbers.get(name, -1) for name in names])


def _taken_over(centers: Centers, old: Tensor) -> Centers:
    """The centers of classes of which some are old: class c keeps the vector of class ``old[c]``, or has a free one for -1."""
    grown = copy.deepcopy(centers).cpu()
    is_new = old < 0
    grown.extend(int(is_new.sum()))
    order = old.clone()
    order[is_new] = torch.arange(centers.num_classes, grown.num_classes)
    if torch.equal(order, torch.arange(grown.num_classes)):
        return grown
    if centers.perturbation:
        raise UserError(
            "--from: perturbed centers go with the numbers of the classes, which have others here: name the new classes so "
            "that they sort after the old ones, or train anew"
        )
    if isinstance(grown, CodedCenters):
        return CodedCenters(grown.system, len(old), grown.codes[order], radius=grown.radius, seed=grown.seed)
    table = grown.indexes(order)
    return Centers(centers.system, len(old), assignment=table, radius=centers.radius, seed=centers.seed)
