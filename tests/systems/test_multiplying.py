"""Few classes are multiplied with: in parts as in one, with the same answers as by listing, and only where that is faster."""

import pytest
import torch

from lsc.centers import Centers
from lsc.systems import OrbitSystem, effort, keep_matrices, multiplying, ranking, search
from lsc.systems.classes import whole
from lsc.systems.effort import product_is_cheapest
from lsc.systems.multiplying import multiply


@pytest.mark.parametrize("perturbation", [0.0, 0.2])
@pytest.mark.parametrize("num_classes", [1, 100, 1260])
def test_answers_are_those_of_the_other_searches(
    perturbation: float, num_classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    centers = Centers(OrbitSystem(2, 2, 10), num_classes, perturbation=perturbation)
    z = torch.randn(37, 10, generator=torch.Generator().manual_seed(0))
    z[5], z[6], z[7] = 0.0, torch.nan, 1.0
    used = []
    monkeypatch.setattr(search, "multiply", lambda *words: used.append(1) or multiply(*words))
    found = centers.search(z, 3)
    assert used == [1]
    monkeypatch.setattr(ranking, "_VECTORS_AT_ONCE", 300)
    monkeypatch.setattr(multiplying, "_MADE_AT_ONCE", 64)
    parts = Centers(OrbitSystem(2, 2, 10), num_classes, perturbation=perturbation).search(z, 3)
    monkeypatch.setattr(effort, "matrix_may_be_kept", lambda *words: False)
    others = centers.search(z, 3)
    assert used == [1, 1]
    for answer in (parts, others):
        assert torch.equal(answer.labels, found.labels)
        assert torch.equal(answer.scores.nan_to_num(9.0), found.scores.nan_to_num(9.0))


def test_many_classes_are_not_multiplied_with() -> None:
    assert product_is_cheapest(OrbitSystem(1, 1, 33), whole(OrbitSystem(1, 1, 33)), 64, 1)
    assert not product_is_cheapest(OrbitSystem(1, 1, 1133), whole(OrbitSystem(1, 1, 1133)), 1, 1)
    assert not product_is_cheapest(OrbitSystem(1, 1, 101), whole(OrbitSystem(1, 1, 101)), 512, 1)


def test_whoever_has_the_memory_lets_larger_matrices_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effort, "_matrix_kept", effort._matrix_kept)  # to be put back
    some = OrbitSystem(2, 2, 24), 3000
    z = torch.randn(64, 24, generator=torch.Generator().manual_seed(0))
    size = 4 * 3000 * 24
    keep_matrices(up_to=size - 1)
    without = Centers(*some, perturbation=0.5)
    expected = without.search(z, 5)
    assert ("matrix", z.device) not in without._kept.tensors
    keep_matrices(up_to=size)
    having = Centers(*some, perturbation=0.5)
    found = having.search(z, 5)
    assert ("matrix", z.device) in having._kept.tensors
    assert torch.equal(found.labels, expected.labels)
    assert torch.equal(found.scores, expected.scores)
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="give a number of bytes"):
            keep_matrices(up_to=wrong)


def test_what_is_kept_of_a_whole_system_serves_the_next_search() -> None:
    assert whole(OrbitSystem(2, 1, 12)) is whole(OrbitSystem(2, 1, 12))
    system = OrbitSystem(2, 1, 12)
    system.nearest(torch.randn(3, 12), 1)
    assert ("matrix", torch.device("cpu")) in whole(OrbitSystem(2, 1, 12)).kept.tensors
