"""``lsc export``: a run for use without this library."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from lsc.cli.inputs import Folder


def export(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="Folder of the export, new or empty.")],
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="How many classes the model gives for an image.")] = 5,
    form: Annotated[
        Literal["onnx", "pt2", "both"], typer.Option("--format", help="ONNX, torch.export or both.")
    ] = "both",
    pixels: Annotated[
        Literal["uint8", "float32"], typer.Option(help="Type of the input; its values are 0 to 255.")
    ] = "uint8",
    unknown: Annotated[
        float | None,
        typer.Option(
            help="Also write the threshold to model.json below which at most this share of held-out images scores, e.g. 0.05."
        ),
    ] = None,
) -> None:
    """Write a finished run as ONNX and torch.export models, pixels in and classes out, with a README that shows their use."""
    from lsc.trained.export import export as export_run
    from lsc.trained.trained import load

    formats: tuple[Literal["onnx", "pt2"], ...] = ("onnx", "pt2") if form == "both" else (form,)
    export_run(load(folder), out, k=k, formats=formats, pixels=pixels, unknown=unknown)
    for path in sorted(out.iterdir()):
        print(f"{path}  {path.stat().st_size:,} bytes")
