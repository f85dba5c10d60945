"""One owner of a folder: of two processes that would write the same records or checkpoints, the second is refused.

The owner's name lies in the folder as ``.owner``: machine, process, job, and how often its heart has beaten. A process on the
same machine is looked up. Of one elsewhere the beats are watched: if none comes for ``PATIENCE`` seconds, its owner is dead,
as is one of an earlier start of the same SLURM job; the folder of a dead owner is taken over.

A lock of the file system keeps the moment of taking to one process at a time, where there is one; across machines that lack it,
the owner finds at its next checkpoint that another name stands in the file, and stops.
"""

import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from lsc.errors import UserError, warn
from lsc.files import disk_error, make_folder
from lsc.training.launch import is_worker

CHANGES_NO_RESULT = True

NAME = ".owner"
BEAT, PATIENCE = 10.0, 45.0  # seconds


class Owner:
    """This process as the owner of a folder, from its making to the end of the ``with`` block.

    Args:
        folder: made if need be.
        option: what the user named it by, for messages.

    Raises:
        UserError: another process that is alive owns it, or it cannot be written.
    """

    def __init__(self, folder: Path, option: str) -> None:
        self._made = not folder.exists()
        make_folder(folder, option)
        self._folder, self._option = folder, option
        self._path = folder / NAME
        self._me = {**_here(), "job": _job(), "key": uuid4().hex}
        self._stopped = threading.Event()
        try:
            self._take()
        except OSError as error:
            raise disk_error(self._path, error) from None
        for part in folder.glob(".*.part"):  # what an owner that was killed had begun to write
            if not part.is_dir():
                part.unlink(missing_ok=True)
        self._heart = threading.Thread(target=self._beat, daemon=True, name=f"owner of {folder}")
        self._heart.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._heart.join()
        with suppress(OSError), _locked(self._path, make=False) as descriptor:
            if _read(descriptor).get("key") == self._me["key"]:
                self._path.unlink()
        if self._made:
            with suppress(OSError):  # it holds something, as it should
                self._folder.rmdir()

    def check(self) -> None:
        """Raise a UserError if the folder has been taken over, as from a process that was stopped for long."""
        try:
            with self._path.open("rb") as file:
                found = _read(file.fileno())
        except FileNotFoundError:
            found = {}
        except OSError:  # of a file system that comes and goes
            return
        if found.get("key") != self._me["key"]:
            by = f"{_described(found)} has taken it over" if found else f"its {NAME} was removed"
            raise UserError(f"{self._option} {self._folder}: {by}; this process stops and writes nothing more")

    def _take(self) -> None:
        watched: dict[str, Any] = {}
        since = time.monotonic()
        while True:
            with _locked(self._path) as descriptor:
                found = _read(descriptor)
                alive = _alive(found)
                silent = found == watched and time.monotonic() - since > PATIENCE
                if alive is False or silent:
                    self._write(descriptor)
                    return
            if alive or (watched and found.get("beats") != watched.get("beats")):
                raise UserError(
                    f"{self._option} {self._folder}: {_described(found)} is writing it; wait for it, stop it, or give another "
                    "folder"
                )
            if not watched:
                watched = found
                warn(
                    f"{self._folder}: waiting up to {PATIENCE:g} s for a sign of {_described(found)}, which wrote it last"
                )
            time.sleep(min(1.0, PATIENCE / 10))

    def _write(self, descriptor: int, beats: int = 0) -> None:
        content = json.dumps(self._me | {"beats": beats}).encode()
        os.pwrite(descriptor, content.ljust(512), 0)  # of one length, so that no reader finds half of it
        os.fsync(descriptor)

    def _beat(self) -> None:
        beats = 0
        while not self._stopped.wait(BEAT):
            beats += 1
            with suppress(OSError), _locked(self._path, make=False) as descriptor:  # tried again at the next beat
                if _read(descriptor).get("key") != self._me["key"]:
                    return
                self._write(descriptor, beats)


@contextmanager
def owning(out: Path, checkpoints: Path) -> Iterator[list[Owner]]:
    """Own the folders of a run, in the first of its processes."""
    with ExitStack() as stack:
        owners: list[Owner] = []
        if not is_worker() or os.environ.get("RANK") == "0":
            owners.append(stack.enter_context(Owner(out, "--out")))
            if checkpoints.resolve() != out.resolve():
                owners.append(stack.enter_context(Owner(checkpoints, "--checkpoints")))
        yield owners


@contextmanager
def _locked(path: Path, make: bool = True) -> Iterator[int]:
    """The file, opened and locked against the others; without a lock where the file system has none."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if make else 0), 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                    raise
            if _is_at(descriptor, path):
                yield descriptor
                return
        finally:
            with suppress(OSError):  # closing would not do: a loading process born meanwhile has the file open, too
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)
        if not make:
            raise FileNotFoundError(errno.ENOENT, "removed", str(path))


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one of that name: an owner that ended meanwhile has removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _read(descriptor: int) -> dict[str, Any]:
    """What stands in the file; nothing, if it is new or was cut short by a full disk."""
    try:
        content = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _here() -> dict[str, Any]:
    """This machine and this process. A container that shares the machine's name has processes of its own."""
    return {
        "host": socket.gethostname(),
        "place": [_content("/proc/sys/kernel/random/boot_id"), _link("/proc/self/ns/pid")],
        "process": os.getpid(),
        "began": _beginning(os.getpid()),
    }


def _alive(found: dict[str, Any]) -> bool | None:
    """Whether an owner lives; None where only its beats can tell."""
    if not found:
        return False
    here = _here()
    if (found.get("host"), found.get("place")) == (here["host"], here["place"]):
        return found.get("began") is not None and _beginning(found.get("process")) == found.get("began")
    job = found.get("job")
    if job and job[0] and job[0] == _job()[0] and job != _job():
        return False
    return None


def _beginning(process: Any) -> str | None:
    """When a process of this machine began, as the system counts it; None where there is no such process."""
    stat = _content(f"/proc/{process}/stat") if isinstance(process, int) else None
    if stat is None:
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in "ZX" else rest[18]


def _job() -> list[str]:
    """The SLURM job, and which of its starts this is; empty words where there is none."""
    return [os.environ.get("SLURM_JOB_ID", ""), os.environ.get("SLURM_RESTART_COUNT", "0")]


def _described(found: dict[str, Any]) -> str:
    job = f", SLURM job {found['job'][0]}" if found.get("job", [""])[0] else ""
    return f"process {found.get('process')} on {found.get('host')}{job}"


def _content(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None
