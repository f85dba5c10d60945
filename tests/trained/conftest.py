"""Finished runs on eight digits, and pictures of all ten in folders."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.io import write_png

from lsc.data import open_dataset
from lsc.settings import merge
from lsc.training.loop import train
from tests.conftest import tiny_run

EIGHT: dict[str, Any] = {
    "data": {"classes": 8, "image_size": 8, "valid_share": 0.2},
    "encoder": {"width": 8, "hidden": 96},
    "centers": {"dim": 16},
    "training": {"duration": "6 epochs", "batch_size": 64, "evaluate_every": 6},
}
READOUT = {"start": "10 steps", "every": "10 steps"}


def make_run(out: Path, **changes: Any) -> Path:
    train(tiny_run(**merge(EIGHT, changes)), out, accelerator="cpu")
    return out


@pytest.fixture(scope="session")
def with_sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight digits, cosine to centers, the read-out in closed form, whose sums are kept."""
    return make_run(tmp_path_factory.mktemp("runs") / "with_sums", readout=READOUT)


@pytest.fixture(scope="session")
def without_sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight digits, cosine to centers, every layer trained by steps."""
    return make_run(tmp_path_factory.mktemp("runs") / "without_sums")


@pytest.fixture(scope="session")
def with_layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight digits, cross-entropy of a classification layer."""
    changes = {"objective": {"name": "cross_entropy"}}
    return make_run(tmp_path_factory.mktemp("runs") / "with_layer", **changes)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/<digit>/*.png of 20 images each and test/<digit>/*.png of all there are, 8x8 pixels."""
    root = tmp_path_factory.mktemp("pictures")
    dataset = open_dataset("digits", image_size=8, valid_share=0.2)
    for split, most in (("train", 20), ("test", 100)):
        labels = dataset.labels(split)
        for digit in range(10):
            chosen = (labels == digit).nonzero().flatten()[:most]
            folder = root / split / str(digit)
            folder.mkdir(parents=True)
            for number, image in enumerate(dataset.images(split, chosen)):
                write_png(image.contiguous(), str(folder / f"{number:03d}.png"))
    return root


def only(root: Path, split: str, digits: list[int], out: Path) -> Path:
    """A folder with links to some of the class folders."""
    out.mkdir(parents=True)
    for digit in digits:
        (out / str(digit)).symlink_to(root / split / str(digit))
    return out


def file_labels(paths: list[Path]) -> torch.Tensor:
    return torch.tensor([int(path.parent.name) for path in paths])
