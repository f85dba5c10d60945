"""The counter-based random numbers: uniform, independent of order and shape, and the same on every machine."""

import torch

from lsc.hashing import random_bits, random_normal, random_uniform


def test_values_are_fixed_for_ever() -> None:
    """A changed hash would silently change every fractal and every perturbed center."""
    assert random_bits(0, torch.arange(3)).tolist() == [-7166155506571319895, 1192399376249103064, -8061887577218111480]


def test_one_item_alone_equals_the_same_item_in_a_batch() -> None:
    together = random_bits(7, torch.arange(100)[:, None], torch.arange(5))
    assert together.shape == (100, 5)
    assert random_bits(7, 42, 3) == together[42, 3]


def test_uniform_and_normal_have_the_right_moments() -> None:
    counters = torch.arange(200_000)
    uniform, normal = random_uniform(3, counters), random_normal(3, counters)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.003
    assert abs(uniform.var() - 1 / 12) < 0.001
    assert abs(normal.mean()) < 0.01
    assert abs(normal.std() - 1) < 0.01


def test_neighbouring_seeds_and_counters_are_uncorrelated() -> None:
    counters = torch.arange(100_000)
    streams = torch.stack(
        [
            random_uniform(0, counters),
            random_uniform(1, counters),
            random_uniform(0, counters + 1),
            random_uniform(0, 0, counters),
        ]
    )
    correlation = torch.corrcoef(streams)
    assert (correlation - torch.eye(4)).abs().max() < 0.015


def test_plain_numbers_stay_on_the_device_of_the_tensors() -> None:
    """The meta device stands for a GPU: a result on the CPU would mean a copy, or an error further on."""
    assert random_normal(0, torch.arange(2, device="meta"), 3).device.type == "meta"
