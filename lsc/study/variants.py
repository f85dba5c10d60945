"""What tells the runs of an experiment apart: their settings, never their names.

A variant is described by its objective and by its *changes*: the settings, by dotted key, that differ from those which
the experiment's variants share. Figures and claims choose runs by these (:mod:`lsc.study.selection`), so that a variant
may bear any name.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from lsc.errors import UserError
from lsc.settings import merge, validated
from lsc.study.configuration import Study
from lsc.study.looks import Look, is_known, look_of
from lsc.training.run import Run

Changes = dict[str, Any]

# Names of the run, and what does not change its result.
_NO_CHANGE = ("experiment", "variant", "seed", "resources")


def settings_of(study: Study, name: str) -> Run:
    """The settings of the run ``experiment/variant/seed_n``.

    Where its objective cannot be imported any more, those of the run with the usual one in its place.
    """
    if is_known(objective_of(study, name)):
        return study.run_of(name)
    experiment, variant, seed = name.split("/")
    block = study.experiments[experiment]
    settings = merge(merge(study.run, block.run), block.variants[variant]) | {"experiment": experiment}
    settings |= {"variant": variant, "seed": int(seed.removeprefix("seed_"))}
    return validated(Run, {key: value for key, value in settings.items() if key != "objective"})


def objective_of(study: Study, name: str) -> str:
    """The name of a run's objective, whether it can be imported or not."""
    experiment, variant = name.split("/")[:2]
    block = study.experiments[experiment]
    written = merge(merge(study.run, block.run), block.variants[variant]).get("objective", {})
    return str(written["name"]) if "name" in written else study.run_of(name).objective.name


def changes_of(study: Study, name: str) -> Changes:
    """The settings of a run that differ from those which its experiment's variants share, by dotted key.

    That it has another objective is no change, settings of its objective are. Where the shared settings are no run by
    themselves, the first variant's data, or all its settings, stand for them.
    """
    run, block = settings_of(study, name), study.experiments[name.split("/")[0]]
    first = settings_of(study, study.run_names(run.experiment)[0]).plain()
    shared = merge(merge(study.run, block.run), {"objective": {"name": run.objective.name}})
    try:
        plain = validated(Run, {"data": first["data"]} | shared).plain()
    except UserError:
        plain = first | {"objective": run.plain()["objective"]}
    mine, base, absent = _flat(run.plain()), _flat(plain), object()
    found = {key: value for key, value in mine.items() if base.get(key, absent) != value}
    return {key: value for key, value in found.items() if key.partition(".")[0] not in _NO_CHANGE}


def columns_of(study: Study, name: str) -> dict[str, Any]:
    """The columns of a run that figures and claims choose and draw by.

    objective, label, color, role, pulls_by and has_centers (:class:`lsc.study.looks.Look`); shown (its name for people);
    system, assignment and perturbation of its centers; data (its set), encoder, hidden (width of the read-out's hidden layer);
    teacher (experiment/variant), targets, labels_weight; groups and replay of lifelong learning (infinite: all images are kept),
    and sums, whether new groups join by these; stretch (:func:`is_stretch` of the classes, once these are known); changes
    (:func:`changes_of`).
    """
    run, objective = settings_of(study, name), objective_of(study, name)
    look, teacher, lifelong = look_of(objective), run.teacher, run.lifelong
    changes = changes_of(study, name)
    if not look.has_centers:  # a layer has no centers: of their block it has the dimension alone
        dim = {key: value for key, value in changes.items() if key == "centers.dim"}
        changes = without(changes, "centers") | dim
    return {
        "objective": objective,
        **vars(look),
        "shown": shown_name(run.variant, objective, look, changes),
        "system": run.centers.system,
        "assignment": run.centers.assignment,
        "perturbation": run.centers.perturbation,
        "data": run.data.name,
        "encoder": run.encoder.name,
        "hidden": getattr(run.encoder, "hidden", None),
        "teacher": teacher.run if teacher else None,
        "targets": teacher.targets if teacher else None,
        "labels_weight": teacher.labels_weight if teacher else math.nan,
        "groups": lifelong.groups if lifelong else math.nan,
        "replay": math.nan if lifelong is None else math.inf if lifelong.replay is None else float(lifelong.replay),
        "sums": bool(lifelong and lifelong.sums),
        "changes": changes,
    }


def shown_name(variant: str, objective: str, look: Look, changes: Mapping[str, Any]) -> str:
    """A variant's name for people: that of its objective and, if its own name says more, what its settings make of it.

    Where there are no words for these, what its own name says: ``cosine_dim_3`` is "cosine, dim 3", ``big_cosine`` is
    "cosine, big", and ``x1`` of the same objective "cosine, x1".
    """
    rest = f"_{variant}_".replace(f"_{objective}_", "_", 1).strip("_").replace("_", " ")
    words = [in_words(key, value) for key, value in changes.items()]
    if rest and words and None not in words:
        rest = ", ".join(map(str, words))
    return f"{look.label}, {rest}" if rest else look.label


def in_words(key: str, value: Any) -> str | None:
    """What a setting makes of a method; None where there are no words for it."""
    match key, value:
        case "centers.dim", int():
            return f"dim {value}"
        case "centers.system", str() if re.fullmatch(r"A|V[1-9]+", value):
            return value
        case "centers.assignment", "similarity":
            return "similar"
        case "centers.perturbation", float():
            return f"perturbed by {100 * value:g} %"
        case "encoder.hidden", int():
            return f"{value:,} hidden"
        case "data.classes", int():
            return f"{value} classes"
    return None


def is_stretch(run: Run, num_classes: int) -> bool:
    """Whether a run is a stretch of steps and no training: it meets fewer images than there are classes.

    Of a duration in epochs, whether it is less than one.
    """
    duration, batch = run.training.duration, run.training.batch_size
    if duration.unit == "epoch":
        return duration.amount < 1
    return duration.steps(0, batch) * batch < num_classes


def resolve_dimensions(rows: list[dict[str, Any]]) -> None:
    """Take ``centers.dim`` out of the changes of runs whose dimension comes to the same as the shared one.

    Without a dimension centers take the least that holds the classes, so a layer beside them has to name a number.
    """
    fixed = ("data", "centers.dim", "centers.system")
    shared = [row["dim"] for row in rows if row["has_centers"] and not touched(row["changes"], fixed)]
    for row in rows:
        if shared and row["dim"] == shared[0]:
            row["changes"] = {key: value for key, value in row["changes"].items() if key != "centers.dim"}


def has_block(changes: Mapping[str, Any], block: str) -> bool:
    """Whether a block that others lack, such as ``readout``, is among the changes: its settings are, one by one."""
    return any(key.startswith(f"{block}.") for key in changes)


def without(changes: Mapping[str, Any], *keys: str) -> Changes:
    """``changes`` but for those of ``keys``."""
    left_out = touched(changes, keys)
    return {key: value for key, value in changes.items() if key not in left_out}


def touched(changes: Iterable[str], keys: Iterable[str]) -> list[str]:
    """Those of ``changes`` that are one of ``keys`` or lie in a block of that name."""
    return [change for change in changes if any(change == key or change.startswith(f"{key}.") for key in keys)]


def _flat(settings: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{place}{key}.") if isinstance(value, dict) else {f"{place}{key}": value}
    return flat
