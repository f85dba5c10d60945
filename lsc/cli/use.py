"""``lsc evaluate`` and ``lsc predict``: use a trained run."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lsc.errors import UserError

Folder = Annotated[Path, typer.Argument(help="Folder of a finished run.")]


def evaluate(
    folder: Folder,
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 512,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Accuracy of a trained run on a split of its data set, as JSON."""
    from lsc.data import open_dataset
    from lsc.training.devices import make_fabric
    from lsc.training.evaluation import evaluate as evaluate_task
    from lsc.training.weights import load_task

    trained = load_task(folder)
    fabric = make_fabric(trained.run.training, device)
    trained.task.to(fabric.device)
    dataset = open_dataset(trained.run.data)
    dataset.check_split(split)
    if (dataset.num_classes, dataset.class_names) != (trained.num_classes, trained.class_names):
        raise UserError(
            f"{folder}: trained on other classes than {dataset.name} has now, {trained.num_classes} then and "
            f"{dataset.num_classes} now: put back the classes and their names, or train again"
        )
    # Those of the weights, where the encoder started from trained ones.
    dataset.mean, dataset.std = trained.mean, trained.std
    result = evaluate_task(trained.task, dataset, split, fabric=fabric, batch_size=batch_size)
    print(json.dumps({"run": trained.run.name, "split": split, "images": dataset.size(split)} | result))


def predict(
    folder: Folder,
    images: Annotated[list[Path], typer.Argument(help="Image files, JPEG or PNG.")],
    k: Annotated[int, typer.Option(min=1, help="How many classes for each image.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """The nearest classes of images: a line per image with its name and the classes, best first, tab-separated."""
    from lsc.trained.trained import load

    trained = load(folder, device=device)
    for path in images:
        labels = trained.predict(path, k)[0].tolist()
        print("\t".join([str(path), *(trained.classes[label] for label in labels)]))
