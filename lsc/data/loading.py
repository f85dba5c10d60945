"""Loading processes: whole batches are made outside of the training, in the order of their requests."""

import os
import signal
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from lsc.data.base import Request
from lsc.errors import UserError


def served(
    views: Callable[[Request], Tensor], requests: list[Request], workers: int, device: torch.device
) -> Iterator[Tensor]:
    """``views(request)`` for every request, made by ``workers`` processes (0: this one), pinned for a GPU.

    What a batch holds is fixed by its request, so neither the number of processes nor their speed changes it.

    Raises:
        UserError: what ``views`` raised, in one line whichever process it was.
    """
    workers = min(len(requests), workers)
    loader = DataLoader(
        _Loading(views),
        batch_size=None,
        sampler=requests,  # what comes out of a sampler goes into __getitem__, here a whole batch's request
        generator=torch.Generator(),  # else each epoch would draw a number from the generator of the training
        num_workers=workers,
        pin_memory=device.type == "cuda",
        prefetch_factor=2 if workers else None,
        worker_init_fn=_ignore_signals,
    )
    for found in loader:
        if isinstance(found, str):
            raise UserError(found)
        yield found


class _Loading(TorchDataset[Tensor | str]):
    """What the loading processes run: a request in, its views out, or the one line that says what is wrong."""

    def __init__(self, views: Callable[[Request], Tensor]) -> None:
        self._views = views

    def __getitem__(self, request: Request) -> Tensor | str:
        try:
            return self._views(request)
        except UserError as error:  # raised here it would come out as the traceback of another process
            return str(error)


def default_workers() -> int:
    """One loading process for each core that the job was given, shared out among the processes on this machine."""
    cores = int(os.environ.get("SLURM_CPUS_PER_TASK", 0)) or len(os.sched_getaffinity(0))
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def _ignore_signals(_worker: int) -> None:
    """Leave it to the training when to stop: SLURM's signals reach every process of a job, and it still needs images."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
