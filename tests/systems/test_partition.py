"""The exact normaliser: against the sum over all vectors, with its gradient, at ordinary and at extreme embeddings."""

from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import pad

from lsc.systems import OrbitSystem, partition, power_sums, prefix_sums
from lsc.systems.partition import _log_coefficients, log_partition, log_rest
from lsc.systems.power_sums import FEW
from lsc.systems.prefix_sums import add_up, coefficient, coefficient_and_gradient, upper_ones
from tests.orbits import listed, orbit_systems

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-6}


@settings(deadline=None, max_examples=60)
@given(
    orbit_systems(max_dim=7, least_capacity=2),
    st.sampled_from(list(TOLERANCE)),
    st.sampled_from([0.0, 1.0, 16.0, 64.0]),
    st.integers(0, 1000),
)
def test_log_partition_and_log_rest_equal_the_listed_sum(
    system: OrbitSystem, dtype: torch.dtype, scale: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(3, system.dim, generator=generator, dtype=torch.float64).to(dtype)
    own = torch.randint(system.capacity, (3,), generator=generator)
    z_scaled = z * torch.tensor(scale, dtype=dtype)
    logits = z_scaled.double() @ system.vectors(torch.arange(system.capacity)).double().T
    size = 1 + scale * z.double().abs().amax() * (system.plus + system.minus)
    total = system.log_partition(z_scaled)
    assert total.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert (total.double() - logits.logsumexp(1)).abs().max() < TOLERANCE[dtype] * size
    rest = system.log_rest(z_scaled, own)
    others = logits.scatter(1, own[:, None], -torch.inf).logsumexp(1)
    assert (rest.double() - others).abs().max() < TOLERANCE[dtype] * size
    assert torch.allclose(system.log_partition(z.double(), scale), system.log_partition(z.double() * scale))


@settings(deadline=None, max_examples=15)
@given(orbit_systems(max_dim=7, least_capacity=2), st.integers(0, 1000))
def test_gradients_by_finite_differences(system: OrbitSystem, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(2, system.dim, generator=generator, dtype=torch.float64, requires_grad=True)
    own = torch.randint(system.capacity, (2,), generator=generator)
    assert torch.autograd.gradcheck(system.log_partition, (z,))
    assert torch.autograd.gradcheck(lambda x: system.log_rest(x, own), (z,))


@settings(deadline=None, max_examples=25)
@given(orbit_systems(max_dim=7, least_capacity=2), st.integers(0, 1000), st.sampled_from([1.0, 1e2, 1e4, 1e6]))
def test_gradient_is_the_expected_vector_however_large_the_embedding(
    system: OrbitSystem, seed: int, size: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = (torch.randn(3, system.dim, generator=generator) * size).requires_grad_()
    system.log_partition(z).sum().backward()
    vectors = listed(system)
    expected = (z.detach().double() @ vectors.T).softmax(1) @ vectors
    assert z.grad is not None
    # At large sizes two vectors that tie within float32's resolution may share the weight otherwise.
    assert (z.grad.double() - expected).abs().max() < 1e-4 + 2e-6 * min(size, 1e4)


@pytest.mark.parametrize(("plus", "minus"), [(1, 1), (2, 1), (2, 2), (3, 3), (1, 0)])
@pytest.mark.parametrize("value", [0.0, 1e-30, 1e4, -1e6])
def test_ties_and_extremes_give_no_nan(plus: int, minus: int, value: float) -> None:
    system = OrbitSystem(plus, minus, 13)
    z = torch.zeros(4, 13)
    z[1] = value
    z[2, 0] = value
    z[3, :7] = value
    z.requires_grad_()
    own = torch.tensor([0, 1, 2, 3])
    for out in (system.log_partition(z), system.log_rest(z, own)):
        (grad,) = torch.autograd.grad(out.sum(), z)
        assert torch.isfinite(out).all()
        assert torch.isfinite(grad).all()


@pytest.mark.parametrize(("plus", "minus", "dim"), [(1, 1, 1133), (2, 1, 384), (2, 2, 768), (3, 3, 200)])
def test_float32_agrees_with_float64_in_high_dimension(plus: int, minus: int, dim: int) -> None:
    system = OrbitSystem(plus, minus, dim)
    z = torch.randn(8, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    own = system.nearest(z, 1)[0][:, 0]
    assert (system.log_partition(z.float()) - system.log_partition(z)).abs().max() < 2e-5
    assert (system.log_rest(z.float(), own) - system.log_rest(z, own)).abs().max() < 2e-5


def test_roots_by_the_general_product_too() -> None:
    """The roots have a form of their own; the product of the factors must say the same."""
    z = torch.randn(5, 37, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tree = _log_coefficients(z, -z, 1, 1)[1, 1]
    assert torch.allclose(OrbitSystem(1, 1, 37).log_partition(z), tree, atol=1e-12)


@pytest.mark.parametrize(("plus", "minus"), [(2, 1), (2, 2), (3, 3), (3, 0)])
def test_logarithms_and_numbers_agree_with_their_gradients(plus: int, minus: int) -> None:
    """Embeddings on both sides of the limit between the two ways of holding a coefficient."""
    system = OrbitSystem(plus, minus, 23)
    own = torch.tensor([5, 77, 900])
    z = torch.randn(3, 23, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = z * (499 / ((plus + minus) * float((z.amax(1) - z.amin(1)).max())))
    vectors = system.vectors(torch.arange(system.capacity)).double()
    for factor in (1.0, 1.01):  # below and above the limit
        x = (z * factor).requires_grad_()
        logits = x.detach() @ vectors.T
        others = logits.scatter(1, own[:, None], -torch.inf)
        for value, terms in ((system.log_partition(x), logits), (system.log_rest(x, own), others)):
            (grad,) = torch.autograd.grad(value.sum(), x)
            assert torch.allclose(value, terms.logsumexp(1), rtol=1e-12)
            assert torch.allclose(grad, terms.softmax(1) @ vectors, atol=1e-10)


def one_by_one(up: Tensor, down: Tensor, start: Tensor) -> Tensor:
    """``start`` (plus + 1, minus + 1, B) times the factors 1 + x up_k + y down_k, (number, B), by the definition."""
    for a, b in zip(up, down, strict=True):
        by_x, by_y = pad(start[:-1], (0, 0, 0, 0, 1, 0)), pad(start[:, :-1], (0, 0, 1, 0))
        start = start + a * by_x + b * by_y
    return start


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 20), st.integers(0, 5), st.integers(0, 5), st.integers(0, 20), st.integers(0, 1000))
def test_the_coefficient_by_prefix_sums(count: int, plus: int, minus: int, bound: int, seed: int) -> None:
    """With its gradient, from any start, and without the terms that have none but the last factors."""
    generator = torch.Generator().manual_seed(seed)
    bound = min(bound, count)
    factors = torch.rand(2, 3, count, generator=generator, dtype=torch.float64)
    start = torch.rand(plus + 1, minus + 1, 3, generator=generator, dtype=torch.float64)
    start[0, 0] = 1.0
    if plus + minus == 0:
        return
    logs = factors.log().requires_grad_()
    start.requires_grad_()
    up, down = logs.exp().transpose(1, 2)
    one = torch.zeros_like(start)
    one[0, 0] = 1.0
    expected = one_by_one(up, down, start)[-1, -1] - one_by_one(up[bound:], down[bound:], one)[-1, -1]
    found, slope, of_start = coefficient_and_gradient(factors, start.detach(), bound)
    assert torch.equal(coefficient(factors, start.detach(), bound), found)
    with patch.object(prefix_sums, "_ones_for", prefix_sums.upper_ones):  # as on a GPU
        for by_product, usual in zip(
            coefficient_and_gradient(factors, start.detach(), bound), (found, slope, of_start), strict=True
        ):
            assert torch.allclose(by_product, usual, rtol=1e-11, atol=1e-12)
    assert torch.allclose(found, expected, rtol=1e-11)
    by_logs, by_start = torch.autograd.grad(expected.sum(), (logs, start))
    assert torch.allclose(slope, by_logs[0] - by_logs[1], rtol=1e-10, atol=1e-10)
    assert torch.allclose(of_start.flatten(0, 1)[1:], by_start.flatten(0, 1)[1:], rtol=1e-10)


def test_prefix_sums_are_those_of_a_product_with_ones() -> None:
    terms = torch.rand(9, 4, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = terms[1::3].cumsum(-1)
    for ones in (upper_ones(terms), None):
        found = terms.clone()
        add_up(found[1::3], ones)
        assert torch.allclose(found[1::3], expected, rtol=1e-14)
        assert torch.equal(found[0::3], terms[0::3])


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from([(2, 1), (2, 2), (3, 3), (3, 0), (0, 2), (4, 4), (1, 4)]), st.integers(0, 40),
    st.sampled_from(["normal", "equal", "one", "two", "steps", "spread", "tiny"]), st.booleans(), st.integers(0, 1000),
)  # fmt: skip
def test_sums_of_powers_are_as_good_as_the_product_whatever_the_embedding(
    signs: tuple[int, int], more: int, kind: str, without: bool, seed: int
) -> None:
    """Where single coordinates dominate a sum of powers, Newton's identities alone would cancel: those are peeled off."""
    plus, minus = signs
    dim = FEW + 1 + plus + minus + more
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(3, dim, generator=generator, dtype=torch.float64)
    widest = 490 / (plus + minus)
    if kind == "equal":
        z = torch.zeros_like(z)
    elif kind in ("one", "two"):
        z = 1e-3 * z
        z[:, : 1 if kind == "one" else 2] += widest / 2
        z[:, -1 if kind == "one" else -2 :] -= widest / 2
    elif kind == "steps":  # every coordinate dominates the next
        z = torch.linspace(-widest / 2, widest / 2, dim, dtype=torch.float64).repeat(3, 1)
    elif kind == "spread":
        z = z * (widest / (z.amax(1) - z.amin(1)).max())
    elif kind == "tiny":
        z = 1e-9 * z
    z = z[:, torch.randperm(dim, generator=generator)].requires_grad_()
    places = torch.stack([torch.randperm(dim, generator=generator)[: plus + minus] for _ in range(3)])

    def value() -> Tensor:
        if without:
            return log_rest(z, places[:, :plus], places[:, plus:])
        return log_partition(z, plus, minus)

    assert power_sums.is_worth_it(plus, minus, dim - plus - minus)
    found = value()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(power_sums, "MOST", 0)
        assert not power_sums.is_worth_it(plus, minus, dim)
        expected = value()
    assert torch.allclose(found, expected, rtol=0, atol=1e-12 * (1 + widest * (plus + minus)))
    (ours,), (theirs,) = (torch.autograd.grad(x.sum(), z) for x in (found, expected))
    assert torch.allclose(ours, theirs, atol=1e-10)
    z = z.detach()  # no gradient is found
    assert torch.equal(value(), found)


@pytest.mark.parametrize(("plus", "minus", "dim"), [(1, 1, 9), (2, 2, 4), (3, 3, 64), (5, 5, 40), (0, 2, 70)])
@pytest.mark.parametrize("spread", [None, 10.0, 1e4])
def test_an_empty_batch(plus: int, minus: int, dim: int, spread: float | None) -> None:
    z = torch.zeros(0, dim, requires_grad=True)
    places = torch.zeros(0, plus + minus, dtype=torch.int64)
    for out in (log_partition(z, plus, minus, spread), log_rest(z, places[:, :plus], places[:, plus:], spread)):
        assert out.shape == (0,)
        (grad,) = torch.autograd.grad(out.sum(), z)
        assert grad.shape == z.shape


def test_rows_are_worked_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    z = torch.randn(50, 20, generator=torch.Generator().manual_seed(0), requires_grad=True)
    own = torch.arange(50)
    system = OrbitSystem(2, 2, 20)

    def values() -> list[Tensor]:
        found = [system.log_rest(z, own), system.log_partition(z)]
        return [*found, torch.autograd.grad(found[0].sum() + found[1].square().sum(), z)[0]]

    whole = values()
    monkeypatch.setattr(partition, "_AT_ONCE", 10_000)
    for in_parts, at_once in zip(values(), whole, strict=True):
        assert torch.equal(in_parts, at_once)


@pytest.mark.parametrize(
    ("plus", "minus", "dim"), [(1, 1, 7), (2, 1, 8), (2, 2, 22), (3, 0, 14), (1, 0, 9), (2, 1, FEW + 4)]
)
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_second_derivatives(plus: int, minus: int, dim: int, scale: float) -> None:
    """By sums of powers, factor by factor and in logarithms (large scale): that of the partition is the covariance."""
    system = OrbitSystem(plus, minus, dim)
    z = torch.randn(2, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    vectors = system.vectors(torch.arange(system.capacity)).double()
    own = torch.tensor([3, 4])
    logits = scale * z @ vectors.T
    others = logits.scatter(1, own[:, None], -torch.inf)
    direction = torch.randn(2, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for value, terms in ((system.log_partition(z, scale), logits), (system.log_rest(z, own, scale), others)):
        second = []
        for function in (value, terms.logsumexp(1)):
            (slope,) = torch.autograd.grad(function.sum(), z, create_graph=True)
            second.append(torch.autograd.grad((slope * direction).sum(), z, retain_graph=True)[0])
        assert torch.allclose(*second, rtol=1e-6, atol=1e-8 * scale**2)


def test_one_wide_row_does_not_change_how_the_others_are_summed() -> None:
    system = OrbitSystem(2, 2, 40)
    z = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    own = torch.arange(5)
    before = system.log_partition(z), system.log_rest(z, own)
    z[1] *= 1e4
    z[3] = torch.nan
    after = system.log_partition(z), system.log_rest(z, own)
    for one, other in zip(before, after, strict=True):
        assert torch.allclose(one[[0, 2, 4]], other[[0, 2, 4]], rtol=1e-6)
        assert torch.isfinite(other[1])
        assert other[3].isnan()
