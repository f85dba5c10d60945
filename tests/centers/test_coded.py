"""Centers with codes: packing, the nearest code and class, different codes for all, state."""

import io
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lsc.centers import CodedCenters, rich_system
from lsc.centers.codes import distinct, keys, nearest_codes, pack, random_codes, unpack
from lsc.errors import UserError
from lsc.objectives import CenterSoftmax, Cosine
from lsc.systems import OrbitSystem
from tests.orbits import KINDS, embeddings, listed, orbit_systems


@pytest.mark.parametrize("dim", [1, 3, 4, 5])
def test_packing_is_undone_by_unpacking(dim: int) -> None:
    vectors = torch.tensor(list(product((-1.0, 0.0, 1.0), repeat=dim)))
    codes = pack(vectors)
    assert codes.shape == (3**dim, -(-dim // 4))
    assert codes.dtype == torch.uint8
    assert torch.equal(unpack(codes, dim), vectors)
    assert len(codes.unique(dim=0)) == len(keys(codes).unique()) == 3**dim
    assert torch.equal(unpack(codes[None, :2], dim), vectors[None, :2])


@settings(deadline=None, max_examples=100)
@given(orbit_systems(max_dim=8), st.sampled_from(KINDS), st.integers(0, 1000))
def test_the_nearest_code_is_that_of_brute_force(system: OrbitSystem, kind: str, seed: int) -> None:
    z = embeddings(kind, 4, system.dim, seed)
    found = unpack(nearest_codes(z, system), system.dim).double()
    everything = listed(system)
    assert all(any(torch.equal(row, other) for other in everything) for row in found)
    best = (z.double() @ everything.T).amax(1)
    assert torch.allclose((z.double() * found).sum(1), best, rtol=1e-12)


def test_the_nearest_code_to_a_random_direction_is_near() -> None:
    z = torch.randn(200, 512, generator=torch.Generator().manual_seed(0))
    cosines = torch.cosine_similarity(z, unpack(nearest_codes(z, rich_system(512)), 512), dim=1)
    assert abs(float(cosines.mean()) - 0.899) < 0.002


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 100), st.integers(0, 3), st.integers(0, 1000))
def test_codes_become_distinct_and_the_first_stay(count: int, kinds: int, seed: int) -> None:
    system = OrbitSystem(2, 2, 8)  # 420 vectors
    generator = torch.Generator().manual_seed(seed)
    codes = random_codes(torch.randint(kinds + 1, (count,), generator=generator), system, seed)
    found = distinct(codes, system, seed)
    assert len(found.unique(dim=0)) == count
    assert torch.equal(distinct(found, system, seed), found)
    for row in range(count):
        repeats = bool((codes[:row] == codes[row]).all(1).any())
        assert repeats != torch.equal(found[row], codes[row])
    CodedCenters(system, count, found)  # each is a vector of the system


def test_a_code_that_is_taken_is_replaced_by_a_near_one() -> None:
    system = rich_system(256)
    z = torch.randn(1, 256, generator=torch.Generator().manual_seed(0)).expand(50, 256)
    centers = CodedCenters(system, 50)
    centers.fit(z)
    vectors = centers.vectors(torch.arange(50))
    assert len(vectors.unique(dim=0)) == 50
    assert torch.cosine_similarity(vectors[1:], vectors[:1]).min() > 0.9


@settings(deadline=None, max_examples=60)
@given(st.integers(8, 21), st.integers(1, 60), st.integers(1, 9), st.sampled_from(KINDS), st.integers(0, 1000))
def test_nearest_classes_are_those_of_brute_force(dim: int, count: int, k: int, kind: str, seed: int) -> None:
    centers = CodedCenters(rich_system(dim), count, radius=3.0, seed=seed)
    vectors = centers.vectors(torch.arange(count))
    assert torch.allclose(vectors.norm(dim=1), torch.tensor(3.0))
    z = embeddings(kind, 3, dim, seed)
    scores = (z.float().double() @ (vectors * (centers.system.norm / 3.0)).round().double().T).float()
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    found = centers.search(z, k)
    assert torch.equal(found.labels, order)
    assert torch.equal(found.scores, scores.gather(1, order))
    labels, cosines = centers.nearest(z, k)
    assert torch.equal(labels, order)
    expected = torch.cosine_similarity(z.float()[:, None], vectors[order], dim=-1)
    assert torch.allclose(cosines, expected, atol=1e-5)


def test_random_codes_depend_on_the_seed_and_the_class_alone() -> None:
    system = rich_system(64)
    codes = random_codes(torch.arange(9000), system, 1)
    assert torch.equal(random_codes(torch.tensor([8500, 3]), system, 1), codes[[8500, 3]])
    assert not torch.equal(random_codes(torch.arange(9000), system, 2), codes)
    # Every coordinate is a one, and a minus-one, for a quarter of the classes.
    vectors = unpack(codes, 64)
    for value in (1, -1):
        assert ((vectors == value).float().mean(0) - 0.25).abs().max() < 0.03


@pytest.mark.parametrize("known", [False, True])
def test_new_classes_join_and_the_old_keep_their_codes(known: bool) -> None:
    centers = CodedCenters(rich_system(32), 20, seed=3)
    before = centers.vectors(torch.arange(20))
    # The third new class asks for the vector of an old one, the fourth for that of the first new one.
    means = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    means[2], means[3] = before[7], means[0]
    centers.extend(4, means if known else None)
    after = centers.vectors(torch.arange(24))
    assert torch.equal(after[:20], before)
    assert len(after.unique(dim=0)) == 24
    if known:
        assert torch.equal(centers.codes[20:22], nearest_codes(means[:2], rich_system(32)))
        assert torch.cosine_similarity(after[22], before[7], dim=0) > 0.7
        with pytest.raises(UserError, match=r"must have shape \(2, 32\)"):
            centers.extend(2, means)


def test_vacant_tells_vectors_with_a_class_from_those_without() -> None:
    centers = CodedCenters(rich_system(32), 20)
    z = torch.cat([centers.vectors(torch.arange(20)), torch.randn(20, 32)])
    assert centers.vacant(z).tolist() == [False] * 20 + [True] * 20


def test_state_restores_everything_into_fresh_centers() -> None:
    centers = CodedCenters(rich_system(30), 40, radius=2.0, seed=7)
    centers.fit(torch.randn(40, 30))
    centers.extend(3)
    file = io.BytesIO()
    torch.save(Cosine(centers).state_dict(), file)
    file.seek(0)
    fresh = CodedCenters(rich_system(30), 5)
    Cosine(fresh).load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(fresh.codes, centers.codes)
    assert (fresh.num_classes, fresh.radius, fresh.seed) == (43, 2.0, 7)
    assert fresh.codes.data_ptr() != centers.codes.data_ptr()
    fresh.extend(2)
    centers.extend(2)
    assert torch.equal(fresh.codes, centers.codes)
    with pytest.raises(RuntimeError, match="not of the system"):
        CodedCenters(rich_system(31), 5).load_state_dict(centers.state_dict())


def test_memory_is_two_bits_a_coordinate_and_nothing_is_trained_or_sent_around() -> None:
    centers = CodedCenters(rich_system(128), 1000)
    assert centers.codes.numel() * centers.codes.element_size() == 1000 * 128 // 4
    assert list(centers.parameters()) == list(centers.buffers()) == []
    assert centers.to("meta").codes.device.type == "meta"


@pytest.mark.parametrize("objective", [Cosine, CenterSoftmax])
def test_objectives_take_them(objective: Any) -> None:
    centers = CodedCenters(rich_system(16), 50)
    z = centers.vectors(torch.arange(8)).requires_grad_()
    asked = objective(centers)
    asked.loss(z, torch.arange(8)).backward()
    assert torch.isfinite(z.grad).all()
    assert asked.predict(z.detach()).flatten().tolist() == list(range(8))


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (lambda c: CodedCenters(OrbitSystem(1, 1, 5), 6), "four times as many vectors.*use more dimensions"),
        (lambda c: CodedCenters(rich_system(16), 0), "1 or more"),
        (lambda c: CodedCenters(rich_system(16), 5, radius=0.0), "radius"),
        (lambda c: rich_system(3), "4 dimensions or more"),
        (lambda c: c.own(c.codes[:3]), r"shape \(5, 4\)"),
        (lambda c: c.own(c.codes.long()), "uint8"),
        (lambda c: c.own(c.codes[[0, 1, 2, 3, 3]]), "one code"),
        (lambda c: c.own(c.codes | 1), "no vector of V44"),
        (lambda c: c.fit(torch.full((5, 16), torch.nan)), "not finite"),
        (lambda c: c.indexes(torch.arange(3)), "no indexes"),
        (lambda c: c.labels(torch.arange(3)), "no indexes"),
    ],
)
def test_mistakes_name_the_remedy(mistake: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        mistake(CodedCenters(rich_system(16), 5))


@pytest.mark.parametrize("label", [-1, 10])
def test_a_label_of_no_class_is_refused(label: int) -> None:
    centers = CodedCenters(rich_system(16), 10)
    with pytest.raises(IndexError, match=r"a label is outside of 0\.\.9"):
        centers.vectors(torch.tensor([0, label]))
    with pytest.raises(IndexError, match=r"a label is outside of 0\.\.9"):
        Cosine(centers).loss(torch.randn(2, 16), torch.tensor([0, label]))
