"""What every vector system offers, whether its vectors are listed or given by a rule."""

from abc import ABC, abstractmethod

from torch import Tensor

from lsc.checks import check_ids, described
from lsc.errors import UserError


class System(ABC):
    """A set of vectors of one norm in one dimension, addressed by an integer index.

    Attributes:
        dim: number of coordinates.
        norm: Euclidean norm, the same for every vector.
        capacity: number of vectors, an exact Python integer.
        name: short name for tables and messages.
    """

    dim: int

    @property
    @abstractmethod
    def norm(self) -> float: ...

    @property
    @abstractmethod
    def capacity(self) -> int: ...

    @property
    @abstractmethod
    def name(self) -> str: ...

    @property
    @abstractmethod
    def max_cosine(self) -> float:
        """Largest cosine between two different vectors."""

    @abstractmethod
    def cosine_spectrum(self) -> dict[float, int]:
        """Every cosine between one vector and the others, with its count, in descending order of the cosine."""

    @abstractmethod
    def vectors(self, index: Tensor) -> Tensor:
        """Vectors of an int64 ``index`` of any shape (...): float32 (..., dim), on the index's device."""

    @abstractmethod
    def index(self, vectors: Tensor) -> Tensor:
        """Inverse of :meth:`vectors`: (..., dim) to int64 (...); a vector that is none of the system's is an error."""

    @abstractmethod
    def scores(self, z: Tensor, index: Tensor) -> Tensor:
        """Dot products of ``z`` (B, dim) with the vectors of ``index`` (B,) or (B, K), float32 of the index's shape."""

    @abstractmethod
    def nearest(self, z: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """The ``k`` vectors with the largest dot product with each row of ``z`` (B, dim), exactly.

        All vectors have one norm, so these are also the nearest by cosine and by Euclidean distance. Equal scores
        (after rounding to float32, see :mod:`lsc.systems.ranking`) are ordered by the lower index.

        Returns:
            int64 indexes (B, k) and their float32 dot products (B, k), best first.
        """


def in_rows(index: Tensor, batch: int) -> Tensor:
    """``index`` (B,) or (B, K) as (B, K), for an empty batch too.

    Raises:
        UserError: it does not have one row for each embedding.
    """
    check_ids(index, "indexes")
    if index.ndim not in (1, 2) or len(index) != batch:
        raise UserError(
            f"indexes must be of shape ({batch},) or ({batch}, K), one row per embedding, not {described(index)}"
        )
    return index[:, None] if index.ndim == 1 else index
