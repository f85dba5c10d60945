"""Systems whose vectors are listed in a matrix: for small sets, and for comparison with the orbit systems."""

import math
from collections import Counter

import torch
from torch import Tensor

from lsc.checks import check_count, check_embeddings, check_ids, check_seed, check_within
from lsc.errors import UserError
from lsc.systems.base import System, in_rows
from lsc.systems.orbit import OrbitSystem
from lsc.systems.ranking import nearest_of

# Above this number of vectors a matrix stops being a good idea (see intrinsic() and simplex()).
MAX_LISTED = 100_000


class ExplicitSystem(System):
    """Vectors given as the rows of ``matrix`` (capacity, dim), kept in float32.

    Rows are divided by their norms, so that ``norm`` is 1 and nearest by dot product, by cosine and by Euclidean
    distance mean the same. A row of norm zero, or a value that is not finite, is an error. ``name`` is for tables.
    """

    def __init__(self, matrix: Tensor, name: str = "explicit") -> None:
        matrix = matrix.detach().to(torch.float64)
        if matrix.ndim != 2 or 0 in matrix.shape:
            raise UserError(f"the vectors of a system must be the rows of a matrix, not of shape {tuple(matrix.shape)}")
        norms = matrix.norm(dim=1, keepdim=True)
        if not bool(torch.isfinite(matrix).all()) or not bool((norms > 0).all()):
            raise UserError("a vector of the system is zero or not finite: leave it out")
        self.matrix = (matrix / norms).float()
        self.dim = matrix.shape[1]
        self._name = name
        self._copies = {self.matrix.device: self.matrix}

    def __repr__(self) -> str:
        return f"ExplicitSystem({self._name}, {self.capacity} x {self.dim})"

    @property
    def name(self) -> str:
        return self._name

    @property
    def norm(self) -> float:
        return 1.0

    @property
    def capacity(self) -> int:
        return self.matrix.shape[0]

    @property
    def max_cosine(self) -> float:
        best = -1.0
        for start in range(0, self.capacity, 1024):
            cosines = self.matrix[start : start + 1024] @ self.matrix.T
            cosines[torch.arange(len(cosines)), torch.arange(start, start + len(cosines))] = -2.0
            best = max(best, float(cosines.max()))
        return best

    def cosine_spectrum(self) -> dict[float, int]:
        """Cosines between the first vector and the others, rounded to 6 decimals.

        Unlike the orbit systems' it need not be the same for every vector.
        """
        cosines = (self.matrix[1:].double() @ self.matrix[0].double()).tolist()
        counts = Counter(round(cosine, 6) + 0.0 for cosine in cosines)
        return dict(sorted(counts.items(), reverse=True))

    def vectors(self, index: Tensor) -> Tensor:
        check_ids(index, "indexes")
        check_within(index, self.capacity, f"an index of {self.name}")
        return self.matrix_on(index.device)[index]

    def index(self, vectors: Tensor) -> Tensor:
        if vectors.shape[-1:] != (self.dim,):
            raise ValueError(f"not a vector of {self.name}")
        flat = vectors.reshape(-1, self.dim).float()
        # Products with vectors that all but coincide may be equal in float32, so the nearest few are compared.
        near, _ = self.nearest(flat, 4)
        apart = (self.vectors(near) - flat[:, None]).abs().amax(2)
        if not bool((apart.amin(1) < 1e-5).all()):
            raise ValueError(f"not a vector of {self.name}")
        return near.gather(1, apart.argmin(1, keepdim=True)).reshape(vectors.shape[:-1])

    def scores(self, z: Tensor, index: Tensor) -> Tensor:
        check_embeddings(z, self.dim)
        taken = self.vectors(in_rows(index, len(z))).double()
        return (taken * z.double().unsqueeze(1)).sum(-1).float().reshape(index.shape)

    def nearest(self, z: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        check_embeddings(z, self.dim)
        check_count(k)
        matrix = self.matrix_on(z.device)
        return nearest_of(z, self.capacity, k, matrix.__getitem__, self.norm)

    def matrix_on(self, device: torch.device) -> Tensor:
        """The matrix on ``device``, copied there once."""
        if device not in self._copies:
            self._copies[device] = self.matrix.to(device)
        return self._copies[device]


def simplex(n: int, dim: int | None = None) -> ExplicitSystem:
    """``n`` vectors with all cosines -1/(n - 1), the least largest cosine there is (an equiangular tight frame).

    In n - 1 dimensions (zeros are appended up to ``dim``), in the coordinates of the Helmert basis.
    """
    dim = n - 1 if dim is None else dim
    if n < 2 or dim < n - 1:
        raise UserError(f"a simplex of {n} vectors needs 2 vectors and {max(n - 1, 1)} dimensions at least, not {dim}")
    _check_listable(n, "simplex")
    matrix = torch.zeros(n, dim, dtype=torch.float64)
    matrix[:, : n - 1] = _hyperplane_basis(n)
    return ExplicitSystem(matrix, "simplex")


def orthoplex(dim: int) -> ExplicitSystem:
    """The 2 dim vectors +e_i, -e_i (a cross-polytope); vectors 2i and 2i + 1 are opposite."""
    _check_listable(2 * dim, "orthoplex")
    basis = torch.eye(dim, dtype=torch.float64)
    return ExplicitSystem(torch.stack([basis, -basis], 1).reshape(2 * dim, dim), "orthoplex")


def one_hot(dim: int) -> ExplicitSystem:
    """The ``dim`` vectors e_i: a coordinate for each class, as the targets of a classification layer have."""
    _check_listable(dim, "one_hot")
    return ExplicitSystem(torch.eye(dim, dtype=torch.float64), "one_hot")


def gaussian(n: int, dim: int, seed: int = 0) -> ExplicitSystem:
    """``n`` independent directions, uniform on the sphere: normalised standard normal vectors."""
    _check_listable(n, "gaussian")
    check_seed(seed)
    if dim < 1:
        raise UserError(f"gaussian in {dim} dimensions: use 1 or more")
    generator = torch.Generator().manual_seed(seed)
    return ExplicitSystem(torch.randn(n, dim, generator=generator, dtype=torch.float64), "gaussian")


def polygon(n: int) -> ExplicitSystem:
    """``n`` unit vectors in 2 dimensions, evenly spaced on the circle: the best there is in the plane."""
    _check_listable(n, "polygon")
    angles = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    return ExplicitSystem(torch.stack([angles.cos(), angles.sin()], 1), "polygon")


def intrinsic(system: OrbitSystem) -> ExplicitSystem:
    """The vectors of ``system`` in an orthonormal basis of the hyperplane orthogonal to (1, ..., 1): dim - 1 numbers.

    The roots of A_2 become a hexagon in the plane, those of A_3 the 12 vertices of a cuboctahedron in space. If
    ``plus`` and ``minus`` differ, the vectors' common component along (1, ..., 1) is lost, and angles change with it.
    """
    _check_listable(system.capacity, f"intrinsic coordinates of {system.name}")
    vectors = system.vectors(torch.arange(system.capacity)).double()
    return ExplicitSystem(vectors @ _hyperplane_basis(system.dim), f"{system.name}_intrinsic")


def _hyperplane_basis(n: int) -> Tensor:
    """Orthonormal columns (n, n - 1) orthogonal to the all-ones vector (Helmert's matrix)."""
    k = torch.arange(1, n, dtype=torch.float64)
    columns = torch.triu(torch.ones(n, n - 1, dtype=torch.float64))
    columns[torch.arange(1, n), torch.arange(n - 1)] = -k
    return columns / (k * (k + 1)).sqrt()


def _check_listable(count: int, what: str) -> None:
    if count > MAX_LISTED:
        raise UserError(f"{what}: {count} vectors are too many to list (at most {MAX_LISTED}): use A, V21 or V22")
