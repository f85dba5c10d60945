"""The code that a run uses, as a digest, so that a result tells which code it was made by.

What counts is the training loop and everything that it uses of the library, and of objectives, encoders and data sets those
of the run: :mod:`lsc.source` says what of them computes something.
"""

from collections.abc import Iterator
from pathlib import Path

from lsc.data import DATASETS
from lsc.encoders import ENCODERS
from lsc.objectives import OBJECTIVES
from lsc.registry import Registry
from lsc.settings import Block
from lsc.source import digest_of
from lsc.training.run import Run

CHANGES_NO_RESULT = True


def code_digest(run: Run, package: Path | None = None) -> str:
    """Twelve hex digits over what the code that a run uses computes.

    A module is read once in a process, the first time that it counts: called before a training, this is the code that trains.

    Args:
        run: its settings.
        package: folder of the library, where it is not the one that is imported.
    """
    names = code_names(run)
    return digest_of(names) if package is None else digest_of(names, package)


def code_names(run: Run) -> set[str]:
    """What the code of a run begins with, each as "module" or "module:attribute"."""
    names = {"lsc.training.loop"}
    for registry, block in (
        (OBJECTIVES, run.objective),
        (ENCODERS, run.encoder),
        (DATASETS, run.data),
        (DATASETS, run.training.transfer),
    ):
        names.update(_things(registry, block))
    return names


def _things(registry: Registry, block: Block | None) -> Iterator[str]:
    """What a block names, and what the blocks within it name, such as the set that instances are made of."""
    if block is None:
        return
    yield registry.target(block.name)
    for _, value in block:
        if isinstance(value, Block):
            yield from _things(registry, value)
