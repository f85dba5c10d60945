"""From the bytes of an image file to pixels, and from pixels to a view of the wanted size.

JPEG and PNG are decoded by torchvision, all else by Pillow.
"""

import io
import math
import struct
import warnings

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional

from lsc.errors import UserError

# torchvision announces another package for this; until it goes, one warning for each image would drown all else.
warnings.filterwarnings("ignore", message="The image decoding and encoding capabilities", category=DeprecationWarning)
# Of sizes; those that are too large are refused below.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

# As many pixels as Pillow opens: half a gigabyte as colours.
MAX_PIXELS = 178_956_970

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_BY_PILLOW = ("BMP", "DIB", "TIFF", "GIF", "WEBP", "PPM", "AVIF")

NUM_DRAWS = 5  # random numbers of a training view: area, shape, place down and across, mirror


def decode(content: bytes, name: str, remedy: str) -> Tensor:
    """(3, H, W) uint8 image out of a file's content, whatever its colour mode; upright, as its EXIF data say.

    Transparency is dropped, as by torchvision's and Pillow's own conversion to colour.

    Raises:
        UserError: it does not decode; the message has the file's ``name`` and the ``remedy``.
    """
    if not content:
        raise UserError(f"{name} is empty: {remedy}")
    try:
        if content.startswith((_JPEG, _PNG)):
            _check_size(*_size_of(content))
            encoded = torch.frombuffer(bytearray(content), dtype=torch.uint8)
            image = decode_image(encoded, ImageReadMode.RGB, apply_exif_orientation=True)
        else:
            image = _by_pillow(content)
    except _Unusable as reason:
        raise UserError(f"{name} holds {reason}: {remedy}") from None
    except Exception as error:  # Pillow's readers raise whatever a broken file leads them to
        why = str(error).partition("\n")[0] or type(error).__name__
        why = "cannot identify it as an image" if isinstance(error, UnidentifiedImageError) else why
        raise UserError(f"{name} does not decode ({why}): {remedy}") from error
    if image.dtype == torch.uint16:
        return (image.int() // 257).byte()
    return image


class _Unusable(Exception):
    """What a file holds that decodes but cannot be taken."""


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _Unusable(f"{width:,} x {height:,} pixels, more than the {MAX_PIXELS:,} that are decoded")


def _size_of(content: bytes) -> tuple[int, int]:
    """Width and height of a JPEG or PNG file by its header; (0, 0) where that does not tell, and decoding will fail."""
    if content.startswith(_PNG):
        return struct.unpack(">II", content[16:24]) if len(content) >= 24 else (0, 0)
    place = 2
    while place + 9 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame's header
            height, width = struct.unpack(">HH", content[place + 5 : place + 9])
            return width, height
        # A marker without content, or a filling byte, is alone; any other is followed by its length.
        alone = marker in (0x01, 0xFF) or 0xD0 <= marker <= 0xD8
        place += 1 if marker == 0xFF else 2 if alone else 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return 0, 0


def _by_pillow(content: bytes) -> Tensor:
    with Image.open(io.BytesIO(content), formats=_BY_PILLOW) as file:
        _check_size(*file.size)
        if getattr(file, "n_frames", 1) > 1:
            raise _Unusable(f"{file.n_frames} pictures, an animation or several pages")
        image: Image.Image = ImageOps.exif_transpose(file)
        if image.mode == "F":
            raise _Unusable("pixels that are floating-point numbers, of no known range")
        if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
            levels = np.asarray(image).astype(np.int64).clip(0, 65535)
            return torch.from_numpy((levels // 257).astype(np.uint8)).expand(3, -1, -1).contiguous()
        if image.mode == "P":  # its palette may hold transparency, which conversion to RGB would warn of
            image = image.convert("RGBA")
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def grey(image: Tensor) -> Tensor:
    """(1, H, W) uint8: the mean of the channels of a (3, H, W) image, which leaves a grey image as it is."""
    return image.float().mean(0, keepdim=True).round().byte()


def random_view(image: Tensor, size: int, draws: list[float], *, min_area: float, flip: bool) -> Tensor:
    """A random part of an image, resized to (3, size, size), perhaps mirrored.

    Its area is a share between ``min_area`` and 1 of the image's, its aspect ratio between 3:4 and 4:3, as in Szegedy
    et al., "Going deeper with convolutions" (CVPR 2015); a part that does not fit is cut to the image.

    Args:
        image: (3, H, W) uint8.
        draws: NUM_DRAWS uniform numbers in [0, 1).
    """
    height, width = image.shape[1:]
    area = height * width * (min_area + (1 - min_area) * draws[0])
    ratio = math.exp((2 * draws[1] - 1) * math.log(4 / 3))
    tall = min(height, max(1, round(math.sqrt(area / ratio))))
    wide = min(width, max(1, round(math.sqrt(area * ratio))))
    top, left = int(draws[2] * (height - tall + 1)), int(draws[3] * (width - wide + 1))
    view = functional.resized_crop(image, top, left, tall, wide, [size, size], antialias=True)
    return functional.horizontal_flip(view) if flip and draws[4] < 0.5 else view


def central_view(image: Tensor, size: int) -> Tensor:
    """The central square of 7/8 of the shorter side, resized to (3, size, size): 224 out of 256, as is usual."""
    height, width = image.shape[1:]
    side = max(1, round(min(height, width) * 0.875))
    top, left = (height - side) // 2, (width - side) // 2
    return functional.resized_crop(image, top, left, side, side, [size, size], antialias=True)
