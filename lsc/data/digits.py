"""The 1,797 handwritten digits that come with scikit-learn (from UCI's "Optical Recognition of Handwritten Digits")."""

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from lsc.data.base import SAMPLE
from lsc.data.memory import MemoryDataset, Split, choose_classes
from lsc.data.options import Augmentation, DatasetOptions
from lsc.errors import UserError
from lsc.hashing import random_bits

NUM_CLASSES = 10


class DigitsOptions(DatasetOptions):
    """1,797 handwritten digits that come with scikit-learn: 10 classes, 8x8 pixels, grey."""

    name: Literal["digits"] = "digits"
    image_size: int = Field(default=16, ge=8, description="side in pixels; the 8x8 originals are enlarged bilinearly")
    test_share: float = Field(default=0.2, gt=0, lt=1, description="share of each class that is kept for the test")
    valid_share: float = Field(default=0.0, ge=0, lt=1, description="share of each class that makes a split `valid`")
    classes: int | list[int] | None = Field(
        default=None, description="the first so many classes, or a list of class ids"
    )
    augment: Augmentation = Field(default_factory=lambda: Augmentation(crop_padding=1), description="training views")

    def open(self) -> MemoryDataset:
        return open_digits(self)


def open_digits(options: DigitsOptions) -> MemoryDataset:
    """Grey digits, enlarged to ``image_size``; each class is split in the same shares into train, valid and test."""
    rows = torch.from_numpy(_rows())
    images = rows[:, :64].reshape(-1, 1, 8, 8).float() * (255 / 16)
    if options.image_size != images.shape[-1]:
        images = functional.interpolate(images, size=options.image_size, mode="bilinear", align_corners=False)
    pixels = images.round().clamp(0, 255).to(torch.uint8)
    labels, kept = choose_classes(rows[:, 64], options.classes, NUM_CLASSES)
    data = {}
    for split, members in _split(labels, len(kept), options.valid_share, options.test_share).items():
        data[split] = Split(pixels[members], labels[members])
    return MemoryDataset(
        "digits",
        data,
        num_classes=len(kept),
        class_names=[str(digit) for digit in kept],
        augment=options.augment,
    )


def _rows() -> np.ndarray:
    """(1797, 65) int64: 64 pixels from 0 to 16 and the digit, out of scikit-learn's own file.

    Its ``load_digits`` gives the same; but to import scikit-learn takes longer than an epoch on this set.
    """
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise UserError("data set digits: scikit-learn, which holds it, is not installed: pip install 'lsc[data]'")
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    return np.loadtxt(file, delimiter=",", dtype=np.int64)


def _split(labels: Tensor, num_classes: int, valid_share: float, test_share: float) -> dict[str, Tensor]:
    """Split -> ascending positions of its images. Labels of -1 belong to no split."""
    parts: dict[str, list[Tensor]] = {"train": [], "valid": [], "test": []}
    order = random_bits(0, SAMPLE, torch.arange(len(labels))).argsort()
    for label in range(num_classes):
        members = order[labels[order] == label]
        in_test, in_valid = round(test_share * len(members)), round(valid_share * len(members))
        parts["test"].append(members[:in_test])
        parts["valid"].append(members[in_test : in_test + in_valid])
        parts["train"].append(members[in_test + in_valid :])
    joined = {split: torch.cat(part).sort().values for split, part in parts.items()}
    return {split: members for split, members in joined.items() if split != "valid" or len(members)}
