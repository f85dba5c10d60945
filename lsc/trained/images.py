"""Images for a trained run: files and folders listed, read by several threads and brought to the size that the network takes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lsc.checks import described
from lsc.data.decoding import Part, decode, upright
from lsc.data.loading import default_workers
from lsc.data.scanning import EXTENSIONS, LeftOut, images_below
from lsc.errors import UserError, warn
from lsc.files import read_regular, shown

_REMEDY = "give image files"


class Loaded(NamedTuple):
    """A batch of files: those that were read, in their order, and what is wrong with the others."""

    paths: list[Path]
    images: Tensor  # (B, C, H, W) uint8, of the files without an entry in ``faults``
    faults: dict[int, str]  # place in ``paths`` -> one line


def listed(inputs: Iterable[str | Path]) -> list[Path]:
    """The files that some inputs stand for: files as they are, folders with all images below them, in order of their names.

    What a folder has that is passed over is a warning, once for each folder. What cannot be looked at counts as a file, which
    is at fault when it is read.

    Raises:
        UserError: a folder holds no image, or cannot be read.
    """
    found: list[Path] = []
    notes: dict[str, None] = {}
    for given in map(Path, inputs):
        if not _is_folder(given):
            found.append(given)
            continue
        left_out = LeftOut(given)
        below = images_below(given, left_out)
        if not below:
            raise UserError(f"{given}: holds no image ({', '.join(EXTENSIONS)}); give files, or folders with some")
        found += below
        notes |= dict.fromkeys(left_out.notes)
    for note in notes:
        warn(note)
    return found


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def read_pixels(path: str | Path, part: Part | None = None, size: int = 0) -> Tensor:
    """An image file as uint8 (3, H, W).

    Args:
        part, size: what is wanted of it, if not all, see :func:`lsc.data.decoding.decode`.

    Raises:
        UserError: it cannot be read, is too large to be decoded, or does not decode.
    """
    try:
        content = read_regular(Path(path))
    except OSError as error:
        raise UserError(f"{shown(path)}: {error.strerror}; give image files") from None
    except ValueError:
        raise UserError(f"{str(path)!r}: holds a NUL character, which no file's name does; give image files") from None
    return decode(content, str(path), _REMEDY, part, size)


def pixels_of(image: "Image.Image | np.ndarray") -> Tensor:
    """A PIL image, or a uint8 array (H, W) or (H, W, 1, 3 or 4), as uint8 (3, H, W); a PIL image as a file that holds it.

    Raises:
        UserError: an array of another type or shape, or a PIL image of floating-point numbers.
    """
    if isinstance(image, Image.Image):
        if image.mode == "F":
            raise UserError("a PIL image of floating-point numbers has no known range: make it one of L or RGB")
        return upright(image)
    grey = image[:, :, None] if image.ndim == 2 else image
    if image.dtype != np.uint8 or grey.ndim != 3 or grey.shape[2] not in (1, 3, 4):
        raise UserError(
            f"an image as an array must be uint8 of shape (H, W) or (H, W, 3), not {image.dtype} of shape {image.shape}"
        )
    pixels = torch.from_numpy(np.array(grey)).permute(2, 0, 1)
    return pixels.expand(3, -1, -1) if len(pixels) == 1 else pixels[:3]


def loaded(
    paths: Sequence[Path], read: Callable[[Path], Tensor], *, batch_size: int = 256, workers: int | None = None
) -> Iterator[Loaded]:
    """Batches of files, read by ``workers`` threads (one for each core of the job) up to two batches ahead.

    Threads serve here, not processes: what takes the time, decoding and resizing, is done outside of Python's lock.

    Args:
        read: a file -> its image of the size that the network takes; a UserError is that file's fault.
    """
    with ThreadPoolExecutor(workers or default_workers()) as pool:
        waiting: deque[tuple[list[Path], list[Future[Tensor | str]]]] = deque()
        starts = iter(range(0, len(paths), batch_size))
        try:
            while True:
                while len(waiting) < 3 and (start := next(starts, None)) is not None:
                    batch = list(paths[start : start + batch_size])
                    waiting.append((batch, [pool.submit(_read, read, path) for path in batch]))
                if not waiting:
                    return
                batch, futures = waiting.popleft()
                yield _together(batch, [future.result() for future in futures])
        finally:
            for _, futures in waiting:
                for future in futures:
                    future.cancel()


def _read(read: Callable[[Path], Tensor], path: Path) -> Tensor | str:
    try:
        return read(path)
    except UserError as error:
        return str(error)


def _together(paths: list[Path], results: list[Tensor | str]) -> Loaded:
    images = [result for result in results if isinstance(result, Tensor)]
    faults = {place: result for place, result in enumerate(results) if isinstance(result, str)}
    return Loaded(paths, torch.stack(images) if images else torch.zeros(0, dtype=torch.uint8), faults)


def is_picture(value: object) -> bool:
    """Whether it is one image: a file's name, a PIL image, or an array of up to three axes."""
    return isinstance(value, str | Path | Image.Image) or (isinstance(value, np.ndarray) and value.ndim <= 3)


def refuse_picture(value: object) -> UserError:
    """One line for what is no image."""
    return UserError(f"images: give files, PIL images, uint8 arrays or a tensor, not {described(value)}")
