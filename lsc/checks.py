"""Shapes and types of what public functions are given, refused in one line. No look at a value, so no device waits."""

import torch
from torch import Tensor

from lsc.errors import UserError


def described(value: object) -> str:
    """What was given instead, for a message."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    return type(value).__name__


def check_embeddings(z: Tensor, dim: int) -> None:
    """Refuse what is no float tensor of shape (batch, dim)."""
    if not isinstance(z, Tensor) or z.ndim != 2 or z.shape[1] != dim or not z.is_floating_point():
        raise UserError(f"embeddings must be floats of shape (batch, {dim}), not {described(z)}")


def check_labels(labels: Tensor, batch: int) -> None:
    """Refuse what is no int64 tensor of shape (batch,)."""
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or tuple(labels.shape) != (batch,):
        raise UserError(
            f"labels must be int64 class ids of shape ({batch},), one per embedding, not {described(labels)}"
        )


def check_ids(index: Tensor, what: str) -> None:
    """Refuse what is no int64 tensor, of any shape."""
    if not isinstance(index, Tensor) or index.dtype != torch.int64:
        raise UserError(f"{what} must be int64, not {described(index)}")


def check_count(k: int) -> None:
    """Refuse a number of answers below 1."""
    if not hasattr(k, "__index__") or k < 1:
        raise UserError(f"k must be 1 or more, not {k}")


def check_seed(seed: int) -> None:
    """Refuse a seed that a checkpoint's int64 cannot hold."""
    if not hasattr(seed, "__index__") or not -(2**63) <= seed < 2**63:
        raise UserError(f"seed {seed}: must be a whole number from -2^63 to 2^63 - 1")


def check_within(number: Tensor, count: int, what: str) -> None:
    """Refuse numbers that are not in 0..count-1; on the CPU alone, since elsewhere a look would wait for the device.

    Raises:
        IndexError: one is not.
    """
    if number.device.type == "cpu" and number.numel():
        least, most = torch.aminmax(number)
        if not 0 <= int(least) <= int(most) < count:
            raise IndexError(f"{what} is outside of 0..{count - 1}")
