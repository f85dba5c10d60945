"""The one rule by which vectors are ranked for an embedding, and the plain way to follow it: look at every vector.

A score is a dot product summed in float64 and rounded once to float32. Larger scores come first; equal ones are
ordered by the lower label. Every search of the package follows this rule, so their answers agree to the last bit.

To look at every vector is a matrix product in float32, which says for nearly every row which few vectors can be the best by
the rule, given the largest error of such a product; the scores of these are then summed in float64.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

# The least and the largest exponent of numbers that are not subnormal.
_EXPONENTS = {torch.float32: (-126, 127), torch.float64: (-1022, 1023)}

# Scores, or coordinates, held at one time while all vectors are looked at.
_SCORES_AT_ONCE = 1 << 22
# Vectors, their coordinates, and embeddings that are multiplied at one time: they and their scores should stay near the core.
_VECTORS_AT_ONCE, _COORDINATES_AT_ONCE, _ROWS_AT_ONCE = 1 << 15, 1 << 21, 128
# So few scores and coordinates are left to exact products at once, which are fewer calls.
_FEW = 1 << 17
# Scores of which the largest stands for all, where the largest of many are looked for.
_BLOCK = 16
# Vectors beyond the k best by float32 products that are scored exactly: almost never does a further one come within their error.
_SPARE = 3
# Rounding error of float32, and of the coarsest type in which a device may be told to multiply float32 numbers.
_UNIT, _COARSE_UNIT = 2.0**-24, 2.0**-8


def unit_rows(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of ``z`` (B, dim) divided by a power of two, so that the largest coordinate is between 1/2 and 1 in size.

    That is exact and changes no ranking, and no score or norm of them overflows or is lost to rounding.

    Returns:
        float32 (B, dim), without gradient and zero where a row is not finite; the powers (B, 1), float64, of which those beyond
        its normal numbers are the last of these; and which rows are finite (B,).
    """
    # As few buffers as can be: to take them from the system and give them back costs more than the arithmetic.
    z = z.detach()
    z = z if z.dtype == torch.float64 else z.float()
    size = torch.maximum(z.amax(1, keepdim=True), -z.amin(1, keepdim=True)).double()
    finite = torch.isfinite(size)
    exponent = torch.frexp(torch.where(finite, size, 0.0)).exponent.long()
    # In two steps: what brings subnormal and the largest numbers to this size is itself beyond their type.
    first = (-exponent).clamp(*_EXPONENTS[z.dtype])
    unit = z * _power_of_two(first).to(z.dtype)
    unit *= _power_of_two(-exponent - first).to(z.dtype)
    power = _power_of_two(exponent.clamp(*_EXPONENTS[torch.float64]))
    return unit.float().masked_fill_(~finite, 0.0), power, finite[:, 0]


def _power_of_two(exponent: Tensor) -> Tensor:
    """2^exponent in float64, made of its bits: exact."""
    return ((exponent + 1023) << 52).view(torch.float64)


# Some rows of the matrix of all vectors, chosen by a slice or by labels (N,): float32 (N, dim).
Rows = Callable[[slice | Tensor], Tensor]


def nearest_of(z: Tensor, count: int, k: int, vectors: Rows, norm: float) -> tuple[Tensor, Tensor]:
    """The ``k`` best of ``count`` vectors for ``z`` (B, dim), or all if there are fewer, looking at all.

    Returns:
        labels (B, k) and float32 scores (B, k), best first; NaN in rows that are not finite.

    Args:
        norm: of every vector, or the largest norm.
    """
    k = min(k, count)
    unit, power, finite = unit_rows(z)
    with torch.autocast(z.device.type, enabled=False):
        labels, scores = best_of_units(unit, count, k, vectors, norm)
    return labels, torch.where(finite[:, None], (scores.double() * power).float(), torch.nan)


def best_of_units(unit: Tensor, count: int, k: int, vectors: Rows, norm: float) -> tuple[Tensor, Tensor]:
    """As :func:`nearest_of` for rows from :func:`unit_rows`. Memory O(B (chunk + k) + chunk dim), whatever the count."""

    def exactly(rows: Tensor) -> tuple[Tensor, Tensor]:
        return scan(rows, count, k, lambda z, labels: dense_scores(z, vectors(labels)))

    wanted = k + _SPARE
    few = not len(unit) or count * (len(unit) + unit.shape[1]) < _FEW or 8 * wanted > count
    if few or not multiplies_in_float32(unit.device):
        return exactly(unit)
    values, labels = _best_in_float32(unit, count, wanted, vectors)
    # Whatever reaches this may be among the k best by the rule.
    least = values[:, k - 1] - 2 * product_error(unit, norm)
    labels = labels.sort(dim=1).values
    scores, order = _scores_of(unit, labels, vectors).sort(dim=1, descending=True, stable=True)
    labels, scores = labels.gather(1, order[:, :k]), scores[:, :k]
    unsure = (values[:, -1] >= least).nonzero()[:, 0]
    if len(unsure):
        labels[unsure], scores[unsure] = exactly(unit[unsure])
    return labels, scores


def _best_in_float32(unit: Tensor, count: int, wanted: int, vectors: Rows) -> tuple[Tensor, Tensor]:
    """The largest ``wanted`` products and their labels (B, wanted), the largest first."""
    # A power of two: products of other widths take up to half as long again.
    chunk = max(min(1 << (_COORDINATES_AT_ONCE // unit.shape[1]).bit_length() - 1, _VECTORS_AT_ONCE), 256)
    # A few columns take longer than 16.
    padding = -len(unit) % 16 if 1 < len(unit) < 16 else 0
    columns = [part.T.contiguous() for part in torch.split(pad(unit, (0, 0, 0, padding)), _ROWS_AT_ONCE)]
    best: list[tuple[Tensor, Tensor]] = []
    for start in range(0, count, chunk):
        some = vectors(slice(start, min(start + chunk, count)))
        # In this order, since the product is the faster then, and its blocks lie together.
        found = [_largest(some @ column, min(wanted, len(some))) for column in columns]
        best.append((torch.cat([values for values, _ in found]), torch.cat([places + start for _, places in found])))
    values, labels = (torch.cat(parts, 1)[: len(unit)] for parts in zip(*best, strict=True))
    values, places = values.topk(wanted, dim=1)
    return values, labels.gather(1, places)


def _scores_of(unit: Tensor, labels: Tensor, vectors: Rows) -> Tensor:
    """Scores (B, N) by the rule of the vectors of ``labels`` (B, N)."""
    step = max(_SCORES_AT_ONCE // (labels.shape[1] * unit.shape[1]), 1)
    parts = zip(torch.split(unit.double(), step), torch.split(labels, step), strict=True)
    own = ((rows, vectors(some.flatten()).double().view(*some.shape, -1)) for rows, some in parts)
    return torch.cat([(its @ rows[:, :, None]).squeeze(2).float() for rows, its in own])


def _largest(scores: Tensor, wanted: int) -> tuple[Tensor, Tensor]:
    """Values and places (B, wanted) of the largest of each column of ``scores`` (C, B), in no certain order among equal ones.

    Out of the rows in blocks, those with the largest maxima, which takes less than to look for them among all.
    """
    count = len(scores)
    if count < 2 * _BLOCK * wanted:
        values, places = scores.topk(wanted, dim=0)
        return values.T, places.T
    blocks = count // _BLOCK  # block i holds rows i, i + blocks, i + 2 blocks, ...; a few are left over
    maxima = scores[: _BLOCK * blocks].view(_BLOCK, blocks, -1).amax(0)
    places = torch.arange(count, device=scores.device)
    chosen = maxima.T.topk(wanted, dim=1).indices[:, :, None] + places[: _BLOCK * blocks : blocks]
    places = torch.cat([chosen.flatten(1), places[_BLOCK * blocks :].expand(len(chosen), -1)], 1)
    values, among = scores.T.gather(1, places).topk(wanted, dim=1)
    return values, places.gather(1, among)


def product_error(unit: Tensor, norm: float) -> Tensor:
    """Largest error (B,) of float32 products of ``unit`` (B, dim) and vectors of ``norm``, and of the exact score's rounding."""
    relative = (unit.shape[1] + 4) * _UNIT + (0.0 if multiplies_in_float32(unit.device) else 2 * _COARSE_UNIT)
    return relative * unit.norm(dim=1) * norm


def multiplies_in_float32(device: torch.device) -> bool:
    """Whether float32 matrices are multiplied as such, and not in TF32 or bfloat16 as torch can be told."""
    try:
        if device.type == "cuda":
            return not torch.backends.cuda.matmul.allow_tf32
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # torch refuses to answer where it was told by its older and its newer settings
        return False


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
    """The ``k`` best of labels 0..count-1 by scores of any kind for ``z`` (B, dim): labels (B, k), scores (B, k).

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
