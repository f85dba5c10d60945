"""A trained run for use without this library: ONNX and torch.export, with what is needed around the network.

The folder that is written::

    model.onnx    for onnxruntime and whatever else reads ONNX
    model.pt2     for torch.export.load, torch alone
    model.json    class names, size of the images, how they are brought to it, what the scores are
    README.md     how to use it, in ten lines that run as they stand

Both models take pixels and give embeddings and the best classes, for any number of images at a time. The centers are inside up to
100,000 classes (:data:`MOST_CLASSES`); of more, their matrix would be larger than the network, and the embedding comes alone.
"""

import copy
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lsc.errors import UserError, needing
from lsc.files import folder_written_whole, refuse_unwritable_folder
from lsc.trained.classifier import Classifier
from lsc.trained.export_readme import readme
from lsc.trained.portable import Portable
from lsc.training.records import write_text

# Classes up to which their centers are in the model: at 512 coordinates 200 MB.
MOST_CLASSES = 100_000

Format = Literal["onnx", "pt2"]
_FORMATS: tuple[Format, ...] = ("onnx", "pt2")
# A protobuf file holds no more; the weights of a larger model lie beside it.
_LARGEST_ONNX = 1_800_000_000


def export(
    trained: Classifier,
    out: Path,
    *,
    k: int = 5,
    formats: tuple[Format, ...] = _FORMATS,
    pixels: Literal["uint8", "float32"] = "uint8",
    unknown: float | None = None,
    most_classes: int = MOST_CLASSES,
) -> Path:
    """Write a trained run to ``out``, a new or empty folder.

    Args:
        k: how many classes the model gives for an image.
        formats: of "onnx" and "pt2".
        pixels: type of the input's values, which are 0 to 255 in both.
        unknown: also write the threshold at which this share of images of known classes is called unknown, e.g. 0.05.
        most_classes: beyond so many classes the model gives embeddings alone.

    Returns:
        the folder.

    Raises:
        UserError: the folder is in use, a package is missing, or the network cannot be exported; nothing is written then.
    """
    refuse_unwritable_folder(out)
    strange = set(formats) - set(_FORMATS)
    if strange or not formats:
        raise UserError(f"formats {', '.join(map(str, formats)) or 'none'}: give onnx, pt2 or both")
    if "onnx" in formats:
        with needing("export", "lsc export"):
            import onnx  # noqa: F401
            import onnxscript  # noqa: F401
    classes = trained.restored.num_classes
    given = min(k, classes) if classes <= most_classes else 0
    pictures = trained.takes_pictures
    about = _about(trained, given, pixels if pictures else "float32")
    if unknown is not None:
        about |= {"threshold": trained.threshold(unknown), "false_alarms": unknown}
    model = copy.deepcopy(Portable(trained, given)).cpu().eval().requires_grad_(False)
    program = exported_program(model, _example(trained, about["pixels"], pictures), trained)
    with folder_written_whole(out) as folder:
        if "pt2" in formats:
            with _quiet():
                torch.export.save(program, folder / "model.pt2")
        if "onnx" in formats:
            _save_onnx(program, folder / "model.onnx", given)
        write_text(folder / "model.json", json.dumps(about, indent=1, ensure_ascii=False) + "\n")
        write_text(folder / "README.md", readme(trained, about, formats))
    return out


def exported_program(model: Portable, example: Tensor, trained: Classifier) -> torch.export.ExportedProgram:
    """The model as torch.export sees it, for any number of images.

    Raises:
        UserError: it holds what cannot be exported, such as a branch on a value.
    """
    try:
        with _quiet(), torch.no_grad():
            return torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    except Exception as error:  # whatever torch makes of somebody's network
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{trained.folder}: its encoder {trained.run.encoder.name} cannot be exported ({reason})"
        ) from error


def _save_onnx(program: torch.export.ExportedProgram, path: Path, given: int) -> None:
    size = sum(value.numel() * value.element_size() for value in program.state_dict.values())
    names = ["embeddings", "labels", "scores"] if given else ["embeddings"]
    with _quiet():
        written = torch.onnx.export(program, dynamo=True, input_names=["images"], output_names=names, verbose=False)
        assert written is not None
        written.save(path, external_data=size > _LARGEST_ONNX)


def _example(trained: Classifier, pixels: str, pictures: bool) -> Tensor:
    """Two images, so that the number of images is not taken for a constant."""
    if not pictures:
        return torch.zeros(2, *trained.image_shape)
    _, height, width = trained.image_shape
    return torch.zeros(2, height, width, 3, dtype=torch.uint8 if pixels == "uint8" else torch.float32)


def _about(trained: Classifier, k: int, pixels: str) -> dict[str, Any]:
    pictures = trained.takes_pictures
    shape = trained.image_shape
    return {
        "classes": trained.classes,
        "score": trained.score,
        "k": k,
        "dim": trained.task.encoder.dim,
        "pixels": pixels,
        "image": [*shape[1:], 3] if pictures else list(shape),
        "resize": ("central" if trained.run.data.photographs else "whole") if pictures else None,
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says of its own exporter."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "torch.fx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
