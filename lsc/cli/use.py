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
    result = evaluate_task(trained.task, dataset, split, fabric=fabric, batch_size=batch_size)
    print(json.dumps({"run": trained.run.name, "split": split, "images": dataset.size(split)} | result))


def predict(
    folder: Folder,
    images: Annotated[list[Path], typer.Argument(help="Image files, JPEG or PNG.")],
    k: Annotated[int, typer.Option(min=1, help="How many classes for each image.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """The nearest classes of images: a line per image with its name and the classes, best first, tab-separated."""
    import torch
    from torchvision.transforms.v2.functional import resize

    from lsc.data.decoding import central_view, decode
    from lsc.training.weights import load_task

    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise UserError(f"--device {device}: use cpu, or cuda where there is a GPU")
    trained = load_task(folder, device)
    channels, height, width = trained.image_shape
    for path in images:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; give image files") from None
        image = decode(content, str(path), "give JPEG or PNG files")
        # As the set's own test images: photographs are cut to their centre, small images are whole.
        image = (
            central_view(image, height)
            if trained.run.data.photographs
            else resize(image, [height, width], antialias=True)
        )
        if channels == 1:
            image = image.float().mean(0, keepdim=True).round().byte()
        with torch.no_grad():
            embedding = trained.task.encoder(trained.normalise(image[None].to(device))).float()
            labels = trained.task.objective.predict(embedding, k)[0].tolist()
        print("\t".join([str(path), *map(trained.name_of, labels)]))
