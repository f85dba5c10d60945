"""The interval of a median: against tables, and against counting how often it holds the truth."""

import numpy as np
import pytest

from lsc.cost.interval import median_interval


@pytest.mark.parametrize(
    ("count", "first"), [(1, 1), (5, 1), (6, 1), (8, 1), (9, 2), (20, 6), (40, 14), (60, 22), (100, 40)]
)
def test_its_ends_are_those_of_the_tables(count: int, first: int) -> None:
    """Ranks of the 95 % interval as statistics books print them, e.g. 6 and 15 of 20 values."""
    median, low, high = median_interval([float(value) for value in range(count, 0, -1)])
    assert (median, low, high) == ((count + 1) / 2, first, count + 1 - first)


def test_it_holds_the_true_median_as_often_as_it_says() -> None:
    chance = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        _, low, high = median_interval(chance.lognormal(size=40))
        hits += low <= 1 <= high
    assert 0.945 <= hits / 2000 <= 0.985


def test_no_values_have_no_median() -> None:
    with pytest.raises(ValueError, match="no values"):
        median_interval([])
