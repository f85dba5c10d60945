"""A trained run's folder as an object: embeddings and classes of images."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import resize

from lsc.checks import described
from lsc.data.decoding import central_view, decode
from lsc.errors import UserError
from lsc.training import records
from lsc.training.task import Task
from lsc.training.weights import Restored, load_task

Images = Tensor | str | Path | Sequence[str | Path]

# Images that go through the network at a time.
_BATCH = 256


class Trained:
    """A trained encoder with its classes. The data set that it was trained on is not needed.

    Attributes:
        folder: of the run.
        run: its settings.
    """

    def __init__(self, folder: Path, restored: Restored) -> None:
        self.folder, self.run = folder, restored.run
        self._restored = restored

    def __repr__(self) -> str:
        return f"Trained({str(self.folder)!r}, {self._restored.num_classes:,} classes, dim={self.task.encoder.dim})"

    @cached_property
    def classes(self) -> list[str]:
        """Names, one per class; numbers where classes have none."""
        return [self._restored.name_of(label) for label in range(self._restored.num_classes)]

    @property
    def task(self) -> Task:
        """Encoder and objective, as torch modules in evaluation mode."""
        return self._restored.task

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the images that it takes."""
        return self._restored.image_shape

    @property
    def summary(self) -> dict[str, Any]:
        """What came out of the training: the content of ``summary.json``."""
        return records.read_json(self.folder / records.SUMMARY)

    @torch.no_grad()
    def embed(self, images: Images) -> Tensor:
        """Embeddings of images: float32 (B, dim), on the CPU.

        Args:
            images: uint8 (B, C, H, W) of the run's shape, floats as the data set gave them, or files.

        Raises:
            UserError: a file that is no image, or a tensor of another shape.
        """
        parts = []
        for batch in self._batches(images):
            device = next(self.task.parameters()).device
            parts.append(self.task.encoder(self._restored.normalise(batch.to(device))).float().cpu())
        return torch.cat(parts) if parts else torch.zeros(0, self.task.encoder.dim)

    @torch.no_grad()
    def predict(self, images: Images, k: int = 1) -> Tensor:
        """The ``k`` most likely classes of images: int64 (B, k), best first, on the CPU; ``classes`` has their names."""
        embeddings = self.embed(images).to(next(self.task.parameters()).device)
        return self.task.objective.predict(embeddings, k).cpu()

    def read(self, path: str | Path) -> Tensor:
        """An image file as the network takes it: uint8 (C, H, W), cut or resized as the set's own test images are.

        Raises:
            UserError: it cannot be read or does not decode.
        """
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; give image files") from None
        channels, height, width = self.image_shape
        image = decode(content, str(path), "give JPEG or PNG files")
        photograph = self.run.data.photographs
        view = central_view(image, height) if photograph else resize(image, [height, width], antialias=True)
        return view.float().mean(0, keepdim=True).round().byte() if channels == 1 else view

    def _batches(self, images: Images) -> list[Tensor]:
        if isinstance(images, Tensor):
            if tuple(images.shape[1:]) != tuple(self.image_shape) or len(images.shape) < 2:
                raise UserError(f"images must have shape {('B', *self.image_shape)}, not {described(images)}")
            return list(torch.split(images, _BATCH)) if len(images) else []
        files = [images] if isinstance(images, str | Path) else list(images)
        return [torch.stack([self.read(path) for path in files[i : i + _BATCH]]) for i in range(0, len(files), _BATCH)]


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
    return Trained(Path(folder), load_task(Path(folder), device, backbone))
