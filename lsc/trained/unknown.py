"""When an image is of none of the classes: a threshold on the score, set by images of known classes that no training saw.

If an image of a known class is exchangeable with the n held-out ones, its score is below their j-th smallest with probability
j / (n + 1) at most: that is split conformal prediction (Vovk, Gammerman and Shafer, "Algorithmic learning in a random world",
2005). So the rate of false alarms is held whatever the distribution of the scores; how many images of unknown classes are noticed
depends on how unlike they are.
"""

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lsc.data.base import Dataset
from lsc.errors import UserError
from lsc.files import save_tensors
from lsc.trained.ranking import ranked
from lsc.training.weights import Restored, read_tensors, weights_digest

# Kept in the run's folder, so that it is looked for once, and the run can be used where its images are not.
KNOWN_SCORES = "known_scores.safetensors"

# Held-out images, evenly spaced: so many tell a rate of 5 % to half a percent.
_IMAGES = 10_000


class Known(NamedTuple):
    """The best scores of held-out images of known classes."""

    scores: Tensor  # (N,) float32, ascending
    source: str  # whose images: data set and split

    def threshold(self, rate: float) -> float:
        """The score below which at most a share ``rate`` of the images of known classes lies.

        Raises:
            UserError: it is no share between 0 and 1, or there are too few images for so small a rate.
        """
        check_rate(rate)
        place = int(rate * (len(self.scores) + 1))
        if place < 1:
            raise UserError(
                f"--unknown {rate}: needs {1 / rate:.0f} held-out images or more, and {self.source} has {len(self.scores)}; "
                "take a higher rate, or give --threshold"
            )
        return float(self.scores[place - 1])


def check_rate(rate: float) -> None:
    """Raise a UserError where a rate of false alarms is no share between 0 and 1."""
    if not 0 < rate < 1:  # nor is it "not a number"
        raise UserError(f"--unknown {rate}: must lie between 0 and 1, e.g. 0.05")


def check_threshold(threshold: float) -> None:
    """Raise a UserError where nothing, or everything, would lie below a threshold, whatever its score."""
    if not math.isfinite(threshold):
        raise UserError(f"--threshold {threshold}: must be a number that scores can be compared with, e.g. 0.5")


def known_scores(folder: Path, restored: Restored) -> Known:
    """The best scores of up to 10,000 held-out images of a run's own data, out of its folder or computed now.

    Raises:
        UserError: the run's data cannot be opened, or has no split beside the training images.
    """
    path = folder / KNOWN_SCORES
    key = {
        "weights": weights_digest(folder),
        "num_classes": str(restored.num_classes),
        "normalised_by": json.dumps([restored.mean, restored.std]),
    }
    if path.exists():
        tensors, about = read_tensors(path)
        if key.items() <= about.items():
            return Known(tensors["scores"], about["source"])
    known = _computed(folder, restored)
    about = key | {"source": known.source}
    with suppress(UserError):  # somebody else's folder, perhaps: then it is computed again the next time
        save_tensors(path, {"scores": known.scores}, about)
    return known


def _computed(folder: Path, restored: Restored) -> Known:
    try:
        dataset: Dataset = restored.run.data.open()
    except UserError as error:
        raise UserError(f"{folder}: no held-out images to set a threshold by ({error}); give --threshold") from None
    split = next((split for split in ("valid", "test") if split in dataset.splits), None)
    if split is None or dataset.image_shape != restored.image_shape:
        raise UserError(
            f"{folder}: no held-out images to set a threshold by ({dataset.name} has neither valid nor test of shape "
            f"{restored.image_shape}); give --threshold"
        )
    # By the statistics that the run has, whatever the images have now.
    dataset = dataset.normalised_by(restored.mean, restored.std)
    size = dataset.size(split)
    chosen = torch.linspace(0, size - 1, min(size, _IMAGES)).round().long()
    task, parts = restored.task, []
    device = next(task.parameters()).device
    with torch.no_grad():
        for batch in dataset.eval_batches(split, 256, device=device, subset=chosen):
            parts.append(ranked(task.objective, task.encoder(batch.images).float())[1][:, 0].cpu())
    return Known(torch.cat(parts).sort().values, f"{dataset.name}/{split}")
