"""The sums that a run's read-out was solved from, kept in its folder: what later classes need of the earlier ones.

They are of F^2 + F dim numbers, whatever the number of classes and of images (:mod:`lsc.encoders.closed_form`), and no image can
be had back from them.
"""

from pathlib import Path

import torch
from torch import Tensor

from lsc.encoders.closed_form import ClosedFormReadout
from lsc.errors import UserError
from lsc.files import save_tensors
from lsc.training import records
from lsc.training.last_layer import sums_for
from lsc.training.options import ReadoutOptions
from lsc.training.run import Run
from lsc.training.task import Task
from lsc.training.weights import read_tensors, weights_digest


def save_sums(folder: Path, sums: ClosedFormReadout, num_classes: int) -> None:
    """Write ``sums.safetensors`` beside the encoder that they belong to, which is already written.

    Args:
        num_classes: of how many classes the images in the sums are.
    """
    tensors: dict[str, Tensor] = {key: value.cpu().contiguous() for key, value in sums.state_dict().items()}
    about = {"weights": weights_digest(folder), "num_classes": str(num_classes)}
    save_tensors(folder / records.SUMS, tensors, about)


def load_sums(folder: Path, task: Task, run: Run) -> tuple[ClosedFormReadout, int] | None:
    """The sums of a run's folder, and of how many classes they are; None where the run kept none.

    Raises:
        UserError: the file is damaged, or belongs to other weights than those beside it.
    """
    path = folder / records.SUMS
    if not path.exists():
        return None
    tensors, about = read_tensors(path)
    if about.get("weights") != weights_digest(folder):
        raise UserError(f"{path}: belongs to other weights than {records.ENCODER} beside it; train again")
    device = next(task.parameters()).device
    sums = sums_for(task, run.readout or ReadoutOptions(), device)
    sums.load_state_dict(tensors)
    return sums, int(about["num_classes"])


def images_in(sums: ClosedFormReadout) -> float:
    """How many images were taken in, by their weights: the sum of the squares of the activation that is always 1."""
    return float(torch.as_tensor(sums.gram[-1, -1]))
