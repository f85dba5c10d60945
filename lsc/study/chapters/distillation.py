"""Chapter 5: smaller networks learn from larger ones through common centers."""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lsc.study import plots
from lsc.study.selection import twin
from lsc.study.variants import without

_TEACHER_GREYS = ("#999999", "#cccccc", "#bbbbbb", "#dddddd")
# What a student is taught with: words and colour. Taught by labels alone it has its objective's colour.
_TAUGHT = {
    "embeddings alone": ("teacher's embeddings, no labels", plots.SKY),
    "embeddings": ("labels and embeddings", plots.GREEN),
    "class_means": ("labels, centers = teacher's class means", plots.ORANGE),
    "logits": ("labels and soft logits (Hinton)", plots.PINK),
}


def with_parts(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs in the order of the study with columns part ("teacher" or "student"), taught (words) and color.

    Teachers are the runs that others name as theirs; every other run is a student. ``shown`` tells both; where two
    variants would bear the same words their own names are added.
    """
    taught_by = set(runs.teacher.dropna())
    rows, greys = [], iter(_TEACHER_GREYS)
    for variant, own in runs.groupby("variant", sort=False):
        one = own.iloc[0]
        objective = f"{one.label} centers" if one.has_centers else one.label
        if f"{one.experiment}/{variant}" in taught_by:
            part, taught, color = "teacher", objective, next(greys, _TEACHER_GREYS[-1])
        elif one.teacher is None or pd.isna(one.teacher):
            part, taught, color = "student", f"labels, {objective}", one.color
        else:
            part, (taught, color) = "student", _TAUGHT[_lesson(one)]
        rows.append(own.assign(part=part, taught=taught, color=color))
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
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    bars = list(runs.groupby("variant", sort=False))[::-1]
    for place, (_, rows) in enumerate(bars):
        values = 100 * rows.final_top1
        left.barh(place, values.mean(), color=rows.color.iloc[0], height=0.7)
        left.plot([values.min(), values.max()], [place, place], color="#444444", lw=1.5)
        left.text(values.max() + 0.3, place, f"{values.mean():.1f}", va="center", fontsize=8)
    left.set_yticks(range(len(bars)), [rows.shown.iloc[0] for _, rows in bars], fontsize=8)
    lowest = 100 * runs.final_top1.min()
    left.set(xlabel="final test top-1 (%), whiskers span the seeds", xlim=(max(0, lowest - 5), 101))
    left.grid(axis="y", visible=False)
    seen: list[str] = []
    for variant, rows in runs[runs.part == "student"].groupby("variant", sort=False):
        color, of_variant = rows.color.iloc[0], metrics[metrics.variant == variant]
        dashes = plots.DASHES[seen.count(color) % len(plots.DASHES)]
        plots.band(right, of_variant, "epoch", "top1", color=color, linestyle=dashes, label=rows.taught.iloc[0])
        seen.append(color)
    right.set(xlabel="epoch", ylabel="top-1")
    right.legend(fontsize=8)
    return figure


def gains(runs: pd.DataFrame) -> str:
    """What a teacher adds to each student that has a twin without one, otherwise alike. ``runs`` are of with_parts."""
    students = runs[runs.part == "student"]
    alone, parts = students[students.teacher.isna()], []
    for _, own in students[students.teacher.notna()].groupby("variant", sort=False):
        same = alone[alone.objective.isin(own.objective)]
        untaught = twin(same, without(own.changes.iloc[0], "teacher"))
        if not untaught.empty:
            gain = 100 * own.final_top1.mean() - 100 * untaught.final_top1.mean()
            parts.append(f"{own.taught.iloc[0]}: {gain:+.1f} points against {untaught.taught.iloc[0]}")
    spread = 100 * runs.groupby("variant").final_top1.agg(lambda top1: top1.max() - top1.min()).max()
    return (
        f"**What it shows.** {'; '.join(parts) or 'No student has a twin without a teacher'}. "
        f"The seeds of one variant differ by up to {spread:.1f} points, so smaller gains prove nothing."
    )
