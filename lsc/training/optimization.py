"""Optimiser, schedule and one optimisation step."""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from lsc.data.base import Batch
from lsc.objectives.base import leave_out
from lsc.training.last_layer import LastLayer
from lsc.training.options import TrainingOptions
from lsc.training.phases import Phase
from lsc.training.task import Task

# Steps over which the rate rises again after the centers moved: the optimiser begins anew with the last layer, and its first
# steps are large whatever the gradient (docs/learning.md).
_RISE = 15


def learning_rate(step: int, phase: Phase, options: TrainingOptions) -> float:
    """The rate of the step after ``step``: linear warm-up, then a half cosine to zero, or constant; less after a move."""
    since = min((step - move for move in phase.moves if move <= step), default=_RISE)
    return _scheduled(step - phase.start, phase, options) * min(1.0, (since + 1) / _RISE)


def _scheduled(done: int, phase: Phase, options: TrainingOptions) -> float:
    if done < phase.warmup:
        return options.learning_rate * (done + 1) / phase.warmup
    if options.schedule == "constant":
        return options.learning_rate
    share = (done - phase.warmup) / max(1, phase.end - phase.start - phase.warmup)
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def make_optimizer(module: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """AdamW or SGD with momentum; only matrices (and kernels) decay, not biases, scales and normalisations.

    Fused: one operation for all parameters, where a loop over them takes a seventh of a small network's step.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": options.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if options.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=options.learning_rate, momentum=options.momentum, nesterov=options.momentum > 0, fused=True
        )
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=(options.momentum, options.beta2), fused=True)


class Learner:
    """What a phase trains: the task on its device, its optimiser and, if wanted, an average of its weights.

    Args:
        last_layer: solves the read-out's last layer, where no step trains it.

    Attributes:
        evaluated: the task to evaluate and to keep: the average where there is one.
    """

    def __init__(self, task: Task, fabric: Fabric, options: TrainingOptions, last_layer: LastLayer | None = None):
        self.fabric, self.options, self.task, self.last_layer = fabric, options, task, last_layer
        self._bare = make_optimizer(task, options)  # Fabric's passes on what is asked, not what is set
        self.model, self.optimizer = fabric.setup(task, self._bare)
        for moments in task.objective.optimizer_state().values():
            moments.zero_()  # as those of the optimiser: each phase begins with none
        self.average: AveragedModel | None = None
        self.evaluated = task
        if options.ema is not None:
            self.average = AveragedModel(task)
            self.evaluated = cast(Task, self.average.module)

    def step(self, batch: Batch, rate: float) -> tuple[Tensor, Tensor]:
        """One whole step: :meth:`descend` and :meth:`conclude`; returns what the former does."""
        loss, norm = self.descend(batch, rate)
        self.conclude()
        return loss, norm

    def descend(self, batch: Batch, rate: float) -> tuple[Tensor, Tensor]:
        """One step of the optimiser; returns the mean loss and the gradient's norm before clipping, both scalars.

        Where that norm is not finite no weight changes: see :func:`leave_out`.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        parts = self.options.accumulate
        last_layer = None if self.task.self_supervised else self.last_layer
        loss = torch.zeros((), device=self.fabric.device)
        images, labels = batch.images.chunk(parts), batch.labels.chunk(parts)
        if last_layer is not None:
            last_layer.begin_step()
        for part in range(parts):
            with self._without_exchange() if part < parts - 1 else nullcontext():
                part_loss = self.model(images[part], labels[part]) / parts
                self.fabric.backward(part_loss)
            loss += part_loss.detach()
            if last_layer is not None:
                last_layer.add(self.task.hidden, labels[part])
        if last_layer is not None:
            last_layer.withhold()
        gradients = [parameter.grad for parameter in self.task.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients).to(loss.device)  # that of no gradient at all is on the CPU
        if self.options.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self.task.parameters(), self.options.clip_norm, norm)
        leave_out(self._bare, norm)
        self.optimizer.step()
        betas = (self.options.momentum, self.options.beta2)
        self.task.objective.update(rate, self.options.weight_decay, betas, norm)
        self.optimizer.zero_grad(set_to_none=True)
        return loss, norm

    def conclude(self) -> None:
        """What follows the optimiser's step: the last layer is solved for where it is time, and the average moves.

        Raises:
            LoadError: images of a pass over the data could not be loaded; nothing is changed, and it can be called again.
        """
        if self.last_layer is not None and not self.task.self_supervised:
            self.last_layer.end_step()
        if self.average is not None:
            self._move_average(self.average)

    @torch.no_grad()
    def _move_average(self, average: AveragedModel) -> None:
        """Move the average towards the current weights, faster in the first steps: it begins with untrained ones.

        With the statistics of normalisations, which belong to the weights. The average's own ``update_parameters`` would
        copy its count to the device in every step and wait for that.
        """
        assert self.options.ema is not None
        taken = int(average.n_averaged)  # on the CPU: no device waits for it
        decay = min(self.options.ema, (1 + taken) / (10 + taken))
        pairs = [
            (mine.detach(), value.detach())
            for kind in (nn.Module.parameters, nn.Module.buffers)
            for mine, value in zip(kind(average.module), kind(self.task), strict=True)
        ]
        moved = [pair for pair in pairs if taken and pair[0].is_floating_point()]
        if moved:
            torch._foreach_lerp_([mine for mine, _ in moved], [value for _, value in moved], 1 - decay)
        for mine, value in pairs:
            if not (taken and mine.is_floating_point()):
                mine.copy_(value)
        average.n_averaged += 1

    @property
    def tasks(self) -> list[Task]:
        """The task, and the average of its weights where there is one."""
        return [self.task] if self.average is None else [self.task, self.evaluated]

    def forget_moments(self, module: nn.Module) -> None:
        """Let the optimiser begin anew with a module, whose weights were changed otherwise or whose loss is another now."""
        for parameter in module.parameters():
            for value in self._bare.state.get(parameter, {}).values():
                if isinstance(value, Tensor):
                    value.zero_()

    def _without_exchange(self) -> AbstractContextManager[Any]:
        """Gradients of all but the last part stay local; they are exchanged once per step."""
        return self.fabric.no_backward_sync(self.model, enabled=self.fabric.world_size > 1)

    def state_dict(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "objective": self.task.objective.optimizer_state(),
            "last_layer": None if self.last_layer is None else self.last_layer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.task.objective.load_optimizer_state(state["objective"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if self.last_layer is not None:
            self.last_layer.load_state_dict(state["last_layer"])
