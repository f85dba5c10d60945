"""Systems by name, as configurations and the command line give them."""

import re

from lsc.errors import UserError
from lsc.systems.base import System
from lsc.systems.explicit import ExplicitSystem, gaussian, intrinsic, one_hot, orthoplex, polygon, simplex
from lsc.systems.orbit import OrbitSystem

NAMES = "A (the roots, the same as V11), Vpm such as V21, V22 or V33, simplex, orthoplex, one_hot, gaussian, polygon, A_intrinsic"


def parse_system(name: str, dim: int | None, num_classes: int) -> System:
    """The system called ``name`` in ``dim`` dimensions; None means the least dimension that holds ``num_classes``.

    Errors: an unknown name or a dimension too small is a :class:`~lsc.errors.UserError` that names the remedy.
    """
    if num_classes < 1:
        raise UserError(f"number of classes {num_classes}: must be 1 or more")
    orbit = _parse_orbit(name)
    if orbit is not None:
        return _orbit(name, *orbit, dim, num_classes)
    if name == "simplex":
        least = max(num_classes, 2) - 1
        return simplex(least + 1, _at_least(name, dim, least, num_classes))
    if name == "orthoplex":
        return orthoplex(_at_least(name, dim, (num_classes + 1) // 2, num_classes))
    if name == "one_hot":
        return one_hot(_at_least(name, dim, num_classes, num_classes))
    if name == "gaussian":
        # Random directions have no least dimension; the roots' is a fair default.
        return gaussian(num_classes, dim or OrbitSystem.smallest(num_classes).dim)
    if name == "polygon":
        if dim not in (None, 2):
            raise UserError(f"system polygon lives in 2 dimensions, not {dim}: set the dimension to 2")
        return polygon(num_classes)
    if name == "A_intrinsic":
        system = _orbit(name, 1, 1, None if dim is None else dim + 1, num_classes)
        return _renamed(intrinsic(system), name)
    raise UserError(f"system {name!r} is unknown: use one of {NAMES}")


def _parse_orbit(name: str) -> tuple[int, int] | None:
    if name == "A":
        return 1, 1
    match = re.fullmatch(r"V(\d)(\d)", name)
    if match is None or match.group(0) == "V00":
        return None
    return int(match.group(1)), int(match.group(2))


def _orbit(name: str, plus: int, minus: int, dim: int | None, num_classes: int) -> OrbitSystem:
    least = OrbitSystem.smallest(num_classes, plus, minus)
    shown = least.dim - 1 if name == "A_intrinsic" else least.dim
    if dim is not None and dim < least.dim:
        given = dim - 1 if name == "A_intrinsic" else dim
        raise UserError(
            f"system {name} in {given} dimensions cannot hold {num_classes} classes: use {shown} dimensions or more"
        )
    return least if dim is None else OrbitSystem(plus, minus, dim)


def _at_least(name: str, dim: int | None, least: int, num_classes: int) -> int:
    if dim is not None and dim < least:
        raise UserError(
            f"system {name} in {dim} dimensions cannot hold {num_classes} classes: use {least} dimensions or more"
        )
    return least if dim is None else dim


def _renamed(system: ExplicitSystem, name: str) -> ExplicitSystem:
    return ExplicitSystem(system.matrix, name)
