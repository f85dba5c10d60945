"""Objectives: losses against their definitions over all classes, gradients, precision, and predictions."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lsc.centers import Centers
from lsc.errors import UserError
from lsc.objectives import Cosine, CrossEntropy, Euclidean, Objective, OrbitSoftmax
from lsc.objectives.partial_fc import PartialFC
from lsc.systems import OrbitSystem, simplex
from tests.orbits import orbit_systems


def objectives(dim: int = 12, num_classes: int = 100) -> list[Objective]:
    torch.manual_seed(0)
    centers = Centers(OrbitSystem(1, 1, dim), num_classes)
    return [
        CrossEntropy(num_classes, dim),
        PartialFC(num_classes, dim, sample_rate=1.0),
        Euclidean(centers),
        Euclidean(centers, cluster_radius=0.5),
        Cosine(Centers(OrbitSystem(2, 1, dim), num_classes, perturbation=0.05)),
        OrbitSoftmax(centers),
        OrbitSoftmax(centers, normalize=False),
        OrbitSoftmax(Centers(OrbitSystem(2, 2, dim), num_classes), scale=64.0, margin=0.35),
    ]


every_objective = pytest.mark.parametrize("objective", objectives(), ids=lambda o: f"{type(o).__name__}")


@settings(deadline=None, max_examples=60)
@given(
    orbit_systems(max_dim=7, least_capacity=2), st.booleans(), st.sampled_from([0.0, 0.35]),
    st.sampled_from([1.0, 16.0, 64.0]), st.floats(0.1, 1), st.integers(0, 1000),
)  # fmt: skip
def test_orbit_softmax_is_cross_entropy_over_the_listed_system(
    system: OrbitSystem, normalize: bool, margin: float, scale: float, used: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    centers = Centers(system, max(1, round(used * system.capacity)), seed=seed)
    objective = OrbitSoftmax(centers, normalize=normalize, scale=scale, margin=margin)
    z = torch.randn(4, system.dim, generator=generator)
    labels = torch.randint(centers.num_classes, (4,), generator=generator)
    own = centers.indexes(labels)
    vectors = system.vectors(torch.arange(system.capacity)).double()
    similarity = z.double() @ vectors.T
    if normalize:
        similarity = similarity / z.double().norm(dim=1, keepdim=True) / system.norm
    logits = scale * (similarity - margin * F.one_hot(own, system.capacity))
    expected = F.cross_entropy(logits, own)
    assert abs(float(objective.loss(z, labels).detach()) - float(expected)) < 1e-5 * (1 + float(logits.abs().max()))


def test_orbit_softmax_keeps_its_precision_when_the_loss_is_tiny() -> None:
    system = OrbitSystem(1, 1, 40)
    objective = OrbitSoftmax(Centers(system, 1000), scale=64.0)
    labels = torch.arange(5)
    z = objective.centers.vectors(labels).requires_grad_()
    loss = objective.loss(z, labels)
    cosines = system.vectors(torch.arange(system.capacity)).double() @ system.vectors(torch.tensor(0)).double() / 2
    expected = torch.log1p((64 * (cosines.sort().values[:-1] - 1)).exp().sum())
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-4)
    assert 0 < float(expected) < 1e-10
    loss.backward()
    assert z.grad is not None
    assert 0 < z.grad.abs().max() < 1e-7


def test_losses_are_their_formulas() -> None:
    centers = Centers(OrbitSystem(1, 1, 12), 100, perturbation=0.1, radius=2.0)
    z, labels = torch.randn(6, 12), torch.arange(6)
    distances = (z - centers.vectors(labels)).norm(dim=1)
    assert torch.allclose(Euclidean(centers).loss(z, labels), distances.square().mean())
    geometric = (F.relu(distances - 1.5).exp() - 1).mean()
    assert torch.allclose(Euclidean(centers, cluster_radius=1.5).loss(z, labels), geometric)
    cosines = F.cosine_similarity(z, centers.vectors(labels))
    assert torch.allclose(Cosine(centers).loss(z, labels), 1 - cosines.mean())
    layer = CrossEntropy(10, 12, label_smoothing=0.1)
    expected = F.cross_entropy(layer.layer(z), labels, label_smoothing=0.1)
    assert torch.allclose(layer.loss(z, labels), expected)


@every_objective
def test_gradients_by_finite_differences_in_float32(objective: Objective) -> None:
    """The gradient along random directions equals the loss's difference quotient."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(5, 12, generator=generator).requires_grad_()
    labels = torch.arange(5)
    (grad,) = torch.autograd.grad(objective.loss(z, labels), z)
    for _ in range(5):
        step = 4e-3 * F.normalize(torch.randn(5, 12, generator=generator), dim=None)  # type: ignore[arg-type]
        slope = (objective.loss(z + step, labels) - objective.loss(z - step, labels)) / 2
        assert float(slope.detach()) == pytest.approx(float((grad * step).sum()), rel=0.02, abs=1e-5)


@every_objective
def test_bfloat16_embeddings_and_autocast_keep_float32_losses(objective: Objective) -> None:
    z = torch.randn(5, 12, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels = torch.arange(5)
    exact = z.float().requires_grad_()
    reference = objective.loss(exact, labels)
    reference.backward()
    inside = z.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = objective.loss(inside, labels)
        predicted = objective.predict(inside, 3)
    loss.backward()
    assert loss.dtype == torch.float32
    assert inside.grad is not None
    assert exact.grad is not None
    # A classification layer runs in bfloat16, as is usual.
    tolerance = 0.05 if isinstance(objective, CrossEntropy) else 1e-6
    assert torch.allclose(loss, reference, rtol=tolerance)
    assert torch.allclose(inside.grad.float(), exact.grad, rtol=0.02, atol=tolerance)
    assert torch.equal(predicted, objective.predict(z.float(), 3))


@every_objective
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-8, 1e4])
def test_embeddings_of_any_norm_give_finite_losses_and_gradients(objective: Objective, size: float) -> None:
    z = (torch.randn(5, 12, generator=torch.Generator().manual_seed(0)) * size).requires_grad_()
    loss = objective.loss(z, torch.arange(5))
    loss.backward()
    assert torch.isfinite(loss)
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()
    normalized = isinstance(objective, Cosine) or (isinstance(objective, OrbitSoftmax) and objective.normalize)
    if normalized and size < 1e-6:
        assert z.grad.norm() < 100
    assert objective.predict(z, 2).shape == (5, 2)


@every_objective
def test_training_on_the_embeddings_themselves_finds_the_centers(objective: Objective) -> None:
    objective = copy.deepcopy(objective)
    z = torch.randn(20, 12, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.arange(20)
    optimizer = torch.optim.Adam([z, *objective.parameters()], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        objective.loss(z, labels).backward()
        optimizer.step()
        objective.update()
    predicted = objective.predict(z, 5)
    assert predicted.dtype == torch.int64
    assert torch.equal(predicted[:, 0], labels)


@every_objective
def test_extend_keeps_what_was_learned(objective: Objective) -> None:
    objective = copy.deepcopy(objective)
    z = torch.randn(7, 12, generator=torch.Generator().manual_seed(0))
    before = objective.loss(z, torch.arange(7)).detach()
    weight = objective.layer.weight.detach().clone() if isinstance(objective, CrossEntropy) else None
    rows = objective.weight.clone() if isinstance(objective, PartialFC) else None
    objective.extend(20)
    assert objective.num_classes == 120
    assert torch.isfinite(objective.loss(z, torch.arange(113, 120)))
    if isinstance(objective, CrossEntropy):
        assert weight is not None
        assert torch.equal(objective.layer.weight[:100], weight)
    elif isinstance(objective, PartialFC):
        assert rows is not None
        assert torch.equal(objective.weight[:100], rows)
    else:
        assert torch.equal(objective.loss(z, torch.arange(7)), before)


def test_cross_entropy_loads_a_state_with_more_classes() -> None:
    grown = CrossEntropy(10, 12)
    grown.extend(7)
    outer = torch.nn.ModuleDict({"objective": CrossEntropy(10, 12)})
    outer.load_state_dict({f"objective.{key}": value for key, value in grown.state_dict().items()})
    fresh = outer["objective"]
    assert isinstance(fresh, CrossEntropy)
    assert fresh.num_classes == 17
    assert torch.equal(fresh.layer.weight, grown.layer.weight)


def test_learned_scale_is_trained_bounded_and_saved() -> None:
    centers = Centers(OrbitSystem(1, 1, 33), 1000)
    objective = OrbitSoftmax(centers)
    assert float(objective.scale.detach()) == pytest.approx(math.sqrt(2) * math.log(1055), rel=1e-5)
    labels = torch.arange(50)
    objective.loss(centers.vectors(labels), labels).backward()
    assert objective.log_scale.grad is not None
    assert objective.log_scale.grad < 0  # sure and right: a sharper softmax is better
    with torch.no_grad():
        objective.log_scale.fill_(50.0)
    assert float(objective.scale.detach()) == pytest.approx(100)
    fresh = OrbitSoftmax(Centers(OrbitSystem(1, 1, 33), 5))
    fresh.load_state_dict(objective.state_dict())
    assert fresh.num_classes == 1000
    assert float(fresh.scale.detach()) == pytest.approx(100)
    assert list(OrbitSoftmax(centers, learn_scale=False).parameters()) == []


def test_orbit_softmax_refuses_what_it_cannot_do() -> None:
    system = OrbitSystem(1, 1, 9)
    with pytest.raises(UserError, match="orbit system"):
        OrbitSoftmax(Centers(simplex(9), 9))
    with pytest.raises(UserError, match="perturbation"):
        OrbitSoftmax(Centers(system, 9, perturbation=0.1))
    with pytest.raises(UserError, match="scale"):
        OrbitSoftmax(Centers(system, 9), scale=0.0)
    with pytest.raises(UserError, match="margin"):
        OrbitSoftmax(Centers(system, 9), margin=-1.0)


@pytest.mark.parametrize("num_classes", [10**3, 10**9])
def test_a_thousand_million_classes_need_no_more_than_a_thousand(num_classes: int) -> None:
    centers = Centers(OrbitSystem(2, 2, 384), num_classes)
    labels = torch.randint(num_classes, (16,), generator=torch.Generator().manual_seed(0))
    z = centers.vectors(labels).requires_grad_()
    for objective in (Euclidean(centers), Cosine(centers), OrbitSoftmax(centers)):
        loss = objective.loss(z, labels)
        loss.backward()
        assert torch.isfinite(loss)
        if num_classes > 10**6:
            assert torch.equal(objective.predict(z)[:, 0], labels)


def test_orbit_softmax_over_classes_estimates_the_sum_over_their_vectors() -> None:
    """On average over the permutations that deal the vectors out, the rest's sum is that over the used vectors."""
    system = OrbitSystem(2, 1, 6)
    z, label = torch.randn(1, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([0])
    estimated, exact = [], []
    for seed in range(400):
        centers = Centers(system, 12, seed=seed)
        objective = OrbitSoftmax(centers, scale=5.0, learn_scale=False, over="classes")
        cosines = F.cosine_similarity(z, centers.vectors(torch.arange(12)))
        exact.append(float(((cosines[1:]) * 5).exp().sum()))
        estimated.append(float(objective.loss(z, label).expm1() * (5 * cosines[0]).exp()))
    difference = torch.tensor(estimated) - torch.tensor(exact)
    assert abs(float(difference.mean())) < 4 * float(difference.std()) / 20
    assert float(OrbitSoftmax(Centers(system, 12), over="classes").scale.detach()) == pytest.approx(
        2**0.5 * math.log(11)
    )
    assert float(OrbitSoftmax(Centers(system, 1), over="classes").loss(z, label).detach()) == 0
    full = Centers(system, system.capacity)
    both = [OrbitSoftmax(full, scale=5.0, over=over).loss(z, label) for over in ("classes", "vectors")]  # type: ignore[arg-type]
    assert torch.equal(*both)
    with pytest.raises(UserError, match="over"):
        OrbitSoftmax(full, over="both")  # type: ignore[arg-type]
