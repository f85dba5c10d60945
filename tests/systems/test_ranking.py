"""Looking at all vectors by products in float32, against products of everything in float64."""

from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lsc.systems import ranking
from lsc.systems.ranking import best_of_units, dense_scores, nearest_of, unit_rows
from tests.orbits import KINDS, embeddings


def expected(unit: Tensor, vectors: Tensor, k: int) -> tuple[Tensor, Tensor]:
    scores = dense_scores(unit, vectors)
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    return order, scores.gather(1, order)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(5))
def test_rows_are_made_of_one_size_exactly(dtype: torch.dtype, seed: int) -> None:
    """Of any type and size, subnormal and the largest numbers among them, against arithmetic in float64."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(-1100 if dtype == torch.float64 else -160, 130, (200, 1), generator=generator)
    z = (torch.randn(200, 7, generator=generator, dtype=torch.float64) * torch.exp2(sizes.double())).to(dtype)
    info = torch.finfo(dtype)
    z[:5] = torch.tensor([info.max, -info.max, info.tiny, info.smallest_normal * info.eps, 0.0], dtype=dtype)[:, None]
    z[5, 0], z[6, 1], z[7, 2] = torch.inf, -torch.inf, torch.nan
    unit, power, finite = unit_rows(z)
    assert unit.dtype == torch.float32
    assert torch.equal(finite, z.isfinite().all(1))
    assert (unit[~finite] == 0).all()
    size = z[finite].double().abs().amax(1, keepdim=True)
    exponent = torch.frexp(size).exponent.double()
    assert torch.equal(power[finite], torch.exp2(exponent.clamp(-1022, 1023)))
    half = torch.floor(exponent / 2)
    assert torch.equal(unit[finite], (z[finite].double() / torch.exp2(half) / torch.exp2(exponent - half)).float())
    largest = unit[finite].abs().amax(1)[size[:, 0] > 0]
    assert ((largest >= 0.5) & (largest <= 1)).all()


@settings(deadline=None, max_examples=150)
@given(
    st.integers(1, 3000), st.integers(2, 40), st.integers(1, 30), st.sampled_from(KINDS), st.sampled_from([1, 3, 1000]),
    st.sampled_from([1 << 15, 1, 700]), st.sampled_from([0, 0, 1 << 17]), st.integers(0, 1000),
)  # fmt: skip
def test_answers_are_those_of_exact_products(
    count: int, dim: int, k: int, kind: str, values: int, at_once: int, few: int, seed: int
) -> None:
    """Among vectors of few and of many values, so that many scores tie, few, and none; in one chunk and in several."""
    unit = unit_rows(embeddings(kind, 5, dim, seed))[0]
    drawn = torch.randint(-values, values + 1, (count, dim), generator=torch.Generator().manual_seed(seed))
    vectors = drawn.float() / values
    k, norm = min(k, count), float(vectors.norm(dim=1).max())
    with patch.multiple(ranking, _VECTORS_AT_ONCE=at_once, _ROWS_AT_ONCE=3, _FEW=few):
        labels, scores = best_of_units(unit, count, k, vectors.__getitem__, norm)
    order, best = expected(unit, vectors, k)
    same = labels == order
    # Sums in another order may turn a tie of float32 numbers.
    assert torch.allclose(scores, best, rtol=1e-6, atol=1e-6)
    assert torch.allclose(dense_scores(unit, vectors).gather(1, labels)[~same], best[~same], rtol=3e-7)
    assert all(len(row.unique()) == k for row in labels)


@pytest.mark.parametrize("k", [1, 4])
def test_what_float32_cannot_tell_apart_is_ranked_in_float64(k: int) -> None:
    """Thousands of vectors whose scores differ by less than the error of a float32 product."""
    generator = torch.Generator().manual_seed(0)
    unit = unit_rows(torch.rand(4, 64, generator=generator))[0]
    near = unit[:1] + 1e-6 * torch.randn(5000, 64, generator=generator)
    norm = float(near.norm(dim=1).max())
    labels, scores = best_of_units(unit, 5000, k, near.__getitem__, norm)
    order, best = expected(unit, near, k)
    assert torch.equal(labels, order)
    assert torch.equal(scores, best)
    in_float32 = (unit @ near.T).topk(k, dim=1).indices
    assert not torch.equal(in_float32, order)


def test_hardly_any_row_is_scored_anew() -> None:
    """Of random embeddings; otherwise the product in float32 would have been for nothing."""
    generator = torch.Generator().manual_seed(0)
    z, vectors = torch.randn(500, 32, generator=generator), torch.randn(20_000, 32, generator=generator)
    with patch.object(ranking, "dense_scores", side_effect=dense_scores) as anew:
        nearest_of(z, len(vectors), 5, vectors.__getitem__, float(vectors.norm(dim=1).max()))
    assert sum(len(call.args[0]) for call in anew.call_args_list) <= 5


@pytest.mark.parametrize("batch", [0, 1, 2, 15, 16, 17, 129])
def test_any_number_of_embeddings(batch: int) -> None:
    generator = torch.Generator().manual_seed(batch)
    z, vectors = torch.randn(batch, 32, generator=generator), torch.randn(9000, 32, generator=generator)
    labels, scores = nearest_of(z, 9000, 5, vectors.__getitem__, float(vectors.norm(dim=1).max()))
    assert labels.shape == scores.shape == (batch, 5)
    assert torch.equal(labels, (z.double() @ vectors.double().T).topk(5, dim=1).indices)
