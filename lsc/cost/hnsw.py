"""Cost of finding the nearest class through an approximate index: the time to build it, and what it misses."""

import time
from collections.abc import Iterator

import torch

from lsc.cost.decode import centers_of, questions
from lsc.cost.timing import Record, machine, seconds
from lsc.errors import UserError


def hnsw_records(
    system: str, classes: int, cosine: float = 0.9, batch: int = 256, k: int = 1, repetitions: int = 3,
    neighbours: int = 32, breadths: tuple[int, ...] = (16, 64, 256),
) -> Iterator[Record]:  # fmt: skip
    """One record for each breadth of the search (efSearch) and repetition, with the exact search in turns beside it.

    The index is faiss's IndexHNSWFlat (Malkov and Yashunin 2018) with ``neighbours`` links, built with a breadth of 200,
    over all vectors of the least system that holds ``classes``; on the CPU. Fields: system, dim, classes, cosine, batch,
    k, neighbours, breadth, build_seconds, index_bytes (vectors and links), repetition, seconds (of the exact search, for
    the batch), hnsw_seconds, hnsw_ratio, and recall (share of the exact answers that the index finds).
    """
    try:
        import faiss
    except ImportError:
        raise UserError("faiss is not installed: pip install 'lsc[bench]'") from None
    place = torch.device("cpu")
    centers = centers_of("full", system, classes)
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexHNSWFlat(centers.dim, neighbours, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 200
    start = time.perf_counter()
    for first in range(0, centers.num_classes, 65_536):
        labels = torch.arange(first, min(first + 65_536, centers.num_classes))
        index.add(centers.vectors(labels).numpy())
    build = time.perf_counter() - start
    z, _ = questions(centers, cosine, batch, place)
    exact = centers.search(z, k).labels
    for breadth in breadths:
        index.hnsw.efSearch = breadth
        found = torch.from_numpy(index.search(z.numpy(), k)[1])
        recall = float((found[:, :, None] == exact[:, None, :]).any(dim=1).float().mean())
        for repetition in range(repetitions):
            own = seconds(lambda: centers.search(z, k), place, least=0.1)
            taken = seconds(lambda: index.search(z.numpy(), k), place, least=0.1)
            yield {
                "kind": "hnsw", "system": system, "dim": centers.dim, "classes": centers.num_classes, "cosine": cosine,
                "batch": batch, "k": k, "neighbours": neighbours, "breadth": breadth, "build_seconds": build,
                "index_bytes": centers.num_classes * (4 * centers.dim + 4 * 2 * neighbours), "repetition": repetition,
                "seconds": own, "hnsw_seconds": taken, "hnsw_ratio": taken / own, "recall": recall,
            } | machine(place)  # fmt: skip
