"""From the bytes of a JPEG or PNG file to pixels, and from pixels to a view of the wanted size."""

import math
import warnings

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional

from lsc.errors import UserError

# torchvision announces another package for this; until it goes, one warning for each image would drown all else.
warnings.filterwarnings("ignore", message="The image decoding and encoding capabilities", category=DeprecationWarning)

NUM_DRAWS = 5  # random numbers of a training view: area, shape, place down and across, mirror


def decode(content: bytes, name: str, remedy: str) -> Tensor:
    """(3, H, W) uint8 image out of a file's content, whatever its colour mode.

    Raises:
        UserError: it does not decode; the message has the file's ``name`` and the ``remedy``.
    """
    if not content:
        raise UserError(f"{name} is empty: {remedy}")
    try:
        image = decode_image(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.RGB)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{name} does not decode ({str(error).splitlines()[0]}): {remedy}") from error
    if image.ndim != 3:
        raise UserError(f"{name} holds {len(image)} pictures, an animation: {remedy}")
    if image.dtype == torch.uint16:
        return (image.int() // 257).byte()
    return image


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
