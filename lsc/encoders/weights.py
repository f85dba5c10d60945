"""Trained weights for a backbone: out of a file, out of a finished run, or out of the cache of the package that made it.

Nothing is downloaded here: a job on a cluster has no internet, and what it computes should not depend on a server.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from lsc.errors import UserError
from lsc.files import looking_at

Statistics = tuple[tuple[float, ...], tuple[float, ...]]

# Where training programs put the weights within what they save.
_WITHIN = ("state_dict", "model_state_dict", "model", "state_dict_ema")


def load_backbone(backbone: nn.Module, source: str) -> Statistics | None:
    """Give a backbone trained weights.

    Every weight of the backbone must be in the file; what else is there, such as a classification layer, is left out.

    Args:
        source: a state dict (``.pth``, ``.pt``, ``.bin``, ``.safetensors``), the folder of a finished run, or ``cached``
            for the published weights of torchvision's and timm's models, where they lie on this machine already.

    Returns:
        mean and deviation per channel by which the images were normalised in the training of these weights, where that
        is known.

    Raises:
        UserError: there is no such file, it cannot be read, or its weights are not those of this backbone.
    """
    path = _path(backbone, source)
    weights, about = _read(path)
    weights = _unprefixed(weights)
    target = getattr(backbone, "model", None) if hasattr(backbone, "cached") else None
    module = (
        target if isinstance(target, nn.Module) and not any(key.startswith("model.") for key in weights) else backbone
    )
    wanted = module.state_dict()
    for name, value in wanted.items():
        if name not in weights and name.endswith("num_batches_tracked"):
            weights[name] = value  # older files lack the counter, on which no result depends
        elif name not in weights:
            raise UserError(f"encoder.weights {path}: has no {name}: weights of another network")
        elif weights[name].shape != value.shape:
            raise UserError(
                f"encoder.weights {path}: {name} has shape {tuple(weights[name].shape)}, here {tuple(value.shape)}: weights "
                "of another network, or for images of other channels"
            )
    module.load_state_dict({name: weights[name] for name in wanted})
    if not json.loads(about.get("mean", "[]")):  # not a run's, or a run's on floats that were taken as they are
        return None
    return tuple(json.loads(about["mean"])), tuple(json.loads(about["std"]))


def _path(backbone: nn.Module, source: str) -> Path:
    if source == "cached":
        look = getattr(backbone, "cached", None)
        if look is None:
            raise UserError(
                "encoder.weights cached: torchvision's and timm's models have published weights alone; give a file"
            )
        found: Path = look()
        return found
    path = Path(source)
    with looking_at(f"encoder.weights {source}"):
        if path.is_dir():
            path /= "encoder.safetensors"
        there = path.is_file()
    if not there:
        raise UserError(
            f"encoder.weights {source}: {path} is not there; give a state dict (.pth, .safetensors), the folder of a finished "
            "run, or cached"
        )
    return path


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, and what a run's file says of itself."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the readers run into; they run no code of the file
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"encoder.weights {path}: cannot be read as weights ({reason}); give a state dict") from None
    for name in _WITHIN:
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    if not isinstance(found, dict):
        raise UserError(f"encoder.weights {path}: holds {type(found).__name__}, no state dict; save model.state_dict()")
    return {str(key): value for key, value in found.items() if isinstance(value, Tensor)}, {}


def _unprefixed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefix of torch's wrapper for several processes, and of a run's encoder its backbone alone."""
    weights = {key.removeprefix("module."): value for key, value in weights.items()}
    own = {key.removeprefix("backbone."): value for key, value in weights.items() if key.startswith("backbone.")}
    return own or weights
