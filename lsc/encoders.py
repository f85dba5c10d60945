"""Encoders: networks from an image to its embedding, whose size does not depend on the number of classes (claim C1).

Each is a backbone, from images ``(B, C, H, W)`` to features ``(B, F)``, followed by a :class:`Projection` to the latent
dimension. The projection is our own: torchvision's ViT head starts at zero, and embeddings that start at the origin have
no direction for the cosine loss to turn.
"""

import torch
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50
from torchvision.models.vision_transformer import Encoder as TransformerEncoder

VIT_SIZES = {"ti": (192, 12, 3), "s": (384, 12, 6), "b": (768, 12, 12)}  # width, depth, heads (Touvron et al. 2021)


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


class Encoder(nn.Module):
    """A backbone and its projection.

    Kernels lie in memory channel by channel last, and so do the maps that they make: the small network takes 0.7 to 0.9
    of the time so, on two CPU cores, a ResNet 0.9, and no encoder takes longer.

    Shape: images (B, C, H, W) -> embeddings (B, dim). :meth:`features` gives the backbone's (B, F).
    """

    def __init__(self, backbone: nn.Module, features: int, dim: int, hidden: int | None = None):
        super().__init__()
        self.backbone = backbone
        self.projection = Projection(features, dim, hidden)
        self.dim = dim
        self.to(memory_format=torch.channels_last)

    def features(self, images: Tensor) -> Tensor:
        return self.backbone(images.contiguous(memory_format=torch.channels_last))

    def forward(self, images: Tensor) -> Tensor:
        return self.projection(self.features(images))


class SmallCNN(nn.Sequential):
    """Three stages of two 3x3 convolutions for images of 8 to 64 pixels: (B, C, H, W) -> (B, 4 * width).

    ``norm="group"`` normalises each image by itself, so that a batch split over processes gives the same gradients.
    """

    def __init__(self, channels: int, width: int = 32, norm: str = "batch"):
        layers: list[nn.Module] = []
        before = channels
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


def _resnet(name: str, channels: int, small_images: bool) -> tuple[nn.Module, int]:
    backbone = {"resnet18": resnet18, "resnet50": resnet50}[name]()
    if small_images:
        # The usual CIFAR form (He et al. 2016, section 4.2): no stride and no pooling before the first stage.
        backbone.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        backbone.maxpool = nn.Identity()
    elif channels != 3:
        backbone.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    features = backbone.fc.in_features
    backbone.fc = nn.Identity()
    return backbone, features


def sincos_positions(rows: int, columns: int, width: int) -> Tensor:
    """Fixed 2-D sine-cosine position codes, (1, rows * columns, width); ``width`` must be a multiple of 4."""
    frequencies = 10_000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4 - 1))
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = [position.flatten()[:, None] * frequencies for position in (x, y)]
    codes = torch.cat([angles[0].sin(), angles[0].cos(), angles[1].sin(), angles[1].cos()], dim=1)
    return codes[None].float()


def _patches(channels: int, width: int, patch: int, stem: str) -> nn.Module:
    """From images to a grid of tokens: one linear map per patch, or 3x3 convolutions of stride 2 (Xiao et al. 2021)."""
    if stem == "linear":
        layer = nn.Conv2d(channels, width, patch, stride=patch)
        nn.init.trunc_normal_(layer.weight, std=(channels * patch * patch) ** -0.5)
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        return layer
    steps = patch.bit_length() - 1
    layers: list[nn.Module] = []
    for step in range(steps):
        after = width >> (steps - 1 - step)
        layers += [
            nn.Conv2d(channels, after, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
        ]
        channels = after
    return nn.Sequential(*layers, nn.Conv2d(channels, width, 1))


class ViT(nn.Module):
    """A plain vision transformer on torchvision's encoder blocks: (B, C, H, W) -> (B, width).

    Mean pooling and fixed sine-cosine positions instead of a class token and learned positions, after Beyer, Zhai and
    Kolesnikov, "Better plain ViT baselines for ImageNet-1k" (2022). With ``stem="conv"`` the patches come out of a few
    convolutions, with which small data sets suffice (Xiao et al., "Early convolutions help transformers see better", 2021).
    """

    def __init__(
        self, image_shape: tuple[int, int, int], patch: int, width: int, depth: int, heads: int, stem: str = "linear"
    ):
        super().__init__()
        channels, height, breadth = image_shape
        rows, columns = height // patch, breadth // patch
        self.patches = _patches(channels, width, patch, stem)
        self.encoder = TransformerEncoder(
            rows * columns, depth, heads, width, 4 * width, dropout=0.0, attention_dropout=0.0
        )
        # A buffer that is not saved takes the place of the block's learned positions: they are a formula.
        del self.encoder.pos_embedding
        self.encoder.register_buffer("pos_embedding", sincos_positions(rows, columns, width), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        return self.encoder(tokens).mean(dim=1)


def build_encoder(
    name: str,
    image_shape: tuple[int, int, int],
    dim: int,
    *,
    hidden: int | None = None,
    width: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    patch: int = 4,
    stem: str = "linear",
    norm: str = "batch",
    small_images: bool = True,
) -> Encoder:
    """The encoder ``name`` for images of ``image_shape`` (C, H, W), with a projection to ``dim`` coordinates.

    Args:
        name: ``small_cnn``, ``resnet18``, ``resnet50``, ``vit_ti``, ``vit_s`` or ``vit_b``.
        image_shape: channels, height, width in pixels.
        dim: latent dimension.
        hidden: width of the projection's hidden layer; None for a linear projection.
        width, depth, heads: of the network; None for the usual ones.
        patch: side of a ViT's patches in pixels.
        stem: ``linear`` or ``conv``, what makes a ViT's patches.
        norm: ``batch`` or ``group``, for the small convolutional encoder.
        small_images: ResNets without the stride and pooling in front, for images of about 32 pixels.

    Raises:
        ValueError: an unknown name, or an image that the patches do not tile.
    """
    channels = image_shape[0]
    if name == "small_cnn":
        width = width or 32
        return Encoder(SmallCNN(channels, width, norm), 4 * width, dim, hidden)
    if name in ("resnet18", "resnet50"):
        backbone, features = _resnet(name, channels, small_images)
        return Encoder(backbone, features, dim, hidden)
    if name.removeprefix("vit_") in VIT_SIZES:
        usual = VIT_SIZES[name.removeprefix("vit_")]
        width, depth, heads = width or usual[0], depth or usual[1], heads or usual[2]
        if image_shape[1] % patch or image_shape[2] % patch:
            raise ValueError(f"patches of {patch} pixels do not tile an image of {image_shape[1]}x{image_shape[2]}")
        if stem == "conv" and patch & (patch - 1):
            raise ValueError(f"a convolutional stem needs patches of 2, 4, 8 or 16 pixels, not {patch}")
        if width % heads or width % 4 or width < 8:
            raise ValueError(
                f"a ViT's width must be 8 or more, a multiple of 4 and of its heads; got width {width}, heads {heads}"
            )
        return Encoder(ViT(image_shape, patch, width, depth, heads, stem), width, dim, hidden)
    raise ValueError(f"unknown encoder {name!r}; known: small_cnn, resnet18, resnet50, vit_ti, vit_s, vit_b")


def parameter_count(module: nn.Module) -> int:
    """Number of trained values in a module."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
