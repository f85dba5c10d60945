"""The measurements that a study's cost block names, as tables: what else a file of records holds is not looked at."""

from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from lsc.cost.decode import centers_of
from lsc.cost.loss import OBJECTIVES
from lsc.cost.rivals import LOOKS
from lsc.cost.step import CLOSED_FORM
from lsc.errors import UserError
from lsc.objectives import OBJECTIVES as REGISTERED
from lsc.study.looks import ROLES, Look, look_of
from lsc.study.measurements import StepCost
from lsc.study.tables import Records
from lsc.training.records import read_rows

BARE = "bare"
# Steps of larger layers than most studies allow, measured once on a machine with enough memory.
BENCHMARKS = Path("results/reference/benchmarks/step.jsonl")


def shown_as(name: str) -> Look:
    """The look of an objective, of another library's layer, or of the bare encoder."""
    return LOOKS.get(name) or look_of(name)


def _shared(options: Any) -> dict[str, Any]:
    """The settings that all steps of a study share, whatever their encoder."""
    return {key: getattr(options, key) for key in ("dim", "batch", "system", "precision")}


def _common(options: Any) -> dict[str, Any]:
    """The settings that all steps of a study share."""
    return {"encoder": options.encoder.name} | _shared(options)


class Measurements:
    """What was measured of a study, from ``cost/`` beside its runs.

    Attributes:
        steps: training steps (:func:`lsc.cost.step.step_records`), predictions among them.
        elsewhere: steps that are predicted in ``steps``, and are measured in :data:`BENCHMARKS`; empty where none is.
        closed_form: steps whose read-out's last layer is solved for; empty where the study measures none.
        search: searches of the nearest class (:func:`lsc.cost.decode.decode_records`).
        hnsw: the approximate index (:func:`lsc.cost.hnsw.hnsw_records`).
        workflow: the workflow itself (:func:`lsc.cost.workflow.workflow_records`); empty where it was not measured, or
            of another study.

    Raises:
        UserError: something that the study names was not measured.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self.folder, options = records.runs.parent / "cost", records.study.cost
        self.steps = self._steps(options.step)
        self.elsewhere = self._elsewhere(options.step)
        self.closed_form = self._closed_form(options.step)
        self.search = self._search(options.decode)
        self.hnsw = self._hnsw(options.decode)
        self.workflow = self._workflow()

    @property
    def measured(self) -> pd.DataFrame:
        """The steps without those that were predicted."""
        return self.steps[~self.steps.predicted.astype(bool)]

    @property
    def centers(self) -> list[str]:
        """The objectives with predefined centers, in the order in which they are shown."""
        return sorted(OBJECTIVES, key=lambda name: (ROLES.index(shown_as(name).role), shown_as(name).label.lower()))

    @property
    def cosine(self) -> str:
        """The objective that the others' steps are compared with: centers, pulled to by the cosine."""
        return next(name for name in self.centers if shown_as(name).pulls_by == "cosine")

    @property
    def layers(self) -> list[str]:
        """What was measured and has a row per class, in the order of the study."""
        return [name for name in dict.fromkeys(self.steps.objective) if name != BARE and name not in OBJECTIVES]

    @property
    def own_layers(self) -> list[str]:
        """Those of the layers that are objectives of the library."""
        return [name for name in self.layers if name in REGISTERED]

    def of(self, objective: str, classes: int | None = None) -> pd.DataFrame:
        """The measured steps of an objective; with ``classes``, of that many."""
        rows = self.measured[self.measured.objective == objective]
        return rows if classes is None else rows[rows.classes == classes]

    def _steps(self, options: Any) -> pd.DataFrame:
        every = sorted({*options.class_counts, *options.center_class_counts})
        named = [
            (BARE, 0),
            *((name, count) for name in OBJECTIVES for count in every),
            *((name, count) for name in options.rivals for count in options.class_counts),
        ]
        return self._named("step", ("objective", "classes"), named, _common(options))

    def _elsewhere(self, options: Any) -> pd.DataFrame:
        predicted = self.steps[self.steps.predicted.astype(bool)]
        wanted = set(zip(predicted.objective, predicted.classes, strict=True))
        usual = StepCost()  # of which these benchmarks are
        same = all(getattr(options, key) == getattr(usual, key) for key in ("encoder", "image_size", "channels"))
        if predicted.empty or not same:
            return pd.DataFrame()
        here = {key: predicted[key].iloc[0] for key in ("device", "threads")}
        common = (_common(options) | here).items()
        return pd.DataFrame(
            row
            for row in read_rows(BENCHMARKS)
            if (row["objective"], row["classes"]) in wanted
            and not row["predicted"]
            and all(row.get(key) == value for key, value in common)
        )

    def _closed_form(self, options: Any) -> pd.DataFrame:
        if options.readout_hidden is None:
            return pd.DataFrame()
        counts = {min(options.class_counts), max(options.class_counts)}
        common = _shared(options) | {"hidden": options.readout_hidden}
        return self._named("step", ("objective", "classes"), [(CLOSED_FORM, count) for count in counts], common)

    def _search(self, options: Any) -> pd.DataFrame:
        classes = {case: centers_of(case, options.system, options.classes).num_classes for case in options.cases}
        named = [
            (case, classes[case], cosine, k) for case in classes for cosine in options.cosines for k in options.top
        ]
        common = {"system": options.system, "batch": options.batch}
        return self._named("decode", ("case", "classes", "cosine", "k"), named, common)

    def _hnsw(self, options: Any) -> pd.DataFrame:
        classes = centers_of("full", options.system, options.hnsw_classes).num_classes
        common = {"system": options.system, "batch": options.batch}
        return self._named("hnsw", ("classes", "cosine"), [(classes, options.cosines[0])], common)

    def _workflow(self) -> pd.DataFrame:
        rows, study = read_rows(self.folder / "workflow.jsonl"), self._records.study
        own = [row for row in rows if row["study"] == study.study]
        return pd.DataFrame([row for row in own if row.get("experiment") in (None, *study.experiments)])

    def _named(
        self, file: str, keys: tuple[str, ...], named: Iterable[tuple[Hashable, ...]], common: dict[str, Any]
    ) -> pd.DataFrame:
        """The rows of a file whose ``keys`` are ``named`` and which are of the study's ``common`` settings."""
        path = self.folder / f"{file}.jsonl"
        if not path.exists():
            raise UserError(f"{path}: is missing; {self._records.remedy(str(path))}")
        wanted = set(named)
        rows = [
            row
            for row in read_rows(path)
            if tuple(row[key] for key in keys) in wanted and all(row.get(key) == value for key, value in common.items())
        ]
        missing = wanted - {tuple(row[key] for key in keys) for row in rows}
        if missing:
            least = dict(zip(keys, min(missing, key=str), strict=True)) | common
            words = ", ".join(f"{key} {value}" for key, value in least.items())
            raise UserError(f"{path}: has no measurement of {words}; {self._records.remedy(str(path))}")
        return pd.DataFrame(rows)
