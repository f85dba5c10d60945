"""Encoders: one size for any number of classes, a projection that does not start at zero, fused attention."""

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import profile

from lsc.encoders import build_encoder, feature_length, parameter_count, tried_encoder
from lsc.encoders.vit import sincos_positions
from lsc.errors import UserError

NAMES = ["small_cnn", "resnet18", "resnet50", "vit_ti"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("hidden", [None, 32])
@pytest.mark.parametrize("channels", [1, 3])
def test_embeddings_have_the_latent_dimension_and_are_not_zero(name: str, hidden: int | None, channels: int) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(name, (channels, 16, 16), 7, hidden=hidden)
    embeddings = encoder(torch.randn(4, channels, 16, 16))
    assert embeddings.shape == (4, 7)
    assert embeddings.norm(dim=1).min() > 1e-2
    embeddings.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.projection.parameters() if p.ndim == 2)


def test_large_images_keep_the_stride_of_a_resnet() -> None:
    small, large = (build_encoder("resnet18", (3, 32, 32), 4, small_images=flag).eval() for flag in (True, False))
    images = torch.zeros(1, 3, 64, 64)
    assert small.backbone.conv1(images).shape[-1] == 64
    assert large.backbone.conv1(images).shape[-1] == 32


@pytest.mark.parametrize(("name", "millions"), [("vit_ti", 5.4), ("vit_s", 21.6), ("vit_b", 85.6)])
def test_vits_have_their_published_sizes(name: str, millions: float) -> None:
    with torch.device("meta"):
        encoder = build_encoder(name, (3, 224, 224), 384, patch=16)
    assert parameter_count(encoder.backbone) / 1e6 == pytest.approx(millions, abs=0.2)


def test_a_vit_trains_through_fused_attention() -> None:
    encoder = build_encoder("vit_ti", (3, 16, 16), 4, depth=1)
    with profile() as trace:
        encoder(torch.randn(2, 3, 16, 16)).sum().backward()
    assert any("scaled_dot_product" in event.key for event in trace.key_averages())


def test_positions_tell_every_patch_apart() -> None:
    codes = sincos_positions(4, 6, 32)[0]
    distances = torch.cdist(codes, codes) + 9 * torch.eye(24)
    assert distances.min() > 0.1


def test_a_network_is_tried_where_it_lies() -> None:
    """One of a user's own, which a training on a GPU left there; without parameters it lies nowhere."""
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert feature_length(network, (3, 16, 16)) == feature_length(network.to("meta"), (3, 16, 16)) == 8
    assert feature_length(nn.Flatten(), (3, 4, 4)) == 48


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"name": "cnn", "image_shape": (3, 32, 32)}, "unknown encoder"),
        ({"name": "vit_s", "image_shape": (3, 30, 30), "patch": 4}, "tile"),
        ({"name": "vit_s", "image_shape": (3, 32, 32), "width": 100, "heads": 6}, "multiple"),
    ],
)
def test_settings_that_make_no_network_are_refused(arguments: dict, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        build_encoder(dim=4, **arguments)


def test_a_backbone_in_another_precision_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(
        UserError, match=r"backbone Sequential: 0.weight is torch.float64; give it in float32, .float\(\)"
    ):
        feature_length(network.double(), (3, 16, 16))


class Flattens(nn.Module):
    """As many tutorials write it; ``features`` is what its author calls the width of the kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.features = 8
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.out = nn.Linear(8 * 7 * 7, 16)

    def forward(self, images: Tensor) -> Tensor:
        maps = torch.relu(self.conv(images))
        return self.out(maps.view(maps.shape[0], -1))


def test_networks_of_ones_own_are_tried_and_keep_the_layout_that_they_need() -> None:
    flattens = tried_encoder(Flattens(), (3, 16, 16), 4)
    images = torch.randn(5, 3, 16, 16)
    expected = Flattens()
    expected.load_state_dict(flattens.backbone.state_dict())
    for layout in (torch.contiguous_format, torch.channels_last):
        features = flattens.features(images.contiguous(memory_format=layout))
        assert torch.equal(features, expected(images))
    pooled = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert tried_encoder(pooled, (3, 16, 16), 4).layout == torch.channels_last
    assert pooled[0].weight.is_contiguous(memory_format=torch.channels_last)
    deep = nn.Sequential(nn.Conv3d(1, 4, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    assert tried_encoder(deep, (1, 4, 8, 8), 4).features(torch.randn(2, 1, 4, 8, 8)).shape == (2, 4)  # type: ignore[arg-type]
