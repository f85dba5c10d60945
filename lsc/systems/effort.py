"""What it costs to list vectors and to look at all classes, in nanoseconds, so that a search can choose the cheaper.

The constants were fitted to the times of one core of a CPU (processor time, the least of three calls): of ``list_best`` for 2
to 8,192 vectors of V11 in 1,133, V22 in 64 and V33 in 64 coordinates, of ``scan`` among 10,000 to 1.28 million classes in
these, for 1, 8 and 64 embeddings, and of ``multiply`` among 300 to 100,000 classes of V11 and V22 for 1 to 512, which they give
within a factor of two. Only their ratios matter, and a wrong choice is not dear: listing is given up where it costs a good
part of what looking at all classes does.
"""

import math

from lsc.systems.arrangements import Arrangements
from lsc.systems.classes import Classes
from lsc.systems.scanning import places_are_kept

CHANGES_NO_RESULT = True

# Of a round of listing, of one with displaced centers, and of a scan: the calls themselves, whatever the sizes.
_ROUND, _ROUND_DISPLACED, _SCAN = 400_000.0, 3_000_000.0, 500_000.0
# Of listing, for each row: a coordinate (they are sorted), an entry of the lists, a vector found.
_COORDINATE, _ENTRY, _VECTOR = 2.5, 25.0, 200.0
# Of looking at a class: to work out where it has an entry, to read that, and for each row to score it.
_PLACE, _READ, _SCORED = 150.0, 2.5, 0.45
# Of the best k of C classes, for each row, times the root of k C.
_BLOCKS = 25.0
# Of a coordinate of a displaced center: to make it, and for each row to multiply it; and to make and score it alone.
_MADE, _MULTIPLIED, _ALONE = 25.0, 0.05, 30.0
# Of a product with the matrix of all classes: the calls, and to read a coordinate; for each score, and for each of its
# coordinates; for each row, to look for its best in blocks, times the root of k C; and of a coordinate that is scored exactly.
_PRODUCT, _PRODUCT_READ, _PRODUCT_SCORE, _PRODUCT_COORDINATE = 150_000.0, 0.24, 0.29, 0.031
_PRODUCT_ROW, _PRODUCT_BLOCKS, _PRODUCT_EXACT = 1_500.0, 15.0, 0.7


# Of a search by listing or a scan that goes well: the calls, and for each row, and for each of its answers; where all vectors
# are classes, where some are, and where centers are displaced.
_FULL, _PART, _DISPLACED = (950_000.0, 800.0, 700.0), (980_000.0, 1_600.0, 800.0), (2_900_000.0, 4_000.0, 3_000.0)
# Bytes of the matrix of all centers up to which it is kept, unless keep_matrices says otherwise.
_matrix_kept: float = 1 << 29
# It may go badly: so many times its cost is given for a product, whose cost is sure.
_SURE = 1.5


def keep_matrices(up_to: float) -> None:
    """Let searches of this process keep the matrix of all centers where it takes at most so many bytes, 512 MB at first.

    A search among many displaced centers that no bound ends early has to look at all of them, and makes them anew each time. With
    their matrix at hand it takes about as long as a product with it; the answers are the same.

    Raises:
        ValueError: a negative number.
    """
    global _matrix_kept
    if not up_to >= 0:
        raise ValueError(f"up_to is {up_to}: give a number of bytes")
    _matrix_kept = up_to


def matrix_may_be_kept(system: Arrangements, classes: Classes) -> bool:
    """Whether the matrix of all classes is small enough to be kept from one search to the next."""
    return 4 * classes.count * system.dim <= _matrix_kept


def product_is_cheapest(system: Arrangements, classes: Classes, rows: int, k: int) -> bool:
    """Whether the classes are so few that a matrix product with all of them takes less than listing vectors."""
    vectors = _FULL if classes.count == system.capacity else _PART
    calls, row, answer = vectors if classes.centers is None else _DISPLACED
    return _product_cost(system, classes, rows, k) < _SURE * (calls + rows * (row + k * answer))


def product_is_cheaper_than_scan(system: Arrangements, classes: Classes, rows: int, k: int) -> bool:
    """Whether a matrix product is the cheaper of the two ways to look at all classes."""
    return _product_cost(system, classes, rows, k) < _scan_cost(system, classes, rows, k)


def looking_cost(system: Arrangements, classes: Classes, rows: int, k: int) -> float:
    """Of looking at all classes for so many rows, by a scan or by a matrix product."""
    return min(_product_cost(system, classes, rows, k), _scan_cost(system, classes, rows, k))


def _product_cost(system: Arrangements, classes: Classes, rows: int, k: int) -> float:
    """Of a product with the matrix of all classes; infinite where that is too large to be kept."""
    if not matrix_may_be_kept(system, classes):
        return math.inf
    score = _PRODUCT_SCORE + _PRODUCT_COORDINATE * system.dim
    row = _PRODUCT_ROW + _PRODUCT_BLOCKS * (k * classes.count) ** 0.5 + _PRODUCT_EXACT * k * system.dim
    return _PRODUCT + classes.count * (_PRODUCT_READ * system.dim + rows * score) + rows * row


def _scan_cost(system: Arrangements, classes: Classes, rows: int, k: int) -> float:
    total = _SCAN + rows * _BLOCKS * (k * classes.count) ** 0.5
    coordinates = classes.count * system.dim
    entries = classes.count * (system.plus + system.minus)
    total += entries * (_READ if places_are_kept(system, classes) else _PLACE) + rows * classes.count * _SCORED
    return total + (0.0 if classes.centers is None else coordinates * (_MADE + _MULTIPLIED * rows))


def listing_cost(system: Arrangements, classes: Classes, rows: int, count: int, entries: int) -> float:
    """Of a round that lists the best ``count`` vectors for so many rows."""
    calls, displaced = (_ROUND, 0.0) if classes.centers is None else (_ROUND_DISPLACED, 2 * center_cost(system))
    return calls + rows * (_COORDINATE * system.dim + _ENTRY * entries + _VECTOR * count + displaced)


def center_cost(system: Arrangements) -> float:
    """Of scoring one displaced center for one embedding."""
    return _ALONE * system.dim
