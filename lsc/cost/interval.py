"""How sure a median of repeated measurements is."""

from collections.abc import Sequence

from lsc.errors import needing


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """The median of independent ``values`` (N,) with an interval that holds the true median with ``confidence``.

    The interval lies between order statistics and supposes nothing of the distribution: the number of values below the
    true median is binomial (e.g. Conover, "Practical nonparametric statistics", 1999, section 3.2). Of fewer values
    than such an interval needs, six at 95 %, it is the least and the greatest.

    Returns:
        median, lower end, upper end.
    """
    import numpy as np

    with needing("bench", "the interval of a median"):
        from scipy.stats import binom

    ordered = np.sort(np.asarray(values, dtype=float))
    if not len(ordered):
        raise ValueError("no values")
    # The interval without the d least and the d greatest misses the true median with twice the chance of d or fewer below it.
    misses = 2 * binom.cdf(np.arange(len(ordered) // 2), len(ordered), 0.5)
    left_out = max(0, int((misses <= 1 - confidence).sum()) - 1)
    return float(np.median(ordered)), float(ordered[left_out]), float(ordered[-1 - left_out])
