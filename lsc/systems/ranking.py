"""The one rule by which vectors are ranked for an embedding, and the plain way to follow it: look at every vector.

A score is a dot product summed in float64 and rounded once to float32. Larger scores come first; equal ones are
ordered by the lower label. Every search of the package follows this rule, so their answers agree to the last bit.
"""

from collections.abc import Callable

import torch
from torch import Tensor

# Scores held at one time while all vectors are looked at.
_SCORES_AT_ONCE = 4_000_000


def dense_scores(z: Tensor, vectors: Tensor) -> Tensor:
    """Scores of all ``vectors`` (C, dim) for all of ``z`` (B, dim): (B, C)."""
    return (z.double() @ vectors.double().T).float()


def best_of(scores: Tensor, labels: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` best of the candidates ``scores`` (B, C) with ``labels`` (B, C) by the rule: labels, scores (B, k)."""
    by_label = labels.argsort(1)
    by_score = scores.gather(1, by_label).argsort(dim=1, descending=True, stable=True)[:, :k]
    order = by_label.gather(1, by_score)
    return labels.gather(1, order), scores.gather(1, order)


def scan(z: Tensor, count: int, k: int, score: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """The ``k`` best of labels 0..count-1 for ``z`` (B, dim), looking at all: labels (B, k), scores (B, k).

    ``score(z, labels)`` gives the scores (B, C) of a chunk of labels (C,). Memory O(B chunk), whatever the count.
    """
    chunk = max(_SCORES_AT_ONCE // max(len(z), z.shape[1], 1), 256)
    best_labels = torch.zeros(len(z), 0, dtype=torch.int64, device=z.device)
    best_scores = torch.zeros(len(z), 0, device=z.device)
    for start in range(0, count, chunk):
        labels = torch.arange(start, min(start + chunk, count), device=z.device)
        places, scores = _first_best(score(z, labels), k)
        best_labels = torch.cat([best_labels, places + start], 1)
        best_scores = torch.cat([best_scores, scores], 1)
        # Labels grow from chunk to chunk, so a stable sort leaves the lower one in front.
        order = best_scores.argsort(dim=1, descending=True, stable=True)[:, :k]
        best_labels, best_scores = best_labels.gather(1, order), best_scores.gather(1, order)
    return best_labels, best_scores


def _first_best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Places and values of the k largest of each row, of equal ones the first (which topk alone does not promise)."""
    bits = (scores + 0.0).contiguous().view(torch.int32).long()  # + 0.0 makes -0 equal to 0
    rank = torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)  # grows with the score
    width = scores.shape[1]
    key = rank * width + torch.arange(width - 1, -1, -1, device=scores.device)
    places = key.topk(min(k, width), dim=1).indices
    return places, scores.gather(1, places)
