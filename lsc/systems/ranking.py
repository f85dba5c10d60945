"""The one rule by which vectors are ranked for an embedding, and the plain way to follow it: look at every vector.

A score is a dot product summed in float64 and rounded once to float32. Larger scores come first; equal ones are
ordered by the lower label. Every search of the package follows this rule, so their answers agree to the last bit.
"""

from collections.abc import Callable

import torch
from torch import Tensor

# Exponents of float64 numbers that are not subnormal.
_LEAST_EXPONENT, _LARGEST_EXPONENT = -1022, 1023

# Scores held at one time while all vectors are looked at.
_SCORES_AT_ONCE = 4_000_000


def unit_rows(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of ``z`` (B, dim) divided by a power of two, so that the largest coordinate is between 1/2 and 1 in size.

    That is exact and changes no ranking, and no score or norm of them overflows or is lost to rounding.

    Returns:
        float32 (B, dim), without gradient and zero where a row is not finite; the powers (B, 1), float64; and which
        rows are finite (B,).
    """
    z = z.detach().double()
    size = z.abs().amax(1, keepdim=True)
    finite = torch.isfinite(size)
    exponent = torch.frexp(torch.where(finite, size, 0.0)).exponent.long()
    exponent = exponent.clamp(_LEAST_EXPONENT, _LARGEST_EXPONENT)
    unit = torch.where(finite, z, 0.0) * _power_of_two(-exponent)
    return unit.float(), _power_of_two(exponent), finite[:, 0]


def _power_of_two(exponent: Tensor) -> Tensor:
    """2^exponent in float64, made of its bits: exact."""
    return ((exponent + 1023) << 52).view(torch.float64)


def dense_scores(z: Tensor, vectors: Tensor) -> Tensor:
    """Scores of all ``vectors`` (C, dim) for all of ``z`` (B, dim): (B, C)."""
    return (z.double() @ vectors.double().T).float()


def rank_within_rows(row: Tensor, label: Tensor, score: Tensor, rows: int, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` best of the candidates of each row, given as three lists (N,): labels and scores (rows, k), best first.

    Rows with fewer than k candidates are filled up with label -1 and score minus infinity.
    """
    labels = torch.full((rows, k), -1, dtype=torch.int64, device=row.device)
    scores = torch.full((rows, k), -torch.inf, device=row.device)
    if len(row) == 0:
        return labels, scores
    order = label.argsort()
    order = order[score[order].argsort(descending=True, stable=True)]
    order = order[row[order].argsort(stable=True)]
    row, label, score = row[order], label[order], score[order]
    place = torch.arange(len(row), device=row.device) - torch.searchsorted(row, row)
    kept = place < k
    labels[row[kept], place[kept]], scores[row[kept], place[kept]] = label[kept], score[kept]
    return labels, scores


def scan(z: Tensor, count: int, k: int, score: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """The ``k`` best of labels 0..count-1 for ``z`` (B, dim), looking at all: labels (B, k), scores (B, k).

    ``score(z, labels)`` gives the scores (B, C) of a chunk of labels (C,). Memory O(B chunk), whatever the count.
    """
    chunk = max(_SCORES_AT_ONCE // max(len(z), z.shape[1], 1), 256)
    best_labels = torch.zeros(len(z), 0, dtype=torch.int64, device=z.device)
    best_scores = torch.zeros(len(z), 0, device=z.device)
    for start in range(0, count, chunk):
        labels = torch.arange(start, min(start + chunk, count), device=z.device)
        places, scores = first_best(score(z, labels), k)
        best_labels = torch.cat([best_labels, places + start], 1)
        best_scores = torch.cat([best_scores, scores], 1)
        # Labels grow from chunk to chunk, so a stable sort leaves the lower one in front.
        order = best_scores.argsort(dim=1, descending=True, stable=True)[:, :k]
        best_labels, best_scores = best_labels.gather(1, order), best_scores.gather(1, order)
    return best_labels, best_scores


def first_best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Places and values of the k largest of each row, of equal ones the first (which topk alone does not promise)."""
    values, places = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    ties = (values[:, 1:] == values[:, :-1]).any(1).nonzero()[:, 0]
    places = places[:, :k]
    if len(ties):
        places[ties] = _first_of_equal(scores[ties], k)
    return places, scores.gather(1, places)


def _first_of_equal(scores: Tensor, k: int) -> Tensor:
    """Places of the k largest of each row, by whole numbers that no two places share."""
    bits = (scores + 0.0).contiguous().view(torch.int32).long()  # + 0.0 makes -0 equal to 0
    rank = torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)  # grows with the score
    width = scores.shape[1]
    key = rank * width + torch.arange(width - 1, -1, -1, device=scores.device)
    return key.topk(min(k, width), dim=1).indices
