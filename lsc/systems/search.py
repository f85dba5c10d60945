from collections.abc import Callable

import torch
from torch import Tensor

from lsc.systems.ranking import dense_scores, scan


def nearest_of_orbit(system, z, k):
    z = z.float()

    def score(z, labels):
        return system.scores(z, labels.expand(len(z), -1))

    return scan(z, system.capacity, k, score)


def nearest_of_listed(vectors: Callable[[Tensor], Tensor], count: int, z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    return scan(z.float(), count, k, lambda z, labels: dense_scores(z, vectors(labels)))
