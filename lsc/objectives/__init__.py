"""Objectives: what turns embeddings and labels into a loss, and embeddings into predicted labels. One file each.

All share one interface, ``loss(embeddings, labels)`` and ``predict(embeddings, k)``, so that training does not know
which one it runs. Embeddings (B, dim) of any float type are cast to float32 first, inside autocast too; nothing of size
(B, classes) or (classes, dim) is built, except by the layers, :class:`CrossEntropy` and :class:`PartialFC`.

An objective of your own is one file and one line: CONTRIBUTING.md shows it.
"""

from lsc.objectives.base import CenterObjective, LayerObjective, Objective
from lsc.objectives.center_softmax import CenterSoftmax
from lsc.objectives.cosine import Cosine
from lsc.objectives.cross_entropy import CrossEntropy
from lsc.objectives.euclidean import Euclidean
from lsc.objectives.orbit_softmax import OrbitSoftmax
from lsc.objectives.partial_fc import PartialFC
from lsc.registry import Registry

OBJECTIVES = Registry(
    "objective",
    {
        "cross_entropy": "lsc.objectives.cross_entropy:CrossEntropy",
        "euclidean": "lsc.objectives.euclidean:Euclidean",
        "cosine": "lsc.objectives.cosine:Cosine",
        "orbit_softmax": "lsc.objectives.orbit_softmax:OrbitSoftmax",
        "center_softmax": "lsc.objectives.center_softmax:CenterSoftmax",
        "partial_fc": "lsc.objectives.partial_fc:PartialFC",
    },
)

__all__ = [
    "OBJECTIVES",
    "CenterObjective",
    "CenterSoftmax",
    "Cosine",
    "CrossEntropy",
    "Euclidean",
    "LayerObjective",
    "Objective",
    "OrbitSoftmax",
    "PartialFC",
]
