"""Accuracy on images of somebody's own: of a run that was extended, whose data set knows nothing of the new classes."""

import unicodedata
from pathlib import Path
from typing import Any

import torch

from lsc.errors import UserError
from lsc.trained.classifier import Classifier
from lsc.trained.new_classes import images_to_judge


def accuracy(trained: Classifier, root: Path) -> dict[str, Any]:
    """Accuracies on ``root/<class>/*``, each image among all classes of the run.

    Where ``root`` has splits, as folders or in a table, it is judged by test, or by the only one that there is; a warning says
    what was passed over.

    Returns:
        ``split``, where there are splits; ``images``; ``top1`` and, where there are more than 5 classes, ``top5``; for an
        extended run also ``top1_before`` and ``top1_new``, of the classes that it had before it was last extended and of those
        that came with it.

    Raises:
        UserError: a folder has the name of no class, there are several splits without test, or an image cannot be read.
    """
    given, split = images_to_judge(root)
    label_of = {unicodedata.normalize("NFC", name): label for label, name in enumerate(trained.classes)}
    forms = [unicodedata.normalize("NFC", name) for name in given.names]
    strange = sorted(set(forms) - label_of.keys())
    if strange:
        raise UserError(f"{root}: {strange[0]!r} is no class of {trained.folder} ({len(strange)} such classes)")
    wanted = torch.tensor([label_of[form] for form in forms])
    many = len(trained.classes) > 5
    right = trained.predict(given.images, 5 if many else 1) == wanted[:, None]
    result: dict[str, Any] = {} if split is None else {"split": split}
    result |= {"images": len(wanted), "top1": right[:, 0].double().mean().item()}
    if many:
        result["top5"] = right.any(1).double().mean().item()
    extended = trained.summary.get("extended")
    if extended is not None:
        for name, part in (
            ("before", wanted < extended["classes_before"]),
            ("new", wanted >= extended["classes_before"]),
        ):
            result[f"top1_{name}"] = right[part, 0].double().mean().item() if bool(part.any()) else None
    return result
