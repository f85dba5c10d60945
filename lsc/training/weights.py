"""The weights in a run's folder: written when it ends, restored without its data set."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lsc.data.base import Dataset, normalised
from lsc.encoders.weights import Statistics
from lsc.errors import UserError
from lsc.files import save_tensors
from lsc.objectives import CenterObjective
from lsc.objectives.examples import WithExamples
from lsc.training import records
from lsc.training.building import build_task, taken_means
from lsc.training.run import Run, read_run
from lsc.training.task import Task

# Beside the objective's own state: centers that came from a teacher's class means have no formula to make them again.
_CLASS_MEANS = "class_means"


class Described(Protocol):
    """What the weights' files say of the images and classes: of a data set, or of restored weights."""

    @property
    def num_classes(self) -> int: ...

    @property
    def image_shape(self) -> tuple[int, int, int]: ...

    @property
    def mean(self) -> tuple[float, ...]: ...

    @property
    def std(self) -> tuple[float, ...]: ...

    @property
    def class_names(self) -> list[str] | None: ...


class Renormalised(nn.Module):
    """A backbone that was trained on images normalised by other statistics than those that it is given."""

    scale: Tensor
    shift: Tensor

    def __init__(self, backbone: nn.Module, have: Statistics, wanted: Statistics) -> None:
        super().__init__()
        self.backbone = backbone
        (mean, std), (own_mean, own_std) = (
            torch.tensor(part, dtype=torch.float64)[..., None, None] for part in (have, wanted)
        )
        self.register_buffer("scale", (std / own_std).float())
        self.register_buffer("shift", ((mean - own_mean) / own_std).float())

    def forward(self, images: Tensor) -> Any:
        if self.scale.device != images.device:  # made after the network was sent there
            self.to(images.device)
        return self.backbone(images * self.scale + self.shift)


@dataclass(frozen=True)
class Restored:
    """A trained task with what is needed to give it images."""

    task: Task
    run: Run
    num_classes: int
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: list[str] | None

    def sees(self, dataset: Dataset) -> None:
        """From now on give the encoder images as a data set normalises them; it was trained on images by its own statistics."""
        backbone = self.task.encoder.backbone
        if isinstance(backbone, Renormalised):
            backbone = backbone.backbone
        have, wanted = (dataset.mean, dataset.std), (self.mean, self.std)
        if have != wanted and dataset.is_normalised and self.mean:
            backbone = Renormalised(backbone, have, wanted)
        self.task.encoder.backbone = backbone

    def normalise(self, images: Tensor) -> Tensor:
        """(B, C, H, W) uint8 images as the encoder takes them, float32."""
        return normalised(images, self.mean, self.std)

    def name_of(self, label: int) -> str:
        """The class's name, or its number where classes have none."""
        return str(label) if self.class_names is None else self.class_names[label]


def save_task(folder: Path, task: Task, run: Run, described: Described) -> None:
    """Write ``encoder.safetensors`` and ``objective.safetensors``, each with what is needed to use it alone.

    Classes that examples stand for are written beside them, to ``examples.safetensors``.
    """
    objective: nn.Module = task.objective
    num_classes = described.num_classes
    if isinstance(task.objective, WithExamples):
        known: CenterObjective = task.objective.known
        save_tensors(
            folder / records.EXAMPLES, {"sums": task.objective.sums.cpu(), "counts": task.objective.counts.cpu()}
        )
        objective, num_classes = known, known.num_classes
    about = {
        "run": run.name,
        "digest": run.digest,
        "num_classes": str(num_classes),
        "image_shape": json.dumps(described.image_shape),
        "mean": json.dumps(described.mean),
        "std": json.dumps(described.std),
        "class_names": json.dumps(described.class_names),
    }
    for name, module in ((records.ENCODER, task.encoder), (records.OBJECTIVE, objective)):
        tensors = {key: value.cpu().contiguous() for key, value in module.state_dict().items()}
        means = taken_means(task, run)
        if name == records.OBJECTIVE and means is not None:
            tensors[_CLASS_MEANS] = means
        save_tensors(folder / name, tensors, about)


def load_task(folder: Path, device: str | torch.device = "cpu", backbone: nn.Module | None = None) -> Restored:
    """The trained task of a run's folder, in evaluation mode.

    Args:
        backbone: a network like the one that :func:`lsc.fit` was given, where it was; it takes the weights.

    Raises:
        UserError: the folder holds no finished run, or its files are damaged or of another configuration.
    """
    if not (folder / records.SUMMARY).exists():
        raise UserError(
            f"{folder}: no finished run ({records.SUMMARY} is missing); train it first, see lsc train --help"
        )
    try:
        run = read_run(folder / records.CONFIG)
    except UserError as error:
        raise UserError(f"{error}; written by another version of lsc? then train again") from None
    encoder, about = read_tensors(folder / records.ENCODER)
    objective, _ = read_tensors(folder / records.OBJECTIVE)
    if about.get("digest") != run.digest or "num_classes" not in about:
        raise UserError(
            f"{folder / records.ENCODER}: of other settings or an older version than {records.CONFIG} beside it; train again"
        )
    num_classes, image_shape = int(about["num_classes"]), tuple(json.loads(about["image_shape"]))
    task = build_task(run, image_shape, num_classes, class_means=objective.pop(_CLASS_MEANS, None), backbone=backbone)
    for name, module, tensors in (
        (records.ENCODER, task.encoder, encoder),
        (records.OBJECTIVE, task.objective, objective),
    ):
        try:
            module.load_state_dict(tensors)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{folder / name}: does not fit the run ({reason}); train again") from None
    if (folder / records.EXAMPLES).exists():
        examples, _ = read_tensors(folder / records.EXAMPLES)
        assert isinstance(task.objective, CenterObjective)
        task.objective = WithExamples(task.objective, examples["sums"], examples["counts"])
    mean, std = tuple(json.loads(about["mean"])), tuple(json.loads(about["std"]))
    names = json.loads(about["class_names"])
    return Restored(task.to(device).eval(), run, task.objective.num_classes, image_shape, mean, std, names)


def weights_digest(folder: Path) -> str:
    """Twelve hex digits over the encoder's weights in a run's folder, whatever the file says of classes and settings.

    Raises:
        UserError: the file cannot be read.
    """
    path = folder / records.ENCODER
    try:
        with path.open("rb") as stream:
            stream.seek(int.from_bytes(stream.read(8), "little"), 1)  # past the header, whose length comes first
            return hashlib.file_digest(stream, "sha256").hexdigest()[:12]
    except (OSError, OverflowError) as error:
        raise UserError(f"{path}: damaged or missing ({error}); train again") from None


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file and what it says of itself."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: damaged or missing ({error}); train again") from None
