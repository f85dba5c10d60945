"""Your own images in a folder for each class."""

from typing import ClassVar, Literal

from pydantic import Field

from lsc.data.image_folder import FileOptions


class FolderOptions(FileOptions):
    """Your own images: train/<class>/* and, if there are any, valid/<class>/* and test/<class>/*."""

    folders: ClassVar[dict[str, str]] = {"train": "train", "valid": "valid", "test": "test"}

    name: Literal["folder"] = "folder"
    root: str = Field(default="data/images", description="folder with train/")
