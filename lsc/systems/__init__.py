"""Vector systems: sets of vectors that know their members, angles and nearest members without listing them."""

from lsc.systems.base import System
from lsc.systems.effort import keep_matrices
from lsc.systems.explicit import ExplicitSystem, gaussian, intrinsic, one_hot, orthoplex, polygon, simplex
from lsc.systems.named import parse_system
from lsc.systems.orbit import OrbitSystem

__all__ = [
    "ExplicitSystem",
    "OrbitSystem",
    "System",
    "gaussian",
    "intrinsic",
    "keep_matrices",
    "one_hot",
    "orthoplex",
    "parse_system",
    "polygon",
    "simplex",
]
