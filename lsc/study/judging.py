"""How a claim is judged: whether one side of a comparison comes up to the other in every seed, and what follows for a claim.

A comparison counts where it comes out alike between every two seeds of its sides; elsewhere it is not decided.
"""

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from lsc.study.wording import range_of

HOLDS, IN_PART, FAILS, UNTESTABLE = "holds", "holds in part", "does not hold", "not testable here"
UNDECIDED = "not decided"
MARKS = {HOLDS: "🟢", IN_PART: "🟡", FAILS: "🔴", UNTESTABLE: "⚪", UNDECIDED: "🔵"}

Judgement = tuple[str, str]  # what came out, verdict
# What a comparison shows; None where the seeds do not decide.
Outcome = bool | None


def accuracy(runs: pd.DataFrame) -> str:
    """The mean final top-1 of runs, with the range of their seeds where there are several: "97.5 % (97.2 to 97.8)"."""
    return range_of(runs.final_top1, unit=" %", times=100)


def reaches(ours: pd.DataFrame, goal: pd.DataFrame) -> Outcome:
    """Whether the accuracy of ``ours`` is at least that of ``goal``, between every two seeds."""
    if ours.final_top1.min() >= goal.final_top1.max():
        return True
    return False if ours.final_top1.max() < goal.final_top1.min() else None


def goal_of(runs: pd.DataFrame, top1: Any) -> pd.DataFrame:
    """An accuracy for each of ``runs``, or one for all, to compare others with."""
    return runs.assign(final_top1=top1)


def all_of(outcomes: Iterable[Outcome]) -> Outcome:
    """Whether all of some outcomes are true: not if one is false, whatever the undecided ones are."""
    found = list(outcomes)
    return False if False in found else None if None in found else True


def verdict_of(outcomes: Iterable[Outcome]) -> str:
    """Of a claim's parts: whether all, some or none of them hold; not decided where an undecided part leaves that open."""
    found = list(outcomes)
    if True in found and False in found:
        return IN_PART
    return UNDECIDED if None in found else HOLDS if all(found) else FAILS


def told(text: str, outcome: Outcome) -> str:
    """What came out, with a word on it where the seeds do not decide."""
    return text if outcome is not None else f"{text}: the seeds do not decide"


def epochs_of(seeds: list[float]) -> str:
    """The mean of some seeds' epochs with their range: "4.5 epochs (4.0 to 5.0)"."""
    if math.inf in seeds:
        return "never" if min(seeds) == math.inf else f"not in {seeds.count(math.inf)} of {len(seeds)} seeds"
    return range_of(pd.Series(seeds), unit=" epochs")
