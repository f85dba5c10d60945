"""The learned scale: within its limits, and free to come back from them."""

import pytest
import torch

from lsc.centers import Centers
from lsc.errors import UserError
from lsc.objectives import CenterSoftmax, Euclidean, OrbitSoftmax
from lsc.systems import OrbitSystem


@pytest.mark.parametrize("kind", [OrbitSoftmax, CenterSoftmax])
@pytest.mark.parametrize(("log_scale", "limit"), [(4.9, 100.0), (-5.0, 0.01)])
def test_a_scale_beyond_a_limit_stays_there_and_comes_back(kind: type, log_scale: float, limit: float) -> None:
    objective = kind(Centers(OrbitSystem(1, 1, 9), 30), scale=10.0)
    with torch.no_grad():
        objective.log_scale.fill_(log_scale)
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)

    def step(target: float) -> float:
        optimizer.zero_grad()
        (objective.scale.log() - target).square().backward()
        optimizer.step()
        return float(objective.scale.detach())

    for _ in range(5):  # pulled further out
        assert step(2 * log_scale) == pytest.approx(limit, rel=1e-5)
    assert float(objective.log_scale.detach()) == pytest.approx(log_scale)
    for _ in range(50):
        step(1.0)
    assert float(objective.scale.detach()) == pytest.approx(2.718, rel=0.01)


@pytest.mark.parametrize("kind", [OrbitSoftmax, CenterSoftmax])
def test_at_a_limit_a_wrong_prediction_still_softens_the_softmax(kind: type) -> None:
    centers = Centers(OrbitSystem(1, 1, 9), 30)
    objective = kind(centers, scale=100.0)
    objective.loss(centers.vectors(torch.tensor([1, 2])), torch.tensor([3, 4])).backward()
    assert objective.log_scale.grad > 0  # a step down the gradient makes the scale smaller
    objective.log_scale.grad = None
    objective.loss(centers.vectors(torch.tensor([3, 4])), torch.tensor([3, 4])).backward()
    assert abs(float(objective.log_scale.grad)) < 1e-10  # and would make it larger here


@pytest.mark.parametrize("kind", [OrbitSoftmax, CenterSoftmax])
@pytest.mark.parametrize("value", [float("nan"), -1.0])
def test_scales_and_margins_that_are_none_are_refused(kind: type, value: float) -> None:
    for argument in ("scale", "margin"):
        with pytest.raises(UserError, match=argument):
            kind(Centers(OrbitSystem(1, 1, 9), 30), **{argument: value})


def test_the_geometric_loss_of_nan_is_nan() -> None:
    objective = Euclidean(Centers(OrbitSystem(1, 1, 9), 30), cluster_radius=0.5)
    z = torch.full((2, 9), torch.nan)
    assert objective.loss(z, torch.tensor([0, 1])).isnan()
    assert objective.loss(objective.centers.vectors(torch.tensor([1])), torch.tensor([1])) == 0
    with pytest.raises(UserError, match="cluster_radius"):
        Euclidean(objective.centers, cluster_radius=float("nan"))
