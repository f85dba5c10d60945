"""The devices of a process, and the states of their random number generators."""

import os
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

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
    fabric = Fabric(
        accelerator=accelerator,
        devices=per_node,
        num_nodes=max(1, world_size // per_node),
        strategy="ddp" if world_size > 1 else "auto",
        precision="bf16-mixed" if options.precision == "bfloat16" else "32-true",
        # Named, since Fabric would otherwise take a SLURM job of one task for its own launcher.
        plugins=[TorchElasticEnvironment() if world_size > 1 else LightningEnvironment()],
    )
    fabric.launch()
    return fabric


def generators() -> dict[str, Any]:
    """The states of torch's own random number generators; the data need none."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def restore_generators(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["cpu"])
    if len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
