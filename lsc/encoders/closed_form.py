"""The last layer of a read-out in closed form: fixed targets make it a linear least-squares problem.

The training loss of a network whose last layer W is linear and whose targets c_y are fixed is, for given activations h, least
squares in W; so W can be solved for instead of trained, and the gradient of what comes before flows through the solution.
That is variable projection (Golub and Pereyra, "The differentiation of pseudo-inverses and nonlinear least squares problems
whose variables separate", SIAM J. Numer. Anal. 1973) with the gradient of Kaufman (BIT 1975), which leaves out how W itself
depends on what comes before. The least squares are ridge regression, from the sums

    A = sum h h',  B = sum h c_y',  W = (A + ridge * tr(A) / F * I)^-1 B,

whose size is that of the layer, whatever the number of classes. Ours are the sums with forgetting, taken from the training
batches themselves, and the mean of the old and the new solution. A classification layer has no such form as it trains: its
targets move. Once it has trained, it and the layer before it can be refitted to one-hot targets, by least squares of the rank
that the latent space has (reduced-rank regression; with a ridge, Mukherjee and Zhu, Statistical Analysis and Data Mining 2011).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lsc.checks import check_embeddings, check_labels
from lsc.errors import UserError

# The penalty as a network trains, and wherever there is nothing to choose it by.
USUAL_RIDGE = 1e-3


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
        ridge: weight of the penalty on the layer, in units of the mean diagonal of A; None: a tenth of what
            generalised cross-validation says, anew at every solution, which takes the eigenvectors of A: some ten times as long.
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
        ridge: float | None = USUAL_RIDGE,
        half_life: float | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if (ridge is not None and ridge <= 0) or (half_life is not None and half_life <= 0):
            raise UserError(f"ridge {ridge} and half_life {half_life}: must be more than 0")
        self.features, self.dim, self.targets, self.ridge = features, dim, targets, ridge
        self.keep = 1.0 if half_life is None else 0.5 ** (1 / half_life)
        # The last row and column are those of an activation that is always 1, which makes the bias.
        self.gram = torch.zeros(features + 1, features + 1, device=device)
        self.cross = torch.zeros(features + 1, dim, device=device)
        # Of the targets, which tell cross-validation how much there is to explain.
        self.squares = torch.zeros(1, device=device)

    def update(self, hidden: Tensor, labels: Tensor) -> None:
        """Take a step's batch in: activations (B, F), class labels (B,); older batches are forgotten a little."""
        self.forget()
        self.add(hidden, labels)

    def forget(self) -> None:
        """Begin a step."""
        if self.keep < 1:
            for part in self.state_dict().values():
                part.mul_(self.keep)

    @torch.no_grad()
    def add(self, hidden: Tensor, labels: Tensor, weights: Tensor | None = None) -> None:
        """Take a part of a step's batch in; each image counts ``weights`` (B,) times, once by default.

        Raises:
            UserError: other shapes or types.
        """
        check_embeddings(hidden, self.features)
        check_labels(labels, len(hidden))
        with torch.autocast(hidden.device.type, enabled=False):
            rows = torch.cat([hidden.float(), torch.ones(len(hidden), 1, device=hidden.device)], 1)
            targets = self.targets(labels).float()
            weighted = rows if weights is None else rows * weights.float()[:, None]
            self.gram.addmm_(weighted.T, rows)
            self.cross.addmm_(weighted.T, targets)
            squares = targets.square().sum(1)
            self.squares += (squares if weights is None else squares * weights).sum()

    @torch.no_grad()
    def solve(self, bias: bool = True) -> tuple[Tensor, Tensor]:
        """The layer's weight (dim, F) and bias (dim,), float32; 0 where it is the best layer without a ``bias`` that is wanted.

        Raises:
            UserError: a sum is not finite, or nothing was taken in.
        """
        self._check()
        gram, cross = self._sums(bias)
        if self.ridge is not None:
            damped = gram.clone()
            damped.diagonal().add_(self.ridge * gram.diagonal().mean())
            root, failed = torch.linalg.cholesky_ex(damped)
            if not failed:
                return _weight_and_bias(torch.cholesky_solve(cross, root), bias)
        values, vectors = _spectrum(gram)
        strength = self.ridge or self._validated(values, vectors, cross)
        return _weight_and_bias(vectors @ (vectors.T @ cross / (values + strength * values.mean())[:, None]), bias)

    @torch.no_grad()
    def solve_by_rank(self, rank: int) -> tuple[Tensor, Tensor, Tensor]:
        """Two layers in place of one: the best linear map of rank ``rank`` or less.

        With R' (A + ridge) R = I it is the projection of R' B on the ``rank`` leading eigenvectors of R' B B' R. The coordinates
        between the layers are about uncorrelated and of unit mean square. Where the rank binds, the penalty is the usual one if
        none was given: cross-validation is of the map that is not bound.

        Returns:
            weight (rank, F) and bias (rank,) of the first layer and weight (dim, rank) of the second one, float32.

        Raises:
            UserError: a sum is not finite, or nothing was taken in.
        """
        self._check()
        gram, cross = self._sums()
        values, vectors = _spectrum(gram)
        bound = rank < min(cross.shape)
        ridge = self.ridge or (USUAL_RIDGE if bound else self._validated(values, vectors, cross))
        root = vectors / (values + ridge * values.mean()).sqrt()
        whitened = root.T @ cross
        leading = torch.linalg.eigh(whitened @ whitened.T).eigenvectors[:, -rank:]
        images = self.gram[-1, -1].double().sqrt()
        missing = rank - leading.shape[1]
        first, second = (
            nn.functional.pad(part, (0, missing)) for part in (images * root @ leading, whitened.T @ leading / images)
        )
        return *_weight_and_bias(first), second.float()

    def _sums(self, bias: bool = True) -> tuple[Tensor, Tensor]:
        """A and B, float64; of the activations alone where the layer has no bias."""
        kept = None if bias else -1
        return self.gram[:kept, :kept].double(), self.cross[:kept].double()

    def _validated(self, values: Tensor, vectors: Tensor, cross: Tensor) -> float:
        """A tenth of the penalty with the least generalised cross-validation error (Golub, Heath and Wahba, Technometrics 1979).

        Of n images that error is RSS / n / (1 - tr(A (A + ridge)^-1) / n)^2, with RSS = sum |c_y|^2 - 2 tr(W' B) + tr(W' A W): it
        needs no image again. Tried are thirds of powers of ten from 10^-4 to 1: less would drown in the rounding of
        the sums. The tenth is ours, from trials: which class is
        nearest wants less of a penalty than squared errors do (docs/learning.md).
        """
        images = self.gram[-1, -1].double()
        along = (vectors.T @ cross).square().sum(1)
        ridges = 10 ** torch.linspace(-4, 0, 13, dtype=torch.float64, device=values.device)
        damped = values + ridges[:, None] * values.mean()
        residual = self.squares.double() - (along * (2 / damped - values / damped**2)).sum(1)
        left = 1 - (values / damped).sum(1) / images
        # With as many activations as images nothing is left to judge by.
        error = torch.where(left > 0, residual / left**2, torch.inf)
        return float(ridges[error.argmin()]) / 10 if bool(torch.isfinite(error).any()) else USUAL_RIDGE

    def _check(self) -> None:
        """Raise a UserError where a sum is not finite, or nothing was taken in."""
        scale = float(self.gram.diagonal().mean())
        if not math.isfinite(scale) or not bool(torch.isfinite(self.cross.sum())) or scale == 0:
            state = "empty" if scale == 0 else "not finite"
            raise UserError(
                f"the sums of the read-out in closed form are {state}: lower training.learning_rate, or take batches in first"
            )

    @torch.no_grad()
    def solve_into(self, layer: nn.Linear, share: float = 1.0) -> None:
        """Move a layer by ``share`` of the way to the solution."""
        weight, bias = self.solve(layer.bias is not None)
        layer.weight.lerp_(weight.to(layer.weight.dtype), share)
        if layer.bias is not None:
            layer.bias.lerp_(bias.to(layer.bias.dtype), share)

    @torch.no_grad()
    def expect(self, layer: nn.Linear) -> None:
        """Put in the place of the targets so far what a layer makes of the activations, B = (A + ridge tr(A)/F I) W.

        For targets that have moved, and a layer that was moved along: it is then the solution, until further batches, with
        the new targets, change it. Holds of partial sums, too, which are added up later.
        """
        gram, weight = self.gram.double(), layer.weight.double().T
        bias = torch.zeros_like(weight[:1]) if layer.bias is None else layer.bias.double()[None]
        penalty = (self.ridge or USUAL_RIDGE) * self._sums(layer.bias is not None)[0].diagonal().mean()
        gram.diagonal().add_(penalty)
        self.cross.copy_(gram @ torch.cat([weight, bias]))

    def state_dict(self) -> dict[str, Tensor]:
        """The sums themselves, for a checkpoint or to add them up over processes."""
        return {"gram": self.gram, "cross": self.cross, "squares": self.squares}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take sums over. Where they are of a version that kept no squares, the targets were unit vectors, one for each image.

        Raises:
            UserError: they are of another size.
        """
        state = {"squares": state["gram"][-1:, -1]} | state
        for name, mine in self.state_dict().items():
            if mine.shape != state[name].shape:
                raise UserError(
                    f"the saved sums have shape {tuple(state[name].shape)}, this read-out {tuple(mine.shape)}"
                )
            mine.copy_(state[name])


def _spectrum(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors; what rounding has made negative is zero."""
    values, vectors = torch.linalg.eigh(gram)
    return values.clamp_min(0), vectors


def _weight_and_bias(solution: Tensor, bias: bool = True) -> tuple[Tensor, Tensor]:
    """Of a solution (F + 1, dim): (dim, F) and (dim,), float32; of one (F, dim) without a bias, which is then 0."""
    solution = solution.float() if bias else nn.functional.pad(solution.float(), (0, 0, 0, 1))
    return solution[:-1].T.contiguous(), solution[-1].clone()
