"""From a folder of images to a run: what is in it, the settings that suit it, and the set opened with them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from lsc.data import parse_options
from lsc.data.base import Dataset
from lsc.data.image_folder import FileOptions, listed_images
from lsc.encoders import ENCODERS
from lsc.errors import UserError
from lsc.files import looking_at, refuse_file
from lsc.settings import merge
from lsc.trained.advice import Choice, Images, advise, settings_of
from lsc.trained.looking import look
from lsc.training.records import CONFIG
from lsc.training.run import Run, read_run, run_from


@dataclass(frozen=True)
class Plan:
    """A run on a folder of images, and how it came about."""

    images: Images
    choices: list[Choice]
    run: Run
    dataset: Dataset

    @property
    def lines(self) -> list[str]:
        """What was found and chosen, and why, for people: a line each."""
        width = max(len(str(choice)) for choice in self.choices) if self.choices else 0
        width = min(width, 60)
        return [str(self.images), *(f"  {str(choice).ljust(width)}  {choice.why}" for choice in self.choices)]


def plan(root: Path, given: Mapping[str, Any], *, device: str = "auto", seed: int = 0, where: str = "--set") -> Plan:
    """The run that the rules advise for a folder, with what is ``given`` laid over it.

    Args:
        given: settings as blocks of a run; they always win.
        device: "auto", "cpu" or "cuda": for what machine.
        where: what the given settings belong to, for messages.

    Raises:
        UserError: there are no images, they are of one class or one colour, or a setting is wrong.
    """
    refuse_words(given, where)
    data = dict(given.get("data") or {})
    if data.pop("name", "folder") != "folder" or "root" in data:
        raise UserError(f"{where} data: the images are those of {root}; for another data set use lsc train")
    given = dict(given) | {"data": {"name": "folder", "root": str(root), **data}}
    options = parse_options("folder", root=str(root), **data)
    assert isinstance(options, FileOptions)
    index, _ = listed_images(options)
    images = look(index, root)
    if options.valid_every and "valid" not in images.splits:
        images = replace(images, splits=(*images.splits, "valid"))  # it is held out in another way
    on = "cuda" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu"
    choices = advise(images, given, on)
    run = run_from(
        merge({"experiment": "fit", "variant": root.resolve().name, "seed": seed}, settings_of(choices, given)), where
    )
    dataset = run.data.open()
    return Plan(images, choices, run, dataset)


def refuse_words(given: Mapping[str, Any], where: str) -> None:
    """Raise a UserError where what is given for a block of settings is none, such as ``objective=cosine``."""
    for key in ("data", "encoder", "centers", "objective", "training"):
        value = given.get(key)
        if value is not None and not isinstance(value, Mapping):
            example = "duration: 20 epochs" if key == "training" else "dim: 64" if key == "centers" else "name: ..."
            raise UserError(f"{where} {key}: must be a block of settings, such as {{{example}}}, got {value!r}")


def encoder_block(name: str, frozen: bool = False) -> dict[str, Any]:
    """The settings that an encoder's short name stands for.

    Args:
        name: of :data:`lsc.encoders.ENCODERS`; ``torchvision/<model>`` or ``timm/<model>``; or the folder of a finished run,
            whose backbone with its weights is taken over, for images of the size that it knows.

    Raises:
        UserError: it is none of them.
    """
    frozen_block = {"frozen": True} if frozen else {}
    package, slash, model = name.partition("/")
    if slash and package in ("torchvision", "timm"):
        return {"encoder": {"name": package, "model": model} | frozen_block}
    with looking_at(f"--encoder {name}"):
        is_run = (Path(name) / CONFIG).is_file()
    if is_run:
        run = read_run(Path(name) / CONFIG)
        block = run.encoder.model_dump(exclude={"hidden", "frozen", "weights"})
        data = {key: getattr(run.data, key) for key in ("image_size", "channels") if hasattr(run.data, key)}
        return {"encoder": block | {"weights": name} | frozen_block, "data": data}
    if name in ENCODERS or ":" in name:
        return {"encoder": {"name": name} | frozen_block}
    known = ", ".join(entry for entry in ENCODERS if entry != "given")
    raise UserError(
        f"--encoder {name}: is no folder of a finished run and none of {known}; of published models write "
        "torchvision/resnet50 or timm/resnet50"
    )


def refuse_place(out: Path, root: Path) -> None:
    """Raise a UserError where a run's folder would lie among the images, as a class of them, or is a file."""
    refuse_file(out)
    inner, outer = (Path(os.path.realpath(path)) for path in (out, root))
    if inner == outer or outer in inner.parents:
        raise UserError(
            f"--out {out}: lies in the folder of images, and would be taken for a class of them; give another folder"
        )


def begun(out: Path) -> Run | None:
    """The run that was begun in a folder, where there is something to go on with."""
    with looking_at(out):
        if not any((out / "checkpoints").glob("*.ckpt")) or not (out / CONFIG).is_file():
            return None
    try:
        return read_run(out / CONFIG)
    except (UserError, yaml.YAMLError):  # of another version: the training says so
        return None
