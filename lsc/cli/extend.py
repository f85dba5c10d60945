"""``lsc extend``: new classes without training."""

from pathlib import Path
from typing import Annotated

import typer

from lsc.cli.inputs import Device, Folder


def extend(
    folder: Folder,
    images: Annotated[
        Path,
        typer.Argument(
            help="Folder with a folder of images for each class, or train/ with these, or a table labels.csv."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the extended run, new or empty.")],
    enrol: Annotated[
        bool, typer.Option("--enrol", help="By examples alone, even if the run kept the sums of its read-out.")
    ] = False,
    device: Device = "cpu",
) -> None:
    """Teach a finished run new classes, without the old images and without training.

    With the sums of the read-out in closed form (a run that was trained with `readout` keeps them) the new classes get centers,
    and the read-out takes them in, for all classes alike. Without, the network stays as it is, and a new class is known by the
    mean of its examples' embeddings beside the old centers.
    """
    from lsc.trained.extending import extend as extend_run
    from lsc.trained.trained import load

    summary = extend_run(load(folder, device=device), images, out=out, enrol=enrol)
    done = summary["extended"]
    way = "the sums of the read-out" if done["by"] == "sums" else "examples alone (nearest center or mean of examples)"
    classes = f"{summary['num_classes']:,} classes, {done['new_classes']:,} of them new"
    print(f"{out}: {classes}, by {way}, from {done['images']:,} images")
