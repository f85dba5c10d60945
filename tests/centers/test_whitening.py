"""Whitening: what it makes of variances, and that it is a map of one piece."""

import pytest
import torch

from lsc.centers.whitening import FLOOR, whitening
from lsc.errors import UserError


@pytest.mark.parametrize("power", [0.0, 0.25, 0.4, 0.5])
def test_variances_are_raised_to_what_is_left_of_them(power: float) -> None:
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(500, 6, generator=generator, dtype=torch.float64) * torch.tensor([9.0, 5, 3, 2, 1, 0.01]) + 7
    matrix, origin = whitening(means, power)
    assert torch.allclose(origin, means.mean(0))
    mapped = (means - origin) @ matrix.T
    variances = [torch.linalg.eigvalsh(x.T @ x / 500) for x in (means - origin, mapped)]
    expected = (
        (variances[0] * (variances[0] ** (1 - power) / (variances[0] + FLOOR * variances[0][-1])) ** 2).sort().values
    )
    assert torch.allclose(variances[1], expected, rtol=1e-6)
    # Far above the floor that is the power; the smallest is far below it, and stays small.
    left = variances[0][2:] ** (1 - 2 * power)
    assert torch.allclose(variances[1][2:] / variances[1][-1], left / left[-1], rtol=0.06)
    assert variances[1][0] < 0.02 * variances[1][1]
    # Turned: no coordinate has what one had before.
    assert mapped.var(0).max() < 0.8 * mapped.var(0).sum()


def test_directions_in_which_classes_do_not_differ_are_not_blown_up() -> None:
    """Three classes in ten dimensions: what is outside of their plane is noise."""
    means = torch.randn(3, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix, origin = whitening(means, 0.5)
    gains = torch.linalg.svdvals(matrix)
    assert gains[2] < 0.02 * gains[0]  # of rounding alone
    assert torch.allclose(((means - origin) @ matrix.T).square().mean(0).sum(), torch.tensor(2.0).double(), rtol=0.01)


def test_the_seed_turns_it() -> None:
    means = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    (one, origin), (other, _), (again, _) = (whitening(means, 0.4, seed) for seed in (1, 2, 1))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)
    x = means.double() - origin
    assert torch.allclose((x @ one.T) @ (x @ one.T).T, (x @ other.T) @ (x @ other.T).T)


def test_means_that_are_not_finite_are_refused() -> None:
    with pytest.raises(UserError, match="not finite"):
        whitening(torch.tensor([[1.0, torch.nan], [0.0, 1.0]]), 0.4)
