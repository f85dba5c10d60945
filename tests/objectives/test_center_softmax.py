"""The softmax over used centers: exact against brute force, unbiased where classes are drawn."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import lsc
from lsc.errors import UserError
from lsc.objectives import center_softmax


@settings(deadline=None, max_examples=40)
@given(
    classes=st.integers(2, 40), batch=st.integers(1, 8), seed=st.integers(0, 2**16), perturbation=st.sampled_from([0.0, 0.2]),
    margin=st.sampled_from([0.0, 0.3]), scale=st.floats(0.1, 50),
)  # fmt: skip
def test_it_is_the_cross_entropy_over_all_centers(
    classes: int, batch: int, seed: int, perturbation: float, margin: float, scale: float
) -> None:
    centers = lsc.Centers(lsc.OrbitSystem(1, 1, 7), classes, perturbation=perturbation)
    objective = lsc.CenterSoftmax(centers, scale=scale, margin=margin)
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(batch, 7, generator=generator, requires_grad=True)
    labels = torch.randint(classes, (batch,), generator=generator)
    cosines = F.normalize(z.double(), dim=1) @ F.normalize(centers.vectors(torch.arange(classes)).double(), dim=1).T
    expected = F.cross_entropy(scale * (cosines - margin * F.one_hot(labels, classes)), labels)
    loss = objective.loss(z, labels)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-5)
    (ours,) = torch.autograd.grad(loss, [z], retain_graph=True)
    (theirs,) = torch.autograd.grad(expected, [z])
    assert torch.allclose(ours, theirs, atol=1e-4 * max(1.0, scale))


def test_the_sum_over_drawn_classes_is_the_exact_one_on_average() -> None:
    """With one embedding the batch draws no class but its own; the estimate of the sum of the others is unbiased."""
    torch.manual_seed(0)
    centers = lsc.Centers(lsc.OrbitSystem(1, 1, 8), 50)
    z, label = torch.randn(1, 8), torch.tensor([3])
    exact = lsc.CenterSoftmax(centers, scale=4.0, learn_scale=False).loss(z, label).expm1()
    drawn = lsc.CenterSoftmax(centers, scale=4.0, sample=10, learn_scale=False)
    sums = torch.stack([drawn.loss(z, label).expm1() for _ in range(2_500)])
    error = sums.std().item() / math.sqrt(len(sums))
    assert abs(sums.mean().item() - exact.item()) < 3 * error
    assert error < 0.01 * exact.item()


@pytest.mark.parametrize(("classes", "sample", "batch"), [(12, 10, 8), (40, 10, 8), (12, 11, 2)])
def test_so_it_is_where_the_batch_names_classes_too(
    classes: int, sample: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where sample and batch together are as many as the classes."""
    torch.manual_seed(0)
    centers = lsc.Centers(lsc.OrbitSystem(1, 1, 8), classes)
    z = torch.randn(1, 8).expand(batch, 8)
    exact = lsc.CenterSoftmax(centers, scale=4.0, learn_scale=False).loss(z[:1], torch.tensor([3])).expm1()
    ratios: list[torch.Tensor] = []
    monkeypatch.setattr(center_softmax.F, "softplus", lambda x: ratios.append(x[0].exp()) or x)
    drawn = lsc.CenterSoftmax(centers, scale=4.0, sample=sample, learn_scale=False)
    for _ in range(2_500):
        labels = torch.randint(classes, (batch,))
        labels[0] = 3
        drawn.loss(z, labels)
    sums = torch.stack(ratios)
    error = sums.std().item() / math.sqrt(len(sums))
    assert abs(sums.mean().item() - exact.item()) < 4 * error
    assert error < 0.02 * exact.item()


def test_nothing_grows_with_the_classes() -> None:
    system = lsc.OrbitSystem(2, 2, 64)
    for classes in (10_000, 3_000_000):
        objective = lsc.CenterSoftmax(lsc.Centers(system, classes), sample=64)
        z = torch.randn(8, 64, requires_grad=True)
        objective.loss(z, torch.arange(8)).backward()
        assert objective.trained_values == 1
        assert sum(value.numel() for value in objective.state_dict().values()) < 20
    assert objective.predict(objective.centers.vectors(torch.arange(5))).flatten().tolist() == [0, 1, 2, 3, 4]


def test_sizes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UserError, match="sample 0"):
        lsc.CenterSoftmax(lsc.Centers(lsc.OrbitSystem(1, 1, 4), 5), sample=0)
