"""The devices of a process, their memory, and the states of their random number generators."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy

from lsc.errors import UserError
from lsc.training.options import TrainingOptions


def make_fabric(options: TrainingOptions, accelerator: str) -> Fabric:
    """The devices of this process: those that torchrun gave it, or else one."""
    world_size = int(os.environ.get("WORLD_SIZE", 1)) if TorchElasticEnvironment.detect() else 1
    per_node = int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if world_size > 1 else 1
    if accelerator not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {accelerator!r}: use auto, cpu or cuda")
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no GPU is to be seen here; use --device cpu, or ask the cluster for one")
    if world_size > 1 and accelerator != "cpu" and 0 < torch.cuda.device_count() < per_node:
        raise UserError(
            f"--processes: {per_node} on this node, which has {torch.cuda.device_count()} GPUs; give each its own"
        )
    if options.deterministic:
        # cuBLAS reads it when it starts; the value is the one its documentation gives for repeatable results.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if accelerator != "cpu" and torch.cuda.is_available():
        # What stays in float32 beside bfloat16 may use TF32, as in the measurements of chapter 7; otherwise nothing may.
        torch.set_float32_matmul_precision("high" if options.precision == "bfloat16" else "highest")
    fabric = Fabric(
        accelerator=accelerator,
        devices=per_node,
        num_nodes=max(1, world_size // per_node),
        strategy=_exchange(accelerator) if world_size > 1 else "auto",
        precision="bf16-mixed" if options.precision == "bfloat16" else "32-true",
        # Named, since Fabric would otherwise take a SLURM job of one task for its own launcher.
        plugins=[TorchElasticEnvironment() if world_size > 1 else LightningEnvironment()],
    )
    fabric.launch()
    return fabric


@contextmanager
def torch_as_before() -> Iterator[None]:
    """Around a training in a program of somebody's own: afterwards torch computes and draws in it as it did before."""
    exact, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    tries, state = torch.backends.cudnn.benchmark, torch.get_rng_state()
    precision = torch.get_float32_matmul_precision() if torch.cuda.is_available() else None
    # Not asked for where no GPU is in use yet: that would take memory of the first one.
    of_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        torch.set_rng_state(state)
        torch.cuda.set_rng_state_all(of_gpus)
        torch.use_deterministic_algorithms(exact, warn_only=warns)
        torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = tries
        if precision is not None:
            torch.set_float32_matmul_precision(precision)


def repeat_exactly(wanted: bool) -> None:
    """Whether torch, in this process, takes only algorithms that give the same result each time."""
    torch.use_deterministic_algorithms(wanted)
    # Torch would also fill all memory that it allocates, for the sake of programs that read what they never wrote. This one
    # does not (tests/training/test_devices.py), and the filling took 2 to 6 % of a step on a CPU.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not wanted


def _exchange(accelerator: str) -> DDPStrategy:
    """How processes share gradients: in the buckets they lie in, without a copy.

    On GPUs normalisations are those of the whole batch (SyncBatchNorm), so their statistics are the same everywhere; on
    CPUs the first process sends its own to the others in every step.
    """
    on_gpus = accelerator != "cpu" and torch.cuda.is_available()
    return DDPStrategy(gradient_as_bucket_view=True, broadcast_buffers=not on_gpus)


def available_bytes(device: torch.device) -> int:
    """Bytes that are free for new tensors: on the GPU with what the allocator keeps, or in the machine by Linux's count."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def generators() -> dict[str, Any]:
    """The states of torch's own random number generators, of GPUs that of this process's own; the data need none.

    All processes begin with one seed and draw alike, so the state of the first is that of all.
    """
    return {"cpu": torch.get_rng_state(), "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []}


def restore_generators(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["cpu"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"][0])
