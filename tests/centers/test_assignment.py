"""Similarity assignment: one vector per class, the best possible where exact, and better than chance where greedy."""

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from lsc.centers import Centers
from lsc.centers.assignment import directions, similarity_assignment
from lsc.errors import UserError
from lsc.systems import OrbitSystem, gaussian


def clustered(classes: int, features: int) -> Tensor:
    """Groups of ten similar classes."""
    generator = torch.Generator().manual_seed(0)
    groups = torch.randn(classes // 10, features, generator=generator)
    return groups.repeat_interleave(10, 0) + 0.4 * torch.randn(classes, features, generator=generator)


def agreement(features: Tensor, system: OrbitSystem, index: Tensor) -> float:
    """Correlation of the cosines between classes' features with those between their vectors."""
    features = torch.nn.functional.normalize(features - features.mean(0), dim=1)
    vectors = system.vectors(index)
    pairs = torch.triu_indices(len(index), len(index), 1)
    both = [(m @ m.T)[pairs[0], pairs[1]] for m in (features, vectors)]
    return float(torch.corrcoef(torch.stack(both))[0, 1])


@pytest.mark.parametrize("method", ["exact", "greedy"])
@pytest.mark.parametrize("capacity_used", [1.0, 0.5])
def test_similar_classes_get_near_vectors(method: str, capacity_used: float) -> None:
    system = OrbitSystem(1, 1, 50)
    features = clustered(int(system.capacity * capacity_used) // 10 * 10, 16)
    index = similarity_assignment(features, system, method=method)
    assert len(index.unique()) == len(features)
    chance = agreement(features, system, torch.randperm(system.capacity)[: len(features)])
    assert agreement(features, system, index) > 0.12 > 0.02 > abs(chance)
    Centers(system, len(features), index)


def test_exact_is_the_best_assignment() -> None:
    system = OrbitSystem(2, 1, 6)
    features = clustered(40, 5)
    basis, mean = directions(features, 6)
    scores = (features - mean) @ basis @ system.vectors(torch.arange(system.capacity)).T
    best = scores.numpy()[linear_sum_assignment(scores.numpy(), maximize=True)].sum()
    found = scores[torch.arange(40), similarity_assignment(features, system, method="exact")].sum()
    assert float(found) == pytest.approx(float(best), rel=1e-6)
    greedy = scores[torch.arange(40), similarity_assignment(features, system, method="greedy")].sum()
    assert 0.5 * best < float(greedy) <= best + 1e-4


def test_greedy_holds_with_many_classes_and_with_classes_alike() -> None:
    system = OrbitSystem.smallest(8_000)
    features = clustered(8_000, 8)
    features[:50] = features.mean(0)
    index = similarity_assignment(features, system)
    assert len(index.unique()) == 8_000
    assert 0 <= int(index.min()) <= int(index.max()) < system.capacity
    same = similarity_assignment(torch.ones(2000, 3), OrbitSystem.smallest(2000), method="greedy")
    assert len(same.unique()) == 2000


def test_directions_are_white() -> None:
    features = clustered(500, 12)
    basis, mean = directions(features, 30)
    spread = torch.linalg.svdvals((features - mean) @ basis)
    assert torch.allclose(spread[:12] / 499**0.5, torch.ones(12), atol=1e-3)
    assert spread[12:].max() < 1e-3


def test_any_system_can_be_assigned_and_mistakes_name_the_remedy() -> None:
    assert len(similarity_assignment(clustered(40, 5), gaussian(60, 7)).unique()) == 40
    with pytest.raises(UserError, match="do not fit"):
        similarity_assignment(clustered(40, 5), OrbitSystem(1, 1, 4))
    with pytest.raises(UserError, match="finite"):
        similarity_assignment(torch.full((3, 2), torch.nan), OrbitSystem(1, 1, 4))
    with pytest.raises(UserError, match="method"):
        similarity_assignment(clustered(10, 5), OrbitSystem(1, 1, 5), method="best")


def test_tight_clusters_share_the_vectors_around_them() -> None:
    """Groups of 100 classes that all but coincide and would all have one vector: most get one nearby, not one anywhere."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(20, 16, generator=generator).repeat_interleave(100, 0)
    features = (features + 0.05 * torch.randn(2000, 16, generator=generator))[torch.randperm(2000, generator=generator)]
    system = OrbitSystem(2, 2, 40)
    index = similarity_assignment(features, system, method="greedy")
    assert len(index.unique()) == 2000
    basis, mean = directions(features, 40)
    wanted = (features - mean) @ basis
    found = (wanted * system.vectors(index)).sum() / system.nearest(wanted, 1)[1].sum()
    assert found > 0.85


@pytest.mark.parametrize("left", [0, 1, 700])
def test_greedy_uses_the_last_vector(left: int) -> None:
    system = OrbitSystem(1, 1, 51)
    features = clustered(system.capacity, 8)[: system.capacity - left]
    index = similarity_assignment(features, system, method="greedy")
    assert len(index.unique()) == system.capacity - left


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
def test_no_features_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="a row for each class"):
        similarity_assignment(torch.zeros(shape), OrbitSystem(1, 1, 5))
    with pytest.raises(UserError, match="seed"):
        similarity_assignment(torch.zeros(5, 2), OrbitSystem(1, 1, 5), seed=2**63)
