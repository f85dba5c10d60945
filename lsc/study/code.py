"""What became of a study's runs: which are finished, and which of them other settings or other code made."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lsc.source import digest_of
from lsc.study.plan import Plan, PlannedRun
from lsc.training.records import SUMMARY, read_json

if TYPE_CHECKING:  # the workflow asks without torch
    from lsc.study.configuration import Study

State = Literal["finished", "missing", "other settings", "other code"]


@dataclass(frozen=True)
class RunState:
    """One run of a study.

    Attributes:
        run: experiment/variant/seed_n.
        state: "finished" by today's code; "missing"; "other settings" than the study's, so that the workflow will train it
            again; "other code", which it keeps.
        commit: of the source that made it, as far as it is known.
        finished: date and time, ISO 8601.
    """

    run: str
    state: State
    commit: str | None = None
    finished: str | None = None


def runs_folder(study: "Study | Plan") -> Path:
    """The folder of a study's runs: measured here, or those that are kept for reference."""
    return Path("results/reference" if study.records == "reference" else "results") / study.study / "runs"


def run_states(plan: Plan, runs: Path) -> Iterator[RunState]:
    """Every run of a study, in its order, by what lies in the folder ``runs``."""
    for name, run in plan.runs.items():
        summary = _summary(runs / name / SUMMARY)
        if summary is None:
            yield RunState(name, "missing")
        else:
            yield RunState(name, _state(run, summary), summary.get("commit"), summary.get("finished"))


def outdated(plan: Plan, runs: Path) -> list[str]:
    """The names of the finished runs that other code than today's made, as far as they use it."""
    return [found.run for found in run_states(plan, runs) if found.state == "other code"]


def reminder(plan: Plan, runs: Path, file: str) -> str | None:
    """One line on the runs that are outdated, with the words that retrain them; None if there are none.

    Args:
        file: the study's, as the command is to name it.
    """
    found = outdated(plan, runs)
    if not found:
        return None
    return (
        f"lsc: {len(found)} of {len(plan.runs)} runs were made by other code than today's and are kept; to retrain them, add "
        f"--forcerun $(lsc runs --study {file} --outdated --paths)"
    )


def made_by_other_code(run: PlannedRun, summary: dict[str, Any]) -> bool:
    """Whether other code than today's, as far as the run uses it, made the run of a summary."""
    return summary.get("code") != digest_of(run.code)


def _state(run: PlannedRun, summary: dict[str, Any]) -> State:
    if summary.get("digest") != run.digest:
        return "other settings"
    return "other code" if made_by_other_code(run, summary) else "finished"


def _summary(path: Path) -> dict[str, Any] | None:
    """The summary in a file; None where there is none that can be read, as after a crash."""
    try:
        found = read_json(path)
    except (OSError, json.JSONDecodeError):
        return None
    return found if isinstance(found, dict) else None
