"""Latent space configuration: train image encoders on any number of classes with predefined class centers.

The front door. Names are imported when they are asked for, so that ``import lsc`` takes no time.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lsc.centers import Centers as Centers
    from lsc.centers import CodedCenters as CodedCenters
    from lsc.centers.assignment import similarity_assignment as similarity_assignment
    from lsc.data import open_dataset as open_dataset
    from lsc.encoders import Encoder as Encoder
    from lsc.encoders import build_encoder as build_encoder
    from lsc.encoders.closed_form import ClosedFormReadout as ClosedFormReadout
    from lsc.errors import UserError as UserError
    from lsc.objectives import CenterSoftmax as CenterSoftmax
    from lsc.objectives import Cosine as Cosine
    from lsc.objectives import CrossEntropy as CrossEntropy
    from lsc.objectives import Euclidean as Euclidean
    from lsc.objectives import OrbitSoftmax as OrbitSoftmax
    from lsc.objectives import PartialFC as PartialFC
    from lsc.systems import OrbitSystem as OrbitSystem
    from lsc.systems import parse_system as parse_system
    from lsc.trained import CenterClassifier as CenterClassifier
    from lsc.trained import Trained as Trained
    from lsc.trained import fit as fit
    from lsc.trained import load as load

    __version__: str

_PLACES = {
    "Centers": "lsc.centers",
    "CodedCenters": "lsc.centers",
    "similarity_assignment": "lsc.centers.assignment",
    "open_dataset": "lsc.data",
    "Encoder": "lsc.encoders",
    "build_encoder": "lsc.encoders",
    "UserError": "lsc.errors",
    "CenterSoftmax": "lsc.objectives",
    "ClosedFormReadout": "lsc.encoders.closed_form",
    "Cosine": "lsc.objectives",
    "CrossEntropy": "lsc.objectives",
    "Euclidean": "lsc.objectives",
    "OrbitSoftmax": "lsc.objectives",
    "PartialFC": "lsc.objectives",
    "OrbitSystem": "lsc.systems",
    "parse_system": "lsc.systems",
    "CenterClassifier": "lsc.trained",
    "Trained": "lsc.trained",
    "fit": "lsc.trained",
    "load": "lsc.trained",
}

__all__ = [*_PLACES, "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("lsc")
        except PackageNotFoundError:  # run from a source tree that was never installed
            return "0+unknown"
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'lsc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
