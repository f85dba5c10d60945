"""What the options of all data sets share. Free of torch, so that they can be read in an instant."""

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from pydantic import ConfigDict, Field

from lsc.settings import Block, Strict, later

if TYPE_CHECKING:
    from lsc.data.base import Dataset


class DatasetOptions(Block):
    """The options of a data set, each with its description: a subclass beside the set's own code.

    Attributes:
        may_change: the options that may differ when a run goes on, since they neither move an image nor change a label.
    """

    model_config = ConfigDict(strict=True)
    may_change: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def open(self) -> "Dataset":
        """The data set that these options describe.

        Raises:
            UserError: files are missing or broken.
        """

    @property
    def photographs(self) -> bool:
        """Whether an image is cut to its central square before it is resized, as the set's own test images are."""
        return False

    def files(self) -> list[str]:
        """Files that must be there before it can be opened, as far as the workflow can make them."""
        return []


class Augmentation(Strict):
    """Random changes of a training image that is held in memory; done on the training device."""

    model_config = ConfigDict(strict=True)

    crop_padding: int = Field(default=0, ge=0, description="pad by so many black pixels, then crop at a random place")
    flip: bool = Field(default=False, description="mirror left and right with probability 1/2")
    rotation: float = Field(default=0.0, ge=0, le=180, description="rotate by up to so many degrees either way")
    scale: float = Field(default=0.0, ge=0, lt=1, description="zoom by a factor between 1 - scale and 1 + scale")
    shear: float = later(
        0.0, as_before=0.0, ge=0, le=45, description="slant by up to so many degrees either way, left and right"
    )
    brightness: float = Field(
        default=0.0, ge=0, le=1, description="multiply by a factor between 1 - brightness and 1 + brightness"
    )
    contrast: float = Field(default=0.0, ge=0, le=1, description="the same for the distance to the image's mean")
    cutout: int = Field(default=0, ge=0, description="side of a square that is set to the mean colour, in pixels")
