"""An encoder: a backbone and its read-out."""

from itertools import chain
from typing import Any, Self

import torch
from torch import Tensor, nn

from lsc.checks import described
from lsc.encoders.readout import Projection
from lsc.encoders.weights import Statistics, load_backbone
from lsc.errors import UserError


class Encoder(nn.Module):
    """A backbone and its projection.

    Args:
        features: F, the length of what the backbone gives.
        frozen: the backbone stays as it is, the statistics of its normalisations with it; the projection alone is trained.
        channels_last: kernels lie in memory channel by channel last, and so do images and the maps that they become: the small
            network takes 0.7 to 0.9 of the time so, on two CPU cores, a ResNet 0.9, and no encoder of the library takes longer.

    Shape: images (B, C, H, W) -> embeddings (B, dim). :meth:`features` gives the backbone's features.
    """

    def __init__(
        self,
        backbone: nn.Module,
        features: int,
        dim: int,
        hidden: int | None = None,
        frozen: bool = False,
        channels_last: bool = True,
    ):
        super().__init__()
        self.backbone = backbone
        self.projection = Projection(features, dim, hidden)
        self.dim = dim
        self.frozen = frozen
        if frozen:
            backbone.requires_grad_(False)
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        if channels_last:
            self.to(memory_format=torch.channels_last)

    def features(self, images: Tensor) -> Tensor:
        if not isinstance(images, Tensor) or not images.is_floating_point():
            raise UserError(
                f"an encoder takes floats, normalised images of shape (B, C, H, W), not {described(images)}"
            )
        if images.ndim == 4:
            images = images.contiguous(memory_format=self.layout)
        return self.backbone(images)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def start_from(self, weights: str | None) -> Statistics | None:
        """Give the backbone trained weights, where ``weights`` names some (:mod:`lsc.encoders.weights`).

        Returns:
            mean and deviation per channel by which it wants its images normalised, where it wants other than the data set's.
        """
        found = None if weights is None else load_backbone(self.backbone, weights)
        own: Statistics | None = getattr(self.backbone, "statistics", None)
        return own or found

    @property
    def last(self) -> nn.Linear:
        """The read-out's last layer."""
        layer = self.projection[-1]
        assert isinstance(layer, nn.Linear)
        return layer

    def hidden(self, images: Tensor) -> Tensor:
        """What the last layer takes: the activations of the read-out's hidden layer, or the features, (B, F)."""
        activations = self.features(images)
        for layer in list(self.projection)[:-1]:
            activations = layer(activations)
        return activations

    def forward(self, images: Tensor, with_hidden: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Embeddings (B, dim); ``with_hidden`` together with what the last layer took, (B, F)."""
        hidden = self.hidden(images)
        embeddings = self.last(hidden)
        return (embeddings, hidden) if with_hidden else embeddings


def tried_encoder(
    backbone: nn.Module, image_shape: tuple[int, int, int], dim: int, hidden: int | None = None, frozen: bool = False
) -> Encoder:
    """The encoder of a backbone of which nothing is known: images are tried for the length of its features, and its layout.

    Raises:
        UserError: as :func:`feature_length`.
    """
    features = feature_length(backbone, image_shape, tried=True)
    return Encoder(backbone, features, dim, hidden, frozen, takes_channels_last(backbone, image_shape))


def takes_channels_last(backbone: nn.Module, image_shape: tuple[int, int, int]) -> bool:
    """Whether a backbone works with images and kernels whose channels lie last in memory, which ``Tensor.view`` may not.

    It is left with its kernels as usual where it does not.
    """
    # Kernels of three dimensions have a layout of their own.
    if len(image_shape) != 3 or any(weights.ndim > 4 for weights in backbone.parameters()):
        return False
    backbone.to(memory_format=torch.channels_last)
    try:
        _try(backbone, image_shape, torch.channels_last)
    except RuntimeError:
        backbone.to(memory_format=torch.contiguous_format)
        return False
    return True


def _try(backbone: nn.Module, image_shape: tuple[int, int, int], layout: torch.memory_format) -> Any:
    """What a backbone makes of two black images."""
    was_training = backbone.training
    backbone.eval()
    like = next(chain(backbone.parameters(), backbone.buffers()), torch.zeros(()))
    try:
        with torch.no_grad():
            return backbone(torch.zeros(2, *image_shape, device=like.device).contiguous(memory_format=layout))
    finally:
        backbone.train(was_training)


def feature_length(backbone: nn.Module, image_shape: tuple[int, int, int], tried: bool = False) -> int:
    """F of a backbone from images (B, C, H, W) to features (B, F): what its ``features`` says, or else images are tried.

    Args:
        tried: they are in any case: ``features`` may be something else to a backbone that is not made for this library.

    Raises:
        UserError: what comes out is no vector for each image, or its weights are not float32.
    """
    for name, weights in backbone.named_parameters():
        if weights.dtype != torch.float32:
            raise UserError(
                f"backbone {type(backbone).__name__}: {name} is {weights.dtype}; give it in float32, .float(), whatever "
                "training.precision is"
            )
    declared = getattr(backbone, "features", None)
    if isinstance(declared, int) and not tried:
        return declared
    out = _try(backbone, image_shape, torch.contiguous_format)
    if not isinstance(out, Tensor) or out.ndim != 2:
        found = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
        raise UserError(
            f"backbone {type(backbone).__name__}: images of shape (2, {', '.join(map(str, image_shape))}) give {found}, "
            "not features of shape (2, F); end it with pooling and nn.Flatten()"
        )
    return out.shape[1]


def parameter_count(module: nn.Module) -> int:
    """Number of trained values in a module."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
