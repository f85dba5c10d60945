"""A trained run in use: embeddings and classes of images, with their scores."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from lsc.checks import check_count, described
from lsc.data.decoding import central_part, view
from lsc.errors import UserError
from lsc.trained.images import is_picture, loaded, pixels_of, read_pixels, refuse_picture
from lsc.trained.ranking import ranked, score_of
from lsc.trained.unknown import Known, check_rate, check_threshold, known_scores
from lsc.training import records
from lsc.training.task import Task
from lsc.training.weights import Restored

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    Picture: TypeAlias = str | Path | Image.Image | np.ndarray
    # One picture or several of any size, or a tensor of the run's own shape.
    Images: TypeAlias = Tensor | Picture | Sequence[Picture]

UNKNOWN = "unknown"

# Images that go through the network at a time.
_BATCH = 256


class Prediction(NamedTuple):
    """A class that an image may be of."""

    name: str
    score: float  # cosine to the class's center, or probability of a classification layer
    label: int  # -1 for an image that is of no known class


class Embedded(NamedTuple):
    """A batch of files: the embeddings of those that were read, in their order, and what is wrong with the others."""

    paths: list[Path]
    embeddings: Tensor  # (B, dim) float32 on the CPU, of the files without an entry in ``faults``
    faults: dict[int, str]  # place in ``paths`` -> one line


class Classifier:
    """A trained encoder with its classes. The data set that it was trained on is not needed.

    Images are files, PIL images or uint8 arrays (H, W) or (H, W, 3) of any size, which are cut and resized as the run's own test
    images are, or a tensor (B, C, H, W) of the run's shape, uint8 or floats as its data set gave them.

    Attributes:
        folder: of the run.
        run: its settings.
        restored: encoder and objective with what they were trained on.
    """

    def __init__(self, folder: Path, restored: Restored) -> None:
        self.folder, self.run = folder, restored.run
        self.restored = restored

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.folder)!r}, {self.restored.num_classes:,} classes, dim={self.task.encoder.dim})"

    @cached_property
    def classes(self) -> list[str]:
        """Names, one per class; numbers where classes have none."""
        return [self.restored.name_of(label) for label in range(self.restored.num_classes)]

    @property
    def task(self) -> Task:
        """Encoder and objective, as torch modules in evaluation mode."""
        return self.restored.task

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the images that it takes."""
        return self.restored.image_shape

    @property
    def summary(self) -> dict[str, Any]:
        """What came out of the training: the content of ``summary.json``."""
        return records.read_json(self.folder / records.SUMMARY)

    @property
    def score(self) -> str:
        """What a score is: ``cosine`` of embedding and center, or ``probability`` by the softmax of a classification layer."""
        return score_of(self.task.objective)

    def embed(self, images: "Images") -> Tensor:
        """Embeddings of images: float32 (B, dim), on the CPU.

        Raises:
            UserError: a file that is no image, a tensor of another shape, or pictures where the run was trained on none.
        """
        parts = [self._embedded(batch) for batch in self.views(images)]
        return torch.cat(parts) if parts else torch.zeros(0, self.task.encoder.dim)

    def embed_files(
        self, paths: Sequence[Path], *, batch_size: int = _BATCH, workers: int | None = None
    ) -> Iterator[Embedded]:
        """Embeddings of many files, batch by batch, read by several threads; a file that does not decode stops nothing.

        Args:
            workers: reading threads; by default one for each core of the job.

        Raises:
            UserError: the run was trained on tensors that are no pictures.
        """
        self.check_pictures()
        for batch in loaded(paths, self.read, batch_size=batch_size, workers=workers):
            none = torch.zeros(0, self.task.encoder.dim)
            yield Embedded(batch.paths, self._embedded(batch.images) if len(batch.images) else none, batch.faults)

    @torch.no_grad()
    def predict(self, images: "Images", k: int = 1) -> Tensor:
        """The ``k`` most likely classes of images: int64 (B, k), best first, on the CPU; ``classes`` has their names."""
        embeddings = self.embed(images).to(self.device)
        return self.task.objective.predict(embeddings, k).cpu()

    def ranked(self, embeddings: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """The ``k`` most likely classes of embeddings (B, dim): int64 labels and float32 scores (B, k), on the CPU."""
        labels, scores = ranked(self.task.objective, embeddings.to(self.device), k)
        return labels.cpu(), scores.cpu()

    def classify(
        self, images: "Images", k: int = 1, *, unknown: float | None = None, threshold: float | None = None
    ) -> list[list[Prediction]]:
        """The ``k`` most likely classes of each image with their scores, best first.

        Args:
            unknown: share of images of known classes that may be called unknown by mistake, e.g. 0.05; see :meth:`threshold`.
            threshold: call an image unknown whose best score is below it, instead.

        Returns:
            a list for each image; of an image that is called unknown that alone, with its best score and label -1.

        Raises:
            UserError: as :meth:`embed` and :meth:`threshold`; or a threshold that is no finite number.
        """
        check_count(k)
        if unknown is not None:
            threshold = self.threshold(unknown)
        if threshold is not None:
            check_threshold(threshold)
        answers = []
        for labels, scores in zip(*(part.tolist() for part in self.ranked(self.embed(images), k)), strict=True):
            if threshold is not None and not scores[0] >= threshold:  # as "not a number" is, too
                answers.append([Prediction(UNKNOWN, scores[0], -1)])
            else:
                pairs = zip(labels, scores, strict=True)
                answers.append([Prediction(self.classes[label], score, label) for label, score in pairs])
        return answers

    def threshold(self, rate: float = 0.05) -> float:
        """The score below which at most a share ``rate`` of images of known classes lies.

        It is set by held-out images of the run's own data, which are looked at once: their scores stay in the run's folder.

        Raises:
            UserError: there are no such images, or too few for the rate.
        """
        check_rate(rate)
        return self.known_scores().threshold(rate)

    def known_scores(self) -> Known:
        """The best scores of held-out images of the run's own data, computed once and then kept in its folder.

        Raises:
            UserError: there are no such images.
        """
        return known_scores(self.folder, self.restored)

    def read(self, path: str | Path) -> Tensor:
        """An image file as the network takes it: uint8 (C, H, W), cut or resized as the set's own test images are.

        A large JPEG file is decoded at a fraction of its size, which differs by a few levels from an image decoded elsewhere.

        Raises:
            UserError: it cannot be read or does not decode.
        """
        photograph = self.run.data.photographs
        return self._view(read_pixels(path, central_part if photograph else None, self.image_shape[-1]))

    @property
    def takes_pictures(self) -> bool:
        """Whether the run takes images, and not tensors of another kind.

        Floats of somebody's own, of whatever shape, were normalised by their data set in a way that the run does not know.
        """
        shape = self.image_shape
        return len(shape) == 3 and shape[0] in (1, 3) and bool(self.restored.mean)

    def check_pictures(self) -> None:
        """Refuse pictures, of files or any other kind, where the run was trained on tensors that are none.

        Raises:
            UserError: the run was trained on such tensors.
        """
        if not self.takes_pictures:
            floats = "" if self.restored.mean else "float "
            raise UserError(
                f"{self.folder}: was trained on {floats}tensors of shape {self.image_shape}, not on images; give tensors as its "
                "data set gave them"
            )

    def _view(self, image: Tensor) -> Tensor:
        self.check_pictures()
        channels, height, width = self.image_shape
        photograph = self.run.data.photographs
        shown = view(image, central_part, height) if photograph else resize(image, [height, width], antialias=True)
        return shown.float().mean(0, keepdim=True).round().byte() if channels == 1 else shown

    def normalise(self, images: Tensor) -> Tensor:
        """(B, C, H, W) images, uint8 or floats between 0 and 255, as the encoder takes them, float32."""
        return self.restored.normalise(images)

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return next(self.task.parameters()).device

    @torch.no_grad()
    def _embedded(self, images: Tensor) -> Tensor:
        return self.task.encoder(self.normalise(images.to(self.device))).float().cpu()

    def views(self, images: "Images") -> Iterator[Tensor]:
        """Batches of images as the network takes them, (B, C, H, W), not normalised."""
        if isinstance(images, Tensor):
            if tuple(images.shape[1:]) != tuple(self.image_shape) or len(images.shape) < 2:
                raise UserError(f"images must have shape {('B', *self.image_shape)}, not {described(images)}")
            if images.dtype == torch.uint8 and not self.restored.mean:
                raise UserError(
                    f"{self.folder}: was trained on float tensors, not on uint8 ones; give floats as its data set gave them"
                )
            yield from torch.split(images, _BATCH) if len(images) else ()
            return
        given = [images] if is_picture(images) else _as_list(images)
        if given:
            self.check_pictures()
        if given and all(isinstance(image, str | Path) for image in given):
            for batch in loaded([Path(str(path)) for path in given], self.read):
                if batch.faults:
                    raise UserError(next(iter(batch.faults.values())))
                yield batch.images
            return
        for start in range(0, len(given), _BATCH):
            yield torch.stack([self._seen(image) for image in given[start : start + _BATCH]])

    def _seen(self, image: Any) -> Tensor:
        """Any one picture as the network takes it."""
        if not is_picture(image):
            raise refuse_picture(image)
        return self.read(image) if isinstance(image, str | Path) else self._view(pixels_of(image))


def _as_list(images: Any) -> list[Any]:
    try:
        return list(images)
    except TypeError:
        raise refuse_picture(images) from None
