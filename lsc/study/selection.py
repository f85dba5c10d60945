"""Which runs a figure or a claim speaks of: rows of a table of summaries, chosen by objective and changes.

The tables are those of :meth:`lsc.study.tables.Records.summaries`; an empty one gives an empty one. No choice looks at
a variant's name.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from lsc.study.looks import ROLES
from lsc.study.variants import without


def alike(runs: pd.DataFrame, changes: Mapping[str, Any], *keys: str) -> pd.DataFrame:
    """The runs with these changes, no more and no less, whatever the values of ``keys``; "training" stands for its block."""
    wanted = without(changes, *keys)
    return runs.loc[[without(own, *keys) == wanted for own in runs.changes]]


def around(runs: pd.DataFrame, chosen: pd.DataFrame, *keys: str) -> pd.DataFrame:
    """The runs of the objective of ``chosen``, rows of one variant, that differ from these in nothing but ``keys``."""
    if chosen.empty:
        return chosen
    return alike(runs[runs.objective == chosen.objective.iloc[0]], chosen.changes.iloc[0], *keys)


def twin(runs: pd.DataFrame, changes: Mapping[str, Any], *keys: str) -> pd.DataFrame:
    """Of the runs that are :func:`alike`, those of the variant that changes least, of several the first."""
    return _least_changed(alike(runs, changes, *keys))


def ordered(runs: pd.DataFrame) -> pd.DataFrame:
    """By role (baseline, paper, own, rival), then by label; runs of one objective keep their order."""
    place = [(ROLES.index(role), label.lower()) for role, label in zip(runs.role, runs.label, strict=True)]
    return runs.iloc[sorted(range(len(runs)), key=place.__getitem__)]


def reference(runs: pd.DataFrame) -> pd.DataFrame:
    """One variant of each objective: the one with the shared settings, so that they can be compared.

    The training and the objective's own settings may differ, as it may need a learning rate of its own: then the variant
    that differs least, of several the first.
    """
    candidates = alike(runs, {}, "training", "objective")
    kept = [_least_changed(rows) for _, rows in candidates.groupby("objective", sort=False)]
    return ordered(pd.concat(kept)) if kept else runs.iloc[:0]


def baseline(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of the baseline's reference variant; none if there is none."""
    found = reference(runs)
    return one_variant(found[found.role == "baseline"])


def pulled(runs: pd.DataFrame, by: str) -> pd.DataFrame:
    """The runs of the reference variant that is pulled to its centers ``by`` "cosine" or "euclidean"; none if none is."""
    found = reference(runs)
    return one_variant(found[found.pulls_by == by])


def with_centers(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs whose objective has predefined centers, not a row of a layer for each class."""
    return runs[runs.has_centers.astype(bool)]


def one_variant(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of the first variant of a table."""
    return runs if runs.empty else runs[runs.variant == runs.variant.iloc[0]]


def _least_changed(runs: pd.DataFrame) -> pd.DataFrame:
    if runs.empty:
        return runs
    sizes = runs.changes.map(len)
    return one_variant(runs[sizes == sizes.min()])
