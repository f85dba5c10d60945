"""Which training images make the split ``valid``, where a set has none: every so manieth, or a share of each class.

No class is left without an image to train on.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def every_so_manieth(labels: NDArray[np.int64], every: int) -> NDArray[np.bool_]:
    """(N,) which images are for validation: every ``every``-th of the list, but for the last image of a class.

    Args:
        labels: (N,) class ids, in the order of the list.
    """
    chosen = np.arange(len(labels)) % every == every - 1
    kept = np.bincount(labels[~chosen], minlength=int(labels.max()) + 1)
    for label in np.flatnonzero(kept == 0):
        chosen[np.flatnonzero(labels == label)[:1]] = False
    return chosen


def share_of_each_class(names: Sequence[bytes], labels: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """(N,) which images are for validation: ``share`` of all of them, as evenly over the classes as whole numbers go.

    Fewer, where classes have but one image, which stays: the others do not give more for it.

    Within a class those are taken whose names have the least hashes, so the choice depends neither on an order nor on the
    folder that the images lie in, and a new image moves few others.

    Args:
        names: of the files, as paths; the last part counts, and the whole where two are alike.
        labels: (N,) class ids.
        share: between 0 and 1.
    """
    num_classes = int(labels.max()) + 1
    sizes = np.bincount(labels, minlength=num_classes)
    wanted = share * sizes
    counts = np.minimum(np.floor(wanted), np.maximum(sizes - 1, 0)).astype(np.int64)
    # Whole numbers leave a rest, which goes to the classes furthest below their share; none gets more than that, rounded up.
    rest = max(round(float(wanted.sum())), 1) - int(counts.sum())
    room = counts < np.minimum(sizes - 1, np.ceil(wanted))
    neediest = np.lexsort([np.arange(num_classes), -(wanted - counts)])
    for label in [label for label in neediest if room[label]][: max(rest, 0)]:
        counts[label] += 1
    hashes = [hashlib.sha256(name.rpartition(b"/")[2]).digest() for name in names]
    order = sorted(range(len(names)), key=lambda place: (labels[place], hashes[place], names[place]))
    rank = np.empty(len(names), dtype=np.int64)
    rank[order] = np.arange(len(names))
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return rank - first[labels] < counts[labels]
