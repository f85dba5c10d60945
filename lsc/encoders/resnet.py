"""ResNets (He et al., CVPR 2016) as torchvision has them, also in their form for small images."""

from typing import TYPE_CHECKING, Annotated

from torch import nn

from lsc.parameters import Setting

if TYPE_CHECKING:  # whoever reads settings needs no torchvision, which takes as long to import as torch
    from torchvision import models

SmallImages = Annotated[bool, Setting("without the stride and pooling in front, for images of about 32 pixels")]


def resnet18(image_shape: tuple[int, int, int], small_images: SmallImages = True) -> nn.Module:
    """ResNet-18: (B, C, H, W) -> (B, 512)."""
    from torchvision import models

    return _adapted(models.resnet18(), image_shape[0], small_images)


def resnet50(image_shape: tuple[int, int, int], small_images: SmallImages = True) -> nn.Module:
    """ResNet-50: (B, C, H, W) -> (B, 2048)."""
    from torchvision import models

    return _adapted(models.resnet50(), image_shape[0], small_images)


def _adapted(backbone: "models.ResNet", channels: int, small_images: bool) -> nn.Module:
    if small_images:
        # The usual CIFAR form (He et al. 2016, section 4.2): no stride and no pooling before the first stage.
        backbone.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        backbone.maxpool = nn.Identity()
    elif channels != 3:
        backbone.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    backbone.features = backbone.fc.in_features
    backbone.fc = nn.Identity()
    return backbone
