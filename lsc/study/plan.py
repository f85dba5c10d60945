"""The plan of a study: what the workflow needs of its runs.

To make one imports torch, for settings are declared where networks and losses are. The workflow is parsed often, also by each
job of a cluster, so a plan is kept (:mod:`lsc.kept`), named by all that it follows from: the study, the whole source of the
library, and the versions of everything installed. To read it back takes no torch. What is wrong with a study is never kept, nor
is the plan of one that names something of one's own, as nobody can tell what that depends on.
"""

import hashlib
import sys
from collections.abc import Mapping
from contextlib import suppress
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsc.kept import entry_of, keep
from lsc.settings import Strict, digest, validated
from lsc.training.options import Resources

if TYPE_CHECKING:  # these import torch
    from lsc.study.configuration import Study
    from lsc.training.run import Run

CHANGES_NO_RESULT = True

_PACKAGE = Path(__file__).resolve().parent.parent
_MOST = 200  # plans, of some 50 kB each


class PlannedRun(Strict):
    """One run, as the workflow sees it.

    Attributes:
        digest: of its settings.
        files: that its data sets are read from; digits and fractals need none.
        teacher: name of the run that it learns from, if any.
        code: what its code begins with, see :func:`lsc.training.code.code_names`.
    """

    name: str
    digest: str
    resources: Resources
    files: list[str]
    teacher: str | None
    code: list[str]


class Plan(Strict):
    """A study with its runs resolved.

    Attributes:
        settings: the study itself.
        runs: by name, in the order of the study.
        step, step_code: digest of what measures a step, and what its code begins with.
        decode, cost_resources: settings of what measures decoding, and what both ask for.
    """

    settings: dict[str, Any]
    study: str
    records: str
    chapters: list[str]
    runs: dict[str, PlannedRun]
    step: str
    step_code: list[str]
    decode: dict[str, Any]
    cost_resources: Resources

    def run_names(self, experiment: str) -> list[str]:
        """``experiment/variant/seed_n`` of every run, in the order of the study."""
        return [name for name in self.runs if name.startswith(f"{experiment}/")]

    def run_of(self, name: str) -> PlannedRun:
        """A run, also one that is not in the plan, such as of another seed.

        Raises:
            UserError: as :meth:`lsc.study.configuration.Study.run_of`.
        """
        if name in self.runs:
            return self.runs[name]
        from lsc.study.configuration import Study

        return planned(validated(Study, self.settings).run_of(name))


def plan_from(settings: dict[str, Any], where: str = "") -> Plan:
    """The plan of the study in a mapping, looked up if it was made before.

    Raises:
        UserError: as :func:`~lsc.study.configuration.study_from`, or an experiment is none that a chapter shows.
    """
    library = _library()
    entry = entry_of("plans", repr(settings), library, sys.version, _installed())
    if not library or _names_own(settings):
        entry = None
    if entry is not None:
        with suppress(OSError, ValueError):
            return Plan.model_validate_json(entry.read_bytes())
    from lsc.study.configuration import study_from

    study = study_from(settings, where)
    study.check_shown()
    plan = plan_of(study)
    # A library that is edited meanwhile is not the one that made it.
    if entry is not None and _IMPORTED == library == _library():
        keep(entry, plan.model_dump_json(), _MOST)
    return plan


def plan_of(study: "Study") -> Plan:
    """The plan of a study, made anew."""
    from lsc.encoders import ENCODERS

    names = [name for experiment in study.experiments for name in study.run_names(experiment)]
    return Plan(
        settings=study.model_dump(mode="json"),
        study=study.study,
        records=study.records,
        chapters=list(study.chapters),
        runs={name: planned(study.run_of(name)) for name in names},
        step=digest(study.cost.step),
        step_code=["lsc.cost.step", ENCODERS.target(study.cost.step.encoder.name)],
        decode=study.cost.decode.model_dump(),
        cost_resources=study.cost.resources,
    )


def planned(run: "Run") -> PlannedRun:
    """What the workflow needs of a run."""
    from lsc.training.code import code_names

    return PlannedRun(
        name=run.name,
        digest=run.digest,
        resources=run.resources,
        files=[file for data in (run.data, run.training.transfer) if data is not None for file in data.files()],
        teacher=f"{run.teacher.run}/seed_{run.seed}" if run.teacher else None,
        code=sorted(code_names(run)),
    )


def _names_own(settings: Any) -> bool:
    """Whether a setting may be "module:attribute", for something that is not the library's."""
    if isinstance(settings, str):
        return ":" in settings
    parts = [part for key, part in settings.items() if key != "chosen"] if isinstance(settings, Mapping) else settings
    return isinstance(settings, Mapping | list) and any(map(_names_own, parts))


def _library() -> str:
    """Digest of the library's source as it lies there, names and content of all files; "" where it cannot be read."""
    names = sorted(glob("**/*.py", root_dir=_PACKAGE, recursive=True))
    found = hashlib.sha256()
    try:
        for name in names:
            content = (_PACKAGE / name).read_bytes()
            found.update(f"{name} {len(content)} ".encode() + content)
    except OSError:
        return ""
    return found.hexdigest() if names else ""


def _installed() -> str:
    """Names and versions of everything installed, as their folders bear them."""
    folders = (glob("*.dist-info", root_dir=folder) for folder in sys.path)
    return " ".join(sorted({name for names in folders for name in names}))


_IMPORTED = _library()
