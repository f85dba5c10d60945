"""A trained run's folder as an object: :class:`~lsc.trained.classifier.Classifier`, with further classes and its export."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lsc.errors import UserError
from lsc.trained.classifier import Classifier
from lsc.trained.export import export
from lsc.trained.extending import extend
from lsc.training.weights import load_task


class Trained(Classifier):
    """A finished run's folder: what its encoder makes of images, and what can be made of the run.

    Images are files, PIL images or uint8 arrays (H, W) or (H, W, 3) of any size, which are cut and resized as the run's own test
    images are, or a tensor (B, C, H, W) of the run's shape, uint8 or floats as its data set gave them::

        trained = lsc.load("my_run")
        trained.classify(["cat.jpg", "dog.jpg"], k=3, unknown=0.05)

    Attributes:
        folder: of the run.
        run: its settings.
        restored: encoder and objective with what they were trained on.
    """

    def extend(
        self, images: Any, names: Sequence[str] | None = None, *, out: str | Path, enrol: bool = False
    ) -> "Trained":
        """Teach new classes without training, into a folder of its own; see :func:`lsc.trained.extending.extend`.

        Args:
            images: a folder with a folder of images for each class, or with a table of them; or images, of which ``names`` has
                the classes.
            names: class of each image.
            out: folder of the extended run, which must not exist or be empty.
            enrol: by examples alone, also where the run kept the sums of its read-out.

        Raises:
            UserError: what is wrong with the images, the names or the run, in one line; nothing is written then.
        """
        extend(self, images, names, out=Path(out), enrol=enrol)
        given = self.run.encoder.name == "given"
        backbone = copy.deepcopy(self.task.encoder.backbone) if given else None
        return load(out, device=self.device.type, backbone=backbone)

    def export(self, out: str | Path, **options: Any) -> Path:
        """Write the network for use without this library; see :func:`lsc.trained.export.export`, which has the options."""
        return export(self, Path(out), **options)


def load(folder: str | Path, *, device: str = "cpu", backbone: nn.Module | None = None) -> Trained:
    """Open a finished run's folder.

    Args:
        device: "cpu" or "cuda".
        backbone: a network like the one that :func:`lsc.fit` was given, where it was; it takes the trained weights.

    Raises:
        UserError: there is no finished run, or its files are damaged.
    """
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise UserError(f"device {device}: use cpu, or cuda where there is a GPU")
    # What is made to be loaded into is drawn at random; that is to change nothing outside.
    with torch.random.fork_rng(devices=[]):
        return Trained(Path(folder), load_task(Path(folder), device, backbone))
