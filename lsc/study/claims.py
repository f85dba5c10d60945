"""The paper's claims beside the records of a study: what ran, what came out, whether the claim holds there.

Verdicts are computed, so that they change with the records. Only claims that we could read are listed
(docs/replication.md); the thresholds are ours and stand in each verdict's rule.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lsc.study import tables

HOLDS, IN_PART, FAILS, UNTESTABLE = "holds", "holds in part", "does not hold", "not testable here"


@dataclass(frozen=True)
class Evidence:
    """The records of a study, one table per experiment; an experiment without finished runs is an empty table."""

    low_dim: pd.DataFrame
    high_dim: pd.DataFrame
    million_classes: pd.DataFrame
    distillation: pd.DataFrame
    lifelong: pd.DataFrame
    high_dim_metrics: pd.DataFrame

    def everything(self) -> pd.DataFrame:
        tables = [self.low_dim, self.high_dim, self.million_classes, self.distillation, self.lifelong]
        filled = [table for table in tables if not table.empty]
        return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame()


Judgement = tuple[str, str]  # what came out, verdict


def _top1(table: pd.DataFrame, variant: str) -> float | None:
    """Mean final top-1 over the seeds in per cent, None if there was no such run."""
    rows = table[table.variant == variant] if not table.empty else table
    return None if rows.empty else float(100 * rows.final_top1.mean())


def _seeds(table: pd.DataFrame) -> str:
    return "seeds " + ", ".join(map(str, sorted(table.seed.unique())))


def _with_centers(table: pd.DataFrame) -> pd.DataFrame:
    """The runs whose objective has predefined centers, not a row of a layer for each class."""
    return table if table.empty else table[~table.objective.isin(["cross_entropy", "partial_fc"])]


def _same_network(found: Evidence) -> Judgement:
    centers = _with_centers(found.million_classes)
    if centers.empty:
        return "no runs", UNTESTABLE
    sizes = sorted(centers.encoder_parameters.unique())
    classes = ", ".join(f"{count:,}" for count in sorted(centers.num_classes.unique()))
    shown = ", ".join(f"{size:,}" for size in sizes)
    text = f"{shown} encoder and {centers.objective_parameters.max():,} objective parameters at {classes} classes"
    if centers.num_classes.nunique() < 2:
        return f"{text} alone", UNTESTABLE
    return text, HOLDS if len(sizes) == 1 and centers.objective_parameters.max() <= 1 else FAILS


def _predefined(found: Evidence) -> Judgement:
    plain, moved = _top1(found.low_dim, "cosine"), _top1(found.low_dim, "cosine_perturbed_10")
    if plain is None or moved is None:
        return "no runs", UNTESTABLE
    text = f"shuffled roots {plain:.1f} %, perturbed by a tenth {moved:.1f} % ({_seeds(found.low_dim)})"
    return text, HOLDS if min(plain, moved) >= 90 else IN_PART if max(plain, moved) >= 90 else FAILS


def _both_metrics(found: Evidence) -> Judgement:
    euclidean, cosine = _top1(found.low_dim, "euclidean"), _top1(found.low_dim, "cosine")
    if euclidean is None or cosine is None:
        return "no runs", UNTESTABLE
    text = f"low dimension: Euclidean {euclidean:.1f} %, cosine {cosine:.1f} %"
    high = _top1(found.high_dim, "euclidean"), _top1(found.high_dim, "cosine")
    if high[0] is not None and high[1] is not None:
        text += f"; high dimension: {high[0]:.1f} % and {high[1]:.1f} %"
    return text, HOLDS if min(euclidean, cosine) >= 90 else IN_PART if max(euclidean, cosine) >= 90 else FAILS


def _batch_only(found: Evidence) -> Judgement:
    rows = _with_centers(found.million_classes)
    stretch = rows[rows.num_classes > 1_000_000] if not rows.empty else rows
    if stretch.empty:
        return "no run with a million classes", UNTESTABLE
    run = stretch.iloc[0]
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
        ours, theirs = _top1(table, "cosine"), _top1(table, "cross_entropy")
        if ours is not None and theirs is not None:
            parts.append(f"{name}: cosine {ours:.1f} %, cross-entropy {theirs:.1f} %")
            # To come close to a rival that did not learn proves nothing.
            gaps.append(theirs - ours if theirs >= 50 else math.inf)
    if len(gaps) < 2:
        return "; ".join([*parts, "runs are missing"]), UNTESTABLE
    return "; ".join(parts), HOLDS if max(gaps) <= 2 else IN_PART if min(gaps) <= 2 else FAILS


def _million(found: Evidence) -> Judgement:
    rows = _with_centers(found.million_classes)
    large = rows[rows.num_classes > 1_000_000] if not rows.empty else rows
    if large.empty:
        return "no run with a million classes", UNTESTABLE
    run = large.sort_values("final_top1").iloc[-1]
    text = f"{int(run.steps):,} steps among {run.num_classes:,} classes, top-1 {100 * run.final_top1:.2f} % among all of them"
    if run.variant.startswith("stretch"):
        return text + "; a stretch of steps, not a training", UNTESTABLE
    return text, HOLDS if run.final_top1 >= 0.5 else IN_PART if run.final_top1 * run.num_classes > 100 else FAILS


def _little_replay(table: pd.DataFrame) -> str:
    """The part of the variants' names that stands for some replay, such as ``replay_20``."""
    names = {name.partition("replay_")[2] for name in table.get("variant", [])} - {"", "0"}
    return f"replay_{min(names, key=int)}" if names else "replay"


def _lifelong(found: Evidence) -> Judgement:
    parts = []
    little = _little_replay(found.lifelong)
    ours, theirs = _top1(found.lifelong, f"cosine_{little}"), _top1(found.lifelong, f"cross_entropy_{little}")
    if ours is not None and theirs is not None:
        parts.append(f"classes in groups with replay: cosine {ours:.1f} %, growing layer {theirs:.1f} %")
    taught, plain = _top1(found.distillation, "student_both"), _top1(found.distillation, "student_labels")
    if taught is not None and plain is not None:
        parts.append(f"student with a teacher {taught:.1f} %, from labels alone {plain:.1f} %")
    if len(parts) < 2:
        return "; ".join([*parts, "runs are missing"]), UNTESTABLE
    learned = ours is not None and theirs is not None and ours >= theirs - 2
    helped = taught is not None and plain is not None and taught >= plain
    return "; ".join(parts), HOLDS if learned and helped else IN_PART if learned or helped else FAILS


def _slower(found: Evidence) -> Judgement:
    rows = found.high_dim_metrics
    theirs = _top1(found.high_dim, "cross_entropy")
    if rows.empty or theirs is None or _top1(found.high_dim, "cosine") is None:
        return "no runs", UNTESTABLE
    goal = 0.9 * theirs / 100
    reached = {}
    for variant in ("cross_entropy", "cosine"):
        first = [group[group.top1 >= goal].epoch.min() for _, group in rows[rows.variant == variant].groupby("seed")]
        reached[variant] = sum(first) / len(first)
    shown = {name: "never" if value != value else f"{value:.1f} epochs" for name, value in reached.items()}
    text = f"to 90 % of the final accuracy of cross-entropy: cross-entropy {shown['cross_entropy']}, cosine {shown['cosine']}"
    if reached["cross_entropy"] != reached["cross_entropy"]:
        return text, UNTESTABLE
    slower = reached["cosine"] != reached["cosine"] or reached["cosine"] > reached["cross_entropy"]
    return text, HOLDS if slower else FAILS


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
    ("C9", "The first figure: roots of A_2 on their plane in 3-D", "centers", _figure, "drawn"),
]  # fmt: skip


def verdicts(runs: Path, study: str) -> list[dict[str, Any]]:
    """A row per claim: claim, what it says, tested by, what came out, verdict, rule.

    Args:
        runs: folder of the study's runs.
        study: its name, for the account of where the verdict comes from.
    """
    names = ("low_dim", "high_dim", "million_classes", "distillation", "lifelong")
    found = Evidence(
        **{name: tables.read_summaries(runs, name) for name in names},
        high_dim_metrics=tables.read_metrics(runs, "high_dim"),
    )
    rows = []
    for number, says, tested_by, judge, rule in CLAIMS:
        outcome, verdict = judge(found)
        rows.append(
            {
                "claim": number,
                "says": says,
                "tested by": f"{study}: {tested_by}",
                "came out": outcome,
                "verdict": verdict,
                "rule": rule,
            }
        )
    return rows
