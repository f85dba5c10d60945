"""A plain vision transformer on torchvision's blocks."""

from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from lsc.errors import UserError
from lsc.parameters import Setting

Width = Annotated[int | None, Setting("of a token; null: the usual", ge=1)]
Depth = Annotated[int | None, Setting("blocks; null: the usual", ge=1)]
Heads = Annotated[int | None, Setting("attention heads of a block; null: the usual", ge=1)]
Patch = Annotated[int, Setting("side of a patch in pixels", ge=1)]
Stem = Annotated[
    Literal["linear", "conv"], Setting("what makes the patches: one linear map, or convolutions of stride 2")
]


def vit_ti(
    image_shape: tuple[int, int, int],
    width: Width = None, depth: Depth = None, heads: Heads = None, patch: Patch = 4, stem: Stem = "linear",
) -> "ViT":  # fmt: skip
    """ViT-Ti: width 192, 12 blocks, 3 heads (Touvron et al. 2021)."""
    return ViT(image_shape, patch, width or 192, depth or 12, heads or 3, stem)


def vit_s(
    image_shape: tuple[int, int, int],
    width: Width = None, depth: Depth = None, heads: Heads = None, patch: Patch = 4, stem: Stem = "linear",
) -> "ViT":  # fmt: skip
    """ViT-S: width 384, 12 blocks, 6 heads (Touvron et al. 2021)."""
    return ViT(image_shape, patch, width or 384, depth or 12, heads or 6, stem)


def vit_b(
    image_shape: tuple[int, int, int],
    width: Width = None, depth: Depth = None, heads: Heads = None, patch: Patch = 4, stem: Stem = "linear",
) -> "ViT":  # fmt: skip
    """ViT-B: width 768, 12 blocks, 12 heads (Touvron et al. 2021)."""
    return ViT(image_shape, patch, width or 768, depth or 12, heads or 12, stem)


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
        # Here, as whoever reads settings needs no torchvision, which takes as long to import as torch.
        from torchvision.models.vision_transformer import Encoder as TransformerEncoder

        super().__init__()
        channels, height, breadth = image_shape
        if height % patch or breadth % patch:
            raise UserError(f"patches of {patch} pixels do not tile an image of {height}x{breadth}")
        if stem == "conv" and patch & (patch - 1):
            raise UserError(f"a convolutional stem needs patches of 2, 4, 8 or 16 pixels, not {patch}")
        if width % heads or width % 4 or width < 8:
            raise UserError(
                f"a ViT's width must be 8 or more, a multiple of 4 and of its heads; got width {width}, heads {heads}"
            )
        self.features = width
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
