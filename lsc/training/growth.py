"""Lifelong learning by sums: new classes join the read-out of a network that stays as it is, without a step of training.

The sums of the closed form (:mod:`lsc.encoders.closed_form`) are all that is remembered of earlier classes. They are sums, so
the read-out does not depend on the order in which the groups came, and is the one that all images together would give. With
one-hot targets, whose columns grow, this is analytic continual learning (ACIL, Zhuang et al., NeurIPS 2022; RanPAC, McDonnell
et al., NeurIPS 2023); class centers need no column for a class.
"""

import time
from typing import Any

from lsc.training.last_layer import add_pass, gathered, sums_for
from lsc.training.options import ReadoutOptions
from lsc.training.outcome import measure
from lsc.training.phases import Phase
from lsc.training.session import Session


def is_done(session: Session, phase: Phase) -> bool:
    """Whether a group has been taken in: its row says so."""
    return any(row.get("by_sums") and row["phase"] == phase.index for row in session.progress.rows)


def take_in(session: Session, phase: Phase) -> dict[str, Any]:
    """Add a group's images to the sums, solve the read-out, and judge it: the row of the phase."""
    run, task, fabric = session.run, session.task, session.fabric
    began = time.perf_counter()
    if session.sums is None:
        session.sums = sums_for(task, run.readout or ReadoutOptions(), fabric.device)
    add_pass(session.sums, task, session.dataset, run, fabric, phase.subset)
    gathered(session.sums, fabric).solve_into(task.encoder.last)
    session.progress.seconds += time.perf_counter() - began
    last = session.progress.rows[-1]
    row = {"epoch": last["epoch"] + 1, "step": session.progress.step, "examples": last["examples"]}
    row |= {
        "seconds": session.progress.seconds,
        "phase": phase.index,
        "classes_seen": phase.num_classes,
        "by_sums": True,
    }
    return row | measure(task, session.dataset, run, phase, fabric)
