"""Centers in a system too rich to be numbered: each class owns a packed code, which may be made to fit what a network thinks."""

from typing import Any

import torch
from torch import Tensor, nn

from lsc.centers.centers import Centers
from lsc.centers.codes import RICHNESS, check_room, distinct, keys, nearest_codes, random_codes, unpack
from lsc.checks import check_count, check_embeddings, check_ids, check_within
from lsc.errors import UserError
from lsc.systems import OrbitSystem
from lsc.systems.ranking import nearest_of
from lsc.systems.search import Found


class CodedCenters(Centers):
    """Centers whose classes own vectors of ``system`` as packed codes (:mod:`lsc.centers.codes`), all of them different.

    Memory is two bits for each coordinate of each class. The codes are random until :meth:`own` or :meth:`fit` gives others.
    The nearest classes are found by a look at every code; there is no perturbation and no index into the system.

    Args:
        system: of four times as many vectors as classes or more; :func:`rich_system` makes one in which some vector is near
            any direction.
        num_classes: number of classes; grows with :meth:`extend`.
        codes: uint8 (num_classes, ceil(dim / 4)); None: random ones.
        radius: norm of every center; None means the norm of the system's own vectors.
        seed: of the random codes.

    The state dict holds the codes and all arguments but the system, of which it holds the sizes that loading compares.
    """

    system: OrbitSystem
    # No buffer: a wrapper for several processes would send it around at every step.
    codes: Tensor

    def __init__(
        self,
        system: OrbitSystem,
        num_classes: int,
        codes: Tensor | None = None,
        radius: float | None = None,
        seed: int = 0,
    ) -> None:
        nn.Module.__init__(self)  # nothing of an assignment of indexes is wanted
        if num_classes < 1:
            raise UserError(f"number of classes {num_classes}: must be 1 or more")
        if radius is not None and radius <= 0:
            raise UserError(f"radius {radius}: must be more than 0")
        check_room(system, num_classes)
        self.system, self.perturbation = system, 0.0
        self.radius = system.norm if radius is None else float(radius)
        self._seed, self._count = seed, num_classes
        if codes is None:
            codes = distinct(random_codes(torch.arange(num_classes), system, seed), system, seed)
        self.own(codes)

    @property
    def num_classes(self) -> int:
        return self._count

    @property
    def room(self) -> int:
        return self.system.capacity // RICHNESS - self.num_classes

    def check_room(self, num_classes: int) -> None:
        check_room(self.system, num_classes)

    @property
    def assignment(self) -> str:
        """ "codes"."""
        return "codes"

    @property
    def seed(self) -> int:
        """Of random codes."""
        return self._seed

    def own(self, codes: Tensor) -> None:
        """Give every class the code in its row of ``codes`` (num_classes, ceil(dim / 4)) uint8.

        Raises:
            UserError: another shape or type, a row that is no vector of the system, or two rows alike.
        """
        system = self.system
        if codes.shape != (self.num_classes, -(-system.dim // 4)) or codes.dtype != torch.uint8:
            raise UserError(
                f"codes of {self.num_classes} classes in {system.dim} dimensions must be uint8 of shape "
                f"({self.num_classes}, {-(-system.dim // 4)}), not {tuple(codes.shape)} of {codes.dtype}"
            )
        for part in torch.split(codes, 8192):
            vectors = unpack(part, system.dim)
            if not bool(((vectors == 1).sum(1) == system.plus).all() & ((vectors == -1).sum(1) == system.minus).all()):
                raise UserError(f"a code is no vector of {system.name} in {system.dim} dimensions")
        if len(torch.unique(keys(codes))) < len(codes):
            raise UserError("two classes have one code: make them different with lsc.centers.codes.distinct")
        self.codes = codes.detach().clone().contiguous()

    def fit(self, directions: Tensor) -> None:
        """Give every class the vector nearest to its direction in ``directions`` (num_classes, dim).

        Of classes with one and the same nearest vector the first gets it, the others get vectors near it.
        """
        self.own(distinct(nearest_codes(directions, self.system), self.system, self.seed))

    def indexes(self, labels: Tensor) -> Tensor:
        """Refused: the vectors of these centers have no indexes."""
        raise UserError(f"centers with codes have no indexes into {self.system.name}: use an objective that needs none")

    def labels(self, index: Tensor) -> Tensor:
        """Refused: as :meth:`indexes`."""
        return self.indexes(index)

    def vectors(self, labels: Tensor) -> Tensor:
        return self._vectors(labels, self.radius)

    def _vectors(self, labels: Tensor, radius: float) -> Tensor:
        check_ids(labels, "labels")
        check_within(labels, self.num_classes, "a label")
        return unpack(self.codes[labels], self.dim) * (radius / self.system.norm)

    def search(self, z: Tensor, k: int = 1) -> Found:
        """As :meth:`nearest`; scores are dot products at the system's norm. Every code is looked at, in chunks."""
        check_count(k)
        check_embeddings(z, self.dim)

        def vectors(rows: slice | Tensor) -> Tensor:
            return unpack(self.codes[rows], self.dim)

        labels, scores = nearest_of(z, self.num_classes, k, vectors, self.system.norm)
        return Found(labels, scores, torch.full_like(labels[:, 0], self.num_classes))

    def vacant(self, z: Tensor) -> Tensor:
        """Whether the system's vector nearest to each row of ``z`` (B, dim) belongs to no class: bool (B,).

        In a rich system hardly any vector belongs to a class, and this is nearly always true.
        """
        check_embeddings(z, self.dim)
        return ~torch.isin(keys(nearest_codes(z.detach().float(), self.system)), keys(self.codes))

    def extend(self, num_new_classes: int, directions: Tensor | None = None) -> None:
        """Give codes to further classes; the old classes keep theirs.

        Args:
            directions: (num_new_classes, dim), such as the means of the new classes' embeddings: each gets the vector
                nearest to its own, or one near it if that is taken; None: random vectors.
        """
        if num_new_classes < 0:
            raise ValueError(f"the number of new classes must be 0 or more, not {num_new_classes}")
        if directions is not None and directions.shape != (num_new_classes, self.dim):
            raise UserError(
                f"directions of {num_new_classes} new classes must have shape ({num_new_classes}, {self.dim}), "
                f"not {tuple(directions.shape)}"
            )
        total = self.num_classes + num_new_classes
        self.check_room(total)
        if directions is None:
            new = random_codes(torch.arange(self.num_classes, total, device=self.codes.device), self.system, self.seed)
        else:
            new = nearest_codes(directions.to(self.codes.device), self.system)
        codes = distinct(torch.cat([self.codes, new]), self.system, self.seed)
        self._count = total
        self.own(codes)

    def _apply(self, fn: Any, recurse: bool = True) -> "CodedCenters":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.codes = fn(self.codes)
        return self

    def _state(self) -> dict[str, Tensor]:
        return {
            "num_classes": torch.tensor(self.num_classes),
            "seed": torch.tensor(self.seed),
            "sizes": torch.tensor([self.radius], dtype=torch.float64),
            "system": torch.tensor([self.system.plus, self.system.minus, self.dim], dtype=torch.float64),
            "codes": self.codes,
        }

    def _take_state(self, state: dict[str, Tensor]) -> None:
        self.radius = float(state["sizes"][0])
        self._count, self._seed = int(state["num_classes"]), int(state["seed"])
        self.own(state["codes"].to(self.codes.device))


def rich_system(dim: int) -> OrbitSystem:
    """The system with a quarter of ones and a quarter of minus-ones in ``dim`` dimensions, at least four.

    The vector nearest to a random direction then has a cosine of 0.899 to it in high dimension, of a largest 0.900 at shares of
    27 in a hundred: 2 phi(t) / sqrt(2 (1 - Phi(t))) for the share 1 - Phi(t), phi and Phi of the normal distribution.
    """
    if dim < 4:
        raise UserError(f"centers with codes need 4 dimensions or more, not {dim}")
    return OrbitSystem(dim // 4, dim // 4, dim)
