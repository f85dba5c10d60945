"""The keyed permutation: one to one, inverted, different for every key, and like a random one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lsc.centers.permutation import Permutation


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 3000), st.integers(0, 2**32))
def test_it_is_a_permutation_with_its_inverse(size: int, seed: int) -> None:
    everything = torch.arange(size)
    permutation = Permutation(size, seed)
    images = permutation(everything)
    assert torch.equal(images.sort().values, everything)
    assert torch.equal(permutation.inverse(images), everything)


@pytest.mark.parametrize("size", [10**9 + 7, 86_295_231_360, 2**62])
def test_huge_sizes_are_inverted_without_a_table(size: int) -> None:
    number = torch.randint(size, (4, 250), generator=torch.Generator().manual_seed(0))
    images = Permutation(size, 5)(number)
    assert 0 <= int(images.min()) <= int(images.max()) < size
    assert torch.equal(Permutation(size, 5).inverse(images), number)


def test_images_look_random() -> None:
    size = 1_000_003
    images = Permutation(size, 1)(torch.arange(size)).double()
    neighbours = torch.corrcoef(torch.stack([images[:-1], images[1:]]))[0, 1]
    identity = torch.corrcoef(torch.stack([images, torch.arange(size).double()]))[0, 1]
    other_key = torch.corrcoef(torch.stack([images, Permutation(size, 2)(torch.arange(size)).double()]))[0, 1]
    assert max(abs(neighbours), abs(identity), abs(other_key)) < 0.005
    # A random permutation has about one fixed point.
    assert (images == torch.arange(size)).sum() < 10


def test_values_are_fixed_for_ever() -> None:
    """A changed permutation would give the classes of every checkpoint other centers."""
    assert Permutation(1_282_556, 0)(torch.arange(4)).tolist() == FROZEN


FROZEN = [373320, 1153254, 1169713, 591642]
