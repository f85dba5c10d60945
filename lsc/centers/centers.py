"""Centers: the vectors that a set of classes was given, and the classes nearest to an embedding.

Class c owns the vector ``system[assignment(c)]``, displaced by a perturbation of its own and brought to the common
radius. Nothing of size classes x dim exists: a class is an index, and its vector is made when it is needed.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from lsc.centers.ownership import MODES, Ownership, checked_table
from lsc.centers.perturbation import displacement, norm_bound
from lsc.checks import check_count, check_embeddings, check_seed, check_within
from lsc.errors import UserError
from lsc.systems import ExplicitSystem, OrbitSystem, System
from lsc.systems.classes import Classes, Kept
from lsc.systems.ranking import nearest_of, unit_rows
from lsc.systems.search import Found, search

# Coordinates of differences between embeddings and centers held at one time.
_COORDINATES_AT_ONCE = 1 << 22


class Centers(nn.Module):
    """Center vectors of ``num_classes`` classes, made from ``system`` on the fly.

    Args:
        system: where the vectors come from; its capacity must be ``num_classes`` or more.
        num_classes: number of classes; grows with :meth:`extend`.
        assignment: "shuffled" (a keyed random permutation of the system's indexes, no table), "ordered" (class c has
            index c, so that few classes share the first few coordinates) or an int64 tensor (num_classes,) of
            different indexes, such as :func:`~lsc.centers.assignment.similarity_assignment` makes.
        perturbation: relative size of the random displacement. The center of class c is
            radius * normalise(v / |v| + e_c), where e_c is :func:`~lsc.centers.perturbation.displacement`: Gaussian, of norm
            about ``perturbation``, bounded, the same on every machine.
        radius: norm of every center; None means the norm of the system's own vectors.
        seed: of the shuffling and of the perturbation.

    The state dict holds all of the arguments but the system (of which it holds a description that loading compares), so
    that loading restores the classes exactly, those added by :meth:`extend` too.
    """

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
        if not 0 <= perturbation < math.inf:  # refuses NaN, too
            raise UserError(f"perturbation {perturbation}: must be 0 or more, and finite")
        if radius is not None and not 0 < radius < math.inf:
            raise UserError(f"radius {radius}: must be more than 0, and finite")
        check_seed(seed)
        self.system = system
        self.perturbation = float(perturbation)
        self.radius = system.norm if radius is None else float(radius)
        table, mode = torch.zeros(0, dtype=torch.int64), assignment
        if isinstance(assignment, Tensor):
            mode, table = "table", checked_table(assignment, num_classes, system)
        elif assignment not in MODES[:2]:
            raise UserError(f"assignment {assignment!r} is unknown: use 'shuffled', 'ordered' or a tensor of indexes")
        self.check_room(num_classes)
        if isinstance(system, OrbitSystem):
            system.check_indexable()
        self._kept = Kept()  # by the search
        self._ownership = Ownership(system.capacity, num_classes, str(mode), seed, table)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self._ownership.num_classes

    @property
    def room(self) -> int:
        """Number of classes that can still be added."""
        return self.system.capacity - self.num_classes

    @property
    def assignment(self) -> str:
        """ "ordered", "shuffled" or "table"."""
        return self._ownership.mode

    @property
    def seed(self) -> int:
        """Of the shuffling and of the perturbation."""
        return self._ownership.seed

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
        return self._ownership.indexes(labels)

    def labels(self, index: Tensor) -> Tensor:
        """Inverse of :meth:`indexes`: the classes of the system's vectors ``index`` (...), -1 where there is none."""
        check_within(index, self.system.capacity, "an index")
        return self._ownership.labels(index)

    def vectors(self, labels: Tensor) -> Tensor:
        """Centers of ``labels`` (...): float32 (..., dim), all of norm ``radius``."""
        return self._vectors(labels, self.radius)

    def _vectors(self, labels: Tensor, radius: float) -> Tensor:
        vectors = self.system.vectors(self.indexes(labels))
        if self.perturbation == 0:
            return vectors * (radius / self.system.norm)
        moved = vectors / self.system.norm + displacement(labels, self.dim, self.perturbation, self.seed)
        return radius * nn.functional.normalize(moved, dim=-1)

    def nearest(self, z: Tensor, k: int = 1, metric: str = "cosine") -> tuple[Tensor, Tensor]:
        """The ``k`` classes whose centers are nearest to each row of ``z`` (B, dim), exactly.

        All centers have one norm, so both metrics rank alike; they differ in the scores. Equal scores are ordered by
        the lower class (see :mod:`lsc.systems.ranking`). There are at most ``num_classes`` columns.

        Args:
            metric: "cosine", whose scores are cosines, or "euclidean", whose scores are negative distances.

        Returns:
            int64 labels (B, k) and float32 scores (B, k), best first.
        """
        if metric not in ("cosine", "euclidean"):
            raise UserError(f"metric {metric!r} is unknown: use 'cosine' or 'euclidean'")
        check_embeddings(z, self.dim)
        unit, _, finite = unit_rows(z)
        found = self.search(torch.where(finite[:, None], unit, torch.nan), k)
        return found.labels, self._metric(z, unit, found, metric)

    def search(self, z: Tensor, k: int = 1) -> Found:
        """As :meth:`nearest`, with the number of vectors looked at; scores are dot products at the system's norm."""
        check_count(k)
        check_embeddings(z, self.dim)
        if isinstance(self.system, OrbitSystem):
            return search(self.system, z, k, self._classes(self.system))

        every = torch.arange(self.num_classes, device=z.device)

        def vectors(rows: slice | Tensor) -> Tensor:
            return self._vectors(every[rows], self.system.norm)

        labels, scores = nearest_of(z, self.num_classes, k, vectors, self.system.norm)
        return Found(labels, scores, torch.full_like(labels[:, 0], self.num_classes))

    def vacant(self, z: Tensor) -> Tensor:
        """Whether the system's vector nearest to each row of ``z`` (B, dim) belongs to no class: bool (B,).

        True for the embedding of something that is unlike all classes so far: a new class has appeared. Perturbation
        plays no part in it, for vectors without a class have none.
        """
        return self.labels(self.system.nearest(z, 1)[0][:, 0]) < 0

    def extend(self, num_new_classes: int) -> None:
        """Give free vectors to ``num_new_classes`` further classes; the old classes keep theirs."""
        if num_new_classes < 0:
            raise ValueError(f"the number of new classes must be 0 or more, not {num_new_classes}")
        self.check_room(self.num_classes + num_new_classes)
        self._ownership.extend(num_new_classes)
        self._kept = Kept()

    def _classes(self, system: OrbitSystem) -> Classes:
        """What :func:`lsc.systems.search.search` must know."""
        size = norm_bound(self.perturbation, self.dim)
        displaced = self.perturbation > 0
        return Classes(
            self.num_classes,
            self._ownership.labels,
            self.indexes,
            reach=math.asin(size) if size < 1 else math.pi,
            centers=(lambda labels: self._vectors(labels, system.norm)) if displaced else None,
            kept=self._kept,
        )

    def _metric(self, z: Tensor, unit: Tensor, found: Found, metric: str) -> Tensor:
        """Scores (B, k) of what was found for ``unit``, the rows of ``z`` (B, dim) divided by powers of two."""
        if metric == "cosine":
            norms = unit.norm(dim=1, keepdim=True) * self.system.norm
            return (found.scores / norms.clamp_min(1e-30)).clamp(-1, 1)
        # From the difference itself: by the theorem of cosines half of the digits are lost near a center.
        step = max(_COORDINATES_AT_ONCE // (self.dim * max(found.labels.shape[1], 1)), 1)
        distances = [
            (rows[:, None].double() - self.vectors(labels)).norm(dim=2)
            for rows, labels in zip(torch.split(z.detach(), step), torch.split(found.labels, step), strict=True)
        ]
        # Distances that agree to the last digits of float32 may be in another order than the products they are ranked by.
        nearest_first = torch.cat(distances).cummax(dim=1).values.float()
        return torch.where(found.scores.isnan(), torch.nan, -nearest_first)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for key, value in self._state().items():
            destination[prefix + key] = value

    def _state(self) -> dict[str, Tensor]:
        """Everything as tensors, which any checkpoint format can hold."""
        return {
            "num_classes": torch.tensor(self.num_classes),
            "seed": torch.tensor(self.seed),
            "sizes": torch.tensor([self.perturbation, self.radius], dtype=torch.float64),
            "assignment": torch.tensor(MODES.index(self.assignment)),
            "system": _description(self.system),
            "table": self._ownership.table,
        }

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        own = self._state()
        missing = [prefix + key for key in own if prefix + key not in state_dict]
        if missing:
            missing_keys.extend(missing)
            return
        state = {key: state_dict[prefix + key] for key in own}
        description = own["system"]
        if state["system"].shape != description.shape or not _alike(self.system, state["system"].cpu(), description):
            error_msgs.append(f"the saved centers are not of the system {self.system.name} in {self.dim} dimensions")
            return
        self._take_state(state)

    def _take_state(self, state: dict[str, Tensor]) -> None:
        """Take over what :meth:`_state` gave."""
        self.perturbation, self.radius = (float(size) for size in state["sizes"])
        table = state["table"].to(self._ownership.table.device, copy=True)
        mode = MODES[int(state["assignment"])]
        self._ownership.set(int(state["num_classes"]), mode, int(state["seed"]), table)
        self._kept = Kept()

    def check_room(self, num_classes: int) -> None:
        """Raise a UserError if the system has fewer than ``num_classes`` vectors."""
        if num_classes > self.system.capacity:
            raise UserError(
                f"{num_classes} classes do not fit into {self.system.name} in {self.dim} dimensions, "
                f"which has {self.system.capacity} vectors: use more dimensions or another system"
            )


def _alike(system: System, saved: Tensor, description: Tensor) -> bool:
    """Whether two descriptions tell of one system; a matrix may have been rounded on its way."""
    return torch.equal(saved, description) if isinstance(system, OrbitSystem) else torch.allclose(saved, description)


def _description(system: System) -> Tensor:
    """Numbers that tell one system from another."""
    if isinstance(system, OrbitSystem):
        return torch.tensor([system.plus, system.minus, system.dim], dtype=torch.float64)
    assert isinstance(system, ExplicitSystem)
    # The first and last vectors and a weighted sum of all: enough to notice another matrix, without storing this one.
    weights = torch.arange(1, system.capacity + 1, dtype=torch.float64).cos()
    matrix = system.matrix.double().cpu()
    return torch.stack([matrix[0], matrix[-1], weights @ matrix]).flatten()
