"""What of a task is compiled: the blocks that its encoder repeats, each once for all, and the loss.

A whole encoder takes minutes to compile, and again for every other shape or mode; a block that occurs twelve times takes a
twelfth of that. An encoder without such blocks is compiled as a whole. Shapes are fixed: :func:`in_full` fills the last
batch of an evaluation up, which would be compiled for otherwise.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lsc.training.options import TrainingOptions
from lsc.training.task import Task


def compile_as_wanted(task: Task, options: TrainingOptions, device: torch.device) -> None:
    """Compile a task where its run says so, on a GPU; on a CPU a run goes as it is."""
    if options.compile and device.type == "cuda":
        compile_task(task)


def compile_task(task: Task, **options: Any) -> None:
    """Compile in place: the names of the weights stay what they are, and a copy of the task is not compiled.

    Args:
        options: of ``torch.compile``.
    """
    options = {"dynamic": False} | options
    for block in repeated_blocks(task.encoder) or [task.encoder]:
        block.compile(**options)
    if not task.objective.trains_itself:  # such a loss makes new parameters in every step
        task.objective.compile(**options)
    task.fixed_shapes = True


def repeated_blocks(network: nn.Module) -> list[nn.Module]:
    """Outermost parts of one class and with weights of the same shapes; none where they are less than half of the weights."""
    alike: dict[Any, list[tuple[str, nn.Module]]] = defaultdict(list)
    for name, part in network.named_modules():
        if name and any(True for _ in part.children()) and any(True for _ in part.parameters()):
            alike[type(part), tuple((key, value.shape) for key, value in part.named_parameters())].append((name, part))
    blocks: dict[str, nn.Module] = {}
    for group in alike.values():
        if len(group) > 1:
            blocks |= {name: part for name, part in group if not any(name.startswith(f"{outer}.") for outer in blocks)}
    weights = sum(value.numel() for block in blocks.values() for value in block.parameters())
    return list(blocks.values()) if 2 * weights >= sum(value.numel() for value in network.parameters()) else []


def in_full(task: Task, network: Callable[[Tensor], Tensor], images: Tensor, rows: int) -> Tensor:
    """What a part of a task makes of images (B, C, H, W); where shapes are fixed it is given so many ``rows`` for that.

    The missing ones are the first image again: in evaluation mode images know nothing of each other.
    """
    missing = rows - len(images) if task.fixed_shapes else 0
    if missing <= 0:
        return network(images)
    whole = torch.cat([images, images[:1].expand(missing, *images.shape[1:])])
    return network(whole)[: len(images)]
