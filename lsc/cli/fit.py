"""``lsc fit``: from a folder of images to a trained run, without a study and without a setting."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lsc.cli.settings import changed
from lsc.cli.train import job_threads, without_collecting
from lsc.errors import UserError
from lsc.settings import merge

if TYPE_CHECKING:
    from lsc.trained.planning import Plan


def fit(
    images: Annotated[
        Path,
        typer.Argument(
            help="Folder, zip or uncompressed tar with a folder of images for each class, or with train/ and perhaps valid/ (or "
            "val/) and test/ that hold these; or a folder with a table labels.csv or labels.parquet."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run, made if need be.")],
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change a setting, e.g. training.duration='50 epochs'; repeatable. Keys: config/README.md."
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="small_cnn, resnet18, resnet50, vit_ti, vit_s, vit_b, torchvision/MODEL, timm/MODEL, or the folder of a "
            "finished run. By default one that suits the images."
        ),
    ] = None,
    frozen: Annotated[
        bool, typer.Option("--frozen", help="Leave the encoder as it is: one pass over the images, no training.")
    ] = False,
    time: Annotated[str | None, typer.Option(help="Train for about so long, e.g. 90s, 10m or 2h.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is random.")] = 0,
    restart: Annotated[bool, typer.Option(help="Discard checkpoints instead of resuming.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; by default SLURM's, else OMP_NUM_THREADS, else all cores.")
    ] = None,
) -> None:
    """Train an encoder on a folder of images, with settings that suit them. Interrupted, it goes on when called again."""
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {device!r}: use auto, cpu or cuda")
    with without_collecting():
        import torch

        from lsc.trained.fitting import train_plan
        from lsc.trained.planning import plan, refuse_place
        from lsc.training.signals import REQUEUE_EXIT_CODE, Interrupted

    refuse_place(out, images)
    torch.set_num_threads(job_threads(threads))
    planned = plan(images, _given(encoder, frozen, time, change or []), device=device, seed=seed)
    try:
        planned, trained = train_plan(planned, out, seconds=time, restart=restart, device=device, say=_say)
    except Interrupted as interruption:
        print(f"lsc: {interruption}", file=sys.stderr)
        sys.exit(REQUEUE_EXIT_CODE)
    summary = trained.summary
    split = summary["final_on"]
    print(f"{summary['final_top1']:.1%} of {planned.dataset.size(split):,} {split} images are classified right")
    _page(planned, out)
    print("next:")
    for command, what in _next(planned, out):
        print(f"  {command}  # {what}")


def _given(encoder: str | None, frozen: bool, time: str | None, changes: list[str]) -> dict[str, Any]:
    """The settings that the command line gives."""
    from lsc.trained.planning import encoder_block, refuse_words

    given = changed({}, changes)
    refuse_words(given, "--set")
    if time is not None and "duration" in (given.get("training") or {}):
        raise UserError("--time: chooses the duration, which --set training.duration gives; leave one of them out")
    if encoder is not None:
        given = merge(encoder_block(encoder), given)
    if frozen:
        start = given.get("encoder") or {}
        if not start.get("weights") and start.get("name") not in ("torchvision", "timm"):
            raise UserError(
                "--frozen: an untrained network would stay untrained; give a trained one, e.g. --encoder torchvision/resnet50"
            )
        if time is not None:
            raise UserError("--frozen: takes one pass over the images, whatever --time; leave one of them out")
        given = merge({"encoder": {**start, "frozen": True}}, given)
    return given


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _page(planned: "Plan", out: Path) -> None:
    """Write the page, or say in a line why there is none."""
    from lsc.trained.page import write_page
    from lsc.trained.trained import load

    try:
        print(f"page: {write_page(load(out), planned.dataset, planned)}")
    except UserError as error:  # it is no part of the run, which is whole
        print(f"no page: {error}")


def _next(planned: "Plan", out: Path) -> list[tuple[str, str]]:
    files = planned.dataset
    split = "test" if "test" in files.splits else "valid" if "valid" in files.splits else "train"
    first = files.path(split, 0) if hasattr(files, "path") else None
    # One in an archive is no file of its own.
    example = os.path.relpath(first) if first is not None and first.is_file() else "picture.png"
    return [
        (f"lsc predict {_quoted(out)} {_quoted(example)}", "the class of an image"),
        (f"lsc evaluate {_quoted(out)}", "the accuracy again"),
        (f"lsc train --config {_quoted(out / 'config.yaml')} --out again --set ...", "the same with other settings"),
    ]


def _quoted(path: Path | str) -> str:
    import shlex

    return shlex.quote(str(path))
