"""Which class owns which vector of a system: by a rule that is computed, or by a table."""

import torch
from torch import Tensor, nn

from lsc.centers.permutation import Permutation
from lsc.checks import check_ids, check_within
from lsc.errors import UserError
from lsc.systems import System

MODES = ("ordered", "shuffled", "table")

# Of so few classes the shuffled indexes are kept: 32 kB, against dozens of small operations in every step.
_KEPT = 4096


class Ownership(nn.Module):
    """The vectors of classes 0..num_classes-1, as indexes into a system, and the classes of vectors.

    Args:
        capacity: number of vectors.
        num_classes: number of classes.
        mode: "ordered" (class c owns vector c), "shuffled" (a keyed random permutation, no table) or "table".
        seed: of the permutation.
        table: (num_classes,) int64, different indexes, for the mode "table"; empty otherwise.

    Its buffers are not saved: :class:`~lsc.centers.Centers` saves what they are made of.
    """

    table: Tensor
    _sorted: Tensor
    _order: Tensor
    _shuffled: Tensor

    def __init__(self, capacity: int, num_classes: int, mode: str, seed: int, table: Tensor) -> None:
        super().__init__()
        self.capacity = capacity
        for name in ("table", "_sorted", "_order", "_shuffled"):
            self.register_buffer(name, table, persistent=False)
        self.set(num_classes, mode, seed, table)

    def set(self, num_classes: int, mode: str, seed: int, table: Tensor) -> None:
        """Take another assignment over, and make what is kept beside it."""
        self.num_classes, self.mode, self.seed = num_classes, mode, seed
        # Made here: torch 2.11 cannot trace an object that is made and called in one graph.
        self.permutation = Permutation(self.capacity, seed)
        self.table = table
        self._sorted, self._order = table.sort()
        few = num_classes if mode == "shuffled" and num_classes <= _KEPT else 0
        self._shuffled = self.permutation(torch.arange(few, device=table.device))

    def indexes(self, labels: Tensor) -> Tensor:
        """Vectors of the classes ``labels`` (...), int64.

        Raises:
            IndexError: a label is no class (on the CPU; elsewhere a look would wait for the device).
        """
        check_ids(labels, "labels")
        check_within(labels, self.num_classes, "a label")
        if self.mode == "ordered":
            return labels
        if self.mode == "shuffled":
            kept = len(self._shuffled) and self._shuffled.device == labels.device
            return self._shuffled[labels] if kept else self.permutation(labels)
        return self.table[labels]

    def labels(self, index: Tensor) -> Tensor:
        """Classes of the vectors ``index`` (...), -1 where there is none."""
        if self.mode == "table":
            place = torch.searchsorted(self._sorted, index.contiguous()).clamp_max(self.num_classes - 1)
            return torch.where(self._sorted[place] == index, self._order[place], -1)
        labels = self.permutation.inverse(index) if self.mode == "shuffled" else index
        return torch.where(labels < self.num_classes, labels, -1)

    def extend(self, num_new_classes: int) -> None:
        """Give free vectors to further classes; the old ones keep theirs."""
        total, table = self.num_classes + num_new_classes, self.table
        if self.mode == "table" and num_new_classes:
            # In the order of the keyed permutation, past the vectors taken; at most as many are skipped as are taken.
            candidates = self.permutation(torch.arange(total, device=table.device))
            table = torch.cat([table, candidates[self.labels(candidates) < 0][:num_new_classes]])
        self.set(total, self.mode, self.seed, table)


def checked_table(table: Tensor, num_classes: int, system: System) -> Tensor:
    """A copy of a table, if it gives every class a vector of its own.

    Raises:
        UserError: its shape, its type or its indexes are wrong.
    """
    if table.shape != (num_classes,) or table.dtype != torch.int64:
        raise UserError(f"an assignment must be {num_classes} int64 indexes, not {tuple(table.shape)} of {table.dtype}")
    if int(table.min()) < 0 or int(table.max()) >= system.capacity:
        raise UserError(f"an assignment names a vector outside of the {system.capacity} of {system.name}")
    if len(torch.unique(table)) < num_classes:
        raise UserError("an assignment gives one vector to two classes: make its indexes different")
    return table.detach().clone().contiguous()
