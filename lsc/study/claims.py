"""The paper's claims beside the records of a study: what ran, what came out, whether the claim holds there.

Verdicts are computed, so that they change with the records. Only claims that we could read are listed
(docs/replication.md); the thresholds are ours and stand in each verdict's rule.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lsc.study.chapters.closed_form import epochs_to, with_methods
from lsc.study.selection import around, baseline, one_variant, ordered, pulled, twin, with_centers
from lsc.study.tables import Records
from lsc.study.variants import without

HOLDS, IN_PART, FAILS, UNTESTABLE = "holds", "holds in part", "does not hold", "not testable here"


@dataclass(frozen=True)
class Evidence:
    """The records of a study, one table per experiment; an experiment that it does not have is an empty one."""

    low_dim: pd.DataFrame
    high_dim: pd.DataFrame
    million_classes: pd.DataFrame
    distillation: pd.DataFrame
    lifelong: pd.DataFrame
    closed_form: pd.DataFrame
    high_dim_metrics: pd.DataFrame
    closed_form_metrics: pd.DataFrame


Judgement = tuple[str, str]  # what came out, verdict


def _top1(runs: pd.DataFrame) -> float | None:
    """Mean final top-1 of runs in per cent, None if there are none."""
    return None if runs.empty else float(100 * runs.final_top1.mean())


def _label(runs: pd.DataFrame) -> str:
    return str(runs.label.iloc[0])


def _seeds(table: pd.DataFrame) -> str:
    return "seeds " + ", ".join(map(str, sorted(table.seed.unique())))


def _same_network(found: Evidence) -> Judgement:
    centers = with_centers(found.million_classes)
    if centers.empty:
        return "no runs", UNTESTABLE
    sizes = sorted(centers.encoder_parameters.unique())
    classes = ", ".join(f"{count:,}" for count in sorted(centers.num_classes.unique()))
    shown = ", ".join(f"{size:,}" for size in sizes)
    text = f"{shown} encoder and {centers.objective_parameters.max():,} objective parameters at {classes} classes"
    if centers.num_classes.nunique() < 2:
        return f"{text} alone", UNTESTABLE
    return text, HOLDS if len(sizes) == 1 and centers.objective_parameters.max() <= 1 else FAILS


def _share(part: float) -> str:
    return {0.1: "a tenth", 0.2: "a fifth", 0.5: "a half"}.get(part, f"{part:g}")


def _predefined(found: Evidence) -> Judgement:
    runs = pulled(found.low_dim, "cosine")
    moved = around(found.low_dim, runs, "centers.perturbation").sort_values("perturbation", kind="stable")
    moved = one_variant(moved[moved.perturbation > 0])
    plain_top1, moved_top1 = _top1(runs), _top1(moved)
    if plain_top1 is None or moved_top1 is None:
        return "no runs", UNTESTABLE
    system = runs.system.iloc[0]
    vectors = "roots" if system.startswith("A") else system
    text = (
        f"{runs.assignment.iloc[0]} {vectors} {plain_top1:.1f} %, perturbed by {_share(moved.perturbation.iloc[0])} "
        f"{moved_top1:.1f} % ({_seeds(found.low_dim)})"
    )
    both = plain_top1, moved_top1
    return text, HOLDS if min(both) >= 90 else IN_PART if max(both) >= 90 else FAILS


def _both_metrics(found: Evidence) -> Judgement:
    metrics = ("euclidean", "cosine")
    by_euclidean, by_cosine = (pulled(found.low_dim, by) for by in metrics)
    euclidean, cosine = _top1(by_euclidean), _top1(by_cosine)
    if euclidean is None or cosine is None:
        return "no runs", UNTESTABLE
    text = f"low dimension: {_label(by_euclidean)} {euclidean:.1f} %, {_label(by_cosine)} {cosine:.1f} %"
    high = [_top1(pulled(found.high_dim, by)) for by in metrics]
    if high[0] is not None and high[1] is not None:
        text += f"; high dimension: {high[0]:.1f} % and {high[1]:.1f} %"
    return text, HOLDS if min(euclidean, cosine) >= 90 else IN_PART if max(euclidean, cosine) >= 90 else FAILS


def _batch_only(found: Evidence) -> Judgement:
    rows = with_centers(found.million_classes)
    many = rows[rows.num_classes > 1_000_000]
    if many.empty:
        return "no run with a million classes", UNTESTABLE
    run = many.iloc[0]
    dense = 4 * run.num_classes * run.dim / 2**20
    text = (
        f"a run among {run.num_classes:,} classes took {run.peak_memory_mb:,.0f} MiB in all, "
        f"where the matrix of its centers alone would take {dense:,.0f} MiB more"
    )
    small = rows[rows.num_classes < run.num_classes].sort_values("num_classes")
    if small.empty:
        return text + "; no run with fewer classes to compare with", UNTESTABLE
    text += f" ({small.iloc[0].peak_memory_mb:,.0f} MiB at {small.iloc[0].num_classes:,} classes)"
    least = small.peak_memory_mb.min()
    # Half of the matrix would already be more than the runs differ by otherwise.
    return text, HOLDS if not run.peak_memory_mb - least > dense / 2 else FAILS


def _trains(found: Evidence) -> Judgement:
    parts, gaps = [], []
    for name, table in (("low dimension", found.low_dim), ("high dimension", found.high_dim)):
        pulls, rival = pulled(table, "cosine"), baseline(table)
        ours, theirs = _top1(pulls), _top1(rival)
        if ours is not None and theirs is not None:
            parts.append(f"{name}: {_label(pulls)} {ours:.1f} %, {_label(rival)} {theirs:.1f} %")
            # To come close to a rival that did not learn proves nothing.
            gaps.append(theirs - ours if theirs >= 50 else math.inf)
    if len(gaps) < 2:
        return "; ".join([*parts, "runs are missing"]), UNTESTABLE
    return "; ".join(parts), HOLDS if max(gaps) <= 2 else IN_PART if min(gaps) <= 2 else FAILS


def _million(found: Evidence) -> Judgement:
    rows = with_centers(found.million_classes)
    large = rows[rows.num_classes > 1_000_000]
    if large.empty:
        return "no run with a million classes", UNTESTABLE
    run = large.sort_values("final_top1").iloc[-1]
    text = f"{int(run.steps):,} steps among {run.num_classes:,} classes, top-1 {100 * run.final_top1:.2f} % among all of them"
    if run.stretch:
        return text + "; a stretch of steps, not a training", UNTESTABLE
    return text, HOLDS if run.final_top1 >= 0.5 else IN_PART if run.final_top1 * run.num_classes > 100 else FAILS


def _with_little_replay(runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The runs with the least replay that is some: cosine-pulled ones, and the baseline's that are otherwise alike."""
    ours = ordered(runs[(runs.pulls_by == "cosine") & (runs.replay > 0) & (runs.replay < math.inf)])
    theirs = runs[(runs.role == "baseline") & runs.replay.isin(ours.replay)]
    for _, variant in ours.sort_values("replay", kind="stable").groupby("variant", sort=False):
        rival = twin(theirs, variant.changes.iloc[0], "objective")
        if not rival.empty:
            return variant, rival
    return ours.iloc[:0], theirs.iloc[:0]


def _with_a_teacher(runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Students with centers that learn from labels and a teacher's embeddings; and from labels alone, otherwise alike."""
    students = with_centers(runs)
    taught = students[(students.targets == "embeddings") & (students.labels_weight > 0)]
    alone = students[students.teacher.isna()]
    for _, variant in taught.groupby("variant", sort=False):
        same = alone[alone.objective.isin(variant.objective)]
        untaught = twin(same, without(variant.changes.iloc[0], "teacher"))
        if not untaught.empty:
            return variant, untaught
    return taught.iloc[:0], alone.iloc[:0]


def _lifelong(found: Evidence) -> Judgement:
    parts = []
    pulls, rival = _with_little_replay(found.lifelong)
    ours, theirs = _top1(pulls), _top1(rival)
    if ours is not None and theirs is not None:
        parts.append(f"classes in groups with replay: {_label(pulls)} {ours:.1f} %, growing layer {theirs:.1f} %")
    taught, plain = map(_top1, _with_a_teacher(found.distillation))
    if taught is not None and plain is not None:
        parts.append(f"student with a teacher {taught:.1f} %, from labels alone {plain:.1f} %")
    if len(parts) < 2:
        return "; ".join([*parts, "runs are missing"]), UNTESTABLE
    learned = ours is not None and theirs is not None and ours >= theirs - 2
    helped = taught is not None and plain is not None and taught >= plain
    return "; ".join(parts), HOLDS if learned and helped else IN_PART if learned or helped else FAILS


def _slower(found: Evidence) -> Judgement:
    return _needs_more_epochs(baseline(found.high_dim), pulled(found.high_dim, "cosine"), found.high_dim_metrics)


def _slower_solved(found: Evidence) -> Judgement:
    """As :func:`_slower`, where the read-out's last layer is solved for; the centers are the predefined ones all the same."""
    if found.closed_form.empty:
        return "no runs", UNTESTABLE
    runs = with_methods(found.closed_form)
    theirs, ours = baseline(runs), one_variant(runs[runs.solved & (runs.pulls_by == "cosine")])
    text, verdict = _needs_more_epochs(theirs, ours, found.closed_form_metrics)
    if theirs.empty or ours.empty:
        return text, verdict
    ends = (
        f"; in the end {_top1(theirs):.1f} % and {_top1(ours):.1f} % ({_seeds(runs)}), "
        f"{ours.seconds.mean() / theirs.seconds.mean():.1f} times the seconds"
    )
    return text + ends, verdict


def _needs_more_epochs(theirs: pd.DataFrame, ours: pd.DataFrame, metrics: pd.DataFrame) -> Judgement:
    """Whether ``ours`` takes more epochs than ``theirs`` to nine tenths of what ``theirs`` ends with."""
    goal = _top1(theirs)
    if goal is None or ours.empty:
        return "no runs", UNTESTABLE
    slow, fast = (epochs_to(0.9 * goal / 100, metrics, runs.variant.iloc[0]) for runs in (ours, theirs))
    shown = ["never" if math.isinf(epochs) else f"{epochs:.1f} epochs" for epochs in (fast, slow)]
    rival = _label(theirs)
    text = f"to 90 % of the final accuracy of {rival}: {rival} {shown[0]}, {_label(ours)} {shown[1]}"
    if math.isinf(fast):
        return text, UNTESTABLE
    return text, HOLDS if slow > fast else FAILS


def _figure(_found: Evidence) -> Judgement:
    return "drawn in chapter 1 from the closed form", HOLDS


CLAIMS: list[tuple[str, str, str, Callable[[Evidence], Judgement], str]] = [
    ("C1", "The same architecture whatever the number of classes", "million_classes", _same_network,
     "holds if, for several numbers of classes, the encoder has one size and centers add at most a scale"),
    ("C2", "Centers are predefined vectors, roots of A_n, perturbed or shuffled", "low_dim", _predefined,
     "holds if both reach 90 %"),
    ("C3", "Embeddings are pulled with a Euclidean or a cosine metric", "low_dim, high_dim", _both_metrics,
     "holds if both reach 90 % in low dimension"),
    ("C4", "Only the centers of the classes in the batch are handled", "million_classes", _batch_only,
     "holds if it takes no more memory than the smallest run and half of the matrix"),
    ("C5", "Encoders and ViTs train in low and in high dimension", "low_dim, high_dim", _trains,
     "holds if cosine comes within 2 points of cross-entropy, which learned at least half, in both"),
    ("C6", "A ViT trains on 1.28 million classes", "million_classes", _million,
     "holds if a training (not a stretch) reaches 50 % among all classes"),
    ("C7", "Serves lifelong learning and, potentially, distillation", "lifelong, distillation", _lifelong,
     "holds if within 2 points of a growing layer, and a teacher helps"),
    ("C8", "Trains slower than cross-entropy", "high_dim", _slower,
     "holds if cosine needs more epochs to 90 % of the accuracy of cross-entropy"),
    ("C8, ours", "The same, with the read-out's last layer in closed form instead of trained by steps", "closed_form",
     _slower_solved, "by the same rule, on the runs of chapter 4 that compare the two"),
    ("C9", "The first figure: roots of A_2 on their plane in 3-D", "centers", _figure, "drawn"),
]  # fmt: skip


def verdicts(records: Records) -> list[dict[str, Any]]:
    """A row per claim: claim, what it says, tested by, what came out, verdict, rule."""
    names = ("low_dim", "high_dim", "million_classes", "distillation", "lifelong", "closed_form")
    curves = {f"{name}_metrics": records.metrics(name) for name in ("high_dim", "closed_form")}
    found = Evidence(**{name: records.summaries(name) for name in names}, **curves)
    rows = []
    for number, says, tested_by, judge, rule in CLAIMS:
        outcome, verdict = judge(found)
        rows.append(
            {
                "claim": number,
                "says": says,
                "tested by": f"{records.study.study}: {tested_by}",
                "came out": outcome,
                "verdict": verdict,
                "rule": rule,
            }
        )
    return rows
