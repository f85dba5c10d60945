"""A keyed random permutation of 0..size-1 that is computed, never stored, with its inverse.

A generalised Feistel network on numbers left * width + right with modular addition instead of exclusive or, and cycle
walking where height * width exceeds the size (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002).
"""

from dataclasses import dataclass
from functools import lru_cache
from math import isqrt

import torch
from torch import Tensor

from lsc.hashing import random_bits
from lsc.tracing import constant_in_traces

_ROUNDS = 6
# Of so few numbers outside, the longest walk through them is worked out. Of more, that is of sizes above 2^32, a walk of so
# many steps is no longer met: its chance is less than size^-3.
_OUTSIDE, _STEPS = 2**16, 8
_NON_NEGATIVE = 2**63 - 1


@dataclass(frozen=True)
class Permutation:
    """Permutation of the integers 0..size-1 (size up to 2^62) given by ``seed``, for int64 tensors of any shape."""

    size: int
    seed: int = 0

    @property
    def _width(self) -> int:
        return isqrt(max(self.size, 1) - 1) + 1  # the square root, rounded up

    @property
    def _height(self) -> int:
        return -(-self.size // self._width)

    def __call__(self, number: Tensor) -> Tensor:
        """Images of ``number``."""
        return self._walk(number, list(range(_ROUNDS)), 1)

    def inverse(self, image: Tensor) -> Tensor:
        """The numbers whose images are ``image``."""
        return self._walk(image, list(reversed(range(_ROUNDS))), -1)

    def _walk(self, number: Tensor, order: list[int], sign: int) -> Tensor:
        out = self._rounds(number, order, sign)
        # height * width is less than size + width, so almost every walk ends after one step.
        if number.device.type == "cpu":
            while bool((outside := out >= self.size).any()):
                out = torch.where(outside, self._rounds(out, order, sign), out)
            return out
        for _ in range(_longest_walk(self.size, self.seed)):  # elsewhere a look would wait for the device
            out = torch.where(out >= self.size, self._rounds(out, order, sign), out)
        return out

    def _rounds(self, number: Tensor, order: list[int], sign: int) -> Tensor:
        left, right = torch.div(number, self._width, rounding_mode="floor"), number % self._width
        for step in order:
            if step % 2:
                right = (right + sign * self._noise(step, left, self._width)) % self._width
            else:
                left = (left + sign * self._noise(step, right, self._height)) % self._height
        return left * self._width + right

    def _noise(self, step: int, half: Tensor, modulus: int) -> Tensor:
        return (random_bits(self.seed, step, half) & _NON_NEGATIVE) % modulus


@constant_in_traces
def _longest_walk(size: int, seed: int) -> int:
    """The most steps that a walk takes through numbers outside; one way as the other, for it goes along the same circles."""
    return _walked(size, seed)


@lru_cache(maxsize=64)
def _walked(size: int, seed: int) -> int:
    permutation = Permutation(size, seed)
    whole = permutation._width * permutation._height
    if whole - size > _OUTSIDE:
        return _STEPS
    forwards = list(range(_ROUNDS))
    outside = torch.arange(size, whole)
    # Those that are entered from inside: a circle that lies outside as a whole is never met.
    walkers = outside[permutation._rounds(outside, forwards[::-1], -1) < size]
    steps = 0
    while len(walkers):
        walkers = permutation._rounds(walkers, forwards, 1)
        walkers = walkers[walkers >= size]
        steps += 1
    return steps
