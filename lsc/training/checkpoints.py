"""Checkpoints: written whole or not at all, read only if whole, and never of another configuration.

A folder holds ``last.ckpt`` and the one before it as ``previous.ckpt``. A resumed run looks for ``last`` and, should
that be damaged or missing, for ``previous``.
"""

import os
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from lsc.errors import UserError, warn
from lsc.files import part_of

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


def write_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and plain containers) as ``last.ckpt`` of a folder; the one there becomes ``previous.ckpt``.

    Raises:
        UserError: the disk is full or the folder cannot be written; the older checkpoints are as they were.
    """
    path, part = folder / LAST, None
    try:
        # A name of its own: of two processes that write here by mistake, each leaves a whole file.
        descriptor, part = part_of(path)
        with open(descriptor, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            os.replace(path, folder / PREVIOUS)
        os.replace(part, path)
        _sync(folder)
    except (OSError, RuntimeError) as error:
        # torch reports a failed write as a RuntimeError of its zip writer, with the OSError as its context.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError) and "write" not in str(error):
            raise
        if part is not None:
            part.unlink(missing_ok=True)
        reason = cause.strerror if isinstance(cause, OSError) else "the file could not be written"
        raise UserError(f"{path}: {reason}; the older checkpoints are untouched, make room and run again") from None


def read_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest whole checkpoint in ``folder``, or None where there is none.

    A damaged one is named on stderr and the previous one taken. Tensors come to the CPU.

    Raises:
        UserError: there are checkpoints, but all are damaged.
    """
    damaged = False
    for name in (LAST, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            return read_whole(path)
        except Damaged as error:
            warn(str(error))
            damaged = True
    if damaged:
        raise UserError(f"{folder}: no whole checkpoint is left; remove the folder to begin anew")
    return None


class Damaged(UserError):
    """A file that is no whole checkpoint."""


def read_whole(path: Path) -> dict[str, Any]:
    """The state in one checkpoint file, after every byte of it was checked against its checksum.

    Raises:
        Damaged: the file is missing or damaged.
        UserError: it is whole, and something else than a checkpoint of a run; other programs use the name ``last.ckpt``, too.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise Damaged(f"{path} is damaged (in {broken})")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Damaged:
        raise
    except Exception as error:  # whatever torch's reader runs into; it runs no code of the file
        raise Damaged(f"{path} is damaged or unreadable ({' '.join(str(error).split())[:120]})") from None
    if not isinstance(state, dict) or not isinstance(state.get("settings"), dict):
        raise UserError(
            f"{path} was not written by lsc: choose another --checkpoints folder, or move the file away if it is not needed"
        )
    return state


def refuse_disagreement(state: dict[str, Any] | None, folder: Path, fabric: Fabric) -> None:
    """Raise a UserError where the processes of a run found different checkpoints, or some of them none.

    They would go on from different steps, and wait for each other for ever.
    """
    if fabric.world_size == 1:
        return
    mine = -1 if state is None else int(state["progress"]["step"])
    found = fabric.all_gather(torch.tensor(mine, device=fabric.device))
    assert isinstance(found, torch.Tensor)
    steps = sorted(set(found.tolist()))
    if len(steps) > 1:
        named = " and ".join("none" if step < 0 else f"one of step {step}" for step in steps)
        raise UserError(
            f"{folder}: the processes found different checkpoints here ({named}): give a folder as --checkpoints that every "
            "node sees, or --restart to begin anew"
        )


def refuse_other_configuration(state: dict[str, Any], settings: dict[str, Any], folder: Path) -> None:
    """Raise a UserError that names the keys in which a checkpoint's settings differ from those of the run."""
    stored, wanted = _flat(state["settings"]), _flat(settings)
    differing = sorted(key for key in stored.keys() | wanted.keys() if stored.get(key) != wanted.get(key))
    if differing:
        listed = "; ".join(f"{key}: {stored.get(key)!r} there, {wanted.get(key)!r} here" for key in differing[:6])
        more = f"; and {len(differing) - 6} more" if len(differing) > 6 else ""
        raise UserError(
            f"{folder}: the checkpoint is of another configuration ({listed}{more}); "
            "choose another --checkpoints folder, or --restart to discard it"
        )


def discard(folder: Path) -> None:
    """Remove the checkpoints of a folder, whole or damaged.

    Raises:
        UserError: a file of that name is no checkpoint of ours, or may not be removed.
    """
    for name in (LAST, PREVIOUS):
        try:
            if (folder / name).exists():
                with suppress(Damaged):
                    read_whole(folder / name)
                (folder / name).unlink()
        except OSError as error:
            raise UserError(f"{folder / name}: {error.strerror}; give a folder that can be written") from None


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(settings, dict) and settings:
        return {key: value for name in settings for key, value in _flat(settings[name], f"{prefix}{name}.").items()}
    return {prefix.removesuffix("."): settings}


def _sync(folder: Path) -> None:
    """Make a rename last: the folder's own entry must reach the disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
