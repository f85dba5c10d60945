"""The read-out's last layer in closed form, as a run trains and once it has trained."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from lsc.data.base import Dataset
from lsc.encoders.closed_form import USUAL_RIDGE, ClosedFormReadout
from lsc.objectives import CenterObjective, LayerObjective
from lsc.training.agreement import loading_together
from lsc.training.compiling import in_full
from lsc.training.options import ReadoutOptions
from lsc.training.phases import Phase
from lsc.training.run import Run
from lsc.training.task import Task

# Training images for each activation, where the settings give no number: of a pass that is repeated as the run trains, and of
# the last one, which should not be worse than the running sums that it replaces (with ten it was, by a point).
_OF_A_PASS, _OF_THE_LAST = 10, 100
# Seconds of a pass after which a line says how far it is.
_SILENCE = 10


class LastLayer:
    """Solves the last layer of a task every so many steps; between, no step trains it.

    Args:
        task: whose layer it is.
        phase: in which it trains.
        refit: does a pass over training images and solves from it, see :func:`refit`.
    """

    def __init__(
        self, task: Task, run: Run, options: ReadoutOptions, phase: Phase, fabric: Fabric, refit: Callable[[], Any]
    ) -> None:
        self.layer, self.options, self.fabric, self.refit = task.encoder.last, options, fabric, refit
        per_epoch, batch = phase.steps_per_epoch, run.training.batch_size
        self.start = max(1, options.start.steps(per_epoch, batch))
        self.every = max(1, options.every.steps(per_epoch, batch))
        self.steps = 0
        self.solved = False
        self.sums = self._total = sums_for(task, options, fabric.device, ridge=USUAL_RIDGE, half_life=options.half_life)
        task.keeps_hidden = options.sums == "running"

    def begin_step(self) -> None:
        self.sums.forget()

    def add(self, hidden: Tensor | None, labels: Tensor) -> None:
        """Take a part of a batch in, where the sums are of the training batches."""
        if hidden is not None:
            self.sums.add(hidden, labels)

    def withhold(self) -> None:
        """Keep the optimiser from a layer that is solved for."""
        if self.solved:
            for parameter in self.layer.parameters():
                parameter.grad = None

    def end_step(self) -> None:
        """Solve where it is time, and count the step: not where a pass over the images failed."""
        since = self.steps + 1 - self.start
        if since >= 0 and since % self.every == 0:
            if self.options.sums == "passes":
                self.refit()
            else:
                shared(self.sums, self.fabric).solve_into(self.layer, self.options.share)
            self.solved = True
        self.steps += 1

    def gather(self) -> None:
        """Add up the sums of all processes for a checkpoint, and leave them as they are; every process calls it.

        When a checkpoint is written depends on the clock, and no result may.
        """
        self._total = shared(self.sums, self.fabric)

    def state_dict(self) -> dict[str, Any]:
        """After :meth:`gather`."""
        return {"sums": self._total.state_dict(), "steps": self.steps, "solved": self.solved}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums.load_state_dict(state["sums"])
        self.steps, self.solved = state["steps"], state["solved"]
        on_the_first(self.sums, self.fabric)


def sums_for(
    task: Task,
    options: ReadoutOptions,
    device: torch.device,
    ridge: float | None = None,
    half_life: float | None = None,
) -> ClosedFormReadout:
    """Empty sums for a task's last layer; where the objective has a layer of its own, their targets are one-hot."""
    layer, objective = task.encoder.last, task.objective
    dim: int = objective.num_classes
    targets: Callable[[Tensor], Tensor] = partial(_one_hot, num_classes=objective.num_classes)
    if isinstance(objective, CenterObjective):
        dim, targets = layer.out_features, objective.targets
    return ClosedFormReadout(
        layer.in_features, dim, targets, ridge=options.ridge or ridge, half_life=half_life, device=device
    )


def _one_hot(labels: Tensor, num_classes: int) -> Tensor:
    return nn.functional.one_hot(labels, num_classes)


@torch.no_grad()
def solve_into(task: Task, sums: ClosedFormReadout) -> None:
    """Solve a task's last layer from sums; with the classification layer after it, where there is one."""
    layer, objective = task.encoder.last, task.objective
    if isinstance(objective, CenterObjective):
        sums.solve_into(layer)
        return
    assert isinstance(objective, LayerObjective)
    weight, bias, rows = sums.solve_by_rank(layer.out_features)
    layer.weight.copy_(weight)
    if layer.bias is not None:
        layer.bias.copy_(bias)
        bias = torch.zeros_like(bias)
    objective.take_layer(rows, rows @ bias)


def shared(sums: ClosedFormReadout, fabric: Fabric) -> ClosedFormReadout:
    """The sums over all processes; these sums themselves where there is one."""
    if fabric.world_size == 1:
        return sums
    total = ClosedFormReadout(sums.features, sums.dim, sums.targets, ridge=sums.ridge, device=sums.gram.device)
    total.load_state_dict(
        {name: fabric.all_reduce(part.clone(), reduce_op="sum") for name, part in sums.state_dict().items()}
    )
    return total


def on_the_first(sums: ClosedFormReadout, fabric: Fabric) -> None:
    """Leave sums that every process has, out of a checkpoint, to the first one."""
    if not fabric.is_global_zero:
        for part in sums.state_dict().values():
            part.zero_()


def gathered(sums: ClosedFormReadout, fabric: Fabric) -> ClosedFormReadout:
    """The sums over all processes, which from now on the first process holds and the others do not."""
    total = shared(sums, fabric)
    if fabric.world_size > 1:
        sums.load_state_dict(total.state_dict())
        on_the_first(sums, fabric)
    return total


@torch.no_grad()
def refit(
    task: Task,
    dataset: Dataset,
    run: Run,
    fabric: Fabric,
    subset: Tensor | None = None,
    last: bool = False,
    tell: Callable[[str], None] | None = None,
) -> tuple[ClosedFormReadout, dict[str, Any]]:
    """Solve a task's last layer from a pass over training images, in evaluation mode and without augmentation.

    Args:
        last: the run has trained, and the pass may be longer.
        subset: (M,) positions in the training split, all by default; evenly spaced ones of them are used.
        tell: takes a line on how far it is, now and then.

    Returns:
        the sums over all processes; ``refit_images`` and ``refit_seconds``.
    """
    assert run.readout is not None
    began = time.perf_counter()
    chosen = torch.arange(dataset.size("train")) if subset is None else subset
    each = _OF_THE_LAST if last else _OF_A_PASS
    wanted = run.readout.images or each * task.encoder.last.in_features
    if wanted < len(chosen):
        chosen = chosen[torch.arange(wanted) * len(chosen) // wanted]
    sums = sums_for(task, run.readout, fabric.device, ridge=None if last else USUAL_RIDGE)
    add_pass(sums, task, dataset, run, fabric, chosen, tell)
    total = shared(sums, fabric)
    solve_into(task, total)
    return total, {"refit_images": len(chosen), "refit_seconds": time.perf_counter() - began}


@torch.no_grad()
def add_pass(
    sums: ClosedFormReadout,
    task: Task,
    dataset: Dataset,
    run: Run,
    fabric: Fabric,
    subset: Tensor | None,
    tell: Callable[[str], None] | None = None,
) -> None:
    """Add training images to the sums, in evaluation mode and without augmentation; each process adds its part.

    Args:
        subset: (M,) positions in the training split, all by default.
        tell: takes a line on how far it is, now and then.
    """
    size, done, told = dataset.size("train") if subset is None else len(subset), 0, time.monotonic()
    was_training = task.training
    task.eval()
    batch_size = run.training.evaluation_batch_size
    with loading_together(fabric):
        for batch in dataset.eval_batches(
            "train", batch_size, rank=fabric.global_rank, world_size=fabric.world_size,
            device=fabric.device, subset=subset,
        ):  # fmt: skip
            with fabric.autocast():
                hidden = in_full(task, task.encoder.hidden, batch.images, -(-batch_size // fabric.world_size))
            sums.add(hidden, batch.labels)
            done += len(batch.labels) * fabric.world_size
            if tell is not None and time.monotonic() - told > _SILENCE:
                tell(f"{min(done, size):,} of {size:,} images")
                told = time.monotonic()
    task.train(was_training)
