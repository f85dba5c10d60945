"""Orbit and explicit systems: every closed form against the list of all vectors."""

from collections import Counter
from math import comb

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lsc.errors import UserError
from lsc.systems import (
    ExplicitSystem,
    OrbitSystem,
    System,
    gaussian,
    intrinsic,
    one_hot,
    orthoplex,
    parse_system,
    polygon,
    simplex,
)
from tests.orbits import KINDS, embeddings, listed, orbit_systems, scores_of_all, searched

# The permutations of 9 coordinates take long to list in pure Python, so the brute force stops at 7.
small_orbits = orbit_systems(max_dim=7)


@settings(deadline=None, max_examples=40)
@given(small_orbits)
def test_vectors_are_all_arrangements_and_index_inverts_them(system: OrbitSystem) -> None:
    everything = torch.arange(system.capacity)
    vectors = system.vectors(everything)
    expected = listed(system)
    assert len(expected) == system.capacity
    assert torch.equal(vectors.unique(dim=0).double(), expected.unique(dim=0))
    assert torch.equal(system.index(vectors), everything)
    assert torch.allclose(vectors.norm(dim=1), torch.tensor(system.norm))


def test_every_small_system_up_to_nine_dimensions_is_indexed_one_to_one() -> None:
    for plus in range(4):
        for minus in range(4):
            for dim in range(max(plus + minus, 1), 10):
                if plus + minus == 0:
                    continue
                system = OrbitSystem(plus, minus, dim)
                vectors = system.vectors(torch.arange(system.capacity))
                assert len(vectors.unique(dim=0)) == system.capacity
                assert ((vectors == 1).sum(1) == plus).all()
                assert ((vectors == -1).sum(1) == minus).all()


@settings(deadline=None, max_examples=30)
@given(small_orbits)
def test_cosine_spectrum_counts_what_every_vector_sees(system: OrbitSystem) -> None:
    vectors = listed(system)
    dots = (vectors @ vectors.T).round().long()
    spectrum = system.cosine_spectrum()
    for own in {0, system.capacity // 2, system.capacity - 1}:
        seen = Counter(dots[own].tolist())
        seen[system.plus + system.minus] -= 1
        assert spectrum == {dot / (system.plus + system.minus): n for dot, n in seen.items() if n}
    assert sum(spectrum.values()) == system.capacity - 1
    if system.capacity > 1:
        assert system.max_cosine == max(spectrum)


@settings(deadline=None, max_examples=60)
@given(small_orbits, st.sampled_from(KINDS), st.integers(1, 10), st.integers(0, 1000), st.booleans())
@pytest.mark.usefixtures("every_way_to_the_nearest")
def test_nearest_equals_brute_force_ties_included(
    system: OrbitSystem, kind: str, k: int, seed: int, by_listing: bool
) -> None:
    z = embeddings(kind, 4, system.dim, seed)
    k = min(k, system.capacity)
    scores = (z.double() @ system.vectors(torch.arange(system.capacity)).double().T).float()
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    with searched(by_listing):
        index, found = system.nearest(z, k)
    assert torch.equal(index, order)
    assert torch.equal(found, scores.gather(1, order))
    assert torch.equal(system.scores(z, index), found)
    assert torch.equal(scores_of_all(system, z, torch.arange(system.capacity)), scores)


@pytest.mark.parametrize(
    ("plus", "minus", "dim"), [(1, 1, 40_000), (2, 1, 2000), (2, 2, 768), (3, 3, 200), (5, 4, 60), (0, 4, 3000)]
)
@pytest.mark.usefixtures("every_way_to_the_nearest")
def test_index_inverts_vectors_of_huge_systems(plus: int, minus: int, dim: int) -> None:
    system = OrbitSystem(plus, minus, dim)
    assert 10**9 <= system.capacity < 2**63
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(system.capacity, (20,), generator=generator)
    index[0], index[1] = 0, system.capacity - 1
    vectors = system.vectors(index)
    assert torch.equal(system.index(vectors), index)
    # The nearest vector of a vector is itself, and a little noise does not matter.
    assert torch.equal(system.nearest(vectors + 0.2 * torch.rand(20, dim, generator=generator), 1)[0][:, 0], index)


def test_capacity_is_exact_beyond_64_bits_and_indexing_refuses() -> None:
    system = OrbitSystem(10, 10, 1000)
    assert system.capacity == comb(1000, 10) * comb(990, 10) > 2**63
    with pytest.raises(UserError, match="64-bit"):
        system.vectors(torch.tensor([0]))
    assert torch.isfinite(system.log_partition(torch.randn(2, 1000))).all()


@pytest.mark.parametrize(
    ("classes", "dims"),
    [(1_000, (33, 14, 10)), (100_000, (317, 60, 27)), (600_000, (776, 108, 41)), (1_281_167, (1133, 138, 50))],
)
def test_least_dimensions(classes: int, dims: tuple[int, int, int]) -> None:
    found = tuple(OrbitSystem.smallest(classes, plus, minus).dim for plus, minus in ((1, 1), (2, 1), (2, 2)))
    assert found == dims
    for (plus, minus), dim in zip(((1, 1), (2, 1), (2, 2)), dims, strict=True):
        assert OrbitSystem(plus, minus, dim - 1).capacity < classes <= OrbitSystem(plus, minus, dim).capacity


@pytest.mark.parametrize(("plus", "minus", "cosine"), [(1, 1, 1 / 2), (2, 1, 2 / 3), (2, 2, 3 / 4), (3, 3, 5 / 6)])
def test_largest_cosines(plus: int, minus: int, cosine: float) -> None:
    assert OrbitSystem(plus, minus, 12).max_cosine == pytest.approx(cosine)


def test_a_vector_or_index_that_is_none_of_its_own_is_an_error() -> None:
    system = OrbitSystem(2, 1, 5)
    for wrong in ([1, 1, 0, 0, 0], [1, 1, -1, 0.5, 0], [1, 1, 1, -1, 0], [1, 1, -1, 0]):
        with pytest.raises(ValueError, match="not a vector"):
            system.index(torch.tensor([wrong]))
    with pytest.raises(IndexError):
        system.vectors(torch.tensor([system.capacity]))
    with pytest.raises(IndexError):
        system.vectors(torch.tensor([-1]))


def test_systems_of_one_description_are_one_key() -> None:
    assert len({OrbitSystem(1, 1, 5), OrbitSystem(1, 1, 5), OrbitSystem(1, 1, 6)}) == 2


def test_angles_of_the_explicit_systems() -> None:
    def cosines(system: ExplicitSystem) -> torch.Tensor:
        gram = system.matrix.double() @ system.matrix.double().T
        return gram[~torch.eye(len(gram), dtype=torch.bool)]

    assert torch.allclose(cosines(simplex(7)), torch.tensor(-1 / 6).double(), atol=1e-6)
    assert simplex(7, 10).dim == 10
    assert set(cosines(orthoplex(5)).round().tolist()) == {0.0, -1.0}
    assert set(cosines(one_hot(5)).tolist()) == {0.0}
    assert polygon(12).max_cosine == pytest.approx(3**0.5 / 2)
    assert gaussian(50, 8, seed=1).matrix.norm(dim=1).sub(1).abs().max() < 1e-6
    assert torch.equal(gaussian(50, 8, seed=1).matrix, gaussian(50, 8, seed=1).matrix)
    for dim in (3, 4, 6):
        roots = OrbitSystem(1, 1, dim)
        flat = intrinsic(roots)
        assert flat.dim == dim - 1
        ambient = roots.vectors(torch.arange(roots.capacity)) / roots.norm
        assert torch.allclose(flat.matrix @ flat.matrix.T, ambient @ ambient.T, atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 40), st.integers(2, 8), st.integers(1, 10), st.integers(0, 100))
@pytest.mark.usefixtures("every_way_to_the_nearest")
def test_explicit_nearest_and_index(n: int, dim: int, k: int, seed: int) -> None:
    system = gaussian(n, dim, seed)
    k = min(k, n)
    z = embeddings("normal", 3, dim, seed)
    index, scores = system.nearest(z, k)
    brute = z.double() @ system.matrix.double().T
    assert torch.allclose(scores.double(), brute.topk(k, dim=1).values, atol=1e-5)
    assert torch.equal(index, brute.topk(k, dim=1).indices)
    assert torch.equal(system.scores(z, index), scores)
    everything = torch.arange(n)
    assert torch.equal(system.index(system.vectors(everything)), everything)


def test_vectors_that_all_but_coincide_keep_their_indexes() -> None:
    angles = torch.tensor([0.3, 0.3 + 1e-4, 2.0], dtype=torch.float64)
    system = ExplicitSystem(torch.stack([angles.cos(), angles.sin()], 1))
    assert system.index(system.vectors(torch.arange(3))).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "name", ["A", "V11", "V21", "V22", "V33", "simplex", "orthoplex", "one_hot", "gaussian", "polygon"]
)
def test_named_systems_hold_their_classes(name: str) -> None:
    system: System = parse_system(name, None, 37)
    assert system.capacity >= 37
    assert system.vectors(torch.tensor([36])).shape == (1, system.dim)


def test_named_systems_in_given_dimensions() -> None:
    assert parse_system("A", 50, 37) == OrbitSystem(1, 1, 50)
    assert parse_system("A_intrinsic", 3, 12).capacity == 12
    assert parse_system("A_intrinsic", None, 6).dim == 2
    assert parse_system("simplex", 50, 37).dim == 50


@pytest.mark.parametrize(
    ("name", "dim", "words"),
    [
        ("A", 6, "use 7 dimensions"),
        ("A_intrinsic", 5, "use 6 dimensions"),
        ("simplex", 10, "use 36 dimensions"),
        ("orthoplex", 10, "use 19 dimensions"),
        ("one_hot", 10, "use 37 dimensions"),
        ("polygon", 3, "set the dimension to 2"),
        ("B", None, "use one of"),
        ("V00", None, "use one of"),
    ],
)
def test_a_mistake_names_the_remedy(name: str, dim: int | None, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_system(name, dim, 37)


def test_too_many_vectors_to_list_are_refused() -> None:
    with pytest.raises(UserError, match="too many to list"):
        parse_system("simplex", None, 10**6)
    with pytest.raises(UserError, match="too many to list"):
        intrinsic(OrbitSystem(1, 1, 1133))


@pytest.mark.usefixtures("every_way_to_the_nearest")
def test_ties_among_thousands_of_millions_are_no_reason_to_look_at_them_all() -> None:
    system = OrbitSystem(2, 2, 384)
    own = system.vectors(torch.tensor([123_456_789]))
    one_hot = torch.eye(384)[:1]
    for z, best, next_best in ((own, 4.0, 3.0), (one_hot, 1.0, 1.0)):
        index, scores = system.nearest(z, 2)
        assert scores[0].tolist() == [best, next_best]
        assert torch.equal(system.scores(z, index), scores)
        assert len(index[0].unique()) == 2
    assert system.nearest(own, 1)[0].item() == 123_456_789
