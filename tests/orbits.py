"""Brute force for the tests: every vector of a small orbit system, listed without the library."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import permutations
from unittest.mock import patch

import torch
from hypothesis import strategies as st
from torch import Tensor

from lsc.systems import OrbitSystem, search

KINDS = ("normal", "integers", "bfloat16", "one-hot", "constant", "huge")


def listed(system: OrbitSystem) -> Tensor:
    """All vectors, float64 (capacity, dim), in no particular order."""
    base = [1.0] * system.plus + [-1.0] * system.minus + [0.0] * (system.dim - system.plus - system.minus)
    return torch.tensor(sorted(set(permutations(base))), dtype=torch.float64)


@st.composite
def orbit_systems(draw: st.DrawFn, max_dim: int = 9, least_capacity: int = 1) -> OrbitSystem:
    plus, minus = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    if plus + minus == 0:
        plus = 1
    dim = draw(st.integers(plus + minus, max(max_dim, plus + minus)))
    system = OrbitSystem(plus, minus, dim)
    return system if system.capacity >= least_capacity else OrbitSystem(plus, minus, dim + 1)


def scores_of_all(system: OrbitSystem, z: Tensor, index: Tensor) -> Tensor:
    """Dot products of every row of ``z`` (B, dim) with every vector of ``index`` (C,): float32 (B, C)."""
    return system.scores(z, index.expand(len(z), -1))


def embeddings(kind: str, batch: int, dim: int, seed: int) -> Tensor:
    """Random embeddings, some of which tie a lot."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(batch, dim, generator=generator)
    if kind == "integers":
        return z.round()
    if kind == "bfloat16":
        return z.bfloat16()
    if kind == "one-hot":
        return torch.eye(dim)[torch.randint(dim, (batch,), generator=generator)]
    if kind == "constant":
        return torch.ones(batch, dim) * torch.randint(-1, 2, (batch, 1), generator=generator)
    return z * 1e4 if kind == "huge" else z


@contextmanager
def searched(listed: bool) -> Iterator[None]:
    """Nearest vectors are searched by listing, which small systems are spared; or else as the package chooses."""
    with patch.object(search, "looking_cost", lambda *_: 1e18) if listed else nullcontext():
        yield
