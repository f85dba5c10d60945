"""``lsc embed``: the embeddings of images, into a file."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from lsc.cli.inputs import BatchSize, Device, Folder, FromFile, Inputs, Workers, paths_from
from lsc.errors import UserError
from lsc.files import refuse_unwritable


def embed(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="File: .parquet, .safetensors or .npz.")],
    images: Inputs = None,
    listing: FromFile = None,
    classes: Annotated[bool, typer.Option("--classes", help="Also the nearest class of each, with its score.")] = False,
    device: Device = "cpu",
    batch_size: BatchSize = 256,
    workers: Workers = None,
) -> None:
    """Write the embeddings of images with their paths to a file, which appears when it is whole.

    A file that does not decode gets a line on stderr and is left out, the others go on, and the exit code is 1.
    """
    refuse_unwritable(out)
    paths = paths_from(images, listing)
    from tqdm import tqdm

    from lsc.trained.embeddings import sink_for
    from lsc.trained.trained import load

    sink = sink_for(out)
    trained = load(folder, device=device)
    faulty = 0
    bar = tqdm(total=len(paths), unit=" images", file=sys.stderr, disable=not sys.stderr.isatty())
    with bar, sink(out, trained, classes) as write:
        for batch in trained.embed_files(paths, batch_size=batch_size, workers=workers):
            write(batch)
            for fault in batch.faults.values():
                bar.write(f"lsc: {fault}", file=sys.stderr)
            faulty += len(batch.faults)
            bar.update(len(batch.paths))
        if faulty == len(paths):
            raise UserError(f"none of the {len(paths):,} files could be read, and nothing was written")
    print(f"{len(paths) - faulty:,} embeddings of {trained.task.encoder.dim} coordinates, {out}")
    if faulty:
        print(f"lsc: {faulty:,} of {len(paths):,} files could not be read", file=sys.stderr)
        raise typer.Exit(1)
