"""A run that is asked to stop does so between two steps, after writing a checkpoint."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from lightning_fabric import Fabric

from lsc.training.agreement import greatest

# What sysexits.h calls EX_TEMPFAIL: try again later. The workflow resubmits a job that ends with it.
REQUEUE_EXIT_CODE = 75


class Interrupted(Exception):
    """The run was asked to stop; its checkpoint was written, and the same command goes on from there."""

    def __init__(self, signal_name: str, step: int, total_steps: int):
        super().__init__(
            f"stopped by {signal_name} at step {step} of {total_steps}; the same command, without --restart, resumes there"
        )


class StopWhileWaiting(BaseException):
    """The run was asked to stop while it waited for a batch. No Exception, which what it waits in might catch."""


class StopRequest:
    """Catches SIGTERM, SIGUSR1 (SLURM's warning before a time limit) and Ctrl-C within a ``with`` block.

    A second Ctrl-C ends a process that is alone at once.

    While a process that is alone waits for a batch, it stops at once: the disk may never answer.

    All processes of a run must stop after the same step, so they agree on it every ``interval`` steps.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

    def __init__(self, fabric: Fabric, interval: int = 8):
        self._fabric = fabric
        self._interval = 1 if fabric.world_size == 1 else interval
        self._received = 0
        self._waiting = False
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        # Another thread than the first may not, and is not the one that the signals are for.
        for number in self.SIGNALS if threading.current_thread() is threading.main_thread() else ():
            self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == self._received == signal.SIGINT and self._fabric.world_size == 1:
            raise KeyboardInterrupt
        self._received = number
        if self._waiting:
            raise StopWhileWaiting

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the wait for a batch.

        Raises:
            StopWhileWaiting: the run was asked to stop meanwhile.
        """
        self._waiting = self._fabric.world_size == 1
        try:
            yield
        finally:
            self._waiting = False

    def agree(self, step: int, *, save_due: bool) -> tuple[bool, bool]:
        """Whether to stop after ``step``, and whether to save: some process was asked to, or found it due; all know."""
        if step % self._interval:
            return False, False
        received, due = greatest([self._received, save_due], self._fabric)
        self._received = int(received)
        return self._received != 0, bool(due)

    def agree_to_save(self, due: bool) -> bool:
        """Whether some process found a checkpoint due; all know."""
        return bool(greatest([due], self._fabric)[0])

    @property
    def signal_name(self) -> str:
        return signal.Signals(self._received).name
