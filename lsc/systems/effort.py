"""What it costs to list vectors and to look at all classes, in nanoseconds, so that a search can choose the cheaper.

The constants were fitted to the times of one core of a CPU (processor time, the least of three calls): of ``list_best`` for 2
to 8,192 vectors of V11 in 1,133, V22 in 64 and V33 in 64 coordinates, and of ``scan`` among 10,000 to 1.28 million classes in
these, for 1, 8 and 64 embeddings, which they give within a factor of two. Only their ratios matter, and a wrong choice is not
dear: listing is given up when it has cost what looking at all classes would.
"""

from dataclasses import dataclass

from lsc.systems.arrangements import Arrangements
from lsc.systems.classes import Classes
from lsc.systems.multiplying import matrix_may_be_kept
from lsc.systems.scanning import centers_are_kept, places_are_kept

# Of a round of listing, and of looking at all classes: the calls themselves, whatever the sizes.
_ROUND, _SCAN = 400_000.0, 500_000.0
# Of listing, for each row: a coordinate (they are sorted), an entry of the lists, a vector found.
_COORDINATE, _ENTRY, _VECTOR = 2.5, 25.0, 200.0
# Of looking at a class: to work out where it has an entry, to read that, and for each row to score it.
_PLACE, _READ, _SCORED = 150.0, 2.5, 0.45
# Of the best k of C classes, for each row, times the root of k C.
_BLOCKS = 25.0
# Of a coordinate of a displaced center: to make it, to read it, and for each row to multiply it; and to make and score it alone.
_MADE, _KEPT, _MULTIPLIED, _ALONE = 25.0, 0.25, 0.05, 30.0
# Of a product with the matrix of all classes: the calls, and to read a coordinate; for each score, to take it and look for the
# best, and for each of its coordinates.
_PRODUCT, _PRODUCT_READ, _PRODUCT_SCORE, _PRODUCT_COORDINATE = 150_000.0, 0.8, 1.8, 0.025


@dataclass(frozen=True)
class _Otherwise:
    """What a search by listing or looking takes that goes well: the calls, and for each row, and for each of its answers."""

    calls: float
    row: float
    answer: float


_FULL, _PART = _Otherwise(1_050_000.0, 2_000.0, 500.0), _Otherwise(1_400_000.0, 2_000.0, 1_500.0)
_DISPLACED = _Otherwise(2_300_000.0, 10_000.0, 3_000.0)


def product_is_cheapest(system: Arrangements, classes: Classes, rows: int, k: int) -> bool:
    """Whether the classes are so few that a matrix product with all of them takes less than any other search."""
    if not matrix_may_be_kept(system, classes):
        return False
    score = _PRODUCT_SCORE + _PRODUCT_COORDINATE * system.dim
    product = _PRODUCT + classes.count * (_PRODUCT_READ * system.dim + rows * score)
    vectors = _FULL if classes.count == system.capacity else _PART
    otherwise = vectors if classes.centers is None else _DISPLACED
    return product < otherwise.calls + rows * (otherwise.row + k * otherwise.answer)


def listing_cost(system: Arrangements, classes: Classes, rows: int, count: int, entries: int) -> float:
    """Of a round that lists the best ``count`` vectors for so many rows."""
    displaced = 0.0 if classes.centers is None else 2 * center_cost(system)
    return _ROUND + rows * (_COORDINATE * system.dim + _ENTRY * entries + _VECTOR * count + displaced)


def scanning_cost(system: Arrangements, classes: Classes, rows: int, k: int) -> float:
    """Of looking at all classes for so many rows."""
    total = _SCAN + rows * _BLOCKS * (k * classes.count) ** 0.5
    coordinates = classes.count * system.dim
    if classes.centers is not None and centers_are_kept(system, classes):
        return total + coordinates * (_KEPT + _MULTIPLIED * rows)
    entries = classes.count * (system.plus + system.minus)
    total += entries * (_READ if places_are_kept(system, classes) else _PLACE) + rows * classes.count * _SCORED
    return total + (0.0 if classes.centers is None else coordinates * (_MADE + _MULTIPLIED * rows))


def center_cost(system: Arrangements) -> float:
    """Of scoring one displaced center for one embedding."""
    return _ALONE * system.dim
