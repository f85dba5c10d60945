"""The paper's claims beside the records of a study: what ran, what came out, whether the claim holds there.

Verdicts are computed, so that they change with the records. Only claims that we could read are listed
(docs/replication.md); the thresholds are ours and stand in each verdict's rule.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lsc.study.chapters.closed_form import end_of_curve, epochs_of_seeds, is_in_closed_form, with_methods
from lsc.study.chapters.million_classes import plain
from lsc.study.judging import (
    FAILS,
    HOLDS,
    IN_PART,
    MARKS,
    UNDECIDED,
    UNTESTABLE,
    Judgement,
    Outcome,
    accuracy,
    all_of,
    epochs_of,
    goal_of,
    reaches,
    told,
    verdict_of,
)
from lsc.study.selection import around, baseline, one_variant, ordered, pulled, twin, with_centers
from lsc.study.tables import Records
from lsc.study.variants import without
from lsc.study.wording import listed, of_blocks, of_changes, range_of, ranged, seeds_of


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


def _label(runs: pd.DataFrame) -> str:
    return str(runs.label.iloc[0])


def _same_network(found: Evidence) -> Judgement:
    centers = with_centers(found.million_classes)
    if centers.empty:
        return "no runs", UNTESTABLE
    sizes = sorted(centers.encoder_parameters.unique())
    classes = ", ".join(f"{count:,}" for count in sorted(centers.num_classes.unique()))
    shown = ", ".join(f"{size:,}" for size in sizes)
    added = f"{centers.objective_parameters.max():,}"
    text = f"{shown} parameters of the encoder and at most {added} of the objective, at {classes} classes"
    places = [
        f"{system} in {dim} dimensions" for system, dim in sorted({*zip(centers.system, centers.dim, strict=True)})
    ]
    text += f" ({listed(places)})"
    if centers.num_classes.nunique() < 2:
        return f"{text} alone", UNTESTABLE
    return text, HOLDS if len(sizes) == 1 and centers.objective_parameters.max() <= 1 else FAILS


def _share(part: float) -> str:
    return {0.1: "a tenth", 0.2: "a fifth", 0.5: "a half"}.get(part, f"{part:g}")


def _predefined(found: Evidence) -> Judgement:
    runs = pulled(found.low_dim, "cosine")
    moved = around(found.low_dim, runs, "centers.perturbation").sort_values("perturbation", kind="stable")
    moved = one_variant(moved[moved.perturbation > 0])
    if runs.empty or moved.empty:
        return "no runs", UNTESTABLE
    system = runs.system.iloc[0]
    vectors = "roots" if system.startswith("A") else system
    outcomes = [reaches(one, goal_of(one, 0.9)) for one in (runs, moved)]
    shown = [
        told(f"{runs.assignment.iloc[0]} {vectors} {accuracy(runs)}", outcomes[0]),
        told(f"perturbed by {_share(moved.perturbation.iloc[0])} {accuracy(moved)}", outcomes[1]),
    ]
    return f"{', '.join(shown)} ({seeds_of(found.low_dim.seed)})", verdict_of(outcomes)


def _both_metrics(found: Evidence) -> Judgement:
    """Whether both metrics train, in low dimension and in high dimension, as far as these were run."""
    parts, outcomes = [], []
    for name, table in (("low dimension", found.low_dim), ("high dimension", found.high_dim)):
        both, rival = [pulled(table, by) for by in ("euclidean", "cosine")], baseline(table)
        if any(runs.empty for runs in both):
            continue
        # A rival that did not learn sets no goal.
        learned = not rival.empty and rival.final_top1.mean() >= 0.5
        goals = [goal_of(rival, 0.9 * rival.final_top1) if learned else goal_of(runs, 0.9) for runs in both]
        reached = [reaches(runs, goal) for runs, goal in zip(both, goals, strict=True)]
        shown = [told(f"{_label(runs)} {accuracy(runs)}", one) for runs, one in zip(both, reached, strict=True)]
        beside = "" if rival.empty else f"; {_label(rival)} {accuracy(rival)}"
        parts.append(f"{name}: {', '.join(shown)}{beside} ({seeds_of(table.seed)})")
        outcomes += reached
    if not parts:
        return "no runs", UNTESTABLE
    return "; ".join(parts), verdict_of(outcomes)


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
    least = small.loc[small.peak_memory_mb.idxmin()]
    text += (
        f"; the least that a run with centers of fewer classes took is {least.peak_memory_mb:,.0f} MiB, "
        f"at {least.num_classes:,} classes"
    )
    # Half of the matrix would already be more than the runs differ by otherwise.
    return text, HOLDS if run.peak_memory_mb - least.peak_memory_mb <= dense / 2 else FAILS


def _trains(found: Evidence) -> Judgement:
    parts, outcomes = [], []
    for name, table in (("low dimension", found.low_dim), ("high dimension", found.high_dim)):
        pulls, rival = pulled(table, "cosine"), baseline(table)
        if pulls.empty or rival.empty:
            continue
        on = f"{pulls.data.iloc[0]}, {pulls.encoder.iloc[0]}"
        # To come close to a rival that did not learn proves nothing.
        learned = rival.final_top1.mean() >= 0.5
        outcomes.append(reaches(pulls, goal_of(rival, rival.final_top1 - 0.02)) if learned else False)
        pair = f"{name} ({on}): {_label(pulls)} {accuracy(pulls)}, {_label(rival)} {accuracy(rival)} ({seeds_of(table.seed)})"
        parts.append(told(pair, outcomes[-1]))
    if len(outcomes) < 2:
        return "; ".join([*parts, "runs are missing"]), UNTESTABLE
    return "; ".join(parts), verdict_of(outcomes)


def _among_a_million(found: Evidence) -> pd.DataFrame:
    """The runs of a variant among more than a million classes: the best, of vision transformers and of trainings if any."""
    rows = with_centers(found.million_classes)
    large = rows[rows.num_classes > 1_000_000]
    large = _if_any(large, _is_transformer(large))
    large = _if_any(large, ~large.stretch.astype(bool))
    return large[large.variant == large.groupby("variant").final_top1.mean().idxmax()] if len(large) else large


def _if_any(runs: pd.DataFrame, wanted: Any) -> pd.DataFrame:
    """Those of some runs that are ``wanted``; all of them where none is."""
    return runs[wanted] if wanted.any() else runs


def _is_transformer(runs: pd.DataFrame) -> Any:
    return runs.encoder.map(lambda name: str(name).startswith("vit_")).astype(bool)


def _million(found: Evidence) -> Judgement:
    large = _among_a_million(found)
    if large.empty:
        return "no run with a million classes", UNTESTABLE
    run = large.iloc[0]
    top1 = range_of(large.final_top1, digits=2, unit=" %", times=100)
    text = (
        f"{int(run.steps):,} steps of {run.encoder} among {run.num_classes:,} classes, top-1 {top1} among all of them "
        f"({seeds_of(large.seed)})"
    )
    other = "" if _is_transformer(large).all() else "; none of the library's vision transformers"
    if run.stretch:
        return f"{text}{other}; a stretch of steps, not a training", UNTESTABLE
    if other:
        return text + other, UNTESTABLE
    if (outcome := reaches(large, goal_of(large, 0.5))) is None:
        return told(text, None), UNDECIDED
    learned = (large.final_top1 * large.num_classes > 100).all()
    return text, HOLDS if outcome else IN_PART if learned else FAILS


def _million_shown(found: Evidence) -> str:
    """Where the run that claim C6 is judged by is shown: its loss, too, where it is among those that are drawn."""
    run, drawn = _among_a_million(found), plain(found.million_classes)
    is_drawn = not run.empty and run.variant.iloc[0] in set(drawn.variant)
    return "table_million_classes million_classes_loss" if is_drawn else "table_million_classes"


Pair = tuple[pd.DataFrame, pd.DataFrame]  # the runs of a variant, and of the one that it is compared with


def _with_little_replay(runs: pd.DataFrame) -> list[Pair]:
    """The pairs with the least replay that is some: cosine-pulled runs, and the baseline's that are otherwise alike."""
    ours = ordered(runs[(runs.pulls_by == "cosine") & (runs.replay > 0) & (runs.replay < math.inf)])
    theirs = runs[(runs.role == "baseline") & runs.replay.isin(ours.replay)]
    pairs = [
        (variant, twin(theirs, variant.changes.iloc[0], "objective"))
        for _, variant in ours.sort_values("replay", kind="stable").groupby("variant", sort=False)
    ]
    pairs = [pair for pair in pairs if not pair[1].empty]
    return [pair for pair in pairs if pair[0].replay.iloc[0] == pairs[0][0].replay.iloc[0]]


def _with_a_teacher(runs: pd.DataFrame) -> list[Pair]:
    """Students with centers that learn from labels and a teacher's embeddings; and from labels alone, otherwise alike."""
    students = with_centers(runs)
    taught = students[(students.targets == "embeddings") & (students.labels_weight > 0)]
    alone = students[students.teacher.isna()]
    pairs = [
        (variant, twin(alone[alone.objective.isin(variant.objective)], without(variant.changes.iloc[0], "teacher")))
        for _, variant in taught.groupby("variant", sort=False)
    ]
    return [pair for pair in pairs if not pair[1].empty]


def _in_pairs(pairs: list[Pair], names: Callable[[Pair], tuple[str, str]], less: float) -> tuple[list[str], Outcome]:
    """Each pair in words, and whether the first of every pair comes up to the second ``less`` so much."""
    shown, outcomes = [], []
    for ours, theirs in pairs:
        outcome = reaches(ours, goal_of(theirs, theirs.final_top1 - less))
        first, second = names((ours, theirs))
        own = of_changes(without(ours.changes.iloc[0], "lifelong", "teacher", "objective"))
        which = f" ({', '.join(own)})" if own else ""
        shown.append(told(f"{first}{which} {accuracy(ours)}, {second} {accuracy(theirs)}", outcome))
        outcomes.append(outcome)
    return shown, all_of(outcomes)


def _lifelong(found: Evidence) -> Judgement:
    parts, outcomes = [], []
    for what, pairs, names, less, table in (
        ("classes that arrive in groups, with replay: ", _with_little_replay(found.lifelong),
         lambda pair: (_label(pair[0]), "growing layer"), 0.02, found.lifelong),
        ("", _with_a_teacher(found.distillation),
         lambda _: ("student with a teacher", "from labels alone"), 0.0, found.distillation),
    ):  # fmt: skip
        if pairs:
            shown, outcome = _in_pairs(pairs, names, less)
            parts.append(f"{what}{'; '.join(shown)} ({seeds_of(table.seed)})")
            outcomes.append(outcome)
    if len(outcomes) < 2:
        return "; ".join([*parts, "runs are missing"]), UNTESTABLE
    verdict = verdict_of(outcomes)
    if verdict == UNDECIDED:
        parts.append(f"whether it holds {'in part' if False in outcomes else 'in full'} is open")
    return "; ".join(parts), verdict


def _slower(found: Evidence) -> Judgement:
    """Wherever centers trained by steps were compared with cross-entropy over the epochs."""
    where, said, outcomes, rival = [], [], [], ""
    for runs, metrics in ((found.high_dim, found.high_dim_metrics), (found.closed_form, found.closed_form_metrics)):
        theirs, ours = baseline(runs), pulled(runs, "cosine")
        if theirs.empty or ours.empty:
            continue
        rival = rival or _label(theirs)
        words, outcome = _needs_more_epochs(theirs, ours, metrics)
        where.append(f"{int(runs.num_classes.max()):,} classes of {runs.data.iloc[0]} ({runs.encoder.iloc[0]})")
        said.append(words)
        outcomes += outcome
    if not said:
        return "no runs", UNTESTABLE
    if len(said) == 1:
        return f"{_TO_THE_GOAL.format(rival)}: {said[0]}", _verdict(outcomes)
    parts = [f"among {classes}: {words}" for classes, words in zip(where, said, strict=True)]
    return f"{_TO_THE_GOAL.format(rival)} {'; '.join(parts)}", _verdict(outcomes)


_TO_THE_GOAL = "to nine tenths of the accuracy that {} ends with"


def _verdict(outcomes: list[Outcome]) -> str:
    """Of comparisons over the epochs; there are none where the baseline itself never comes to the goal."""
    return verdict_of(outcomes) if outcomes else UNTESTABLE


def _slower_shown(found: Evidence) -> str:
    shown = "high_dim_accuracy table_high_dim_time_to_accuracy"
    return f"{shown} closed_form" if not pulled(found.closed_form, "cosine").empty else shown


def _slower_solved(found: Evidence) -> Judgement:
    """As :func:`_slower`, where the read-out's last layer is solved for; the centers are the predefined ones all the same."""
    runs = with_methods(found.closed_form)
    return _slower_than_baseline(runs, with_centers(runs[is_in_closed_form(runs) & ~runs.fitted.astype(bool)]), found)


def _slower_fitted(found: Evidence) -> Judgement:
    """As :func:`_slower`, where the centers are made anew to fit the network: these are no longer the predefined ones."""
    runs = with_methods(found.closed_form)
    return _slower_than_baseline(runs, runs[runs.fitted.astype(bool)], found)


def _slower_than_baseline(runs: pd.DataFrame, chosen: pd.DataFrame, found: Evidence) -> Judgement:
    theirs, ours, by_steps = baseline(runs), one_variant(chosen), pulled(runs, "cosine")
    if theirs.empty or ours.empty:
        return "no runs", UNTESTABLE
    said, outcomes = _needs_more_epochs(theirs, ours, found.closed_form_metrics, by_steps)
    times = ours.seconds.mean() / theirs.seconds.mean()
    least, most = ours.seconds.min() / theirs.seconds.max(), ours.seconds.max() / theirs.seconds.min()
    taken = ranged(times, least, most, len(ours), unit=" times the time")
    ends = f"; final accuracy {accuracy(theirs)} and {accuracy(ours)} ({seeds_of(runs.seed)}), in {taken}"
    return f"{_TO_THE_GOAL.format(_label(theirs))}: {said}{ends}", _verdict(outcomes)


def _needs_more_epochs(
    theirs: pd.DataFrame, ours: pd.DataFrame, metrics: pd.DataFrame, by_steps: pd.DataFrame | None = None
) -> tuple[str, list[Outcome]]:
    """Whether ``ours`` takes more epochs than ``theirs`` to nine tenths of what ``theirs`` ends with.

    ``by_steps`` are runs of predefined centers that are trained by steps, to be told of beside them.

    Returns:
        the epochs of each in words, and the outcome; none where ``theirs`` never comes to the goal in some seed.
    """
    goal = 0.9 * end_of_curve(metrics, theirs)

    def epochs(runs: pd.DataFrame) -> list[float]:
        return epochs_of_seeds(goal, metrics, runs.variant.iloc[0])

    fast, slow = epochs(theirs), epochs(ours)
    own = ", ".join([_label(ours), *of_blocks(ours.changes.iloc[0])])
    parts = [f"{_label(theirs)} {epochs_of(fast)}", f"{own} {epochs_of(slow)}"]
    if by_steps is not None and not by_steps.empty:
        parts.append(f"{_label(by_steps)} by steps {epochs_of(epochs(by_steps))}")
    text = "; ".join(parts)
    if math.inf in fast:
        return text, []
    outcome = True if min(slow) > max(fast) else False if max(slow) <= min(fast) else None
    return told(text, outcome), [outcome]


def _figure(_found: Evidence) -> Judgement:
    return "drawn from the closed form", HOLDS


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, or of ours.

    Attributes:
        says: in our words.
        tested_by: experiments, or chapters.
        evidence: anchors of the figures and tables that show it (:class:`lsc.study.pages.contents.Item`), or what finds
            them where they depend on the records.
        rule: when it holds.
    """

    number: str
    says: str
    tested_by: str
    evidence: str | Callable[[Evidence], str]
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
          "holds if a run among a million classes takes at most half of the matrix of centers more memory than the least that "
          "a run with centers of fewer classes took, with as many images at a time"),
    Claim("C5", "Encoders and vision transformers train on CINIC-10 and ImageNet-1K, in low and in high dimension",
          "low_dim, high_dim", "low_dim_by_dimension high_dim_accuracy", _trains,
          "holds if cosine centers come within 2 points of cross-entropy, itself at 50 % or more, in both, on this study's data"),
    Claim("C6", "A vision transformer trains on 1.28 million classes", "million_classes",
          _million_shown, _million,
          "holds if a training (not a stretch of steps) of a vision transformer reaches 50 % among all classes"),
    Claim("C7", "Serves lifelong learning and, potentially, distillation", "lifelong, distillation",
          "lifelong_accuracy distillation_accuracy", _lifelong,
          "holds if cosine centers come within 2 points of a growing layer with every read-out that was run with both, and a "
          "teacher helps"),
    Claim("C8", "Trains more slowly than cross-entropy", "high_dim, closed_form",
          _slower_shown, _slower,
          "holds if cosine centers, trained by steps, need more epochs to nine tenths of the accuracy that the curve of "
          "cross-entropy ends with, wherever the two were compared"),
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
        evidence = claim.evidence if isinstance(claim.evidence, str) else claim.evidence(found)
        rows.append(
            {
                "claim": claim.number,
                "says": claim.says,
                "verdict": verdict,
                "came out": outcome,
                "evidence": evidence,
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
    said = {HOLDS: ("holds", "hold"), IN_PART: ("holds in part", "hold in part"), FAILS: ("does not hold", "do not hold"),
            UNDECIDED: ("is not decided", "are not decided"), UNTESTABLE: ("cannot be tested in this study",) * 2}  # fmt: skip
    parts = [
        f"{own.count(verdict)} {words[own.count(verdict) > 1]}" for verdict, words in said.items() if verdict in own
    ]
    return f"Of the {len(own)} claims of the paper, {listed(parts)}."
