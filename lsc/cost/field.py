"""The exact search for the nearest class against what else there is, in one run: one table, and where another is faster.

Rivals that are exact: a chunked matrix product, faiss's flat index and scikit-learn's brute-force neighbours. Approximate ones:
faiss's HNSW (Malkov and Yashunin 2018) and IVF. All get the matrix of all centers, and their index, ready-made; the search has
what it keeps from its first call. All answer the same questions in one process, in a random order in every repetition.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lsc.centers import Centers
from lsc.cost.decode import CASES, centers_of, chunked_matmul, matrix_of, questions
from lsc.cost.interval import median_interval
from lsc.cost.timing import Record, machine, turn
from lsc.errors import UserError
from lsc.systems import keep_matrices
from lsc.training.devices import available_bytes

EXACT = ("matmul", "faiss_flat", "sklearn")
APPROXIMATE = ("hnsw", "ivf")
# (embeddings, k) to the labels of the k nearest classes.
Rival = Callable[[Tensor, int], Tensor]
# The target: in no case does the search take longer than so many times the matrix product.
_MOST = 1.5


@dataclass(frozen=True)
class Grid:
    """What is measured.

    Attributes:
        systems, cases: as :func:`lsc.cost.decode.centers_of` takes them.
        sizes: numbers of classes.
        top: numbers of answers.
        cosines: of embeddings to their centers; 0 for random embeddings.
        batch: embeddings at a time.
        repetitions: turns in which everything is called once; six give an interval of 95 %.
        index_up_to: most classes for which an approximate index is built, which takes long.
        rivals: which are measured.
        keep: bytes of the matrix of all centers up to which the search keeps it, see :func:`lsc.systems.keep_matrices`.
    """

    systems: tuple[str, ...] = ("A", "V22")
    cases: tuple[str, ...] = CASES
    sizes: tuple[int, ...] = (10_000, 100_000, 1_281_167)
    top: tuple[int, ...] = (1, 5, 10)
    cosines: tuple[float, ...] = (0.95, 0.7, 0.0)
    batch: int = 64
    repetitions: int = 7
    index_up_to: int = 100_000
    rivals: tuple[str, ...] = (*EXACT, *APPROXIMATE)
    keep: float | None = None


def field_records(grid: Grid) -> Iterator[Record]:
    """One record for each system, case, size, number of answers and cosine, on the CPU.

    Fields: system, case, dim, classes, k, cosine, batch, repetitions, seconds (median, of the search), and for each rival its
    name with _seconds (median), _ratio, _low and _high (its time to that of the search: median and 95 % interval) and
    _recall (share of the search's answers that it gives); ``left_out`` says which rivals were not measured, and why.
    """
    unknown = set(grid.rivals) - set(_RIVALS)
    if unknown:
        raise UserError(f"rival {min(unknown)!r} is unknown: use some of {', '.join(_RIVALS)}")
    if grid.keep is not None:
        keep_matrices(up_to=grid.keep)
    place = torch.device("cpu")
    rivals: dict[str, Rival] = {}
    for system in grid.systems:
        for case in grid.cases:
            for size in grid.sizes:
                rivals.clear()  # the last case's make room first
                centers = centers_of(case, system, size)
                rivals, left_out = _rivals(centers, grid, size)
                for k in grid.top:
                    for cosine in grid.cosines:
                        z, _ = questions(centers, cosine, grid.batch, place)
                        record: Record = {
                            "kind": "field", "system": system, "case": case, "dim": centers.dim,
                            "classes": centers.num_classes, "k": k, "cosine": cosine, "batch": grid.batch,
                            "repetitions": grid.repetitions, "left_out": left_out, "keep": grid.keep,
                        }  # fmt: skip
                        yield record | _times(centers, rivals, z, k, grid.repetitions) | machine(place)


def _times(centers: Centers, rivals: dict[str, Rival], z: Tensor, k: int, repetitions: int) -> Record:
    exact = centers.search(z, k).labels
    record: Record = {}
    for name, answer in rivals.items():  # warm, as the search is by now
        given = answer(z, k)
        record[f"{name}_recall"] = float((given[:, :, None] == exact[:, None, :]).any(dim=1).float().mean())
    runs: dict[str, Callable[[], object]] = {"search": lambda: centers.search(z, k)}
    runs |= {name: partial(answer, z, k) for name, answer in rivals.items()}
    turns = [turn(runs, z.device, seed) for seed in range(repetitions)]
    record["seconds"] = median_interval([times["search"] for times in turns])[0]
    for name in rivals:
        ratios = median_interval([times[name] / times["search"] for times in turns])
        record |= dict(zip((f"{name}_ratio", f"{name}_low", f"{name}_high"), ratios, strict=True))
        record[f"{name}_seconds"] = median_interval([times[name] for times in turns])[0]
    return record


def _rivals(centers: Centers, grid: Grid, size: int) -> tuple[dict[str, Rival], dict[str, str]]:
    """Ways to the k nearest classes, and what was left out and why."""
    needed = 4 * centers.num_classes * centers.dim
    room = available_bytes(torch.device("cpu"))
    if grid.keep is not None and needed <= grid.keep:
        room -= needed  # which the search will hold
    left_out: dict[str, str] = {}
    for name in (*EXACT, *APPROXIMATE):
        if name not in grid.rivals:
            left_out[name] = "not asked for"
        elif name in APPROXIMATE and size > grid.index_up_to:
            left_out[name] = "too many classes to build an index"
        elif (1.25 if name == "matmul" else 4) * needed > room:  # the others hold copies
            left_out[name] = f"a matrix of {needed / 1e9:.1f} GB"
    chosen = [name for name in (*EXACT, *APPROXIMATE) if name not in left_out]
    matrix = matrix_of(centers, torch.device("cpu")) if chosen else torch.empty(0)
    return {name: _RIVALS[name](matrix) for name in chosen}, left_out


def _matmul(matrix: Tensor) -> Rival:
    return lambda z, k: chunked_matmul(z, matrix, k)


def _faiss_flat(matrix: Tensor) -> Rival:
    faiss = _faiss()
    flat = faiss.IndexFlatIP(matrix.shape[1])
    flat.add(matrix.numpy())
    return lambda z, k: torch.from_numpy(flat.search(z.numpy(), k)[1])


def _sklearn(matrix: Tensor) -> Rival:
    try:
        from sklearn.neighbors import NearestNeighbors
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: pip install 'lsc[bench]'") from None
    # All centers have one norm, so the nearest by distance are those of the largest product.
    neighbours = NearestNeighbors(algorithm="brute").fit(matrix.numpy())
    return lambda z, k: torch.from_numpy(neighbours.kneighbors(z.numpy(), k, return_distance=False))


def _hnsw(matrix: Tensor) -> Rival:
    faiss = _faiss()
    graph = faiss.IndexHNSWFlat(matrix.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction, graph.hnsw.efSearch = 200, 64
    graph.add(matrix.numpy())
    return lambda z, k: torch.from_numpy(graph.search(z.numpy(), k)[1])


def _ivf(matrix: Tensor) -> Rival:
    faiss = _faiss()
    count, dim = matrix.shape
    lists = min(max(round(4 * count**0.5), 1), max(count // 39, 1))  # faiss asks for 39 training vectors a list
    coarse = faiss.IndexFlatIP(dim)
    inverted = faiss.IndexIVFFlat(coarse, dim, lists, faiss.METRIC_INNER_PRODUCT)
    inverted.train(matrix.numpy())
    inverted.add(matrix.numpy())
    inverted.nprobe = max(lists // 16, 1)

    def nearest(z: Tensor, k: int) -> Tensor:
        assert coarse.ntotal == lists  # the inverted index does not own its quantiser, which has to live as long
        return torch.from_numpy(inverted.search(z.numpy(), k)[1])

    return nearest


_RIVALS: dict[str, Callable[[Tensor], Rival]] = {
    "matmul": _matmul, "faiss_flat": _faiss_flat, "sklearn": _sklearn, "hnsw": _hnsw, "ivf": _ivf,
}  # fmt: skip


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise UserError("faiss is not installed: pip install 'lsc[bench]', or leave it out of --rivals") from None
    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss


def line(record: Record) -> str:
    """A row of the table: the search's time, and each rival's as a multiple of it with its interval."""
    shown = []
    for name in (*EXACT, *APPROXIMATE):
        if f"{name}_ratio" in record:
            recall = f" (recall {record[f'{name}_recall']:.2f})" if name in APPROXIMATE else ""
            low, high = record[f"{name}_low"], record[f"{name}_high"]
            shown.append(f"{name} {record[f'{name}_ratio']:.1f} ({low:.1f} to {high:.1f}){recall}")
    reasons = sorted(set(record["left_out"].values()) - {"not asked for"}) if not shown else []
    return (
        f"{record['system']:<4} {record['case']:<12} {record['classes']:>9,} classes, top-{record['k']:<2} "
        f"cosine {record['cosine']:.2f}: {1e3 * record['seconds']:8.2f} ms; "
        + ("; ".join(shown) or f"no rival: {'; '.join(reasons)}")
    )


def verdict(records: Iterable[Record]) -> str:
    """Where an exact rival is faster than the search, with all of its interval, or that none is; and what the target says."""
    rows = list(records)
    pairs = [(row, name) for row in rows for name in EXACT if f"{name}_ratio" in row]
    faster = [(row, name) for row, name in pairs if row[f"{name}_high"] < 1]
    undecided = sum(row[f"{name}_low"] < 1 <= row[f"{name}_high"] for row, name in pairs)
    text = f"Of {len(pairs)} comparisons with exact rivals {len(faster)} are lost and {undecided} undecided."
    beside = [row["matmul_ratio"] for row in rows if "matmul_ratio" in row]
    slow = sum(_MOST * ratio < 1 for ratio in beside)
    text += (
        f"\nIn {slow} of {len(beside)} cases the search takes more than {_MOST} times as long as the matrix product."
    )
    for row, name in faster:
        text += (
            f"\n{name} takes {row[f'{name}_ratio']:.2f} of the search's {1e3 * row['seconds']:.2f} ms: {row['system']}, "
            f"{row['case']}, {row['classes']:,} classes, top-{row['k']}, cosine {row['cosine']}"
        )
    return text
