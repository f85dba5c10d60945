"""How far apart vectors can be at best: bounds on the largest cosine of any set of unit vectors.

- Rankin, "The closest packing of spherical caps in n dimensions", Glasgow Math. J. 1955: up to dim + 1 vectors (the
  simplex) and up to 2 dim vectors (the orthoplex); exact there.
- Welch, "Lower bounds on the maximum cross correlation of signals", IEEE Trans. Inf. Theory 1974: of the absolute value
  of the cosine.
- Levenshtein, "On bounds for packings in n-dimensional Euclidean space", Soviet Math. Dokl. 1979; in the form of
  Levenshtein, "Universal bounds for codes and designs", Handbook of Coding Theory, 1998: of the cosine, for any number
  of vectors; it contains Rankin's two and is attained by many of the best sets known (E8: 240, Leech: 196,560 at 60
  degrees). Behind it stands the method of Kabatiansky and Levenshtein (1978).
"""

import math

from scipy.optimize import brentq
from scipy.special import log_ndtr, roots_jacobi
from scipy.stats import beta

# Kissing numbers that are proven: the largest number of vectors with all angles 60 degrees or more. 4: Musin (2008);
# 8 and 24: Levenshtein (1979), Odlyzko and Sloane (1979); 3: Schuette and van der Waerden (1953).
KISSING_NUMBERS = {1: 2, 2: 6, 3: 12, 4: 24, 8: 240, 24: 196_560}


def rankin(count: int, dim: int) -> float:
    """No ``count`` unit vectors in ``dim`` dimensions have a largest cosine below this."""
    return -1 / (count - 1) if count <= dim + 1 else 0.0


def welch(count: int, dim: int, order: int | None = None) -> float:
    """Lower bound on the largest ABSOLUTE cosine of ``count`` unit vectors; the best of the first orders if None."""
    if order is None:
        return max(welch(count, dim, order) for order in range(1, 9))
    power = (count / math.comb(dim + order - 1, order) - 1) / (count - 1)
    return max(power, 0.0) ** (1 / (2 * order))


def levenshtein(count: int, dim: int) -> float:
    """No ``count`` unit vectors in ``dim`` (2 or more) dimensions have a largest cosine below this.

    The inverse of Levenshtein's upper bound on the number of vectors. It has pieces: piece 2k - 1 ends where the bound
    is C(dim+k-1, k) + C(dim+k-2, k-1), piece 2k where it is 2 C(dim+k-1, k), the sizes of tight designs.
    """
    if count < 2 or dim < 2:
        raise ValueError(f"the bound is for 2 or more vectors in 2 or more dimensions, not {count} in {dim}")
    k = 1
    while True:
        if count <= math.comb(dim + k - 1, k) + math.comb(dim + k - 2, k - 1):
            low = -1.0 if k == 1 else _largest_root(dim, k - 1, both=True)
            return _solve(lambda s, k=k: _odd_piece(dim, k, s), count, low, _largest_root(dim, k, both=False))
        if count <= 2 * math.comb(dim + k - 1, k):
            low, high = _largest_root(dim, k, both=False), _largest_root(dim, k, both=True)
            return _solve(lambda s, k=k: _even_piece(dim, k, s), count, low, high)
        k += 1


def random_cosine(count: int, dim: int) -> float:
    """Median of the largest cosine of ``count`` random unit vectors, taking the pairs as independent.

    (1 + cosine) / 2 of one pair has the beta distribution with both parameters (dim - 1) / 2.
    """
    pairs = count * (count - 1) / 2
    return float(2 * beta.isf(-math.expm1(-math.log(2) / pairs), (dim - 1) / 2, (dim - 1) / 2) - 1)


def union_bound(spectrum: dict[float, int], noise: float) -> float:
    """Upper bound on the probability that noise moves a unit vector nearer to another vector of its system.

    The noise is normal with standard deviation ``noise`` in every coordinate. A vector at cosine c is nearer with
    probability Q(sqrt((1 - c) / 2) / noise); the bound is the sum over the spectrum, at most 1.
    """
    terms = (math.log(n) + log_ndtr(-math.sqrt((1 - c) / 2) / noise) for c, n in spectrum.items())
    return min(1.0, math.fsum(math.exp(term) if term < 0 else 1.0 for term in terms))


def _solve(bound, count: int, low: float, high: float) -> float:  # type: ignore[no-untyped-def]
    """The cosine at which ``bound`` is ``count``; the bound grows from low to high."""
    margin = 1e-13 * (high - low)
    if bound(high - margin) <= count:
        return high
    if bound(low + margin) >= count:
        return low
    return float(brentq(lambda s: bound(s) - count, low + margin, high - margin, xtol=1e-15, rtol=1e-13))


def _odd_piece(dim: int, k: int, s: float) -> float:
    before, at, _ = _gegenbauer(dim, k, s)
    return math.comb(k + dim - 3, k - 1) * ((2 * k + dim - 3) / (dim - 1) - (before - at) / ((1 - s) * at))


def _even_piece(dim: int, k: int, s: float) -> float:
    _, at, after = _gegenbauer(dim, k, s)
    ratio = (1 + s) * (at - after) / ((1 - s) * (at + after))
    return math.comb(k + dim - 2, k) * ((2 * k + dim - 1) / (dim - 1) - ratio)


def _gegenbauer(dim: int, k: int, s: float) -> tuple[float, float, float]:
    """Gegenbauer polynomials of degrees k - 1, k and k + 1 at ``s``, scaled to 1 at 1."""
    values = [1.0, s]
    for i in range(1, k + 1):
        values.append(((2 * i + dim - 2) * s * values[i] - i * values[i - 1]) / (i + dim - 2))
    return values[k - 1], values[k], values[k + 1]


def _largest_root(dim: int, degree: int, both: bool) -> float:
    """Largest root of the Jacobi polynomial with parameters (dim-1)/2 and, if ``both``, (dim-1)/2, else (dim-3)/2."""
    first = (dim - 1) / 2
    return float(roots_jacobi(degree, first, first if both else first - 1)[0][-1])
