"""What is watched while a run trains: finiteness, memory, arithmetic, and what the user sees of it."""

import copy
import math
import re
import resource
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm import tqdm

from lsc.errors import UserError
from lsc.training import records
from lsc.training.agreement import greatest

# Dense peak rates in FLOP/s by the vendors' data sheets, in bfloat16 and in float32; a card that is not listed gets no
# utilisation. The first whose words are all in the card's name counts: cards for PCIe and NVL bridges are slower than SXM.
PEAK_FLOPS = {
    "H200 NVL": (835e12, 60e12),
    "H200": (989e12, 67e12),
    "H100 PCIe": (756e12, 51e12),
    "H100 NVL": (835e12, 60e12),
    "H100": (989e12, 67e12),
    "A100": (312e12, 19.5e12),
    "L40S": (362e12, 91.6e12),
    "RTX 4090": (165e12, 82.6e12),
}


# Steps that are looked at together on a GPU, where every look waits for the device.
_LOOKED_AT_TOGETHER = 20
# Steps in a row whose gradient may be not finite. One by itself is an accident of rounding, so many are not.
_LEFT_OUT_IN_A_ROW = 10


class Account(Protocol):
    """Where the watched numbers of an epoch go, and how many of the last steps in a row were left out."""

    losses: list[float]
    norms: list[float]  # of those steps that were not left out
    left_out_in_a_row: int


class Watch:
    """Takes each step's loss and gradient norm into an account, and stops the run where a loss is not finite.

    A step whose loss is finite and whose gradient is not was left out by the optimiser: the account has its loss alone. Too
    many such steps in a row stop the run as well. Gradients are common to all processes, so all of them act alike.

    On a GPU every look at a number waits for the device, so the steps of an interval are looked at together; the step
    that went wrong is named exactly all the same.
    """

    def __init__(self, account: Account, fabric: Fabric):
        self._account, self._fabric = account, fabric
        self._every = 1 if fabric.device.type == "cpu" else _LOOKED_AT_TOGETHER
        self._recent: list[tuple[int, float, Tensor, Tensor]] = []

    def add(self, step: int, rate: float, loss: Tensor, norm: Tensor, indexes: Tensor) -> None:
        self._recent.append((step, rate, torch.stack([loss.float(), norm.float()]), indexes))

    @property
    def due(self) -> bool:
        return len(self._recent) >= self._every

    def check(self, out: Path) -> None:
        """Take the recent steps into the account.

        Raises:
            UserError: a loss was not finite, or too many gradients in a row; ``out/nonfinite.json`` names step, rate and images.
        """
        if not self._recent:
            return
        recent, self._recent = self._recent, []
        values = torch.stack([numbers for _, _, numbers, _ in recent]).tolist()
        broken = [float(not math.isfinite(loss)) for loss, _ in values]
        if not all(math.isfinite(norm) for _, norm in values):
            broken = greatest(broken, self._fabric)  # each process has the loss of its own images
        for (step, rate, _, indexes), (loss, norm), ends in zip(recent, values, broken, strict=True):
            in_a_row = self._account.left_out_in_a_row = (
                0 if math.isfinite(norm) else self._account.left_out_in_a_row + 1
            )
            if ends and math.isfinite(loss):
                loss = math.nan  # of the whole batch
            if ends or in_a_row == _LEFT_OUT_IN_A_ROW:
                report = out / "nonfinite.json"
                account = {"step": step, "learning_rate": rate, "loss": str(loss), "gradient_norm": str(norm)}
                records.write_json(report, account | {"indexes": indexes.tolist()})
                what = f"loss {loss}, gradient norm {norm} at learning rate {rate:g}: not finite"
                remedy = "set training.clip_norm"
                if not ends:
                    what = f"{_LEFT_OUT_IN_A_ROW} gradients in a row were not finite, and their steps left out"
                    remedy = "lengthen training.warmup"
                raise UserError(
                    f"step {step}: {what}; lower training.learning_rate or {remedy} (the batch is listed in {report})"
                )
            self._account.losses.append(loss)
            if not in_a_row:
                self._account.norms.append(norm)


def refuse_not_finite(found: Mapping[str, Any], where: str) -> None:
    """Raise a UserError that names the first of the numbers which is not finite; all else is passed over."""
    for what, value in found.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(
                f"{where}: {what} is {value}, not finite: lower training.learning_rate or set training.clip_norm"
            )


def refuse_weights_not_finite(*modules: nn.Module, where: str) -> None:
    """Raise a UserError if a weight is not finite: a last step may leave such, and its own loss does not show it."""
    weights = {id(value): value for module in modules for value in module.state_dict().values()}
    checks = [value.isfinite().all() for value in weights.values() if value.is_floating_point()]
    if checks and not bool(torch.stack([check.to(checks[0].device) for check in checks]).all()):
        raise UserError(
            f"{where}: the step left weights that are not finite: lower training.learning_rate or set training.clip_norm"
        )


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
        """A line; of short epochs that were not evaluated and left no step out, one in five seconds at most."""
        now = time.monotonic()
        if not row.keys() & {"top1", "steps_left_out"} and now - self._said < 5:
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
        parts += [f"{row['steps_left_out']} steps left out (gradient not finite)"] if "steps_left_out" in row else []
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


def peak_flops(precision: str, card: str | None = None) -> float | None:
    """The dense peak rate of a GPU in FLOP/s, the current one by default; None for one that is not known."""
    words = set(re.split(r"[\s-]", torch.cuda.get_device_name() if card is None else card))
    known = (rates for name, rates in PEAK_FLOPS.items() if set(name.split()) <= words)
    rates = next(known, None)
    return None if rates is None else rates[("bfloat16", "float32").index(precision)]


def on_meta(model: nn.Module, others: Iterable[nn.Module] = ()) -> nn.Module:
    """A copy of a model without numbers, on which operations are counted at once and in no memory.

    Args:
        others: modules that it uses and does not own, such as a teacher.
    """
    memo: dict[int, Any] = {}
    for module in (model, *others):
        for parameter in module.parameters():
            memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
        for buffer in module.buffers():
            memo[id(buffer)] = torch.empty_like(buffer, device="meta")
        for part in module.modules():
            for value in vars(part).values():
                if isinstance(value, Tensor):  # no buffer, as the codes of centers are
                    memo.setdefault(id(value), torch.empty_like(value, device="meta"))
    return copy.deepcopy(model, memo)


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
