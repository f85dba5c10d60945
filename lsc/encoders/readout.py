"""The read-out: the last part of an encoder, from its backbone's features to the latent space.

It is our own: torchvision's ViT head starts at zero, and embeddings that start at the origin have no direction for the
cosine loss to turn.
"""

from torch import nn


class Projection(nn.Sequential):
    """From features to the latent space: linear, or wide with one hidden layer.

    Args:
        features: F, the length of a feature vector.
        dim: latent dimension.
        hidden: width of the hidden layer; None for a linear projection.

    Shape: (B, features) -> (B, dim).
    """

    def __init__(self, features: int, dim: int, hidden: int | None = None):
        if hidden is None:
            layers: list[nn.Module] = [nn.Linear(features, dim)]
        else:
            layers = [nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, dim)]
        super().__init__(*layers)
        for layer in self:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=layer.in_features**-0.5)
                nn.init.zeros_(layer.bias)
