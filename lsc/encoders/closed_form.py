"""The last layer of a read-out in closed form: fixed targets make it a linear least-squares problem.

The training loss of a network whose last layer W is linear and whose targets c_y are fixed is, for given activations h, least
squares in W; so W can be solved for instead of trained, and the gradient of what comes before flows through the solution.
That is variable projection (Golub and Pereyra, "The differentiation of pseudo-inverses and nonlinear least squares problems
whose variables separate", SIAM J. Numer. Anal. 1973) with the gradient of Kaufman (BIT 1975), which leaves out how W itself
depends on what comes before. The least squares are ridge regression, from the sums

    A = sum h h',  B = sum h c_y',  W = (A + ridge * tr(A) / F * I)^-1 B,

whose size is that of the layer, whatever the number of classes. Ours are the sums with forgetting, taken from the training
batches themselves, and the mean of the old and the new solution. A classification layer has no such form: its targets move.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lsc.checks import check_embeddings, check_labels
from lsc.errors import UserError


class ClosedFormReadout:
    """Sums of activations and of their targets, and the linear layer that maps the ones to the others best.

    In a training loop of one's own::

        readout = ClosedFormReadout(features=2048, dim=512, targets=centers.vectors, half_life=30)
        ...
        readout.update(hidden.detach(), labels)  # every step
        weight, bias = readout.solve()  # every 20 steps or so; do not train the layer in between

    Args:
        features: F, number of activations.
        dim: number of coordinates of a target.
        targets: gives the targets (B, dim) of class labels (B,), e.g. :meth:`lsc.Centers.vectors`.
        ridge: weight of the penalty on the layer, in units of the mean diagonal of A.
        half_life: steps after which a batch counts half; None: all batches count alike.

    The sums are float32 of F^2 + F dim numbers, whatever the precision of the surroundings; the solution is float64. They are
    not part of any module, so that no wrapper for several processes mistakes them for a model's state.
    """

    def __init__(
        self,
        features: int,
        dim: int,
        targets: Callable[[Tensor], Tensor],
        *,
        ridge: float = 1e-3,
        half_life: float | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if ridge <= 0 or (half_life is not None and half_life <= 0):
            raise UserError(f"ridge {ridge} and half_life {half_life}: must be more than 0")
        self.features, self.dim, self.targets, self.ridge = features, dim, targets, ridge
        self.keep = 1.0 if half_life is None else 0.5 ** (1 / half_life)
        # The last row and column are those of an activation that is always 1, which makes the bias.
        self.gram = torch.zeros(features + 1, features + 1, device=device)
        self.cross = torch.zeros(features + 1, dim, device=device)

    def update(self, hidden: Tensor, labels: Tensor) -> None:
        """Take a step's batch in: activations (B, F), class labels (B,); older batches are forgotten a little."""
        self.forget()
        self.add(hidden, labels)

    def forget(self) -> None:
        """Begin a step."""
        if self.keep < 1:
            self.gram.mul_(self.keep)
            self.cross.mul_(self.keep)

    @torch.no_grad()
    def add(self, hidden: Tensor, labels: Tensor) -> None:
        """Take a part of a step's batch in.

        Raises:
            UserError: other shapes or types.
        """
        check_embeddings(hidden, self.features)
        check_labels(labels, len(hidden))
        with torch.autocast(hidden.device.type, enabled=False):
            rows = torch.cat([hidden.float(), torch.ones(len(hidden), 1, device=hidden.device)], 1)
            self.gram.addmm_(rows.T, rows)
            self.cross.addmm_(rows.T, self.targets(labels).float())

    @torch.no_grad()
    def solve(self) -> tuple[Tensor, Tensor]:
        """The layer's weight (dim, F) and bias (dim,), float32.

        Raises:
            UserError: a sum is not finite, or nothing was taken in.
        """
        gram = self.gram.double()
        scale = gram.diagonal().mean()
        if not bool(torch.isfinite(scale)) or not bool(torch.isfinite(self.cross.sum())) or float(scale) == 0:
            state = "empty" if float(scale) == 0 else "not finite"
            raise UserError(
                f"the sums of the read-out in closed form are {state}: lower training.learning_rate, or take batches in first"
            )
        gram.diagonal().add_(self.ridge * scale)
        solution = torch.cholesky_solve(self.cross.double(), torch.linalg.cholesky(gram)).float()
        return solution[:-1].T.contiguous(), solution[-1].clone()

    @torch.no_grad()
    def solve_into(self, layer: nn.Linear, share: float = 1.0) -> None:
        """Move a layer by ``share`` of the way to the solution."""
        weight, bias = self.solve()
        layer.weight.lerp_(weight.to(layer.weight.dtype), share)
        if layer.bias is not None:
            layer.bias.lerp_(bias.to(layer.bias.dtype), share)

    @torch.no_grad()
    def expect(self, layer: nn.Linear) -> None:
        """Put in the place of the targets so far what a layer makes of the activations, B = (A + ridge tr(A)/F I) W.

        For targets that have moved, and a layer that was moved along: it is then the solution, until further batches, with
        the new targets, change it. Holds of partial sums, too, which are added up later.
        """
        gram = self.gram.double()
        gram.diagonal().add_(self.ridge * gram.diagonal().mean())
        weight = layer.weight.double().T
        bias = torch.zeros_like(weight[:1]) if layer.bias is None else layer.bias.double()[None]
        self.cross.copy_(gram @ torch.cat([weight, bias]))

    def state_dict(self) -> dict[str, Any]:
        """The sums, for a checkpoint."""
        return {"gram": self.gram, "cross": self.cross}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take sums over.

        Raises:
            UserError: they are of another size.
        """
        for name in ("gram", "cross"):
            mine: Tensor = getattr(self, name)
            if mine.shape != state[name].shape:
                raise UserError(
                    f"the saved sums have shape {tuple(state[name].shape)}, this read-out {tuple(mine.shape)}"
                )
            mine.copy_(state[name])
