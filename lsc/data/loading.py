"""Loading processes: whole batches are made outside of the training, in the order of their requests.

A batch comes back through memory that is shared without a name: it needs no /dev/shm, which containers keep small, no socket
in TMPDIR, whose path may be too long for one, and no open file for each batch. A process that dies or falls silent is one line.
"""

import mmap
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any

import torch
from torch import Tensor

from lsc.data.base import Request, Requests
from lsc.errors import UserError, out_of_memory
from lsc.provenance import usable_cores

# After so many seconds without a batch the run is given up: no disk that still answers is as slow.
SILENCE = 600.0
_NO_MEMORY = "memory ran out in a loading process: set the data set's option workers to fewer"

# Batches that a process may be ahead of the training.
_AHEAD = 2
# The training's ends of its connections to all its loading processes.
_CONNECTIONS: set[Connection] = set()


class LoadError(UserError):
    """Images that could not be loaded; what was trained until then is as good as ever."""


def served(
    views: Callable[[Request], Tensor], requests: Requests, workers: int, device: torch.device, item_bytes: int
) -> Iterator[Tensor]:
    """``views(request)`` for every request, made by ``workers`` processes (0: this one), pinned for a GPU.

    What a batch holds is fixed by its request, so neither the number of processes nor their speed changes it.

    Args:
        item_bytes: of one image's view. A larger one is handed over as well, but more slowly.

    Raises:
        LoadError: in one line, what ``views`` raised as a UserError, whichever process it was; or a process died, could not
            be started, or was silent for ``SILENCE`` seconds.
    """
    workers = min(len(requests), workers)
    made = _made_here(views, requests) if workers == 0 else _made_elsewhere(views, requests, workers, item_bytes)
    for found in made:
        yield found.pin_memory() if device.type == "cuda" else found


def default_workers() -> int:
    """One loading process for each core that the job was given, shared out among the processes on this machine."""
    cores = int(os.environ.get("SLURM_CPUS_PER_TASK") or 0) or usable_cores()
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def _made_here(views: Callable[[Request], Tensor], requests: Requests) -> Iterator[Tensor]:
    for request in requests:
        try:
            found = views(request)
        except UserError as error:
            raise LoadError(str(error)) from None
        yield found


def _made_elsewhere(
    views: Callable[[Request], Tensor], requests: Requests, workers: int, item_bytes: int
) -> Iterator[Tensor]:
    # Batches are as large as the first, but the last may be of another size. The first is asked for in the end: the order of its
    # epoch is then at hand for all processes.
    room = max([len(requests[place].indexes) for place in (-1, 0)]) * item_bytes
    loaders: list[_Loader] = []
    try:
        for number in range(workers):
            own = range(number, len(requests), workers)
            loaders.append(_Loader(views, requests, own, room))
        for place in range(len(requests)):
            yield loaders[place % workers].take(place // workers)
    except OSError as error:
        raise LoadError(
            f"{workers} loading processes cannot be kept up ({error.strerror}): set the data set's option workers to fewer "
            "or to 0, or raise the limits of the job (ulimit -n, ulimit -u, memory)"
        ) from None
    finally:
        for loader in loaders:
            loader.end()


class _Loader:
    """One loading process with the requests that are its own, and the places in memory that its batches come back in."""

    def __init__(self, views: Callable[[Request], Tensor], requests: Requests, own: range, room: int) -> None:
        context = get_context("fork")  # which shares the data set and the memory without copies
        self._places = [mmap.mmap(-1, max(room, 1)) for _ in range(_AHEAD)]
        self._connection, theirs = context.Pipe()
        _CONNECTIONS.add(self._connection)
        ours = list(
            _CONNECTIONS
        )  # of other sets' loaders, too: those of the training live on while an evaluation loads
        self._process: BaseProcess = context.Process(
            target=_work, args=(views, requests, own, self._places, theirs, ours, os.getpid()), daemon=True
        )
        try:
            self._process.start()
        except OSError:
            self._close()
            raise
        finally:
            theirs.close()
        # Ended by SIGTERM, which it ignores, it would keep this process from ending.
        self._ending = Finalize(None, self._process.kill, exitpriority=100)
        for _ in range(_AHEAD):
            self._let_go_on()

    def take(self, turn: int) -> Tensor:
        """The batch of the process's next request."""
        what, *rest = self._receive()
        if what == "refused":
            raise LoadError(rest[0])
        if what == "raised":
            raise RuntimeError(f"a loading process failed:\n{rest[0]}")
        if what == "sent":
            found = torch.from_numpy(rest[0])
        else:
            shape, dtype = rest
            found = _in_place(self._places[turn % _AHEAD], shape, dtype).clone()
        self._let_go_on()
        return found

    def end(self) -> None:
        self._ending.cancel()
        self._process.kill()
        self._process.join()
        self._process.close()
        self._close()

    def _close(self) -> None:
        _CONNECTIONS.discard(self._connection)
        self._connection.close()

    def _let_go_on(self) -> None:
        """A place has become free. A process that ended has no need of it, and one that died is found when its turn comes."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send_bytes(b"!")

    def _receive(self) -> Any:
        since = time.monotonic()
        while True:
            ready = wait([self._connection, self._process.sentinel], timeout=min(1.0, SILENCE))
            if self._connection in ready:
                try:
                    return self._connection.recv()
                except (EOFError, ConnectionResetError):
                    raise LoadError(self._death()) from None
            if ready:
                raise LoadError(self._death())
            if time.monotonic() - since > SILENCE:
                raise LoadError(
                    f"the loading processes have been silent for {SILENCE:g} s: see whether the disk with the images answers"
                )

    def _death(self) -> str:
        self._process.join(5)
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"a loading process ended (exit code {code}): set the data set's option workers to 0 to see why"
        name = signal.Signals(-code).name
        why = ", as the system does where memory runs out" if -code == signal.SIGKILL else ""
        return (
            f"a loading process was killed by {name}{why}: set the data set's option workers to fewer, or give the job more "
            "memory"
        )


def _work(
    views: Callable[[Request], Tensor],
    requests: Requests,
    own: range,
    places: list[mmap.mmap],
    connection: Connection,
    ours: list[Connection],
    parent: int,
) -> None:
    """What a loading process runs: its own requests, one after the other, as places become free."""
    # The training decides when to stop: signals to a whole job reach every process, and it needs images until then.
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    for held in ours:  # or the end of the training would not end the connection
        held.close()
    try:
        for turn, mine in enumerate(own):
            while not connection.poll(5):
                if os.getppid() != parent:
                    return
            connection.recv_bytes()
            connection.send(_answer(views, requests, mine, places[turn % _AHEAD]))
    except (EOFError, OSError):  # the training has ended
        return


def _answer(views: Callable[[Request], Tensor], requests: Requests, number: int, place: mmap.mmap) -> tuple[Any, ...]:
    try:
        found = views(requests[number])
        if found.nbytes > len(place):
            return "sent", found.numpy()
        _in_place(place, tuple(found.shape), found.dtype).copy_(found)
        return "made", tuple(found.shape), found.dtype
    except UserError as error:
        return "refused", str(error)
    except MemoryError:
        return "refused", _NO_MEMORY
    except Exception as error:  # a mistake in the data set's own code, to be seen whole
        if out_of_memory(error) is not None:
            return "refused", _NO_MEMORY
        return "raised", traceback.format_exc()


def _in_place(place: mmap.mmap, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """The tensor that lies in shared memory."""
    count = 1
    for side in shape:
        count *= side
    return torch.frombuffer(place, dtype=dtype, count=count).view(shape) if count else torch.empty(shape, dtype=dtype)
