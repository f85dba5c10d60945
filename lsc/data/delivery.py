"""How batches get to the device: on a GPU each is prepared there while the network works on the one before.

On a CPU a batch is finished where its parts were made; another thread does so ahead of time where a core is idle and no other
process has to be waited for. For a GPU the parts (uint8 images, positions, random numbers) are pinned and copied without a
wait, on a stream of their own, where they are also finished: augmented, normalised, and laid out as networks take them. So the
host runs ahead of the device all the time, and the time that an iterator takes says nothing of what the training waits for:
that is the time at the queue where the parts come from, and it is counted here.
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from lsc.data.base import Batch
from lsc.data.loading import default_workers

Key = TypeVar("Key")

# Batches that lie finished on a GPU beside the one that is worked on.
_AHEAD = 1


class Waiting:
    """The time that this process has waited for parts of batches for a GPU, and how many it got."""

    CHANGES_NO_RESULT = True

    def __init__(self) -> None:
        self.seconds, self.count = 0.0, 0

    def each(self, parts: Iterable[Key]) -> Iterator[Key]:
        """``parts``, with the time that each took to come added to the account."""
        source = iter(parts)
        while True:
            began = time.perf_counter()
            try:
                part = next(source)
            except StopIteration:
                return
            self.seconds += time.perf_counter() - began
            self.count += 1
            yield part


WAITING = Waiting()


def delivered(
    parts: Iterable[tuple[Key, tuple[Tensor, ...]]],
    finish: Callable[..., Batch],
    device: torch.device,
    at_hand: bool = False,
) -> Iterator[Batch]:
    """The batches ``finish(key, *tensors)`` for every (key, tensors) of ``parts``, with the tensors on the device.

    Args:
        parts: what a batch is made of, on the CPU; whatever goes along as ``key`` stays there.
        finish: makes the batch of them, on the device where the tensors are.
        at_hand: no other process is waited for, so that a thread that makes batches ahead can always be ended at once.
    """
    if device.type != "cuda":
        batches = (finish(key, *tensors) for key, tensors in parts)
        yield from made_ahead(batches) if at_hand and has_idle_core() else batches
        return
    stream = _side_stream(device)
    ahead: deque[tuple[Batch, Any]] = deque()
    for key, tensors in WAITING.each(parts):
        with torch.cuda.stream(stream):
            batch = finish(key, *(sent(tensor, device) for tensor in tensors))
            batch = batch._replace(images=_laid_out(batch.images))
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record(stream)
        ahead.append((batch, ready))
        if len(ahead) > _AHEAD:
            yield _taken(*ahead.popleft(), device)
    while ahead:
        yield _taken(*ahead.popleft(), device)


def has_idle_core() -> bool:
    """Whether one thread trains where this process has more cores. More threads would fight with those of a second pool."""
    return default_workers() > torch.get_num_threads() == 1


def made_ahead(batches: Generator[Batch, None, None]) -> Iterator[Batch]:
    """The same batches, the next of which is made by another thread meanwhile, whatever the gradient mode of this one."""
    with closing(batches), ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on the device; a GPU gets it without that the host waits."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _taken(batch: Batch, ready: Any, device: torch.device) -> Batch:
    """A batch for the stream that works on it, which waits until it is finished; the host does not."""
    current = torch.cuda.current_stream(device)
    current.wait_event(ready)
    for tensor in batch:
        tensor.record_stream(current)  # so that its memory is not given to the next batch before the work is done
    return batch


def _laid_out(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images


@lru_cache(maxsize=16)
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all batches of a device: what one of them copies there once is there for the next."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
