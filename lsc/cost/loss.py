"""Cost of a training step's loss, forward and backward: the same for ten thousand classes and for a thousand million.

Up to 4,096 classes it is a little less: their shuffled indexes are kept and not computed (:class:`lsc.centers.Centers`).

The embedding's gradient is included, the encoder is not. A dense softmax over a matrix of centers stands for the usual
way, up to as many classes as one cares to wait for.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from lsc.centers import Centers
from lsc.cost.timing import Record, least_seconds, machine, peak_bytes, place_of
from lsc.objectives import Cosine, Euclidean, OrbitSoftmax
from lsc.systems import parse_system

OBJECTIVES: dict[str, Callable[[Centers], Cosine | Euclidean | OrbitSoftmax]] = {
    "euclidean": Euclidean,
    "cosine": Cosine,
    "orbit_softmax": OrbitSoftmax,
}


def loss_records(
    system: str = "V22", dim: int = 384, class_counts: Iterable[int] = (10**4, 10**6, 10**9), batch: int = 256,
    repetitions: int = 5, dense_up_to: int = 10**5, device: str = "cpu",
) -> Iterator[Record]:  # fmt: skip
    """One record for each objective, number of classes and repetition, all in one dimension.

    Fields: objective (euclidean, cosine, orbit_softmax, dense_softmax), system, dim, classes, batch, repetition,
    seconds (the least of ten steps), peak_bytes, and the ratios time_ratio and memory_ratio to the fewest classes in
    the same repetition; of a dense_softmax, to the orbit_softmax of as many classes.
    """
    place = place_of(device)
    counts = sorted(class_counts)
    steps = {
        (name, count): _step(make(Centers(parse_system(system, dim, count), count)).to(place), dim, batch, place)
        for count in counts
        for name, make in OBJECTIVES.items()
    }
    for count in counts:
        if count <= dense_up_to:
            steps["dense_softmax", count] = _dense_step(Centers(parse_system(system, dim, count), count), batch, place)
    memory = {key: peak_bytes(step, place) for key, step in steps.items()}  # also the warm-up
    for repetition in range(repetitions):
        taken = least_seconds(steps, place)
        for name, count in steps:
            other = ("orbit_softmax", count) if name == "dense_softmax" else (name, counts[0])
            yield {
                "kind": "loss", "objective": name, "system": system, "dim": dim, "classes": count, "batch": batch,
                "repetition": repetition, "seconds": taken[name, count], "peak_bytes": memory[name, count],
                "time_ratio": taken[name, count] / taken[other],
                "memory_ratio": memory[name, count] / memory[other],
            } | machine(place)  # fmt: skip


def _step(
    objective: Cosine | Euclidean | OrbitSoftmax, dim: int, batch: int, device: torch.device
) -> Callable[[], None]:
    z, labels = _batch(objective.num_classes, dim, batch, device)

    def step() -> None:
        z.grad = None
        objective.zero_grad()
        torch.autograd.backward(objective.loss(z, labels))

    return step


def _dense_step(centers: Centers, batch: int, device: torch.device) -> Callable[[], None]:
    matrix = F.normalize(centers.vectors(torch.arange(centers.num_classes)), dim=1).to(device)
    z, labels = _batch(centers.num_classes, centers.dim, batch, device)

    def step() -> None:
        z.grad = None
        torch.autograd.backward(F.cross_entropy(16.0 * F.normalize(z, dim=1) @ matrix.T, labels))

    return step


def _batch(num_classes: int, dim: int, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(batch, dim, generator=generator).to(device).requires_grad_()
    return z, torch.randint(num_classes, (batch,), generator=generator).to(device)
