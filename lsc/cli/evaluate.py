"""``lsc evaluate``: how often a trained run is right."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lsc.cli.inputs import Folder
from lsc.errors import UserError


def evaluate(
    folder: Folder,
    split: Annotated[
        str | None,
        typer.Option(
            help="train, valid or test; by default that by which the run was judged, test where there is one."
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Other images instead: a folder with a folder for each class, named as the classes are, or with a table; its "
            "test/ where it has splits."
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 512,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Accuracy of a trained run on a split of its data set, or on other images of its classes, as JSON."""
    if images is not None:
        if split is not None:
            raise UserError("--images: names images by itself; leave out --split")
        _evaluate_images(folder, images, device)
        return
    from lsc.data import open_dataset
    from lsc.training.devices import make_fabric
    from lsc.training.evaluation import evaluate as evaluate_task
    from lsc.training.outcome import final_split
    from lsc.training.weights import load_task

    trained = load_task(folder)
    fabric = make_fabric(trained.run.training, device)
    trained.task.to(fabric.device)
    dataset = open_dataset(trained.run.data)
    split = split or final_split(dataset)
    dataset.check_split(split)
    if (dataset.num_classes, dataset.class_names) != (trained.num_classes, trained.class_names):
        raise UserError(
            f"{folder}: trained on other classes than {dataset.name} has now, {trained.num_classes} then and "
            f"{dataset.num_classes} now: put back the classes and their names, or train again; give --images for an extended run"
        )
    # Those of the weights, where the encoder started from trained ones.
    dataset = dataset.normalised_by(trained.mean, trained.std)
    result = evaluate_task(trained.task, dataset, split, fabric=fabric, batch_size=batch_size)
    print(json.dumps({"run": trained.run.name, "split": split, "images": dataset.size(split)} | result))


def _evaluate_images(folder: Path, images: Path, device: str) -> None:
    import torch

    from lsc.trained.judging import accuracy
    from lsc.trained.trained import load

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    print(json.dumps({"run": str(folder), "folder": str(images)} | accuracy(load(folder, device=device), images)))
