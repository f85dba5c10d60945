"""Encoders: networks from an image to its embedding, whose size does not depend on the number of classes (claim C1).

Each is a backbone, from images (B, C, H, W) to features (B, F), in a file of its own, followed by a read-out to the latent
dimension. A backbone is made of the image's shape (C, H, W); its other parameters are its settings
(:mod:`lsc.parameters`). One of your own is one file and one line: CONTRIBUTING.md shows it.
"""

from typing import Any

from lsc.encoders.base import Encoder, feature_length, parameter_count, tried_encoder
from lsc.encoders.readout import Projection
from lsc.registry import Registry

ENCODERS = Registry(
    "encoder",
    {
        "small_cnn": "lsc.encoders.small_cnn:SmallCNN",
        "resnet18": "lsc.encoders.resnet:resnet18",
        "resnet50": "lsc.encoders.resnet:resnet50",
        "vit_ti": "lsc.encoders.vit:vit_ti",
        "vit_s": "lsc.encoders.vit:vit_s",
        "vit_b": "lsc.encoders.vit:vit_b",
        "torchvision": "lsc.encoders.published:torchvision",
        "timm": "lsc.encoders.published:timm",
        "given": "lsc.encoders.given:given",
    },
)


def build_encoder(
    name: str, image_shape: tuple[int, int, int], dim: int, *, hidden: int | None = None, frozen: bool = False,
    **settings: Any,
) -> Encoder:  # fmt: skip
    """The encoder ``name`` for images of ``image_shape`` (C, H, W), with a read-out to ``dim`` coordinates.

    Args:
        name: of :data:`ENCODERS`.
        image_shape: channels, height, width in pixels.
        dim: latent dimension.
        hidden: width of the read-out's hidden layer; None for a linear read-out.
        frozen: the backbone is not trained.
        settings: the backbone's own.

    Raises:
        UserError: an unknown name, or settings that do not fit the image.
    """
    backbone = ENCODERS[name](image_shape, **settings)
    if ":" in name:
        return tried_encoder(backbone, image_shape, dim, hidden, frozen)
    return Encoder(backbone, feature_length(backbone, image_shape), dim, hidden, frozen)


__all__ = ["ENCODERS", "Encoder", "Projection", "build_encoder", "feature_length", "parameter_count", "tried_encoder"]
