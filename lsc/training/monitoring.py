"""What is watched while a run trains: finiteness, memory, arithmetic, and what the user sees of it."""

import json
import math
import resource
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lsc.errors import UserError

# Dense peak rates in FLOP/s by the vendors' data sheets; a card that is not listed gets no utilisation.
PEAK_FLOPS = {
    "bfloat16": {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12},
    "float32": {"H200": 67e12, "H100": 67e12, "A100": 19.5e12, "L40S": 91.6e12, "4090": 82.6e12},
}


class Account(Protocol):
    """Where the watched numbers of an epoch go."""

    losses: list[float]
    norms: list[float]


class Watch:
    """Takes each step's loss and gradient norm into an account, and stops the run at the first that is not finite.

    On a GPU every look at a number waits for the device, so the steps of an interval are looked at together; the step
    that went wrong is named exactly all the same.
    """

    def __init__(self, account: Account, every: int):
        self._account, self._every = account, every
        self._recent: list[tuple[int, float, Tensor, Tensor]] = []

    def add(self, step: int, rate: float, loss: Tensor, norm: Tensor, indexes: Tensor) -> None:
        self._recent.append((step, rate, torch.stack([loss.float(), norm.float()]), indexes))

    @property
    def due(self) -> bool:
        return len(self._recent) >= self._every

    def check(self, out: Path) -> None:
        """Take the recent steps into the account.

        Raises:
            UserError: a loss or gradient was not finite; ``out/nonfinite.json`` names step, rate and images.
        """
        if not self._recent:
            return
        recent, self._recent = self._recent, []
        values = torch.stack([numbers for _, _, numbers, _ in recent]).tolist()
        for (step, rate, _, indexes), (loss, norm) in zip(recent, values, strict=True):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                report = out / "nonfinite.json"
                account = {"step": step, "learning_rate": rate, "loss": str(loss), "gradient_norm": str(norm)}
                report.write_text(json.dumps(account | {"indexes": indexes.tolist()}, indent=2) + "\n")
                raise UserError(
                    f"step {step}: loss {loss}, gradient norm {norm} at learning rate {rate:g}: not finite; "
                    f"lower training.learning_rate or set training.clip_norm (the batch is listed in {report})"
                )
            self._account.losses.append(loss)
            self._account.norms.append(norm)


class Display:
    """A progress bar on a terminal, one plain line per epoch in a log; silent on all processes but the first."""

    CHANGES_NO_RESULT = True

    def __init__(self, name: str, total_steps: int, step: int, enabled: bool):
        self._name, self._enabled, self._started = name, enabled, time.monotonic()
        self._first, self._total = step, total_steps
        self._said = -math.inf
        on_terminal = enabled and sys.stderr.isatty()
        self._bar = tqdm(total=total_steps, initial=step, desc=name, unit="step") if on_terminal else None
        if step and enabled:
            self.line(f"{name}: resumed at step {step} of {total_steps}")

    def step(self, losses: list[float]) -> None:
        if self._bar is not None:
            self._bar.update()
            if losses:
                self._bar.set_postfix(loss=f"{losses[-1]:.4f}", refresh=False)

    def epoch(self, row: dict[str, Any]) -> None:
        """A line; of short epochs that were not evaluated, one in five seconds at most."""
        now = time.monotonic()
        if "top1" not in row and now - self._said < 5:
            return
        self._said = now
        parts = [
            f"epoch {row['epoch']}",
            f"step {row['step']}/{self._total}",
            *([f"loss {row['train_loss']:.4f}"] if "train_loss" in row else []),
        ]
        parts += [f"{key} {row[key]:.4f}" for key in ("top1", "top5") if key in row]
        elapsed = time.monotonic() - self._started
        done = row["step"] - self._first
        left = elapsed / done * (self._total - row["step"]) if done else 0.0
        parts += [f"{row['images_per_second']:.0f} images/s"] if "images_per_second" in row else []
        parts.append(f"{left:.0f} s left")
        self.line("  ".join(parts))

    def line(self, text: str) -> None:
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        elif self._enabled:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def peak_memory_mb(device: torch.device) -> float:
    """The most memory taken so far, in MiB: of the GPU's by torch, on a CPU of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    # Linux counts in KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def flops_per_step(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Floating-point operations of one forward and backward pass, counted on a run of it that leaves no trace.

    In evaluation mode, since normalisations would take the batch into their averages otherwise, and uncompiled; random
    numbers that it draws are drawn again by the next step.
    """
    from torch.utils.flop_counter import FlopCounterMode

    was_training = model.training
    model.eval()
    devices = [images.device] if images.device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices),
        torch.compiler.set_stance("force_eager"),
        FlopCounterMode(display=False) as counter,
    ):
        loss = model(images, labels)
        torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True)
    model.train(was_training)
    return float(counter.get_total_flops())


def peak_flops(precision: str) -> float | None:
    """The dense peak rate of the current GPU in FLOP/s; None for one that is not known."""
    name = torch.cuda.get_device_name()
    return next((rate for card, rate in PEAK_FLOPS[precision].items() if card in name), None)


class Writer:
    """Numbers for TensorBoard, if wanted."""

    CHANGES_NO_RESULT = True

    def __init__(self, folder: Path, wanted: bool):
        self._writer: Any = None
        if wanted:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise UserError("--tensorboard: the package is missing; pip install 'lsc[tensorboard]'") from None
            self._writer = SummaryWriter(str(folder))

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def add(self, row: dict[str, Any]) -> None:
        if self._writer is not None:
            for key, value in row.items():
                if isinstance(value, (int, float)):
                    self._writer.add_scalar(key, value, row["step"])
