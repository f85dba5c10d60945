"""Centers: assignment, perturbation, state, and the exact nearest classes in every case."""

import io
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lsc.centers import Centers
from lsc.centers.permutation import Permutation
from lsc.centers.perturbation import displacement, norm_bound
from lsc.errors import UserError
from lsc.systems import OrbitSystem, System, effort, gaussian, parse_system, simplex
from tests.orbits import KINDS, embeddings, orbit_systems, searched

pytestmark = pytest.mark.usefixtures("every_way_to_the_nearest")


def brute_force(centers: Centers, z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Ranking by the documented rule, from the matrix of all centers (at the system's norm)."""
    all_centers = centers.vectors(torch.arange(centers.num_classes)).double() * (centers.system.norm / centers.radius)
    scores = (z.float().double() @ all_centers.T).float()
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    return order, scores.gather(1, order)


@settings(deadline=None, max_examples=150)
@given(
    orbit_systems(max_dim=9),
    st.sampled_from(KINDS),
    st.integers(1, 10),
    st.floats(0.01, 1),
    st.sampled_from(["ordered", "shuffled", "table"]),
    st.integers(0, 1000),
    st.booleans(),
)
def test_nearest_equals_brute_force_with_part_of_the_vectors(
    system: OrbitSystem, kind: str, k: int, used: float, assignment: str, seed: int, by_listing: bool
) -> None:
    count = max(1, round(used * system.capacity))
    table = torch.randperm(system.capacity, generator=torch.Generator().manual_seed(seed))[:count]
    centers = Centers(system, count, table if assignment == "table" else assignment, seed=seed)
    z = embeddings(kind, 3, system.dim, seed)
    labels, scores = brute_force(centers, z, k)
    with searched(by_listing):
        found = centers.search(z, k)
    assert torch.equal(found.labels, labels)
    assert torch.allclose(found.scores, scores)


@settings(deadline=None, max_examples=150)
@given(
    orbit_systems(max_dim=9),
    st.sampled_from(["normal", "bfloat16", "one-hot", "huge", "near a center"]),
    st.integers(1, 10),
    st.floats(0.01, 1),
    st.sampled_from([1e-4, 0.05, 0.3, 2.0]),
    st.integers(0, 1000),
    st.booleans(),
)
def test_nearest_equals_brute_force_with_perturbed_centers(
    system: OrbitSystem, kind: str, k: int, used: float, perturbation: float, seed: int, by_listing: bool
) -> None:
    centers = Centers(system, max(1, round(used * system.capacity)), perturbation=perturbation, seed=seed)
    if kind == "near a center":
        z = centers.vectors(torch.arange(3) % centers.num_classes) + 0.1 * embeddings("normal", 3, system.dim, seed)
    else:
        z = embeddings(kind, 3, system.dim, seed)
    labels, scores = brute_force(centers, z, k)
    with searched(by_listing):
        found = centers.search(z, k)
    # The matrix is at another radius, which may turn a tie of float32 numbers: such an exchange is no mistake.
    differ = found.labels != labels
    assert torch.allclose(found.scores, scores, rtol=1e-6, atol=1e-6 * float(z.float().norm(dim=1).max()))
    assert not differ.any() or torch.allclose(found.scores[differ], scores[differ], rtol=3e-7)


@pytest.mark.parametrize(("name", "perturbation"), [("A", 0.0), ("V21", 0.0), ("V22", 0.0), ("A", 0.05), ("V22", 0.05)])
@pytest.mark.parametrize("k", [1, 5])
def test_the_proof_spares_most_of_the_vectors_in_a_system_of_20_000(
    name: str, perturbation: float, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effort, "matrix_may_be_kept", lambda *_: False)
    centers = Centers(parse_system(name, None, 40_000), 20_000, perturbation=perturbation)
    generator = torch.Generator().manual_seed(0)
    own = torch.randint(20_000, (20,), generator=generator)
    noise = torch.randn(20, centers.dim, generator=generator)
    z = 0.7 * centers.vectors(own) / centers.radius + 0.7 * noise / noise.norm(dim=1, keepdim=True)
    found = centers.search(z, k)
    assert torch.equal(found.labels, brute_force(centers, z, k)[0])
    if name == "A":  # in the other systems' few dimensions, this much noise confuses neighbours
        assert torch.equal(found.labels[:, 0], own)
    if k == 1:
        assert name != "A" or found.looked_at.median() <= 7  # what two of the best vectors take to list
    # Without signal, too, the answer is right, by whatever way.
    assert torch.equal(centers.search(noise, k).labels, brute_force(centers, noise, k)[0])


@pytest.mark.parametrize("num_classes", [3, 40, 1000])
def test_few_classes_in_a_large_system_are_scanned(num_classes: int) -> None:
    centers = Centers(OrbitSystem(2, 2, 100), num_classes)
    z = torch.randn(5, 100, generator=torch.Generator().manual_seed(0))
    found = centers.search(z, 3)
    assert torch.equal(found.labels, brute_force(centers, z, 3)[0])
    assert (found.looked_at <= num_classes).all()


def test_a_batch_larger_than_a_chunk_and_other_devices_types() -> None:
    centers = Centers(parse_system("A", None, 2000), 1500)
    z = torch.randn(3000, centers.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(centers.nearest(z, 2)[0], brute_force(centers, z, 2)[0])
    assert centers.nearest(z[:0], 2)[0].shape == (0, 2)


def test_rows_that_are_not_finite_do_not_stop_the_others() -> None:
    centers = Centers(OrbitSystem(1, 1, 9), 50)
    z = torch.randn(3, 9)
    z[1, 4] = torch.nan
    labels, scores = centers.nearest(z, 2)
    assert scores[1].isnan().all()
    assert torch.equal(labels[[0, 2]], brute_force(centers, z[[0, 2]], 2)[0])


@pytest.mark.parametrize("system", [OrbitSystem(2, 1, 8), simplex(20), gaussian(64, 16)])
def test_metrics_rank_alike_and_score_as_they_say(system: System) -> None:
    centers = Centers(system, 20, perturbation=0.05, radius=3.0)
    z = torch.randn(7, system.dim, generator=torch.Generator().manual_seed(0))
    vectors = centers.vectors(torch.arange(20))
    labels, cosines = centers.nearest(z, 5)
    assert torch.allclose(cosines, torch.cosine_similarity(z[:, None], vectors, dim=-1).topk(5).values, atol=1e-5)
    same, distances = centers.nearest(z, 5, metric="euclidean")
    assert torch.equal(labels, same)
    assert torch.allclose(distances, -torch.cdist(z, vectors).topk(5, largest=False).values, atol=1e-4)
    with pytest.raises(UserError, match="metric"):
        centers.nearest(z, 1, metric="manhattan")


def test_shuffled_centers_are_all_different_and_depend_on_the_seed() -> None:
    system = OrbitSystem(1, 1, 12)
    everything = torch.arange(system.capacity)
    one, other = Centers(system, system.capacity, seed=1), Centers(system, system.capacity, seed=2)
    assert torch.equal(one.indexes(everything).sort().values, everything)
    assert not torch.equal(one.indexes(everything), other.indexes(everything))
    assert torch.equal(Centers(system, 10, seed=1).vectors(everything[:10]), one.vectors(everything[:10]))


def test_labels_invert_indexes_and_vacant_vectors_have_none() -> None:
    system = OrbitSystem(2, 1, 7)
    for assignment in ("ordered", "shuffled", torch.randperm(system.capacity)[:40]):
        centers = Centers(system, 40, assignment)
        everything = torch.arange(40)
        assert torch.equal(centers.labels(centers.indexes(everything)), everything)
        labels = centers.labels(torch.arange(system.capacity))
        assert (labels >= 0).sum() == 40


def test_perturbation_has_its_size_and_its_bound_and_the_radius_stays() -> None:
    for dim in (2, 17, 512):
        e = displacement(torch.arange(4000), dim, 0.05, seed=3)
        norms = e.norm(dim=1)
        assert norms.max() <= norm_bound(0.05, dim) * (1 + 1e-6)
        assert abs(float(norms.square().mean().sqrt()) / 0.05 - 1) < 0.05
        assert abs(float(e.mean())) < 0.002
        assert torch.equal(displacement(torch.tensor([7]), dim, 0.05, seed=3)[0], e[7])
    # Unclipped coordinates are normal: their fourth moment is three.
    x = displacement(torch.arange(4000), 512, 1.0, seed=0) * math.sqrt(512)
    assert abs(float(x.pow(4).mean()) - 3) < 0.05
    assert abs(float(torch.corrcoef(x[:, :2].T)[0, 1])) < 0.05
    assert abs(float(torch.corrcoef(x[:, [0, 256]].T)[0, 1])) < 0.05
    centers = Centers(OrbitSystem(1, 1, 20), 300, perturbation=0.2, radius=2.0)
    vectors = centers.vectors(torch.arange(300))
    assert torch.allclose(vectors.norm(dim=1), torch.tensor(2.0))
    plain = Centers(OrbitSystem(1, 1, 20), 300).vectors(torch.arange(300))
    cosines = torch.cosine_similarity(plain, vectors, dim=1)
    assert cosines.min() >= math.cos(math.asin(norm_bound(0.2, 20)))
    assert cosines.max() < 1


@pytest.mark.parametrize("kind", ["ordered", "shuffled", "table"])
def test_extend_gives_free_vectors_and_the_old_keep_theirs(kind: str) -> None:
    system = OrbitSystem(1, 1, 8)
    centers = Centers(system, 20, torch.arange(55, 35, -1) if kind == "table" else kind, perturbation=0.1)
    before = centers.vectors(torch.arange(20))
    centers.extend(30)
    assert centers.num_classes == 50
    assert torch.equal(centers.vectors(torch.arange(20)), before)
    assert len(centers.indexes(torch.arange(50)).unique()) == 50
    centers.extend(6)
    assert centers.indexes(torch.arange(56)).sort().values.tolist() == list(range(56))
    with pytest.raises(UserError, match="57 classes do not fit"):
        centers.extend(1)


def test_vacant_tells_new_classes_from_old() -> None:
    system = OrbitSystem(1, 1, 30)
    centers = Centers(system, 400)
    everything = Centers(system, system.capacity).vectors(torch.arange(system.capacity))
    assert centers.vacant(everything).tolist() == [False] * 400 + [True] * (system.capacity - 400)
    centers.extend(system.capacity - 400)
    assert not centers.vacant(everything).any()


@pytest.mark.parametrize("kind", ["ordered", "shuffled", "table"])
def test_state_restores_everything_into_fresh_centers(kind: str) -> None:
    system = OrbitSystem(2, 1, 9)
    table = torch.randperm(system.capacity)[:30]
    centers = Centers(system, 30, table if kind == "table" else kind, perturbation=0.1, radius=5.0, seed=11)
    centers.extend(12)
    file = io.BytesIO()
    torch.save(centers.state_dict(), file)
    file.seek(0)
    fresh = Centers(system, 3)
    assert fresh.load_state_dict(torch.load(file, weights_only=True)).missing_keys == []
    assert fresh.num_classes == 42
    assert torch.equal(fresh.vectors(torch.arange(42)), centers.vectors(torch.arange(42)))
    z = torch.randn(5, 9)
    assert torch.equal(fresh.nearest(z, 3)[0], centers.nearest(z, 3)[0])
    # Loading shares nothing with the state it came from, and is a part of a larger module's.
    outer = torch.nn.ModuleDict({"centers": Centers(system, 3)})
    outer.load_state_dict({f"centers.{key}": value for key, value in centers.state_dict().items()})
    assert outer["centers"].num_classes == 42


def test_state_of_another_system_is_refused() -> None:
    state = Centers(OrbitSystem(1, 1, 9), 30).state_dict()
    for system in (OrbitSystem(1, 1, 10), OrbitSystem(2, 1, 9), gaussian(40, 9)):
        with pytest.raises(RuntimeError, match="not of the system"):
            Centers(system, 30).load_state_dict(state)
    with pytest.raises(RuntimeError, match="not of the system"):
        Centers(gaussian(40, 9, seed=1), 30).load_state_dict(Centers(gaussian(40, 9), 30).state_dict())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_classes": 73}, "use more dimensions"),
        ({"num_classes": 0}, "1 or more"),
        ({"perturbation": -0.1}, "perturbation"),
        ({"radius": 0.0}, "radius"),
        ({"assignment": "random"}, "use 'shuffled'"),
        ({"assignment": torch.zeros(5, dtype=torch.int64)}, "two classes"),
        ({"assignment": torch.arange(6)}, "5 int64 indexes"),
        ({"assignment": torch.arange(70, 75)}, "outside"),
    ],
)
def test_mistakes_name_the_remedy(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Centers(OrbitSystem(1, 1, 9), **{"num_classes": 5, **arguments})  # type: ignore[arg-type]
    centers = Centers(OrbitSystem(1, 1, 9), 5)
    with pytest.raises(IndexError):
        centers.vectors(torch.tensor([5]))
    with pytest.raises(ValueError, match="shape"):
        centers.nearest(torch.zeros(2, 8))


def test_indexes_that_are_kept_are_those_of_the_permutation() -> None:
    """Kept for few classes and computed for many: the limit shows nowhere, nor does a change of seed or number."""
    system = OrbitSystem(1, 1, 70)
    centers = Centers(system, 4000, seed=5)
    fresh = Centers(system, 10)
    for more in (0, 96, 1, 600):
        centers.extend(more)
        fresh.load_state_dict(centers.state_dict())
        labels = torch.arange(centers.num_classes)
        expected = Permutation(system.capacity, 5)(labels)
        assert torch.equal(centers.indexes(labels), expected)
        assert torch.equal(fresh.indexes(labels), expected)
        assert torch.equal(fresh.labels(expected), labels)
    with pytest.raises(IndexError):
        Centers(system, 40).indexes(torch.tensor([40]))
