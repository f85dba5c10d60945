"""The classes of embeddings with their scores: cosines to centers, or the probabilities of a classification layer."""

from typing import Literal

import torch
from torch import Tensor

from lsc.centers import CodedCenters
from lsc.errors import UserError
from lsc.objectives import CenterObjective, LayerObjective, Objective
from lsc.objectives.base import full_precision
from lsc.objectives.examples import WithExamples


def score_of(objective: Objective) -> Literal["cosine", "probability"]:
    """What the scores of :func:`ranked` are.

    Raises:
        UserError: an objective of another kind, which has labels alone.
    """
    if isinstance(objective, CenterObjective | WithExamples):
        return "cosine"
    if isinstance(objective, LayerObjective):
        return "probability"
    raise UserError(
        f"objective {type(objective).__name__}: has neither centers nor a layer, so its classes have no scores"
    )


@torch.no_grad()
def ranked(objective: Objective, embeddings: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """The ``k`` best classes of embeddings (B, dim): int64 labels (B, k) and float32 scores (B, k), best first."""
    kind = score_of(objective)
    with full_precision(embeddings):
        if isinstance(objective, WithExamples):
            return objective.nearest(embeddings, k)
        if isinstance(objective, CenterObjective):
            return objective.centers.nearest(embeddings, k)
        assert kind == "probability"
        assert isinstance(objective, LayerObjective)
        # The same order as `predict` has, whose ties go to the lower class.
        labels = objective.predict(embeddings, min(k, objective.num_classes))
        return labels, objective.logits(embeddings).softmax(1).gather(1, labels)


@torch.no_grad()
def vacant(objective: Objective, embeddings: Tensor) -> Tensor:
    """Whether the system's vector nearest to each embedding (B, dim) is that of no class, nor an example nearer: bool (B,).

    Raises:
        UserError: there are no centers, or no vector is free.
    """
    centers = objective.known.centers if isinstance(objective, WithExamples) else getattr(objective, "centers", None)
    if centers is None:
        raise UserError("--vacant: a classification layer has no vectors without a class; use --unknown")
    if centers.num_classes == centers.system.capacity:
        raise UserError(
            f"--vacant: all {centers.num_classes} vectors of {centers.system.name} in {centers.dim} dimensions have a class; "
            "use --unknown"
        )
    if isinstance(centers, CodedCenters):
        raise UserError(
            "--vacant: these centers are of so rich a system that nearly every image would be called unknown; use --unknown"
        )
    found = centers.vacant(embeddings)
    if isinstance(objective, WithExamples):
        found &= objective.nearest(embeddings)[0][:, 0] < centers.num_classes
    return found
