"""The phases of a run: one for ordinary training, one per group of classes for lifelong learning."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lsc.data.base import Dataset
from lsc.errors import UserError
from lsc.hashing import random_bits
from lsc.training.options import LifelongOptions
from lsc.training.run import Run

_REPLAY = 201  # first counter of the random stream that chooses the replay memory


@dataclass(frozen=True)
class Phase:
    """A stretch of steps on one selection of images, with a schedule of its own; without steps, a pass over them."""

    index: int
    start: int  # the step before its first
    end: int  # its last step
    first_epoch: int  # epochs before it
    steps_per_epoch: int
    warmup: int  # steps
    num_classes: int  # known by now
    subset: Tensor | None  # positions in the training split; None: all
    moves: frozenset[int] = frozenset()  # the steps after which the centers move

    def test_subset(self, labels: Tensor) -> Tensor | None:
        """Positions of the images of all classes known by now, among a split's ``labels``; None for all."""
        return None if self.subset is None else (labels < self.num_classes).nonzero().flatten()


def class_groups(num_classes: int, lifelong: LifelongOptions, sizes: tuple[int, ...] | None = None) -> Tensor:
    """(num_classes,) int64: the group that each class arrives with, in order of the class ids.

    Args:
        sizes: of the data set's own groups; None: sizes as equal as may be.

    Raises:
        UserError: fewer than two classes in a group of equal size or in the first one, or another number of groups than the
            data set has.
    """
    if sizes is not None and len(sizes) != lifelong.groups:
        raise UserError(
            f"lifelong.groups: {lifelong.groups}, and the data set's classes come in {len(sizes)} groups; write that number"
        )
    if (sizes is None and num_classes < 2 * lifelong.groups) or (sizes is not None and sizes[0] < 2):
        raise UserError(
            f"lifelong.groups: {lifelong.groups} groups of {num_classes} classes leave groups of less than 2"
        )
    if sizes is None:
        sizes = tuple(len(part) for part in torch.arange(num_classes).tensor_split(lifelong.groups))
    return torch.repeat_interleave(torch.arange(lifelong.groups), torch.tensor(sizes))


def plan_phases(run: Run, dataset: Dataset) -> list[Phase]:
    """The phases of a run, in order; every process and every restart plans the same ones."""
    options = run.training
    if run.lifelong is None:
        selections: list[tuple[int, Tensor | None]] = [(dataset.num_classes, None)]
    else:
        selections = _selections(dataset, run.lifelong, run.seed)
    phases: list[Phase] = []
    step = epochs = 0
    for index, (num_classes, subset) in enumerate(selections):
        steps_per_epoch = dataset.steps_per_epoch(options.batch_size, subset)
        # A run of no steps is one pass over the images; any other takes a step at least.
        steps = max(1, options.duration.steps(steps_per_epoch, options.batch_size)) if options.duration.amount else 0
        if run.lifelong is not None and run.lifelong.sums and index:
            steps = 0
        warmup = options.warmup.steps(steps_per_epoch, options.batch_size)
        moves = frozenset() if index else _moves(run, step + steps, steps_per_epoch)
        phases.append(
            Phase(index, step, step + steps, epochs, steps_per_epoch, min(warmup, steps), num_classes, subset, moves)
        )
        step += steps
        epochs += -(-steps // steps_per_epoch)
    return phases


# When centers move by default: epochs, and steps before which a network has not yet seen what tells classes apart.
_MOVES = ((0.05, 10), (0.15, 20), (0.4, 40), (1.0, 80))


def _moves(run: Run, end: int, steps_per_epoch: int) -> frozenset[int]:
    """The steps after which the centers of the first phase move, which has its last step at ``end``.

    Raises:
        UserError: one lies there or later.
    """
    if run.centers.fit is None:
        return frozenset()
    if run.centers.fit.at is None:
        usual = [max(round(epochs * steps_per_epoch), least) for epochs, least in _MOVES]
        return frozenset(step for step in usual if 2 * step <= end)
    steps = set()
    for at in run.centers.fit.at:
        steps.add(max(1, at.steps(steps_per_epoch, run.training.batch_size)))
        if max(steps) >= end:
            raise UserError(
                f"centers.fit.at: {at} is no time within the training, which is over by then: name earlier ones"
            )
    return frozenset(steps)


def _selections(dataset: Dataset, lifelong: LifelongOptions, seed: int) -> list[tuple[int, Tensor | None]]:
    """For each group: the number of classes known by then, and the training images seen with it."""
    labels = dataset.labels("train")
    of_class = class_groups(dataset.num_classes, lifelong, dataset.group_sizes)
    of_image = of_class[labels]
    kept = replay_memory(labels, lifelong.replay, seed)
    selections: list[tuple[int, Tensor | None]] = []
    for group in range(lifelong.groups):
        new = (of_image == group).nonzero().flatten()
        old = kept[of_image[kept] < group]
        known = int((of_class <= group).sum())
        selections.append((known, torch.cat([new, old])))
    return selections


def replay_memory(labels: Tensor, per_class: int | None, seed: int) -> Tensor:
    """Positions of ``per_class`` random images of each class (all for None), by a hash: the same at every start."""
    if per_class is None:
        return torch.arange(len(labels))
    shuffled = random_bits(seed, _REPLAY, torch.arange(len(labels))).argsort()
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    sorted_labels = labels[by_class]
    counts = torch.bincount(labels)
    rank = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[sorted_labels]
    return by_class[rank < per_class].sort().values
