"""Training from Python: any backbone on any data set, with the loop, the checkpoints and the records of the workflow."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from lsc.checks import described
from lsc.data import DATASETS, DatasetOptions, parse_options
from lsc.data.base import Dataset
from lsc.data.given import Given
from lsc.encoders.given import fingerprint_of
from lsc.errors import UserError
from lsc.files import looking_at
from lsc.settings import merge
from lsc.trained.budget import fitted, pace_of, seconds_of
from lsc.trained.planning import Plan, begun, encoder_block, plan, refuse_place
from lsc.trained.trained import Trained, load
from lsc.training.loop import train
from lsc.training.run import Run, run_from


def fit(
    backbone: nn.Module | str | None,
    data: Any,
    out: str | Path,
    *,
    valid: Any = None,
    test: Any = None,
    workers: int = 0,
    seed: int = 0,
    restart: bool = False,
    device: str = "auto",
    **settings: Any,
) -> Trained:
    """Train a backbone with class centers, and write a run's folder: weights, records, checkpoints.

    Called again with the same arguments it goes on from its last checkpoint, to the bit where the data set is
    deterministic; a folder of another configuration is refused.

    Args:
        backbone: a network from images (B, C, H, W), or from whatever tensors the data set has, to features (B, F), which
            a read-out takes to the latent space; or the name of one of :data:`lsc.encoders.ENCODERS`; for a folder of
            images also ``torchvision/MODEL``, ``timm/MODEL`` or the folder of a finished run, as ``lsc fit --encoder`` takes
            them. A module is trained in place. None: what suits the images, where these are a folder.
        data: the training set: a map-style torch data set of (image or tensor, label), see :class:`lsc.data.given.Given`;
            or a folder of images, for which all settings that are not given are chosen by :mod:`lsc.trained.advice`, as
            ``lsc fit`` does (a path, or with None as backbone a block ``{"name": "folder", "root": ..., ...}``); or a data
            set of ours, as :func:`lsc.data.open_dataset` gives it, its name or block of options.
        out: folder of the run.
        valid, test: further torch data sets, to be scored on as it trains and at the end; without a test set the run is
            judged on the last split there is.
        workers: loading processes for torch data sets.
        seed: of everything that is random.
        restart: begin anew instead of going on from a checkpoint.
        device: "auto", "cpu" or "cuda".
        settings: blocks of a run's settings as a study has them, e.g. ``objective={"name": "cosine"}`` (the default),
            ``centers={"system": "V22", "dim": 64}``, ``training={"duration": "20 epochs"}``, ``encoder={"hidden": 2048}``.

    Returns:
        the trained run, as :func:`lsc.load` opens its folder; ``.summary["final_top1"]`` is its accuracy.

    Raises:
        UserError: a mistake in the settings or the data, in one line.
    """
    folder = _folder(data, backbone)
    if folder is not None:
        if valid is not None or test is not None:
            raise UserError("valid and test belong to a torch data set; a folder has valid/ and test/")
        settings = merge(settings, {"data": {key: value for key, value in folder.items() if key != "root"}})
        return _fit_folder(
            backbone, Path(folder["root"]), Path(out), settings, seed=seed, restart=restart, device=device
        )
    if backbone is None:
        raise UserError("backbone: give a torch module or the name of an encoder; None is for a folder of images")
    dataset, block = _data(data, valid, test, workers)
    run = run_from(
        merge(
            {
                "seed": seed,
                "data": block,
                "encoder": _encoder(backbone),
                "objective": {"name": "cosine"},
                "training": {"batch_size": min(64, dataset.size("train"))},
            },
            settings,
        ),
        "lsc.fit",
    )
    module = backbone if isinstance(backbone, nn.Module) else None
    train(run, Path(out), restart=restart, accelerator=device, dataset=dataset, backbone=module)
    return load(out, backbone=None if module is None else copy.deepcopy(module))


def train_plan(
    planned: Plan,
    out: Path,
    *,
    seconds: str | None = None,
    restart: bool = False,
    device: str = "auto",
    backbone: nn.Module | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Plan, Trained]:
    """Train what was planned for a folder of images.

    Args:
        seconds: how long, as ``10m``; a run that goes on keeps the duration that it began with.
        say: takes the lines about what was found and chosen.

    Returns:
        the plan as it was trained, and the run.
    """
    for line in planned.lines:
        say(line)
    if seconds is not None:
        planned, line = _in_time(planned, seconds_of(seconds), None if restart else begun(out), device)
        say(f"  {line}")
    train(planned.run, out, restart=restart, accelerator=device, dataset=planned.dataset, backbone=backbone)
    return planned, load(out, backbone=None if backbone is None else copy.deepcopy(backbone))


def _in_time(planned: Plan, seconds: float, earlier: Run | None, device: str) -> tuple[Plan, str]:
    """The plan with a duration for so many seconds, and a line that says it. What was given stays as it is."""
    chosen = {key for choice in planned.choices for key in choice.settings.get("training", {})}
    keys = [key for key in ("duration", "warmup", "evaluate_every") if key in chosen]
    if earlier is not None:
        kept = {key: earlier.plain()["training"][key] for key in keys}
        change, line = kept, f"time: goes on with the {kept['duration']} that it began with"
    else:
        every = None if "evaluate_every" in chosen else planned.run.training.evaluate_every
        pace = pace_of(planned.run, planned.dataset, device)
        change, line = fitted(planned.run, planned.dataset, pace, seconds, every)
    change = {key: change[key] for key in keys}
    run = run_from(merge(planned.run.plain(), {"training": change}), "--time")
    return replace(planned, run=run), line


def _fit_folder(
    backbone: nn.Module | str | None,
    folder: Path,
    out: Path,
    settings: dict[str, Any],
    *,
    seed: int,
    restart: bool,
    device: str,
) -> Trained:
    refuse_place(out, folder)
    if isinstance(backbone, str):
        settings = merge(encoder_block(backbone), settings)
    elif backbone is not None:
        settings = merge({"encoder": _encoder(backbone)}, settings)
    planned = plan(folder, settings, device=device, seed=seed, where="lsc.fit")
    module = backbone if isinstance(backbone, nn.Module) else None
    return train_plan(planned, out, restart=restart, device=device, backbone=module)[1]


def _folder(data: Any, backbone: Any) -> dict[str, Any] | None:
    """The options of the folder of images that ``data`` names; None where it is something else.

    A set's name goes before a folder of that name. A block of a folder's options is advised on where no backbone is given;
    with one, its options are taken as they are.
    """
    if isinstance(data, Path):
        return {"root": str(data)}
    if isinstance(data, str) and data not in DATASETS and ":" not in data:
        with looking_at(data):
            there = Path(data).exists()
        if there:
            return {"root": data}
    if backbone is None and isinstance(data, Mapping) and data.get("name") == "folder" and "root" in data:
        return dict(data)
    return None


def _data(data: Any, valid: Any, test: Any, workers: int) -> tuple[Dataset, Any]:
    """The open data set, and its block of settings."""
    ours = isinstance(data, str | Mapping | DatasetOptions | Dataset)
    if ours and (valid is not None or test is not None):
        raise UserError("valid and test belong to a torch data set; a data set of ours has its own splits")
    if isinstance(data, str):
        data = {"name": data}
    if isinstance(data, Mapping):
        options = dict(data)
        data = parse_options(str(options.pop("name", "")), **options)
    if isinstance(data, DatasetOptions):
        return data.open(), data
    dataset = (
        data if isinstance(data, Dataset) else Given({"train": data, "valid": valid, "test": test}, workers=workers)
    )
    return dataset, {"name": "given", "fingerprint": dataset.fingerprint}


def _encoder(backbone: nn.Module | str) -> dict[str, Any]:
    if isinstance(backbone, str):
        return {"name": backbone}
    if not isinstance(backbone, nn.Module):
        raise UserError(f"backbone: give a torch module or the name of an encoder, not {described(backbone)}")
    return {"name": "given", "kind": type(backbone).__name__, "fingerprint": fingerprint_of(backbone)}
