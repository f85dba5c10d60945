"""Chapter 5: smaller networks learn from larger ones through common centers."""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lsc.study import plots
from lsc.study.selection import twin
from lsc.study.variants import without
from lsc.study.wording import images_of, percent, upper, within

# What a student is taught with.
_TAUGHT = {
    "embeddings alone": "teacher's embeddings, no labels",
    "embeddings": "labels and embeddings",
    "class_means": "labels, centers = class means of the {} teacher",
    "logits": "labels and soft logits (Hinton)",
}


NOTHING = "This study has no runs of distillation."
_NO_TWIN = "No student has a twin without a teacher."


def with_parts(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs in the order of the study with columns part ("teacher" or "student") and taught (words).

    Teachers are the runs that others name as theirs; every other run is a student. ``shown`` tells both; where two
    variants would bear the same words their own names are added.
    """
    taught_by = set(runs.teacher.dropna())
    labels = dict(zip(runs.experiment + "/" + runs.variant, runs.label, strict=True))
    rows = []
    for variant, own in runs.groupby("variant", sort=False):
        one = own.iloc[0]
        objective = f"{one.label} centers" if one.has_centers else one.label
        if f"{one.experiment}/{variant}" in taught_by:
            part, taught = "teacher", objective
        elif one.teacher is None or pd.isna(one.teacher):
            part, taught = "student", f"labels, {objective}"
        else:
            part, taught = "student", _TAUGHT[_lesson(one)].format(labels.get(one.teacher, "other"))
        rows.append(own.assign(part=part, taught=taught))
    if not rows:
        return runs.assign(part=[], taught=[])
    table = pd.concat(rows)
    alone = table.groupby(["part", "taught"]).variant.transform("nunique") == 1
    named = table.taught + " (" + table.variant.str.replace("_", " ") + ")"
    table["taught"] = table.taught.where(alone, named)
    separator = table.part.map({"teacher": ", ", "student": ": "})
    return table.assign(shown=table.part + separator + table.taught)


def _lesson(run: Any) -> str:
    alone = run.targets == "embeddings" and run.labels_weight == 0
    return "embeddings alone" if alone else str(run.targets)


def draw_accuracy(metrics: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Final accuracy of teachers and students; students while they train. ``runs`` are of :func:`with_parts`."""
    if runs.empty:
        return plots.nothing(NOTHING)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4))
    each = list(runs.groupby("variant", sort=False))[::-1]
    for place, (_, rows) in enumerate(each):
        values, marker = 100 * rows.final_top1, "s" if rows.part.iloc[0] == "teacher" else "o"
        left.plot([values.min(), values.max()], [place, place], color=rows.color.iloc[0], lw=1.5)
        left.plot(values.mean(), place, marker, color=rows.color.iloc[0], ms=7)
        left.text(values.max() + 1.2, place, f"{values.mean():.1f}", va="center", fontsize=8)
    left.set_yticks(range(len(each)), [rows.shown.iloc[0] for _, rows in each], fontsize=8)
    lowest = 100 * runs.final_top1.min()
    left.set(xlabel=f"final {images_of(runs, 'final_on')} accuracy (%)", xlim=(lowest - 2, 107), title="Final accuracy")
    left.grid(axis="y", visible=False)
    seen: list[str] = []
    for variant, rows in runs[runs.part == "student"].groupby("variant", sort=False):
        number = seen.count(rows.color.iloc[0])
        look = {"color": plots.shade(rows.color.iloc[0], number), "linestyle": plots.DASHES[number % len(plots.DASHES)]}
        plots.band(right, metrics[metrics.variant == variant], "epoch", "top1", label=rows.taught.iloc[0], **look)
        seen.append(rows.color.iloc[0])
    right.set(xlabel="epoch", title="Students while they train", ylim=(0, 1))
    plots.percent_axis(right, images_of(runs))
    plots.legends_below(figure, [right])
    return figure


def in_short(runs: pd.DataFrame) -> str:
    """The best student, and the best from labels alone. ``runs`` are of :func:`with_parts`."""
    if runs.empty:
        return NOTHING
    students = runs[runs.part == "student"]
    alone, taught = students[students.teacher.isna()], students[students.teacher.notna()]
    if alone.empty or taught.empty:
        return "There are no students with and without a teacher to compare."
    best, untaught = _best(taught), _best(alone)
    return (
        f"The best student with a teacher ({best.taught.iloc[0]}) reaches {percent(best)}, the best without one "
        f"({untaught.taught.iloc[0]}) {percent(untaught)}{within(best, untaught)}{_own_centers(best, runs)}; {_noise(runs)}."
    )


def _best(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of the variant with the highest mean accuracy."""
    return runs[runs.variant == runs.groupby("variant", sort=False).final_top1.mean().idxmax()]


def _spread(runs: pd.DataFrame) -> float:
    """By how many points the seeds of a variant differ at most."""
    return float(100 * runs.groupby("variant").final_top1.agg(lambda top1: top1.max() - top1.min()).max())


def _noise(runs: pd.DataFrame) -> str:
    """What is known of how much chance decides."""
    if runs.seed.nunique() < 2:
        return "each variant was trained with one seed, so that how far seeds differ is not known"
    return f"the seeds of one variant differ by up to {_spread(runs):.1f} points"


def gains(runs: pd.DataFrame) -> str:
    """What a teacher adds to each student that has a twin without one, otherwise alike. ``runs`` are of with_parts."""
    students = runs[runs.part == "student"]
    if students.empty:
        return ""
    alone, parts = students[students.teacher.isna()], []
    for _, own in students[students.teacher.notna()].groupby("variant", sort=False):
        same = alone[alone.objective.isin(own.objective)]
        untaught = twin(same, without(own.changes.iloc[0], "teacher"))
        if not untaught.empty:
            gain = 100 * own.final_top1.mean() - 100 * untaught.final_top1.mean()
            against = f"{untaught.taught.iloc[0]}{within(own, untaught)}"
            parts.append(f"{own.taught.iloc[0]}: {gain:+.1f} points against {against}")
    best = _best(students)
    added = f"What a teacher adds to an otherwise equal student: {'; '.join(parts)}." if parts else _NO_TWIN
    return (
        f"{added}"
        f" The best student is the one with {best.taught.iloc[0]}: {percent(best)}{_own_centers(best, runs)}. "
        f"{upper(_noise(runs))}{', so smaller gains prove nothing' if runs.seed.nunique() > 1 else ''}."
    )


def _own_centers(best: pd.DataFrame, runs: pd.DataFrame) -> str:
    """How the best student compares with students with the predefined centers, where its centers are its teacher's means."""
    others = runs[(runs.part == "student") & runs.has_centers.astype(bool) & (runs.targets != "class_means")]
    if best.targets.iloc[0] != "class_means" or others.empty:
        return ""
    rival = _best(others)
    return f"; with predefined centers students reach {percent(rival)} at best{within(best, rival)}"
