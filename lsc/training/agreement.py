"""What the processes of a run must know of each other: one's images fail, or one is asked to stop, and all act alike.

They tell each other by way of the CPUs: the answer is never waited for behind the work of a GPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric

from lsc.data.loading import LoadError
from lsc.errors import UserError

CHANGES_NO_RESULT = True


def greatest(values: list[float], fabric: Fabric) -> list[float]:
    """Each value's greatest over all processes; every process calls it."""
    if fabric.world_size == 1:
        return values
    said = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(said, dist.ReduceOp.MAX, group=_on_cpus(dist.group.WORLD))
    return said.tolist()


@contextmanager
def loading_together(fabric: Fabric) -> Iterator[None]:
    """Around the loading of what every process needs before any may go on; every process enters it.

    Raises:
        LoadError: what the first process says whose images could not be loaded, in every process.
    """
    error = None
    try:
        yield
    except LoadError as found:
        error = found
    if fabric.world_size == 1:
        if error is not None:
            raise error
        return
    (failed,) = greatest([0.0 if error is None else fabric.world_size - fabric.global_rank], fabric)
    if failed:
        words = [str(error)]
        dist.broadcast_object_list(words, fabric.world_size - int(failed), group=_on_cpus(dist.group.WORLD))
        common = LoadError(words[0])
        common.shared = True
        raise common from None


def wait_for_all() -> None:
    """Return when every process of the run has come here, or when others have ended."""
    if dist.is_available() and dist.is_initialized():
        with suppress(RuntimeError):
            dist.barrier(group=_on_cpus(dist.group.WORLD))


@lru_cache(maxsize=1)
def _on_cpus(world: dist.ProcessGroup) -> Any:
    """The group of all processes of a run by which their CPUs speak; made where the usual one speaks between GPUs."""
    if dist.get_backend(world) == "gloo":
        return world
    try:
        return dist.new_group(backend="gloo")
    except RuntimeError as error:
        why = str(error).partition("\n")[0]
        raise UserError(
            f"the processes do not reach each other between their CPUs ({why}): set GLOO_SOCKET_IFNAME to the network "
            "interface that joins the nodes, one of those that `ip address` lists"
        ) from error
