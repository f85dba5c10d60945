"""The read-out in closed form: the ridge regression that a dense solve gives, from sums of the layer's own size."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import lsc
from lsc.encoders.closed_form import ClosedFormReadout, _spectrum
from lsc.errors import UserError


def dense(hidden: Tensor, targets: Tensor, weights: Tensor, ridge: float) -> Tensor:
    """(F + 1, dim): the minimum of the weighted squared error plus the penalty, by stacked least squares in float64."""
    rows = torch.cat([hidden, torch.ones(len(hidden), 1)], 1).double() * weights.double().sqrt()[:, None]
    penalty = (ridge * (rows.T @ rows).diagonal().mean()).sqrt() * torch.eye(rows.shape[1], dtype=torch.float64)
    wanted = torch.cat(
        [targets.double() * weights.double().sqrt()[:, None], torch.zeros(len(penalty), targets.shape[1])]
    )
    return torch.linalg.lstsq(torch.cat([rows, penalty]), wanted).solution


@settings(deadline=None, max_examples=40)
@given(
    features=st.integers(1, 12), dim=st.integers(3, 6), batches=st.integers(1, 6), seed=st.integers(0, 2**16),
    half_life=st.one_of(st.none(), st.floats(0.5, 20)), ridge=st.floats(1e-4, 1),
)  # fmt: skip
def test_it_is_the_ridge_regression_of_all_batches(
    features: int, dim: int, batches: int, seed: int, half_life: float | None, ridge: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    centers = lsc.Centers(lsc.OrbitSystem(1, 1, dim), 6)
    readout = ClosedFormReadout(features, dim, centers.vectors, ridge=ridge, half_life=half_life)
    every = [
        (torch.randn(5, features, generator=generator), torch.randint(6, (5,), generator=generator))
        for _ in range(batches)
    ]
    for hidden, labels in every:
        readout.update(hidden, labels)
    age = torch.arange(batches - 1, -1, -1).repeat_interleave(5)
    weights = torch.ones(5 * batches) if half_life is None else 0.5 ** (age / half_life)
    expected = dense(
        torch.cat([hidden for hidden, _ in every]), centers.vectors(torch.cat([y for _, y in every])), weights, ridge
    )
    weight, bias = readout.solve()
    assert torch.allclose(weight.double(), expected[:-1].T, atol=2e-3)
    assert torch.allclose(bias.double(), expected[-1], atol=2e-3)


def test_its_size_knows_no_classes() -> None:
    few, many = (
        ClosedFormReadout(7, 64, lsc.Centers(lsc.OrbitSystem(2, 2, 64), count).vectors) for count in (10, 3_000_000)
    )
    assert few.gram.shape == many.gram.shape == (8, 8)
    assert few.cross.shape == many.cross.shape == (8, 64)


def test_the_gradient_flows_through_the_solved_layer_and_leaves_it_alone() -> None:
    torch.manual_seed(0)
    body, last = nn.Linear(3, 8), nn.Linear(8, 4)
    objective = lsc.Cosine(lsc.Centers(lsc.OrbitSystem(1, 1, 4), 5))
    x, labels = torch.randn(40, 3), torch.randint(5, (40,))
    readout = ClosedFormReadout(8, 4, objective.centers.vectors)
    readout.update(body(x).tanh(), labels)
    readout.solve_into(last)
    weight, bias = readout.solve()
    assert torch.equal(last.weight, weight)
    frozen = nn.Linear(8, 4).requires_grad_(False)
    frozen.load_state_dict(last.state_dict())
    for layer in (last, frozen):
        body.zero_grad()
        objective.loss(layer(body(x).tanh()), labels).backward()
        assert body.weight.grad is not None
    by_hand = nn.functional.linear(body(x).tanh(), weight, bias)
    (expected,) = torch.autograd.grad(objective.loss(by_hand, labels), [body.weight])
    assert torch.allclose(body.weight.grad, expected)
    assert frozen.weight.grad is None


def test_sums_are_float32_whatever_the_precision_around() -> None:
    hidden, labels = torch.randn(64, 6), torch.randint(5, (64,))
    targets = lsc.Centers(lsc.OrbitSystem(1, 1, 4), 5).vectors
    plain, low = ClosedFormReadout(6, 4, targets), ClosedFormReadout(6, 4, targets)
    plain.update(hidden.bfloat16().float(), labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low.update(hidden.bfloat16(), labels)
    assert low.gram.dtype == torch.float32
    assert torch.equal(plain.gram, low.gram)
    assert torch.equal(plain.cross, low.cross)


def test_halfway_is_halfway() -> None:
    layer, target = nn.Linear(3, 4), lsc.Centers(lsc.OrbitSystem(1, 1, 4), 5)
    readout = ClosedFormReadout(3, 4, target.vectors)
    readout.update(torch.randn(9, 3), torch.arange(9) % 5)
    before = layer.weight.detach().clone()
    readout.solve_into(layer, 0.5)
    assert torch.allclose(layer.weight, (before + readout.solve()[0]) / 2)


def test_sums_survive_a_checkpoint_and_other_sizes_are_refused() -> None:
    targets = lsc.Centers(lsc.OrbitSystem(1, 1, 4), 5).vectors
    readout, again = ClosedFormReadout(3, 4, targets), ClosedFormReadout(3, 4, targets)
    readout.update(torch.randn(9, 3), torch.arange(9) % 5)
    again.load_state_dict(readout.state_dict())
    assert torch.equal(again.solve()[0], readout.solve()[0])
    with pytest.raises(UserError, match=r"saved sums have shape \(4, 4\), this read-out \(6, 6\)"):
        ClosedFormReadout(5, 4, targets).load_state_dict(readout.state_dict())


def test_sums_that_are_not_finite_are_refused_in_one_line() -> None:
    targets = lsc.Centers(lsc.OrbitSystem(1, 1, 4), 5).vectors
    for value in (torch.inf, torch.nan):
        readout = ClosedFormReadout(3, 4, targets)
        hidden = torch.randn(9, 3)
        hidden[4, 1] = value
        readout.update(hidden, torch.arange(9) % 5)
        with pytest.raises(UserError, match=r"not finite: lower training\.learning_rate"):
            readout.solve()
    with pytest.raises(UserError, match="are empty"):
        ClosedFormReadout(3, 4, targets).solve()
    with pytest.raises(UserError, match="ridge"):
        ClosedFormReadout(3, 4, targets, ridge=0)
    with pytest.raises(UserError, match=r"\(batch, 3\)"):
        ClosedFormReadout(3, 4, targets).update(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64))


def sums_of(
    hidden: Tensor, labels: Tensor, targets: Tensor, ridge: float | None, weights: Tensor | None = None
) -> ClosedFormReadout:
    readout = ClosedFormReadout(hidden.shape[1], targets.shape[1], lambda labels: targets[labels], ridge=ridge)
    readout.add(hidden, labels, weights)
    return readout


@settings(deadline=None, max_examples=30)
@given(
    features=st.integers(2, 9), classes=st.integers(2, 7), rank=st.integers(1, 12), seed=st.integers(0, 2**16),
    ridge=st.floats(1e-3, 1),
)  # fmt: skip
def test_no_map_of_its_rank_is_better(features: int, classes: int, rank: int, seed: int, ridge: float) -> None:
    """Against a search by gradient from the solution and from random maps, and against the dense solution where nothing binds."""
    generator = torch.Generator().manual_seed(seed)
    hidden, labels = (
        torch.randn(60, features, generator=generator),
        torch.randint(classes, (60,), generator=generator),
    )
    targets = torch.eye(classes)
    weight, bias, rows = sums_of(hidden, labels, targets, ridge).solve_by_rank(rank)
    assert [tuple(part.shape) for part in (weight, bias, rows)] == [(rank, features), (rank,), (classes, rank)]
    ones = torch.cat([hidden, torch.ones(60, 1)], 1).double()
    penalty = ridge * (ones.T @ ones).diagonal().mean()

    def cost(first: Tensor, second: Tensor) -> Tensor:
        whole = first @ second.T
        return (ones @ whole - targets[labels]).square().sum() + penalty * whole.square().sum()

    first = torch.cat([weight, bias[:, None]], 1).T.double()
    found = cost(first, rows.double())
    if rank >= min(features + 1, classes):
        full = dense(hidden, targets[labels], torch.ones(60), ridge)
        assert torch.allclose(first @ rows.double().T, full, atol=1e-4)
    for start in (1e-3, 1.0):
        near = [
            (part + start * torch.randn(part.shape, generator=generator)).contiguous().requires_grad_()
            for part in (first, rows.double())
        ]
        searching = torch.optim.LBFGS(near, max_iter=60, line_search_fn="strong_wolfe")

        def again(near: list[Tensor] = near, searching: torch.optim.Optimizer = searching) -> Tensor:
            searching.zero_grad()
            found = cost(near[0], near[1])
            found.backward()
            return found

        searching.step(again)
        assert float(cost(near[0], near[1]).detach()) >= float(found) * (1 - 1e-5)


@settings(deadline=None, max_examples=30)
@given(
    features=st.integers(1, 8), images=st.integers(12, 40), seed=st.integers(0, 2**16), scale=st.floats(0.3, 3),
    weighted=st.booleans(),
)  # fmt: skip
def test_the_penalty_is_a_tenth_of_what_cross_validation_over_all_images_says(
    features: int, images: int, seed: int, scale: float, weighted: bool
) -> None:
    """The error that the sums give is that of the residuals, image by image, with the dense influence matrix."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(images, features, generator=generator)
    labels = torch.randint(4, (images,), generator=generator)
    targets = scale * torch.randn(4, 3, generator=generator)
    weights = torch.randint(1, 4, (images,), generator=generator).float() if weighted else None
    readout = sums_of(hidden, labels, targets, None, weights)
    # An image that counts twice is two images.
    times = torch.ones(images, dtype=torch.int64) if weights is None else weights.long()
    rows = torch.cat([hidden, torch.ones(images, 1)], 1).double().repeat_interleave(times, 0)
    wanted, gram = targets[labels].double().repeat_interleave(times, 0), rows.T @ rows
    errors = {}
    for third in range(13):
        ridge = 10 ** (-4 + third / 3)
        influence = rows @ torch.linalg.solve(
            gram + ridge * gram.diagonal().mean() * torch.eye(features + 1, dtype=torch.float64), rows.T
        )
        left = 1 - float(influence.trace()) / len(rows)
        errors[ridge] = float((wanted - influence @ wanted).square().sum()) / left**2
    best = min(errors.values())
    sums, cross = readout._sums()
    chosen = 10 * readout._validated(*_spectrum(sums), cross)
    nearest = min(errors, key=lambda ridge: abs(ridge - chosen))
    assert abs(nearest / chosen - 1) < 1e-6
    assert errors[nearest] <= best * (1 + 1e-4)
    weight, _ = readout.solve()
    fixed, _ = sums_of(hidden, labels, targets, chosen / 10, weights).solve()
    assert torch.allclose(weight, fixed, atol=1e-3)


def test_as_many_activations_as_images_are_not_interpolated() -> None:
    """Where a slight penalty would have the test error explode, a strong one is chosen."""
    torch.manual_seed(0)
    truth, targets = torch.randn(200, 3), torch.eye(3)
    hidden, others = torch.randn(200, 200), torch.randn(1000, 200)
    labels, theirs = ((rows @ truth + 5 * torch.randn(len(rows), 3)).argmax(1) for rows in (hidden, others))
    right = {}
    for ridge in (None, 1e-6):
        weight, bias = sums_of(hidden, labels, targets, ridge).solve()
        right[ridge] = float(((others @ weight.T + bias).argmax(1) == theirs).float().mean())
    assert right[None] > right[1e-6] + 0.1


def test_sums_that_are_hardly_positive_are_solved_all_the_same() -> None:
    """Rounding leaves negative eigenvalues, at which a Cholesky root fails."""
    torch.manual_seed(0)
    hidden = torch.randn(500, 3) @ torch.randn(3, 40) * 100
    labels = torch.randint(4, (500,))
    for ridge in (1e-9, None):
        weight, bias = sums_of(hidden, labels, torch.eye(4), ridge).solve()
        assert bool(torch.isfinite(weight).all() & torch.isfinite(bias).all())


def test_sums_of_an_older_version_had_unit_targets() -> None:
    torch.manual_seed(0)
    hidden, labels = torch.randn(30, 4), torch.randint(3, (30,))
    new, old = sums_of(hidden, labels, torch.eye(3), None), sums_of(hidden, labels, torch.eye(3), None)
    old.squares.zero_()
    old.load_state_dict({key: value.clone() for key, value in new.state_dict().items() if key != "squares"})
    assert torch.equal(old.squares, new.squares)
    assert torch.equal(old.solve()[0], new.solve()[0])


@pytest.mark.parametrize("ridge", [1e-3, None])
def test_a_layer_without_a_bias_gets_the_best_of_its_kind(ridge: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(6, (600,), generator=generator)
    hidden = torch.randn(600, 32, generator=generator).relu()
    hidden[torch.arange(600), labels] += 1.5
    centers = lsc.Centers(lsc.OrbitSystem(1, 1, 16), num_classes=6)
    readout = ClosedFormReadout(32, 16, centers.vectors, ridge=ridge)
    readout.update(hidden, labels)
    layer = nn.Linear(32, 16, bias=False)
    readout.solve_into(layer)
    best = torch.linalg.lstsq(hidden.double(), centers.vectors(labels).double()).solution
    errors = [
        (hidden.double() @ weight - centers.vectors(labels)).square().sum().item()
        for weight in (layer.weight.double().T, best)
    ]
    assert errors[1] <= errors[0] < 1.01 * errors[1]
    readout.expect(layer)
    weight, bias = readout.solve(bias=False)
    assert torch.equal(bias, torch.zeros(16))
    if ridge:  # where it is not chosen anew, what the sums are to expect of a layer they solve for
        torch.testing.assert_close(weight, layer.weight.detach(), rtol=1e-4, atol=1e-5)
