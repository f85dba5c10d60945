"""Training from Python: any backbone on any data set, with the loop, the checkpoints and the records of the workflow."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from lsc.checks import described
from lsc.data import DatasetOptions, parse_options
from lsc.data.base import Dataset
from lsc.data.given import Given
from lsc.encoders.given import fingerprint_of
from lsc.errors import UserError
from lsc.settings import merge
from lsc.trained.trained import Trained, load
from lsc.training.loop import train
from lsc.training.run import run_from


def fit(
    backbone: nn.Module | str,
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
            a read-out takes to the latent space; or the name of one of :data:`lsc.encoders.ENCODERS`. It is trained in
            place.
        data: the training set: a map-style torch data set of (image or tensor, label), see :class:`lsc.data.given.Given`;
            or a data set of ours, as :func:`lsc.data.open_dataset` gives it; or its name or block of options.
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
