"""Centers: the vectors that a set of classes was given, and the classes nearest to an embedding.

Class c owns the vector ``system[assignment(c)]``, displaced by a perturbation of its own and brought to the common
radius. Nothing of size classes x dim exists: a class is an index, and its vector is made when it is needed.
"""

from typing import Any

import torch
from torch import Tensor, nn

from lsc.errors import UserError
from lsc.permutation import Permutation
from lsc.perturbation import displacement
from lsc.systems import ExplicitSystem, OrbitSystem, System
from lsc.systems.ranking import dense_scores, scan

_MODES = ("ordered", "shuffled", "table")


class Centers(nn.Module):
    """Center vectors of ``num_classes`` classes, made from ``system`` on the fly.

    Args:
        system: where the vectors come from; its capacity must be ``num_classes`` or more.
        num_classes: number of classes; grows with :meth:`extend`.
        assignment: "shuffled" (a keyed random permutation of the system's indexes, no table), "ordered" (class c has
            index c) or an int64 tensor (num_classes,) of different indexes, as :func:`~lsc.assignment.similarity_assignment` makes.
        perturbation: relative size of the random displacement. The center of class c is
            radius * normalise(v / |v| + e_c), where e_c is :func:`~lsc.perturbation.displacement`: Gaussian, of norm
            about ``perturbation``, bounded, the same on every machine.
        radius: norm of every center; None means the norm of the system's own vectors.
        seed: of the shuffling and of the perturbation.

    The state dict holds all of the arguments but the system (of which it holds a description that loading compares), so
    that loading restores the classes exactly, those added by :meth:`extend` too.
    """

    table: Tensor

    def __init__(
        self,
        system: System,
        num_classes: int,
        assignment: str | Tensor = "shuffled",
        perturbation: float = 0.0,
        radius: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise UserError(f"number of classes {num_classes}: must be 1 or more")
        if perturbation < 0:
            raise UserError(f"perturbation {perturbation}: must be 0 or more")
        if radius is not None and radius <= 0:
            raise UserError(f"radius {radius}: must be more than 0")
        self.system = system
        self.num_classes = num_classes
        self.perturbation = float(perturbation)
        self.radius = system.norm if radius is None else float(radius)
        self.seed = seed
        table = torch.zeros(0, dtype=torch.int64)
        if isinstance(assignment, Tensor):
            self.assignment, table = "table", _checked_table(assignment, num_classes, system)
        elif assignment in _MODES[:2]:
            self.assignment = assignment
        else:
            raise UserError(f"assignment {assignment!r} is unknown: use 'shuffled', 'ordered' or a tensor of indexes")
        self._check_room(num_classes)
        self.register_buffer("table", table)

    @property
    def dim(self) -> int:
        """Number of coordinates of a center."""
        return self.system.dim

    def extra_repr(self) -> str:
        return (
            f"{self.system.name}, dim={self.dim}, num_classes={self.num_classes}, assignment={self.assignment}, "
            f"perturbation={self.perturbation}, radius={self.radius:.4g}, seed={self.seed}"
        )

    def indexes(self, labels: Tensor) -> Tensor:
        """Indexes into the system of the classes ``labels`` (...), int64."""
        if (
            labels.device.type == "cpu"
            and labels.numel()
            and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes
        ):
            raise IndexError(f"a label is outside of 0..{self.num_classes - 1}")
        if self.assignment == "ordered":
            return labels
        if self.assignment == "shuffled":
            return Permutation(self.system.capacity, self.seed)(labels)
        return self.table[labels]

    def vectors(self, labels: Tensor) -> Tensor:
        """Centers of ``labels`` (...): float32 (..., dim), all of norm ``radius``."""
        vectors = self.system.vectors(self.indexes(labels))
        if self.perturbation == 0:
            return vectors * (self.radius / self.system.norm)
        moved = vectors / self.system.norm + displacement(labels, self.dim, self.perturbation, self.seed)
        return self.radius * nn.functional.normalize(moved, dim=-1)

    def nearest(self, z: Tensor, k: int = 1, metric: str = "cosine") -> tuple[Tensor, Tensor]:
        """The ``k`` classes whose centers are nearest to each row of ``z`` (B, dim), exactly.

        All centers have one norm, so both metrics rank alike; they differ in the scores. Equal scores are ordered by
        the lower class (see :mod:`lsc.systems.ranking`).

        Args:
            metric: "cosine", whose scores are cosines, or "euclidean", whose scores are negative distances.

        Returns:
            int64 labels (B, k) and float32 scores (B, k), best first.
        """
        z = z.detach().float()
        labels, dots = scan(
            z, self.num_classes, min(k, self.num_classes), lambda z, c: dense_scores(z, self.vectors(c))
        )
        return labels, self._metric(z, dots, metric)

    def _metric(self, z: Tensor, dots: Tensor, metric: str) -> Tensor:
        norms = z.norm(dim=1, keepdim=True)
        if metric == "cosine":
            return dots / (norms * self.radius).clamp_min(1e-30)
        if metric == "euclidean":
            return -(norms.square() + self.radius**2 - 2 * dots).clamp_min(0).sqrt()
        raise UserError(f"metric {metric!r} is unknown: use 'cosine' or 'euclidean'")

    def _check_room(self, num_classes: int) -> None:
        if num_classes > self.system.capacity:
            raise UserError(
                f"{num_classes} classes do not fit into {self.system.name} in {self.dim} dimensions, "
                f"which has {self.system.capacity} vectors: use more dimensions or another system"
            )


def _checked_table(table: Tensor, num_classes: int, system: System) -> Tensor:
    if table.shape != (num_classes,) or table.dtype != torch.int64:
        raise UserError(f"an assignment must be {num_classes} int64 indexes, not {tuple(table.shape)} of {table.dtype}")
    if int(table.min()) < 0 or int(table.max()) >= system.capacity:
        raise UserError(f"an assignment names a vector outside of the {system.capacity} of {system.name}")
    if len(table.unique()) < num_classes:
        raise UserError("an assignment gives one vector to two classes: make its indexes different")
    return table.detach().clone().contiguous()
