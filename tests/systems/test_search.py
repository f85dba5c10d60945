"""The two ways to the nearest classes, listing and looking at all, each against brute force and against each other."""

import copy
import pickle
import warnings
from itertools import combinations
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lsc.centers import Centers
from lsc.systems import OrbitSystem, classes, scanning, search
from lsc.systems.classes import Classes, whole
from lsc.systems.ranking import unit_rows
from lsc.systems.staircase import _dominating, _leading_subsets, _stairs, list_best
from tests.orbits import KINDS, embeddings, orbit_systems, scores_of_all

pytestmark = pytest.mark.usefixtures("every_way_to_the_nearest")

CPU = torch.device("cpu")


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("dim", [4, 6, 9])
def test_leading_subsets_are_those_that_few_dominate(size: int, dim: int) -> None:
    every = torch.tensor(list(combinations(range(dim), size)))
    dominating = (every[None] <= every[:, None]).all(2).sum(1)
    assert torch.equal(_dominating(every).long(), dominating)
    for count in (1, 2, 5, 20, 1000):
        found, depth = _leading_subsets(size, dim, count, CPU)
        expected = every[dominating <= count]
        assert sorted(found.tolist()) == sorted(expected.tolist())
        assert depth == int(expected.max()) + 1


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 500))
def test_stairs_are_the_pairs_below_the_hyperbola(ones: int, minus_ones: int, count: int) -> None:
    i, j = _stairs(ones, minus_ones, count, CPU)
    expected = [(a, b) for a in range(ones) for b in range(minus_ones) if (a + 1) * (b + 1) <= count]
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == expected


@settings(deadline=None, max_examples=60)
@given(orbit_systems(max_dim=8), st.sampled_from(KINDS), st.integers(2, 300), st.integers(0, 1000))
def test_what_is_not_listed_does_not_beat_the_bound(system: OrbitSystem, kind: str, count: int, seed: int) -> None:
    unit = unit_rows(embeddings(kind, 3, system.dim, seed))[0]
    listed = list_best(system, unit, count)
    scores = scores_of_all(system, unit, torch.arange(system.capacity))
    for row in range(3):
        better = (scores[row] > listed.bound[row]).nonzero()[:, 0]
        mine = listed.row == row
        assert torch.equal(listed.index[mine].sort().values, better)
        assert torch.equal(scores[row][listed.index[mine]], listed.score[mine])


@settings(deadline=None, max_examples=40)
@given(
    orbit_systems(max_dim=8), st.sampled_from([kind for kind in KINDS if kind != "constant"]), st.integers(1, 40),
    st.floats(0.01, 1), st.integers(0, 1000), st.integers(1, 70),
)  # fmt: skip
def test_looking_at_all_in_parts_and_with_nothing_kept(
    system: OrbitSystem, kind: str, k: int, used: float, seed: int, batch: int
) -> None:
    """Blocks of every width, parts of every size, places kept or made anew: always the documented order."""
    centers = Centers(system, max(1, round(used * system.capacity)), seed=seed)
    k = min(k, centers.num_classes)
    unit = unit_rows(embeddings(kind, batch, system.dim, seed))[0]
    scores = scores_of_all(system, unit, centers.indexes(torch.arange(centers.num_classes)))
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    for changes in (
        {"_PLACES_KEPT": 1 << 26},
        {"_PLACES_KEPT": 0, "_SCORES_AT_ONCE": 100, "_EXACT_AT_ONCE": 7, "_HELD": 0},
    ):
        with patch.multiple(scanning, **changes):
            labels, found = scanning.scan(system, unit, k, centers._classes(system))
        assert torch.equal(labels, order)
        assert torch.equal(found, scores.gather(1, order))


@settings(deadline=None, max_examples=40)
@given(
    orbit_systems(max_dim=8, least_capacity=2), st.sampled_from(["normal", "bfloat16", "one-hot", "huge"]), st.integers(1, 8),
    st.floats(0.1, 1), st.sampled_from([1e-4, 0.05, 0.3, 2.0]), st.integers(0, 1000),
)  # fmt: skip
def test_displaced_centers_by_making_those_within_reach(
    system: OrbitSystem, kind: str, k: int, used: float, perturbation: float, seed: int
) -> None:
    centers = Centers(system, max(1, round(used * system.capacity)), perturbation=perturbation, seed=seed)
    k = min(k, centers.num_classes)
    unit = unit_rows(embeddings(kind, 5, system.dim, seed))[0]
    every = torch.arange(centers.num_classes)
    matrix = centers._vectors(every, system.norm).double()
    scores = (unit.double()[:, None] * matrix).sum(2).float()
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    for changes in (
        {"_CENTERS_AT_ONCE": 1024},
        {"_CENTERS_AT_ONCE": 8, "_SCORES_AT_ONCE": 50},
    ):
        made = 40 if "_SCORES_AT_ONCE" in changes else 1 << 17
        with patch.multiple(scanning, **changes), patch.object(classes, "_COORDINATES_MADE_AT_ONCE", made):
            labels, found = scanning.scan(system, unit, k, centers._classes(system))
        differ = labels != order  # sums in another order may turn a tie of float32 numbers
        assert torch.allclose(found, scores.gather(1, order), rtol=1e-6, atol=1e-6)
        assert torch.allclose(scores.gather(1, labels)[differ], scores.gather(1, order)[differ], rtol=3e-7)


def test_products_in_a_coarser_type_change_no_answer() -> None:
    """As torch.set_float32_matmul_precision allows them on some devices: the filter lets more through."""
    centers = Centers(OrbitSystem(2, 2, 20), 2000, perturbation=0.2)
    z = torch.randn(9, 20, generator=torch.Generator().manual_seed(0))
    expected = centers.nearest(z, 5)[0]
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(centers.nearest(z, 5)[0], expected)
    finally:
        torch.set_float32_matmul_precision(before)


def test_what_is_kept_follows_the_classes_and_is_not_copied() -> None:
    system = OrbitSystem(2, 2, 12)
    for perturbation in (0.0, 0.3):
        centers = Centers(system, 100, perturbation=perturbation)
        z = torch.randn(4, 12, generator=torch.Generator().manual_seed(0))
        centers.search(z, 3)
        centers.extend(900)
        fresh = Centers(system, 1000, perturbation=perturbation)
        assert torch.equal(centers.search(z, 3).labels, fresh.search(z, 3).labels)
        other = Centers(system, 700, perturbation=perturbation, seed=4)
        centers.load_state_dict(other.state_dict())
        assert torch.equal(centers.search(z, 3).labels, other.search(z, 3).labels)
        assert centers._kept.tensors
        assert not copy.deepcopy(centers)._kept.tensors
        assert len(pickle.dumps(centers)) < 20_000


@pytest.mark.parametrize("perturbation", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("exponent", [-1000, -149, -105, -80, 80, 120, 127, 900])
def test_the_size_of_an_embedding_changes_no_ranking(perturbation: float, exponent: int) -> None:
    """From numbers that float32 holds no more to the largest ones; other rows are answered, too."""
    centers = Centers(OrbitSystem(2, 1, 9), 200, perturbation=perturbation)
    z = torch.randn(4, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = centers.nearest(z.float(), 5)
    sized = z.float().double() * 2.0**exponent
    labels, cosines = centers.nearest(sized, 5)
    assert torch.equal(labels, expected[0])
    assert torch.equal(cosines, expected[1])
    if -125 < exponent < 125:
        labels, cosines = centers.nearest(sized.float(), 5)
        assert torch.equal(labels, expected[0])
        assert torch.equal(cosines, expected[1])


@pytest.mark.parametrize("perturbation", [0.0, 0.05])
def test_extreme_coordinates_hold_no_other_row_up(perturbation: float) -> None:
    centers = Centers(OrbitSystem(2, 2, 16), 5000, perturbation=perturbation)
    z = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    expected = centers.nearest(z[6:], 3)
    z[0] = 3e38
    z[1], z[1, 3] = 0.0, 1e-32
    z[2], z[2, 3] = 0.0, 1e-45
    z[3, 0], z[4, 0], z[5] = torch.inf, torch.nan, 0.0
    labels, cosines = centers.nearest(z, 3)
    assert torch.equal(labels[6:], expected[0])
    assert torch.equal(cosines[6:], expected[1])
    assert cosines[[3, 4]].isnan().all()
    assert torch.isfinite(cosines[[0, 1, 2, 5]]).all()
    assert (cosines[[1, 2], 0] > 0.3).all()


@pytest.mark.parametrize("size", [1e-25, 1e-3, 1.0, 1e25])
@pytest.mark.parametrize("perturbation", [0.0, 0.1])
def test_scores_are_right_at_any_norm(size: float, perturbation: float) -> None:
    centers = Centers(OrbitSystem(1, 1, 30), 400, perturbation=perturbation, radius=3.0)
    z = torch.randn(5, 30, generator=torch.Generator().manual_seed(0)) * size
    labels, cosines = centers.nearest(z, 4)
    vectors = centers.vectors(labels).double()
    exact = torch.cosine_similarity(z.double()[:, None] / size, vectors, dim=2)
    assert torch.allclose(cosines.double(), exact, atol=1e-6)
    same, distances = centers.nearest(z, 4, metric="euclidean")
    assert torch.equal(labels, same)
    assert torch.allclose(distances.double(), -(z.double()[:, None] - vectors).norm(dim=2), rtol=1e-6)
    assert (distances.diff(dim=1) <= 0).all()


def test_the_distance_at_the_own_center_is_zero() -> None:
    for perturbation in (0.0, 0.05):
        centers = Centers(OrbitSystem(2, 2, 64), 1000, perturbation=perturbation, radius=7.0)
        own = torch.arange(1000)
        labels, distances = centers.nearest(centers.vectors(own), 1, metric="euclidean")
        assert torch.equal(labels[:, 0], own)
        assert (distances == 0).all()


def test_a_search_among_very_many_says_so() -> None:
    system = OrbitSystem(2, 2, 12)
    z = torch.eye(12)[:2]  # ties that no list resolves
    with (
        patch.object(search, "_MANY", 1000),
        patch.object(search, "product_is_cheapest", return_value=False),
        pytest.warns(UserWarning, match=r"nearest of 2,970 classes in V22 in 12 dimen"),
    ):
        search.search(system, z, 5, Classes(2970, lambda i: i, lambda i: i, reach=0.1, centers=system.vectors))
    with patch.object(search, "_MANY", 1000), warnings.catch_warnings():
        warnings.simplefilter("error")
        found = search.search(system, z, 5, whole(system))  # equal scores may come in any order there
        assert torch.equal(found.scores, system.nearest(z, 5)[1])


def brute(system: OrbitSystem, z: Tensor, k: int) -> Tensor:
    return scores_of_all(system, z, torch.arange(system.capacity)).argsort(dim=1, descending=True, stable=True)[:, :k]


@pytest.mark.parametrize("k", [1, 2, 7, 100, 419, 420, 1000])
def test_any_number_of_answers(k: int) -> None:
    system = OrbitSystem(2, 2, 8)
    z = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(system.nearest(z, k)[0], brute(system, z, k))
    for perturbation in (0.0, 0.1):
        labels, scores = Centers(system, 300, perturbation=perturbation).nearest(z, k)
        assert labels.shape == (3, min(k, 300))
        assert (scores.diff(dim=1) <= 0).all()
        assert all(len(row.unique()) == len(row) for row in labels)
