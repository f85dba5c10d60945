"""Cost of finding the nearest class: the exact search against a chunked matrix product and against faiss.

The rivals get the matrix of all centers ready-made in memory; the search makes every center that it needs. All sides
answer the same questions in one process, in turns, so that the ratio of a repetition is free of the machine's mood.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from lsc.centers import Centers
from lsc.cost.timing import Record, machine, place_of, seconds
from lsc.errors import UserError
from lsc.systems import OrbitSystem, System, parse_system

CASES = ("full", "half", "thirtieth", "perturbed", "perturbed_30")
_CHUNK = 65_536


def centers_of(case: str, system: str, classes: int) -> Centers:
    """Centers of ``case`` in the least dimension: "full" (all vectors used), "half" or a "thirtieth" of
    them, or "perturbed" by 0.05 or, "perturbed_30", by 0.3.

    The number of classes of the full case is the capacity of the system, which is a little more than ``classes``.
    """
    if case == "full":
        return Centers(whole := _least(system, classes), whole.capacity)
    if case == "half":
        return Centers(_least(system, 2 * classes), classes)
    if case == "thirtieth":
        return Centers(_least(system, 30 * classes), classes)
    if case in ("perturbed", "perturbed_30"):
        return Centers(_least(system, classes), classes, perturbation=0.05 if case == "perturbed" else 0.3)
    raise UserError(f"case {case!r} is unknown: use one of {', '.join(CASES)}")


def decode_records(
    cases: Iterable[str], system: str, classes: int, cosines: Iterable[float], batch: int = 256,
    top: Iterable[int] = (1,), repetitions: int = 3, faiss: bool = True, dense: bool = True, device: str = "cpu",
) -> Iterator[Record]:  # fmt: skip
    """One record for each case, cosine between embedding and center, number of answers k in ``top``, and repetition.

    Fields: case, system, dim, classes, cosine, batch, k, repetition, seconds (of the search, for the batch),
    looked_at (mean vectors per embedding), correct (share of embeddings whose own class comes first), and, where
    measured, matmul_seconds, matmul_ratio, matmul_agrees (share of first answers), and the same for faiss.
    """
    place = place_of(device)
    asked = [(cosine, k) for cosine in cosines for k in top]
    for cosine, k in asked:
        if not (0 < cosine <= 1 and 1 <= k <= classes):
            raise UserError(f"cosine {cosine}, top {k}: use cosines up to 1 and 1 to {classes} answers")
    matrix: Tensor | None
    for case in cases:
        matrix = None  # the last case's makes room first
        centers = centers_of(case, system, classes).to(place)
        matrix = matrix_of(centers, place) if dense else None
        for cosine, k in asked:
            z, labels = questions(centers, cosine, batch, place)
            for repetition in range(repetitions):
                found = centers.search(z, k)
                record: Record = {
                    "kind": "decode", "case": case, "system": system, "dim": centers.dim,
                    "classes": centers.num_classes, "cosine": cosine, "batch": batch, "k": k, "repetition": repetition,
                    "seconds": seconds(lambda: centers.search(z, k), place, least=0.2),  # noqa: B023
                    "looked_at": float(found.looked_at.float().mean()),
                    "correct": float((found.labels[:, 0] == labels).float().mean()),
                }  # fmt: skip
                if matrix is not None:
                    _add_rival(record, "matmul", found.labels, lambda: chunked_matmul(z, matrix, k), place)  # noqa: B023
                    if faiss and place.type == "cpu":
                        _add_rival(record, "faiss", found.labels, lambda: _faiss(z, matrix, k), place)  # noqa: B023
                yield record | machine(place)


def questions(centers: Centers, cosine: float, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Unit embeddings (batch, dim) at exactly ``cosine`` to the centers of random labels (batch,), else random."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(centers.num_classes, (batch,), generator=generator)
    own = torch.nn.functional.normalize(centers.vectors(labels.to(device)).cpu(), dim=1)
    noise = torch.randn(batch, centers.dim, generator=generator)
    noise = torch.nn.functional.normalize(noise - (noise * own).sum(1, keepdim=True) * own, dim=1)
    return (cosine * own + (1 - cosine**2) ** 0.5 * noise).to(device), labels.to(device)


def chunked_matmul(z: Tensor, matrix: Tensor, k: int) -> Tensor:
    """The usual way: the ``k`` largest of all dot products, a chunk of classes at a time: labels (B, k)."""
    best, labels = [], []
    for start in range(0, len(matrix), _CHUNK):
        top = (z @ matrix[start : start + _CHUNK].T).topk(min(k, len(matrix) - start), dim=1)
        best.append(top.values)
        labels.append(top.indices + start)
    return torch.cat(labels, 1).gather(1, torch.cat(best, 1).topk(k, dim=1).indices)


def _least(name: str, classes: int) -> System:
    system = parse_system(name, None, classes)
    if not isinstance(system, OrbitSystem):
        raise UserError(f"system {name} has no search of its own to measure: use A, V21 or V22")
    return system


def matrix_of(centers: Centers, device: torch.device) -> Tensor:
    matrix = torch.empty(centers.num_classes, centers.dim, device=device)
    for start in range(0, len(matrix), 8192):
        stop = min(start + 8192, len(matrix))
        matrix[start:stop] = centers.vectors(torch.arange(start, stop, device=device))
    return matrix


def _add_rival(record: Record, name: str, labels: Tensor, run, device: torch.device) -> None:  # type: ignore[no-untyped-def]
    answers: list[Tensor] = [run()]  # warm, as the search is by now
    taken = seconds(lambda: answers.append(run()), device)
    record[f"{name}_seconds"], record[f"{name}_ratio"] = taken, taken / record["seconds"]
    record[f"{name}_agrees"] = float((answers[0][:, 0] == labels[:, 0]).float().mean())


def _faiss(z: Tensor, matrix: Tensor, k: int) -> Tensor:
    try:
        import faiss
    except ImportError:
        raise UserError("faiss is not installed: pip install 'lsc[bench]', or use --no-faiss") from None
    faiss.omp_set_num_threads(torch.get_num_threads())
    _, labels = faiss.knn(z.numpy(), matrix.numpy(), k, metric=faiss.METRIC_INNER_PRODUCT)
    return torch.from_numpy(labels)
