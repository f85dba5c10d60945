"""Where a run stands: its steps, the account of the epoch that it is in, and the rows of those that are done."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from lsc.errors import UserError
from lsc.training.monitoring import peak_memory_mb
from lsc.training.optimization import learning_rate
from lsc.training.phases import Phase
from lsc.training.run import Run

# What a checkpoint of a run holds.
PARTS = {"settings", "progress", "num_classes", "task", "class_means", "learner", "sums", "generators", "statistics"}


@contextmanager
def restoring(checkpoints: Path) -> Iterator[None]:
    """Around the use of a checkpoint's parts.

    Raises:
        UserError: they are not what this version of lsc writes.
    """
    try:
        yield
    except UserError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError):
        raise UserError(
            f"{checkpoints}: the checkpoint was written by another version of lsc; go on with that one, or --restart to "
            "discard it"
        ) from None


@dataclass
class Progress:
    """It is part of every checkpoint, as a plain dictionary."""

    step: int = 0  # optimisation steps done, over all phases
    seconds: float = 0.0  # of training; evaluation, checkpoints and warm-up are left out
    epoch_seconds: float = 0.0
    warm_ups: int = 0  # of the epoch's steps, those that were the first after a start: not in its seconds
    warm_up_seconds: float = 0.0
    wait_seconds: float = 0.0  # of the epoch's seconds, those spent waiting for data
    losses: list[float] = field(default_factory=list)  # of this epoch's steps; empty once its end was recorded
    norms: list[float] = field(default_factory=list)  # of their gradients, without those of steps left out
    left_out_in_a_row: int = 0  # of the last steps, those that were left out
    moves: list[float] = field(default_factory=list)  # seconds of each time that the centers moved in this epoch
    rows: list[dict[str, Any]] = field(default_factory=list)  # of metrics.jsonl, one per epoch
    best: float = -1.0
    best_step: int = 0
    owed: list[str] = field(default_factory=list)  # what is left of the last step, in order; see train_epoch
    processes: int = 1
    starts: int = 0  # how often the run was started or went on

    @classmethod
    def restored(cls, state: dict[str, Any], checkpoints: Path) -> "Progress":
        """Out of a whole checkpoint's state.

        Raises:
            UserError: the checkpoint is of a version of lsc that kept another account.
        """
        with restoring(checkpoints):
            kept, usual = state["progress"], vars(cls())
            containers = isinstance(state["generators"], dict) and isinstance(state["learner"], dict)
            means = state["class_means"] is None or isinstance(state["class_means"], torch.Tensor)
            sums = state["sums"] is None or isinstance(state["sums"], dict)
            statistics = state["statistics"] is None or [type(part) for part in state["statistics"]] == [tuple, tuple]
            sound = containers and means and sums and statistics
            if state.keys() != PARTS or kept.keys() != usual.keys() or not sound:
                raise KeyError("parts")
            for key, value in usual.items():
                if not isinstance(kept[key], (int, float) if isinstance(value, float) else type(value)):
                    raise TypeError(key)
            return cls(**kept)

    def count(self, seconds: float, waited: float, warm_up: bool) -> None:
        """Take a step's time into the account."""
        if warm_up:
            self.warm_ups += 1
            self.warm_up_seconds += seconds
        else:
            self.epoch_seconds += seconds
            self.wait_seconds += waited

    def timed(self) -> tuple[int, float]:
        """The epoch's steps whose time counts, and their seconds: without warm-up, unless it has no other steps."""
        steps = len(self.losses) - self.warm_ups
        return (steps, self.epoch_seconds) if steps > 0 else (len(self.losses), self.warm_up_seconds)

    def start_epoch(self) -> None:
        """Begin a new account: that of the last epoch is in its row."""
        self.losses.clear()
        self.norms.clear()
        self.moves.clear()
        self.epoch_seconds = self.wait_seconds = self.warm_up_seconds = 0.0
        self.warm_ups = 0


def account(run: Run, phase: Phase, progress: Progress, fabric: Fabric) -> dict[str, Any]:
    """The line of an epoch that ends here, without what an evaluation adds."""
    steps, seconds = progress.timed()
    progress.seconds += seconds
    share_losses(progress, fabric)
    row: dict[str, Any] = {
        "epoch": phase.first_epoch + -(-(progress.step - phase.start) // phase.steps_per_epoch),
        "step": progress.step,
        "examples": progress.step * run.training.batch_size,
        "train_loss": float(torch.tensor(progress.losses, dtype=torch.float64).mean()),
        **({"gradient_norm": sum(progress.norms) / len(progress.norms)} if progress.norms else {}),
        "learning_rate": learning_rate(progress.step - 1, phase, run.training),
        "images_per_second": steps * run.training.batch_size / seconds,
        "data_wait_share": progress.wait_seconds / seconds,
        "peak_memory_mb": peak_memory_mb(fabric.device),
        "seconds": progress.seconds,
    }
    if left_out := len(progress.losses) - len(progress.norms):
        row["steps_left_out"] = left_out
    if progress.moves:
        row |= {"centers_moved": len(progress.moves), "centers_seconds": sum(progress.moves)}
    return row | ({"phase": phase.index, "classes_seen": phase.num_classes} if run.lifelong else {})


def share_losses(progress: Progress, fabric: Fabric) -> None:
    """Replace the losses of this process's parts of the batches by those of the whole; every process calls it.

    Gradients and their norms are already common. Done again, it changes nothing.
    """
    if fabric.world_size > 1 and progress.losses:
        losses = torch.tensor(progress.losses, dtype=torch.float64, device=fabric.device)
        progress.losses[:] = fabric.all_reduce(losses, reduce_op="mean").tolist()  # type: ignore[union-attr]
