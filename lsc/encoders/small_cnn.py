"""A small convolutional network for images of 8 to 64 pixels."""

from typing import Annotated, Literal

from torch import nn

from lsc.errors import UserError
from lsc.parameters import Setting


class SmallCNN(nn.Sequential):
    """Three stages of two 3x3 convolutions for images of 8 to 64 pixels: (B, C, H, W) -> (B, 4 * width).

    ``norm="group"`` normalises each image by itself, so that a batch split over processes gives the same gradients.
    With ``patch`` p an image of p times that size costs as much: p by p pixels become one pixel of p * p times the channels,
    and nothing of the fine structure is lost, as it is when an image is made smaller.
    """

    features: int

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        width: Annotated[int | None, Setting("channels of the first stage; null: 32", ge=1)] = None,
        norm: Literal["batch", "group"] = "batch",
        patch: Annotated[
            int, Setting("side of the squares of pixels that are taken together at the start", ge=1, as_before=1)
        ] = 1,
    ):
        if image_shape[1] % patch or image_shape[2] % patch:
            raise UserError(
                f"encoder.patch {patch}: must divide the sides of the image, {image_shape[1]} and {image_shape[2]}"
            )
        width = width or 32
        layers: list[nn.Module] = [nn.PixelUnshuffle(patch)] if patch > 1 else []
        before = image_shape[0] * patch**2
        for stage, after in enumerate((width, 2 * width, 4 * width)):
            for _ in range(2):
                layers += [
                    nn.Conv2d(before, after, 3, padding=1, bias=False),
                    nn.BatchNorm2d(after) if norm == "batch" else nn.GroupNorm(min(8, after), after),
                    nn.ReLU(inplace=True),
                ]
                before = after
            if stage < 2:
                layers.append(nn.MaxPool2d(2))
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.features = 4 * width
