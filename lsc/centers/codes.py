"""Codes: vectors of ones, zeros and minus-ones at two bits a coordinate, for systems too rich to be numbered.

A quarter of ones and a quarter of minus-ones in 512 coordinates make some 10^229 vectors, which no index names, and a random
direction has a cosine of 0.9 to the nearest of them. So a class owns the vector itself, packed: four coordinates a byte, the
first in the lowest bits, 0 for a zero, 1 for a one and 2 for a minus-one.
"""

import torch
from torch import Tensor

from lsc.errors import UserError
from lsc.hashing import random_bits, random_normal
from lsc.systems import OrbitSystem

# Rounds in which codes that repeat each other are moved apart; one or two are the rule.
_ROUNDS = 100
_ROWS_AT_ONCE = 8192
# Vectors that a system must have for each class, so that classes find free ones near what they ask for.
RICHNESS = 4


def pack(vectors: Tensor) -> Tensor:
    """Codes (N, ceil(dim / 4)) uint8 of ``vectors`` (N, dim) of ones, zeros and minus-ones."""
    digits = (vectors == 1).to(torch.uint8) + 2 * (vectors == -1).to(torch.uint8)
    digits = torch.nn.functional.pad(digits, (0, -vectors.shape[1] % 4)).reshape(
        len(vectors), -(-vectors.shape[1] // 4), 4
    )
    return digits[..., 0] | digits[..., 1] << 2 | digits[..., 2] << 4 | digits[..., 3] << 6


def unpack(codes: Tensor, dim: int) -> Tensor:
    """Vectors (..., dim), float32, of ``codes`` (..., ceil(dim / 4)): one look-up for four coordinates."""
    digits = torch.arange(256, device=codes.device)[:, None] >> torch.tensor([0, 2, 4, 6], device=codes.device) & 3
    values = (digits == 1).float() - (digits == 2).float()
    return values[codes.long()].flatten(-2)[..., :dim]


def nearest_codes(directions: Tensor, system: OrbitSystem) -> Tensor:
    """Codes (N, ceil(dim / 4)) of the vectors of ``system`` nearest to ``directions`` (N, dim), exactly.

    Ones on the largest coordinates and minus-ones on the smallest: exchanging two entries of a vector that is not so makes
    its dot product no smaller. Of equal coordinates the first get the ones and the last the minus-ones.

    Raises:
        UserError: a direction is not finite.
    """
    if not bool(torch.isfinite(directions).all()):
        raise UserError("a direction that a code is sought for is not finite: lower training.learning_rate")
    parts = [_nearest(part, system) for part in torch.split(directions, _ROWS_AT_ONCE)]
    return torch.cat(parts) if parts else pack(directions)


def _nearest(directions: Tensor, system: OrbitSystem) -> Tensor:
    order = directions.sort(dim=1, descending=True, stable=True).indices
    vectors = torch.zeros_like(order, dtype=torch.int8)
    vectors.scatter_(1, order[:, : system.plus], 1)
    vectors.scatter_(1, order[:, system.dim - system.minus :], -1)
    return pack(vectors)


def random_codes(labels: Tensor, system: OrbitSystem, seed: int) -> Tensor:
    """A random code (N, ceil(dim / 4)) for each of ``labels`` (N,): a function of the seed and the label alone."""
    words = torch.arange(-(-system.dim // 4), device=labels.device)
    # Ranks of random numbers of 16 bits, four out of each hash.
    parts = [
        _nearest(random_bits(seed, part[:, None], words).view(torch.int16)[:, : system.dim], system)
        for part in torch.split(labels, _ROWS_AT_ONCE)
    ]
    return torch.cat(parts) if parts else pack(torch.zeros(0, system.dim, device=labels.device))


def keys(codes: Tensor) -> Tensor:
    """A hash (N,) int64 of each code: codes with different hashes differ."""
    words = torch.nn.functional.pad(codes, (0, -codes.shape[1] % 8)).contiguous().view(torch.int64)
    return random_bits(0, *words.unbind(1))


def distinct(codes: Tensor, system: OrbitSystem, seed: int = 0) -> Tensor:
    """``codes`` (N, ceil(dim / 4)), where a row that repeats an earlier one gets a code near it; all others keep theirs.

    It is drawn: the vector nearest to the old one in noise, which grows as long as another row has the outcome.

    Args:
        seed: of the noise, which depends on the row besides.

    Raises:
        UserError: the system has hardly more vectors than there are rows.
    """
    check_room(system, len(codes))
    codes = codes.clone()
    rows = _repeats(codes)
    for attempt in range(_ROUNDS):
        if not len(rows):
            return codes
        settled = torch.ones(len(codes), dtype=torch.bool, device=codes.device)
        settled[rows] = False
        for part in torch.split(rows, _ROWS_AT_ONCE):
            noise = random_normal(seed, attempt, part[:, None], torch.arange(system.dim, device=codes.device)).float()
            codes[part] = _nearest(unpack(codes[part], system.dim) + 0.25 * 1.25**attempt * noise, system)
        order = torch.cat([settled.nonzero()[:, 0], rows])
        rows = order[_repeats(codes[order])]
    raise UserError(f"{len(codes)} classes find no codes of their own in {system.name}: use more dimensions")


def check_room(system: OrbitSystem, num_classes: int) -> None:
    """Refuse a system in which classes could not be given codes of their own, near what they ask for."""
    if system.capacity < RICHNESS * num_classes:
        raise UserError(
            f"{num_classes} classes need a system of four times as many vectors to own codes; {system.name} in {system.dim} "
            f"dimensions has {system.capacity}: use more dimensions"
        )


def _repeats(codes: Tensor) -> Tensor:
    """Rows (R,) whose code an earlier row has."""
    hashes, order = keys(codes).sort(stable=True)
    return order[1:][hashes[1:] == hashes[:-1]].sort().values
