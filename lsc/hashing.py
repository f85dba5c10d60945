"""Random numbers from a counter: the same on every machine, for any item, with nothing stored.

A stream of random numbers is a function of (seed, counters), so the perturbation of class 1,000,000 or the shape of
fractal class 7 can be had alone, in any order, on any device. The mixing function is the finaliser of SplitMix64
(Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), exact in 64-bit integers.
"""

import math

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def _signed(value: int) -> int:
    """The int64 with the same 64 bits as the unsigned ``value``."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch's own keeps the sign)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift(x, 31)


def _mix_number(x: int) -> int:
    """As :func:`_mix`, of an unsigned number: what is known beforehand needs no tensors."""
    x &= _MASK
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _MASK
    return x ^ (x >> 31)


def random_bits(seed: int, *counters: Tensor | int) -> Tensor:
    """64 random bits for every element of the broadcast ``counters``.

    Args:
        seed: any integer; its low 64 bits count.
        counters: int64 tensors (or ints) that broadcast against each other; their order matters.

    Returns:
        int64 tensor of the broadcast shape, on the counters' device, uniform over all 64-bit patterns.
    """
    state: Tensor | int = _mix_number(int(seed) * _GOLDEN + 0x632BE59BD9B4E019)
    for position, counter in enumerate(counters):
        offset = (position + 1) * _GOLDEN
        if isinstance(counter, Tensor):
            # A 0-dim state on the CPU goes along with a tensor on a GPU.
            before = state.to(counter.device) if isinstance(state, Tensor) else _signed(state)
            state = _mix((_mix(counter.long() + _signed(offset)) ^ before) + _signed(_GOLDEN))
        elif isinstance(state, Tensor):
            state = _mix((state ^ _signed(_mix_number(int(counter) + offset))) + _signed(_GOLDEN))
        else:
            state = _mix_number((state ^ _mix_number(int(counter) + offset)) + _GOLDEN)
    return state if isinstance(state, Tensor) else torch.tensor(_signed(state))


def random_uniform(seed: int, *counters: Tensor | int) -> Tensor:
    """Uniform numbers in [0, 1), float64 with 53 random bits; arguments as in :func:`random_bits`."""
    return _shift(random_bits(seed, *counters), 11).to(torch.float64) * 2.0**-53


def random_normal(seed: int, *counters: Tensor | int) -> Tensor:
    """Standard normal numbers, float64 (Box-Muller); arguments as in :func:`random_bits`."""
    radius = (-2.0 * torch.log1p(-random_uniform(seed, *counters, 0))).sqrt()
    return radius * torch.cos(2.0 * math.pi * random_uniform(seed, *counters, 1))
