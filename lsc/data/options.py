"""The options of every data set, checked, with their defaults. Free of torch, so that the workflow can import it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Augmentation(_Options):
    """Random changes of a training image that is held in memory; done on the training device."""

    crop_padding: int = Field(default=0, ge=0, description="pad by so many black pixels, then crop at a random place")
    flip: bool = Field(default=False, description="mirror left and right with probability 1/2")
    rotation: float = Field(default=0.0, ge=0, le=180, description="rotate by up to so many degrees either way")
    scale: float = Field(default=0.0, ge=0, lt=1, description="zoom by a factor between 1 - scale and 1 + scale")
    brightness: float = Field(
        default=0.0, ge=0, le=1, description="multiply by a factor between 1 - brightness and 1 + brightness"
    )
    contrast: float = Field(default=0.0, ge=0, le=1, description="the same for the distance to the image's mean")
    cutout: int = Field(default=0, ge=0, description="side of a square that is set to the mean colour, in pixels")


class DigitsOptions(_Options):
    """1,797 handwritten digits that come with scikit-learn: 10 classes, 8x8 pixels, grey."""

    name: Literal["digits"] = "digits"
    image_size: int = Field(default=16, ge=8, description="side in pixels; the 8x8 originals are enlarged bilinearly")
    test_share: float = Field(default=0.2, gt=0, lt=1, description="share of each class that is kept for the test")
    valid_share: float = Field(default=0.0, ge=0, lt=1, description="share of each class that makes a split `valid`")
    classes: int | list[int] | None = Field(
        default=None, description="the first so many classes, or a list of class ids"
    )
    augment: Augmentation = Field(default_factory=lambda: Augmentation(crop_padding=1), description="training views")


class FractalsOptions(_Options):
    """Iterated function systems rendered on the fly: any number of classes, nothing to download."""

    name: Literal["fractals"] = "fractals"
    num_classes: int = Field(default=1000, ge=2, description="number of classes")
    first_class: int = Field(
        default=0, ge=0, description="the class ids start here: sets whose ranges do not meet share no class"
    )
    train_per_class: int = Field(default=24, ge=1, description="training images of a class")
    test_per_class: int = Field(default=5, ge=1, description="test images of a class")
    test_images: int | None = Field(
        default=None,
        ge=1,
        description="test on so many images drawn from all classes, instead of test_per_class of each",
    )
    image_size: int = Field(default=32, ge=8, le=1024, description="side in pixels")
    color: bool = Field(
        default=False, description="three channels with colours of the class, instead of one grey channel"
    )
    jitter: float = Field(default=1.0, ge=0, le=3, description="how much the images of a class differ; 0: not at all")
    seed: int = Field(default=0, description="another seed gives other classes")
    endless: bool = Field(default=False, description="render every training image afresh in every epoch")
    epoch_size: int | None = Field(default=None, ge=1, description="images of an epoch, drawn from all training images")
    memory_mb: int = Field(
        default=1024, ge=0, description="a split up to this size is rendered once and held in memory"
    )
    cache: str | None = Field(default=None, description="folder that keeps the rendered images between runs")
    augment: Augmentation = Field(default_factory=Augmentation, description="training views")


class Cinic10Options(_Options):
    """CINIC-10: 270,000 colour images of 32x32, 10 classes, three splits of 90,000 (DOI 10.7488/ds/2448)."""

    name: Literal["cinic10"] = "cinic10"
    root: str = Field(
        default="data/cinic10", description="folder with cinic10.safetensors, as `lsc data fetch cinic10` makes it"
    )
    train_on: Literal["train", "train+valid"] = Field(default="train", description="splits to train on")
    classes: int | list[int] | None = Field(
        default=None, description="the first so many classes, or a list of class ids"
    )
    augment: Augmentation = Field(
        default_factory=lambda: Augmentation(crop_padding=4, flip=True), description="training views"
    )


class _FileOptions(_Options):
    image_size: int = Field(default=224, ge=8, description="side in pixels")
    min_area: float = Field(
        default=0.08, gt=0, le=1, description="least share of a training image's area that is cropped"
    )
    flip: bool = Field(default=True, description="mirror training images with probability 1/2")
    workers: int | None = Field(default=None, ge=0, description="loading processes; by default one per core of the job")


class ImagenetOptions(_FileOptions):
    """ImageNet-1K in torchvision's layout: {train,val}/<wnid>/*.JPEG; the 50,000 images of val are the test split."""

    name: Literal["imagenet"] = "imagenet"
    root: str = Field(default="data/imagenet", description="folder with train/ and val/")
    index: str | None = Field(default=None, description="frozen list of files, as `lsc data index` writes it")
    valid_every: int = Field(
        default=0, ge=0, description="every so manieth training image makes the split `valid`; 0: none"
    )


class FolderOptions(_FileOptions):
    """Your own images: train/<class>/* and, if there are any, valid/<class>/* and test/<class>/*."""

    name: Literal["folder"] = "folder"
    root: str = Field(default="data/images", description="folder with train/")
    index: str | None = Field(default=None, description="frozen list of files, as `lsc data index` writes it")
    valid_every: int = Field(
        default=0, ge=0, description="every so manieth training image makes the split `valid`; 0: none"
    )


UnderlyingOptions = Annotated[
    DigitsOptions | FractalsOptions | Cinic10Options | ImagenetOptions | FolderOptions, Field(discriminator="name")
]


class InstancesOptions(_Options):
    """Every training image of another set as a class of its own; tested on fresh augmented views of the same images."""

    name: Literal["instances"] = "instances"
    of: UnderlyingOptions = Field(description="the set whose images become classes, with its options")
    limit: int | None = Field(default=None, ge=2, description="use so many images, evenly spaced, instead of all")
    test_images: int | None = Field(default=None, ge=1, description="test on so many random images, instead of all")


DataOptions = Annotated[
    DigitsOptions | FractalsOptions | Cinic10Options | ImagenetOptions | InstancesOptions | FolderOptions,
    Field(discriminator="name"),
]

DatasetOptions = DigitsOptions | FractalsOptions | Cinic10Options | ImagenetOptions | InstancesOptions | FolderOptions

DATASETS: dict[str, type[DatasetOptions]] = {
    "digits": DigitsOptions,
    "fractals": FractalsOptions,
    "cinic10": Cinic10Options,
    "imagenet": ImagenetOptions,
    "instances": InstancesOptions,
    "folder": FolderOptions,
}
