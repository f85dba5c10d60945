"""A trained run's folder as a thing to use: save it, open it, embed and classify with it."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from lsc import records
from lsc.config import Run, read_run
from lsc.data import open_dataset
from lsc.data.base import Dataset
from lsc.errors import UserError
from lsc.files import save_tensors
from lsc.task import Task, build_task


def save_task(folder: Path, task: Task, run: Run, dataset: Dataset) -> None:
    """Write ``encoder.safetensors`` and ``objective.safetensors``, each with what is needed to use it alone."""
    about = {
        "run": run.name,
        "digest": run.digest,
        "image_shape": json.dumps(dataset.image_shape),
        "mean": json.dumps(dataset.mean),
        "std": json.dumps(dataset.std),
        "class_names": json.dumps(dataset.class_names),
    }
    for name, module in ((records.ENCODER, task.encoder), (records.OBJECTIVE, task.objective)):
        save_tensors(
            folder / name, {key: value.cpu().contiguous() for key, value in module.state_dict().items()}, about
        )


def load_task(
    folder: Path, device: str | torch.device = "cpu", *, teacher: Path | None = None
) -> tuple[Task, Run, Dataset]:
    """The trained task of a run's folder, with its settings and its data set.

    Raises:
        UserError: the folder holds no finished run, or its files are damaged or of another configuration.
    """
    if not (folder / records.SUMMARY).exists():
        raise UserError(
            f"{folder}: no finished run ({records.SUMMARY} is missing); train it first, see lsc train --help"
        )
    run = read_run(folder / records.CONFIG)
    dataset = open_dataset(run.data)
    task = build_task(run, dataset, teacher=load_task(teacher)[0] if teacher is not None else None)
    for name, module in ((records.ENCODER, task.encoder), (records.OBJECTIVE, task.objective)):
        path = folder / name
        try:
            module.load_state_dict(load_file(path))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise UserError(f"{path}: does not fit the run ({' '.join(str(error).split())[:200]})") from None
    return task.to(device).eval(), run, dataset


def read_about(path: Path) -> dict[str, Any]:
    """What a saved encoder says of itself: run, digest, image shape, normalisation, class names."""
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a saved encoder ({error})") from None
    return {key: json.loads(value) if value[:1] in "[{n" else value for key, value in about.items()}
