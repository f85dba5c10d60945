"""From the bytes of an image file to pixels, and from pixels to a view of the wanted size.

JPEG and PNG are decoded by torchvision, all else by Pillow. A JPEG file with many more pixels than are wanted is
decoded by Pillow as well, at a half, a quarter or an eighth of its size; a photograph of 12 million takes a third of the time.
"""

import io
import math
import struct
import warnings
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional

from lsc.errors import UserError, out_of_memory

# torchvision announces another package for this; until it goes, one warning for each image would drown all else.
warnings.filterwarnings("ignore", message="The image decoding and encoding capabilities", category=DeprecationWarning)
# Of what cannot be read beside the pixels, such as a camera's own notes.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
# Of sizes; those that are too large are refused below.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

# As many pixels as Pillow opens: half a gigabyte as colours.
MAX_PIXELS = 178_956_970

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_BY_PILLOW = ("BMP", "DIB", "TIFF", "GIF", "WEBP", "PPM", "AVIF")

NUM_DRAWS = 5  # random numbers of a training view: area, shape, place down and across, mirror


# (height, width) of an image to the part of it that is wanted: top, left, height, width.
Part = Callable[[int, int], tuple[int, int, int, int]]


def decode(content: bytes, name: str, remedy: str, part: Part | None = None, size: int = 0) -> Tensor:
    """(3, H, W) uint8 image out of a file's content, whatever its colour mode; upright, as its EXIF data say.

    Transparency is dropped, as by torchvision's and Pillow's own conversion to colour.

    Args:
        part, size: only this part is wanted, to be made ``size`` pixels wide and high. A JPEG file may then come at a half, a
            quarter or an eighth of its sides, as long as the part has at least twice ``size`` pixels a side.

    Raises:
        UserError: it does not decode; the message has the file's ``name`` and the ``remedy``.
        MemoryError, RuntimeError: memory has run out (:func:`lsc.errors.out_of_memory`), so that nothing is said of the file.
    """
    if not content:
        raise UserError(f"{name} is empty: {remedy}")
    try:
        if content.startswith(_JPEG):
            image = _jpeg(content, part, size)
        elif content.startswith(_PNG):
            _check_size(*_size_of(content))
            image = decode_image(_bytes(content), ImageReadMode.RGB, apply_exif_orientation=True)
        else:
            image = _by_pillow(content)
    except _Unusable as reason:
        raise UserError(f"{name} holds {reason}: {remedy}") from None
    except Exception as error:  # Pillow's readers raise whatever a broken file leads them to
        if out_of_memory(error) is not None:  # which is no fault of the file's
            raise
        why = str(error).partition("\n")[0] or type(error).__name__
        why = "cannot identify it as an image" if isinstance(error, UnidentifiedImageError) else why
        raise UserError(f"{name} does not decode ({why}): {remedy}") from error
    if image.dtype == torch.uint16:
        return (image.int() // 257).byte()
    return image


def _bytes(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _jpeg(content: bytes, part: Part | None, size: int) -> Tensor:
    """A JPEG file, no larger than the part that is wanted of it asks for."""
    width, height = _size_of(content)
    _check_size(width, height)
    times = 1 if part is None else _times_as_large(height, width, part, size)
    image = None if times == 1 else _reduced(content, width // times, height // times)
    if image is None:
        image = decode_image(_bytes(content), ImageReadMode.RGB)
    return _turned(image, _orientation(content))


def _reduced(content: bytes, width: int, height: int) -> Tensor | None:
    """A JPEG file as it is stored, at the smallest size that it can be decoded at and that is at least (width, height).

    None where its colours do not allow it, or where Pillow cannot read it: whether it is broken is for others to say.
    """
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as file:
            if file.mode not in ("RGB", "L"):
                return None
            file.draft(file.mode, (width, height))
            return torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1).contiguous()
    except Exception as error:  # Pillow's readers raise whatever a broken file leads them to
        if out_of_memory(error) is not None:
            raise
        return None


def _orientation(content: bytes) -> int:
    """1 to 8, by the EXIF data of a JPEG file; 1, which is upright, where they do not say."""
    for marker, start, stop in _segments(content):
        exif = content[start + 6 : stop]
        if marker != 0xE1 or content[start : start + 6] != b"Exif\0\0" or exif[:2] not in (b"II", b"MM"):
            continue
        order: Literal["little", "big"] = "little" if exif[:2] == b"II" else "big"

        def number(place: int, width: int, exif: bytes = exif, order: Literal["little", "big"] = order) -> int:
            return int.from_bytes(exif[place : place + width], order)

        first = number(4, 4)
        for entry in range(first + 2, first + 2 + 12 * min(number(first, 2), 1000), 12):
            if number(entry, 2) == 0x0112:
                width = {1: 1, 3: 2, 4: 4}.get(number(entry + 2, 2), 0)
                found = number(entry + 8, width)
                return found if 1 <= found <= 8 else 1
    return 1


def _turned(image: Tensor, orientation: int) -> Tensor:
    """An image (C, H, W) upright that is stored in one of EXIF's eight orientations."""
    if orientation >= 5:
        image = image.transpose(1, 2)
    axes = [axis for axis, turned in ((1, (3, 4, 7, 8)), (2, (2, 3, 6, 7))) if orientation in turned]
    return image.flip(axes) if axes else image


def _times_as_large(height: int, width: int, part: Part, size: int) -> int:
    """1, 2, 4 or 8: how many times as wide and high an image is as it need be for a part of it to be resized well."""
    if not height * width:
        return 1
    shorter = min(part(height, width)[2:])
    return next((times for times in (8, 4, 2) if shorter >= 2 * size * times), 1)


class _Unusable(Exception):
    """What a file holds that decodes but cannot be taken."""


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _Unusable(f"{width:,} x {height:,} pixels, more than the {MAX_PIXELS:,} that are decoded")


def _size_of(content: bytes) -> tuple[int, int]:
    """Width and height of a JPEG or PNG file by its header; (0, 0) where that does not tell, and decoding will fail."""
    if content.startswith(_PNG):
        return struct.unpack(">II", content[16:24]) if len(content) >= 24 else (0, 0)
    for marker, start, _ in _segments(content):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame's header
            height, width = struct.unpack(">HH", content[start + 1 : start + 5])
            return width, height
    return 0, 0


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """The segments before the pixels of a JPEG file: marker, and where its content starts and stops."""
    place = 2
    while place + 9 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        # A marker without content, or a filling byte, is alone; any other is followed by its length.
        if marker == 0xFF:
            place += 1
        elif marker in (0x01, 0xD8) or 0xD0 <= marker <= 0xD7:
            place += 2
        elif marker in (0xD9, 0xDA):  # the end, or the pixels
            return
        else:
            length = int.from_bytes(content[place + 2 : place + 4], "big")
            yield marker, place + 4, place + 2 + length
            place += 2 + length


def _by_pillow(content: bytes) -> Tensor:
    with Image.open(io.BytesIO(content), formats=_BY_PILLOW) as file:
        _check_size(*file.size)
        if (pictures := getattr(file, "n_frames", 1)) > 1:
            raise _Unusable(f"{pictures} pictures, an animation or several pages")
        if file.mode == "F":
            raise _Unusable("pixels that are floating-point numbers, of no known range")
        return upright(file)


def upright(image: Image.Image) -> Tensor:
    """(3, H, W) uint8 of a PIL image of whole numbers, turned as its EXIF data say."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
        return deep_grey(image).expand(3, -1, -1).contiguous()
    if image.mode == "P":  # its palette may hold transparency, which conversion to RGB would warn of
        image = image.convert("RGBA")
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def deep_grey(image: Image.Image) -> Tensor:
    """(H, W) uint8 of an image of 16 bits, its levels from 0 to 65,535 scaled."""
    levels = np.asarray(image).astype(np.int64).clip(0, 65535)
    return torch.from_numpy((levels // 257).astype(np.uint8))


def grey(image: Tensor) -> Tensor:
    """(1, H, W) uint8: the mean of the channels of a (3, H, W) image, which leaves a grey image as it is."""
    return image.float().mean(0, keepdim=True).round().byte()


def random_part(draws: list[float], min_area: float) -> Part:
    """A random part of an image.

    Its area is a share between ``min_area`` and 1 of the image's, its aspect ratio between 3:4 and 4:3, as in Szegedy
    et al., "Going deeper with convolutions" (CVPR 2015); a part that does not fit is cut to the image.

    Args:
        draws: NUM_DRAWS uniform numbers in [0, 1).
    """

    def part(height: int, width: int) -> tuple[int, int, int, int]:
        area = height * width * (min_area + (1 - min_area) * draws[0])
        ratio = math.exp((2 * draws[1] - 1) * math.log(4 / 3))
        tall = min(height, max(1, round(math.sqrt(area / ratio))))
        wide = min(width, max(1, round(math.sqrt(area * ratio))))
        return int(draws[2] * (height - tall + 1)), int(draws[3] * (width - wide + 1)), tall, wide

    return part


def central_part(height: int, width: int) -> tuple[int, int, int, int]:
    """The central square of 7/8 of the shorter side: of 224 pixels out of 256, as is usual."""
    side = max(1, round(min(height, width) * 0.875))
    return (height - side) // 2, (width - side) // 2, side, side


def view(image: Tensor, part: Part, size: int) -> Tensor:
    """A part of an image (3, H, W), resized to (3, size, size)."""
    return functional.resized_crop(image, *part(*image.shape[1:]), [size, size], antialias=True)
