"""What a user may get wrong with centers and systems: one line each, or the right answer."""

import io

import pytest
import torch

from lsc.centers import Centers
from lsc.errors import UserError
from lsc.systems import OrbitSystem, System, gaussian, simplex

SYSTEMS = [OrbitSystem(1, 1, 9), OrbitSystem(2, 1, 9), simplex(20, 9 + 11), gaussian(40, 9)]

pytestmark = pytest.mark.usefixtures("every_way_to_the_nearest")


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_an_empty_batch_has_empty_answers(system: System) -> None:
    z, none = torch.zeros(0, system.dim), torch.zeros(0, dtype=torch.int64)
    assert system.scores(z, none).shape == (0,)
    assert system.scores(z, none.reshape(0, 3)).shape == (0, 3)
    assert system.nearest(z, 2)[0].shape == (0, 2)
    centers = Centers(system, 10)
    assert centers.nearest(z, 2, metric="euclidean")[1].shape == (0, 2)
    assert centers.vectors(none).shape == (0, system.dim)
    assert centers.labels(none).shape == (0,)
    if isinstance(system, OrbitSystem):
        assert system.log_partition(z).shape == (0,)
        assert system.log_rest(z, none).shape == (0,)


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_vectors_of_another_dimension_are_refused(system: System) -> None:
    z = torch.zeros(2, system.dim + 1)
    with pytest.raises(UserError, match="embeddings must be floats of shape"):
        system.nearest(z, 1)
    with pytest.raises(UserError, match="embeddings must be floats of shape"):
        system.scores(z, torch.zeros(2, dtype=torch.int64))
    with pytest.raises(UserError, match="indexes must be of shape"):
        system.scores(z[:, 1:], torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="not a vector of"):
        system.index(z)
    if isinstance(system, OrbitSystem):
        for normaliser in (system.log_partition, lambda z: system.log_rest(z, torch.zeros(2, dtype=torch.int64))):
            with pytest.raises(UserError, match="embeddings must be floats of shape"):
                normaliser(z)


@pytest.mark.parametrize("k", [0, -1, 1.5])
@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_no_answers_cannot_be_asked_for(system: System, k: int) -> None:
    for nearest in (system.nearest, Centers(system, 10).nearest):
        with pytest.raises(UserError, match="k must be 1 or more"):
            nearest(torch.zeros(2, system.dim), k)


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
@pytest.mark.parametrize("index", [-1, 10**6])
def test_a_vector_outside_of_the_system_has_no_label(system: System, index: int) -> None:
    for assignment in ("shuffled", "ordered", torch.arange(10)):
        with pytest.raises(IndexError, match="outside of 0"):
            Centers(system, 10, assignment).labels(torch.tensor([0, index]))
    with pytest.raises(IndexError, match="outside of 0"):
        system.vectors(torch.tensor([index]))


@pytest.mark.parametrize("seed", [2**63, 2**64 + 5, -(2**63) - 1, 1.5])
def test_a_seed_that_no_checkpoint_holds_is_refused(seed: int) -> None:
    with pytest.raises(UserError, match="seed"):
        Centers(OrbitSystem(1, 1, 9), 5, seed=seed)
    with pytest.raises(UserError, match="seed"):
        gaussian(5, 3, seed=seed)


@pytest.mark.parametrize("seed", [2**63 - 1, -(2**63)])
def test_the_largest_seeds_are_kept(seed: int) -> None:
    centers = Centers(OrbitSystem(1, 1, 9), 5, perturbation=0.1, seed=seed)
    file = io.BytesIO()
    torch.save(centers.state_dict(), file)
    file.seek(0)
    fresh = Centers(OrbitSystem(1, 1, 9), 5)
    fresh.load_state_dict(torch.load(file))
    assert fresh.seed == seed
    assert torch.equal(fresh.vectors(torch.arange(5)), centers.vectors(torch.arange(5)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_sizes_that_are_no_sizes_are_refused(value: float) -> None:
    for argument in ("perturbation", "radius"):
        with pytest.raises(UserError, match=argument):
            Centers(OrbitSystem(1, 1, 9), 5, **{argument: value})  # type: ignore[arg-type]


def test_dimensions_are_compared_to_the_last_one() -> None:
    state = Centers(OrbitSystem(1, 1, 200_000), 5).state_dict()
    with pytest.raises(RuntimeError, match="not of the system"):
        Centers(OrbitSystem(1, 1, 200_001), 5).load_state_dict(state)
    Centers(OrbitSystem(1, 1, 200_000), 5).load_state_dict(state)


@pytest.mark.parametrize("size", [1e-38, 1e-30, 1e30, 3e38])
def test_listed_systems_rank_embeddings_of_any_norm(size: float) -> None:
    system = gaussian(300, 7)
    z = torch.nn.functional.normalize(torch.randn(4, 7, generator=torch.Generator().manual_seed(0)), dim=1)
    tiny = (z.double() * size).float()
    expected = (tiny.double() @ system.matrix.double().T).topk(3).indices
    assert torch.equal(system.nearest(tiny, 3)[0], expected)
    assert torch.equal(Centers(system, 300, "ordered").nearest(tiny, 3)[0], expected)
    tiny[1, 0] = torch.nan
    assert system.nearest(tiny, 3)[1][1].isnan().all()
