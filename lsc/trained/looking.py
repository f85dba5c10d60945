"""A look at somebody's images before anything is trained: what :mod:`lsc.trained.advice` needs to know of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lsc.data.archives import reading
from lsc.data.decoding import decode
from lsc.data.file_index import FileIndex
from lsc.errors import UserError, warn
from lsc.trained.advice import Images

# Training images that are opened, evenly spread over the classes' list.
_SAMPLE = 64


def look(index: FileIndex, root: Path) -> Images:
    """What the images of a list below ``root`` are like; some of them are opened.

    Warns of what a training would suffer from: a class with one image, classes that are never tested, one colour alone.

    Raises:
        UserError: too few images, or none of those opened can be read.
    """
    files, labels = index.files["train"], index.labels["train"]
    counts = np.bincount(labels, minlength=len(index.class_names))
    if len(files) < 4:
        raise UserError(f"{root}: {len(files)} training images are too few to learn from and to judge by; add some")
    lonely = [index.class_names[label] for label in np.flatnonzero(counts == 1)]
    if lonely:
        warn(f"{root}: {_some(lonely)} with one training image, none of which can be held out to judge by: add some")
    tested = index.labels.get("test")
    if tested is not None:
        present = set(tested.tolist())
        missing = [name for label, name in enumerate(index.class_names) if label not in present]
        if missing:
            warn(f"{root}: {_some(missing)} without test images: the accuracy says nothing of that")
    read = reading(root, index.packed)
    pictures = [_opened(read, name.decode()) for name in _spread(files.tolist(), _SAMPLE)]
    seen = [picture for picture in pictures if picture is not None]
    if not seen:
        raise UserError(
            f"{root}: none of {len(pictures)} images can be opened; lsc data check folder --decode names them"
        )
    if all(bool((picture == seen[0].flatten(1)[:, 0, None, None]).all()) for picture in seen):
        raise UserError(
            f"{root}: all {len(seen)} images that were opened show one colour alone: there is nothing to learn"
        )
    plain = sum(bool((picture.flatten(1).amax(1) == picture.flatten(1).amin(1)).all()) for picture in seen)
    if plain:
        warn(f"{root}: {plain} of {len(seen)} images that were opened show one colour alone, perhaps by mistake")
    return Images(
        name=str(root),
        counts=tuple(counts.tolist()),
        side=int(np.median([min(picture.shape[1:]) for picture in seen])),
        longest=max(max(picture.shape[1:]) for picture in seen),
        colour=any(is_coloured(picture) for picture in seen),
        ground=float(np.median([ground(picture) for picture in seen])),
        splits=tuple(index.files),
    )


def is_coloured(picture: Tensor) -> bool:
    """Whether a uint8 picture (3, H, W) has colours; those that compression alone makes of grey do not count."""
    spread = picture.amax(0).int() - picture.amin(0).int()
    return bool((spread > 24).float().mean() > 0.01)


def ground(picture: Tensor) -> float:
    """Share of a uint8 picture (3, H, W) that has, within 8 of 256 levels, its most frequent brightness."""
    levels = torch.bincount(picture.float().mean(0).round().long().flatten(), minlength=256)
    most = int(levels.argmax())
    return float(levels[max(0, most - 8) : most + 9].sum() / levels.sum())


def _spread(items: list[bytes], count: int) -> list[bytes]:
    return [items[place] for place in np.unique(np.linspace(0, len(items) - 1, count).round().astype(int))]


def _opened(read: Callable[[str], bytes], name: str) -> Tensor | None:
    try:
        return decode(read(name), name, "replace it")
    except (UserError, OSError):  # the training names it, if it comes to it
        return None


def _some(names: list[str]) -> str:
    """``1 class (x)`` or ``3 classes (x, y, ...)``."""
    if len(names) == 1:
        return f"1 class ({names[0]})"
    return f"{len(names)} classes ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
