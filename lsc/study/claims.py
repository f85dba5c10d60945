"""The paper's claims beside the records of a study: what ran, what came out, whether the claim holds there.

Verdicts are computed, so that they change with the records. Only claims that we could read are listed
(docs/replication.md); the thresholds are ours and stand in each verdict's rule.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lsc.study.chapters.closed_form import end_of_curve, epochs_to, is_in_closed_form, with_methods
from lsc.study.selection import around, baseline, one_variant, ordered, pulled, twin, with_centers
from lsc.study.tables import Records
from lsc.study.variants import without
from lsc.study.wording import listed

HOLDS, IN_PART, FAILS, UNTESTABLE = "holds", "holds in part", "does not hold", "not testable here"
MARKS = {HOLDS: "🟢", IN_PART: "🟡", FAILS: "🔴", UNTESTABLE: "⚪"}


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
    seeds = sorted(table.seed.unique())
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _same_network(found: Evidence) -> Judgement:
    centers = with_centers(found.million_classes)
    if centers.empty:
        return "no runs", UNTESTABLE
    sizes = sorted(centers.encoder_parameters.unique())
    classes = ", ".join(f"{count:,}" for count in sorted(centers.num_classes.unique()))
    shown = ", ".join(f"{size:,}" for size in sizes)
    added = f"{centers.objective_parameters.max():,}"
    text = f"{shown} parameters of the encoder and at most {added} of the objective, at {classes} classes"
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
    """Whether both metrics train, in low dimension and in high dimension, as far as these were run."""
    parts, reached = [], []
    for name, table in (("low dimension", found.low_dim), ("high dimension", found.high_dim)):
        both = [pulled(table, by) for by in ("euclidean", "cosine")]
        top1 = [_top1(runs) for runs in both]
        if top1[0] is None or top1[1] is None:
            continue
        rival = _top1(baseline(table))
        shown = [f"{_label(runs)} {value:.1f} %" for runs, value in zip(both, top1, strict=True)]
        beside = "" if rival is None else f" ({_label(baseline(table))} {rival:.1f} %)"
        parts.append(f"{name}: {', '.join(shown)}{beside}")
        # A rival that did not learn sets no goal.
        goal = 0.9 * rival if rival is not None and rival >= 50 else 90
        reached += [value >= goal for value in top1 if value is not None]
    if not parts:
        return "no runs", UNTESTABLE
    return "; ".join(parts), HOLDS if all(reached) else IN_PART if any(reached) else FAILS


def _batch_only(found: Evidence) -> Judgement:
    rows = with_centers(found.million_classes)
    many = rows[rows.num_classes > 1_000_000]
    if many.empty:
        return "no run with a million classes", UNTESTABLE
    run = many.iloc[0]
    dense = 4 * run.num_classes * run.dim / 2**20
    text = (
        f"a run among {run.num_classes:,} classes took {run.peak_memory_mb:,.0f} MiB in all; "
        f"the matrix of its centers would take {dense:,.0f} MiB more"
    )
    # Images and activations take far more than anything else: only what holds as many is compared.
    alike = (rows.images_at_once == run.images_at_once) & (rows.encoder_parameters == run.encoder_parameters)
    small = rows[alike & (rows.num_classes < run.num_classes)].sort_values("num_classes")
    if small.empty:
        return text + "; no run of as many images at a time with fewer classes to compare with", UNTESTABLE
    text += f" ({small.iloc[0].peak_memory_mb:,.0f} MiB at {small.iloc[0].num_classes:,} classes)"
    least = small.peak_memory_mb.min()
    # Half of the matrix would already be more than the runs differ by otherwise.
    return text, HOLDS if run.peak_memory_mb - least <= dense / 2 else FAILS


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
        parts.append(
            f"classes that arrive in groups, with replay: {_label(pulls)} {ours:.1f} %, growing layer {theirs:.1f} %"
        )
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
    runs = with_methods(found.closed_form)
    return _slower_than_baseline(runs, with_centers(runs[is_in_closed_form(runs) & ~runs.fitted.astype(bool)]), found)


def _slower_fitted(found: Evidence) -> Judgement:
    """As :func:`_slower`, where the centers are made anew to fit the network: these are no longer the predefined ones."""
    runs = with_methods(found.closed_form)
    return _slower_than_baseline(runs, runs[runs.fitted.astype(bool)], found)


def _slower_than_baseline(runs: pd.DataFrame, chosen: pd.DataFrame, found: Evidence) -> Judgement:
    theirs, ours = baseline(runs), one_variant(chosen)
    text, verdict = _needs_more_epochs(theirs, ours, found.closed_form_metrics)
    if theirs.empty or ours.empty:
        return text, verdict
    ends = (
        f"; final accuracy {_top1(theirs):.1f} % and {_top1(ours):.1f} % ({_seeds(runs)}), in "
        f"{ours.seconds.mean() / theirs.seconds.mean():.1f} times the time"
    )
    return text + ends, verdict


def _needs_more_epochs(theirs: pd.DataFrame, ours: pd.DataFrame, metrics: pd.DataFrame) -> Judgement:
    """Whether ``ours`` takes more epochs than ``theirs`` to nine tenths of what ``theirs`` ends with."""
    if theirs.empty or ours.empty:
        return "no runs", UNTESTABLE
    goal = 0.9 * end_of_curve(metrics, theirs)
    slow, fast = (epochs_to(goal, metrics, runs.variant.iloc[0]) for runs in (ours, theirs))
    shown = ["never" if math.isinf(epochs) else f"{epochs:.1f} epochs" for epochs in (fast, slow)]
    rival = _label(theirs)
    text = f"to nine tenths of the final accuracy of {rival}: {rival} {shown[0]}, {_label(ours)} {shown[1]}"
    if math.isinf(fast):
        return text, UNTESTABLE
    return text, HOLDS if slow > fast else FAILS


def _figure(_found: Evidence) -> Judgement:
    return "drawn from the closed form", HOLDS


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, or of ours.

    Attributes:
        says: in our words.
        tested_by: experiments, or chapters.
        evidence: anchors of the figures and tables that show it (:class:`lsc.study.pages.contents.Item`).
        rule: when it holds.
    """

    number: str
    says: str
    tested_by: str
    evidence: str
    judge: Callable[[Evidence], Judgement]
    rule: str


CLAIMS = [
    Claim("C1", "The same network serves any number of classes", "million_classes",
          "million_classes_scaling table_million_classes", _same_network,
          "holds if the encoder has one size for several numbers of classes, and centers add at most a scale"),
    Claim("C2", "Centers are predefined vectors, roots of A<sub>n</sub>, perturbed or shuffled", "low_dim",
          "low_dim_accuracy centers_perturbation", _predefined, "holds if shuffled and perturbed centers both reach 90 %"),
    Claim("C3", "Embeddings are pulled to the centers with a Euclidean or a cosine metric", "low_dim, high_dim",
          "low_dim_accuracy high_dim_accuracy", _both_metrics,
          "holds if both metrics reach nine tenths of the accuracy of cross-entropy (90 % where there is none to compare with), "
          "in low and in high dimension"),
    Claim("C4", "Only the centers of the classes in the batch are handled", "million_classes",
          "table_million_classes cost_step", _batch_only,
          "holds if a run among a million classes takes at most half of the matrix of centers more memory than the smallest run"),
    Claim("C5", "Encoders and vision transformers train in low and in high dimension", "low_dim, high_dim",
          "low_dim_by_dimension high_dim_accuracy", _trains,
          "holds if cosine centers come within 2 points of cross-entropy, itself at 50 % or more, in both"),
    Claim("C6", "A vision transformer trains on 1.28 million classes", "million_classes",
          "table_million_classes million_classes_loss", _million,
          "holds if a training (not a stretch of steps) reaches 50 % among all classes"),
    Claim("C7", "Serves lifelong learning and, potentially, distillation", "lifelong, distillation",
          "lifelong_accuracy distillation_accuracy", _lifelong,
          "holds if cosine centers come within 2 points of a growing layer, and a teacher helps"),
    Claim("C8", "Trains more slowly than cross-entropy", "high_dim",
          "high_dim_accuracy table_high_dim_time_to_accuracy", _slower,
          "holds if cosine centers need more epochs to nine tenths of the final accuracy of cross-entropy"),
    Claim("C8, ours", "The same with the last layer of the read-out in closed form instead of trained by steps", "closed_form",
          "closed_form table_closed_form", _slower_solved, "the same rule, on the runs that compare the two"),
    Claim("C8, fitted", "The same with centers that are made anew to fit the network, no longer predefined", "closed_form",
          "closed_form table_closed_form", _slower_fitted, "the same rule, on the runs that compare the two"),
    Claim("C9", "The first figure shows the roots of A<sub>2</sub> on their plane in space", "centers",
          "centers_roots_of_a2", _figure, "drawn"),
]  # fmt: skip


def verdicts(records: Records) -> list[dict[str, Any]]:
    """A row per claim: claim, says, verdict, came out, evidence (anchors), rule, tested by."""
    names = ("low_dim", "high_dim", "million_classes", "distillation", "lifelong", "closed_form")
    curves = {f"{name}_metrics": records.metrics(name) for name in ("high_dim", "closed_form")}
    found = Evidence(**{name: records.summaries(name) for name in names}, **curves)
    rows = []
    for claim in CLAIMS:
        outcome, verdict = claim.judge(found)
        rows.append(
            {
                "claim": claim.number,
                "says": claim.says,
                "verdict": verdict,
                "came out": outcome,
                "evidence": claim.evidence,
                "rule": claim.rule,
                "tested by": f"{records.study.study}: {claim.tested_by}",
            }
        )
    return rows


def claims_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows of :func:`verdicts` as a page shows them."""
    return pd.DataFrame(
        {
            "claim": f"**{row['claim']}.** {row['says']}",
            "verdict": f"{MARKS[row['verdict']]}\u00a0{row['verdict'].replace(' ', chr(0xA0))}",
            "what came out": row["came out"],
            "evidence": ", ".join(f"[](ref:{anchor})" for anchor in row["evidence"].split()),
            "rule": row["rule"],
        }
        for row in rows
    )


def in_short(rows: list[dict[str, Any]]) -> str:
    """How many of the paper's claims hold here."""
    own = [row["verdict"] for row in rows if "," not in row["claim"]]
    said = {HOLDS: "hold", IN_PART: "hold in part", FAILS: "do not hold", UNTESTABLE: "cannot be tested in this study"}
    parts = [f"{own.count(verdict)} {words}" for verdict, words in said.items() if verdict in own]
    return f"Of the {len(own)} claims of the paper, {listed(parts)}."
