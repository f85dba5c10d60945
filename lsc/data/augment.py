"""Random views of images that are held in memory: crop, flip, rotation, zoom, shear, brightness, contrast, cutout.

The random numbers come in as an argument, so the same draws give the same view on every device.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from lsc.data.options import Augmentation

NUM_DRAWS = 10


def random_views(images: Tensor, indexes: Tensor, draws: Tensor, options: Augmentation) -> Tensor:
    """Augmented copies of some images.

    Args:
        images: (N, C, H, W) uint8.
        indexes: (B,) int64, which of them, on the device of ``images``.
        draws: (B, NUM_DRAWS) uniform in [0, 1), on the same device.
        options: what to do.

    Returns:
        (B, C, H, W) uint8, or float32 between 0 and 255 where more than cropping and flipping was asked for.
    """
    if options.crop_padding or options.flip:
        views = _crop_and_flip(images, indexes, draws[:, :3], options.crop_padding, options.flip)
    else:
        views = images[indexes]
    if options.rotation or options.scale or options.shear:
        own = torch.cat([draws[:, 3:5], draws[:, 9:10]], 1)
        views = _transform(views.float(), own, options.rotation, options.scale, options.shear)
    if options.brightness or options.contrast:
        views = _shade(views.float(), draws[:, 5:7], options.brightness, options.contrast)
    if options.cutout:
        views = _cut_out(views.float(), draws[:, 7:9], options.cutout)
    return views


def _crop_and_flip(images: Tensor, indexes: Tensor, draws: Tensor, padding: int, flip: bool) -> Tensor:
    """Read shifted, mirrored images straight from the store: black where the crop leaves the image."""
    channels, height, width = images.shape[1:]
    shifts = (draws[:, :2] * (2 * padding + 1)).long() - padding
    rows = torch.arange(height, device=images.device) + shifts[:, :1]
    columns = torch.arange(width, device=images.device) + shifts[:, 1:]
    if flip:
        columns = torch.where(draws[:, 2:3] < 0.5, columns, width - 1 - columns)
    inside_rows, inside_columns = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
    places = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    chosen = images.flatten(2)[indexes]
    views = chosen.gather(2, places.flatten(1)[:, None].expand(-1, channels, -1)).view(-1, channels, height, width)
    return views * (inside_rows[:, :, None] & inside_columns[:, None, :])[:, None]


def _transform(views: Tensor, draws: Tensor, rotation: float, scale: float, shear: float) -> Tensor:
    """Rotate, zoom and slant about the middle; what comes from outside the image is black."""
    angle = (2 * draws[:, 0] - 1) * math.radians(rotation)
    zoom = 1 + (2 * draws[:, 1] - 1) * scale
    cosine, sine, zero = angle.cos() / zoom, angle.sin() / zoom, torch.zeros_like(angle)
    matrix = torch.stack([torch.stack([cosine, -sine, zero], -1), torch.stack([sine, cosine, zero], -1)], 1)
    if shear:
        slant = ((2 * draws[:, 2] - 1) * math.radians(shear)).tan()
        matrix[:, :, 1] += matrix[:, :, 0] * slant[:, None]
    grid = functional.affine_grid(matrix, list(views.shape), align_corners=False)
    return functional.grid_sample(views, grid, align_corners=False)


def _shade(views: Tensor, draws: Tensor, brightness: float, contrast: float) -> Tensor:
    brighter, harder = (1 + (2 * draws - 1) * _pair(brightness, contrast, draws.device))[..., None, None, None].unbind(
        1
    )
    mean = views.mean((1, 2, 3), keepdim=True)
    return (((views - mean) * harder + mean) * brighter).clamp(0, 255)


@lru_cache(maxsize=64)
def _pair(first: float, second: float, device: torch.device) -> Tensor:
    """(2,): copied to a device once, for the copy waits for it."""
    return torch.tensor([first, second], device=device)


def _cut_out(views: Tensor, draws: Tensor, side: int) -> Tensor:
    height, width = views.shape[2:]
    top, left = (draws[:, :1] * height).long() - side // 2, (draws[:, 1:] * width).long() - side // 2
    rows, columns = torch.arange(height, device=views.device), torch.arange(width, device=views.device)
    in_rows, in_columns = (rows >= top) & (rows < top + side), (columns >= left) & (columns < left + side)
    hole = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    return torch.where(hole, views.mean((2, 3), keepdim=True), views)
