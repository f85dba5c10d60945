"""Chapter 6: classes that arrive group after group."""

import math
from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from lsc.study import plots
from lsc.study.selection import twin
from lsc.study.variants import has_block
from lsc.study.wording import apart, compared, images_of, percent, ranged, span, upper, within

_NOTICED, _FORGOTTEN = "new classes noticed (AUROC)", "forgetting (points)"
# What the table of forgetting has, and the digits after the point that it is shown with.
MEASURES = {
    "final accuracy (%)": 1, _FORGOTTEN: 1, _NOTICED: 3, "vacant, new classes (%)": 1, "vacant, known classes (%)": 1
}  # fmt: skip


def in_order(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs by the label of their objective, then by name."""
    return runs.sort_values(["label", "variant", "seed"], key=lambda c: c.str.lower() if c.name == "label" else c)


def ends(metrics: pd.DataFrame) -> pd.DataFrame:
    """The state of every run at the end of each phase."""
    if metrics.empty:
        return metrics
    # Where sums were taken in, two rows have one step: the later of them is the end.
    known = metrics.dropna(subset=["top1"]).sort_values("step", kind="stable")
    return known.groupby(["variant", "seed", "phase"], sort=False).tail(1)


def protocols(runs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The runs by what they keep of old classes, and with which read-out, in words: those that keep the least first."""
    keyed = in_order(runs)
    words = [protocol(run) for run in keyed.itertuples()]
    order = keyed.assign(words=words, least=keyed.replay.astype(float)).sort_values(["least", "words"], kind="stable")
    return [(str(name), rows) for name, rows in order.groupby("words", sort=False)]


def protocol(run: Any) -> str:
    """What a run keeps of old classes, and its read-out where that is not the shared one."""
    if run.sums:
        kept = "sums kept, no images"
    elif math.isinf(run.replay):
        kept = "all images kept (joint)"
    else:
        kept = f"{run.replay:.0f} images kept per class" if run.replay else "nothing kept"
    return f"{kept}, {int(run.hidden):,} hidden" if "encoder.hidden" in run.changes else kept


def named(own: pd.DataFrame) -> str:
    """The objective of a variant's runs, with its targets where these are of one coordinate for each class, or fitted."""
    targets = ["one-hot targets"] if own.system.iloc[0] == "one_hot" else []
    targets += ["centers fitted"] if has_block(own.changes.iloc[0], "centers.fit") else []
    return ", ".join([own.label.iloc[0], *targets])


def names(runs: pd.DataFrame) -> dict[str, str]:
    """Variant -> :func:`named`, with the variant's own name where another one of the same protocol is called so, too."""
    groups = [own for _, own in runs.groupby("variant", sort=False)]
    called = [(named(own), protocol(next(own.itertuples()))) for own in groups]
    return {
        own.variant.iloc[0]: f"{name} ({own.variant.iloc[0].replace('_', ' ')})"
        if called.count((name, of)) > 1
        else name
        for own, (name, of) in zip(groups, called, strict=True)
    }


def _draw(states: pd.DataFrame, runs: pd.DataFrame, y: str, x: str, label: str, **limits: Any) -> Figure:
    """A panel for each protocol, cosine centers beside a growing layer in each."""
    if runs.empty:
        return plots.nothing("This study has no runs to show here.")
    groups = [
        (name, rows)
        for name, rows in protocols(runs)
        if y in states and states[states.variant.isin(rows.variant)][y].notna().any()
    ]
    if not groups:
        return plots.nothing("This study has no runs to show here.")
    called, columns = names(runs), min(3, len(groups))
    rows_of_panels = -(-len(groups) // columns)
    size = (3.3 * columns + 0.5, 2.7 * rows_of_panels + 0.5)
    figure, panels = plt.subplots(rows_of_panels, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    for axes, (name, rows) in zip(panels.flat, groups, strict=False):
        seen: list[str] = []
        # The baseline first and broader, so that a curve over it hides nothing.
        rows = pd.concat([rows[rows.role == "baseline"], rows[rows.role != "baseline"]])
        for variant, own in rows.groupby("variant", sort=False):
            name_of, role = called[str(variant)], own.role.iloc[0]
            style = {
                "color": own.color.iloc[0],
                "label": name_of,
                "linestyle": plots.DASHES[seen.count(own.label.iloc[0]) % len(plots.DASHES)],
            }
            # Hollow and smaller each time, so that points over each other show where there is one phase and so no line.
            style |= {"lw": 3.5 if role == "baseline" else 1.6, "ms": max(8 - 1.8 * len(seen), 2), "mfc": "none"}
            plots.band(
                axes, states[states.variant == variant], "classes_seen", y, marker="osD^v"[len(seen) % 5], **style
            )
            seen.append(own.label.iloc[0])
        axes.set_title(name, fontsize=9)
        axes.set(**limits)
        ticks = sorted(states.dropna(subset=[y]).classes_seen.unique())
        axes.set_xticks(ticks)
        if max(ticks) >= 1000:  # long numbers, and groups of any size: they would run into each other
            axes.tick_params(axis="x", labelrotation=60)
    for axes in panels.flat[len(groups) :]:
        axes.set_visible(False)
    for place, axes in enumerate(panels.flat[: len(groups)]):
        below = place + columns < len(groups)
        axes.tick_params(labelbottom=not below)
        axes.set(xlabel="" if below else x, ylabel="" if place % columns else label)
    plots.legend_below(figure, list(panels.flat), 3)
    return figure


def draw_accuracy(states: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Accuracy on all classes seen so far. ``states`` are those of :func:`ends`."""
    figure = _draw(states, runs, "top1", "classes seen so far", f"{images_of(runs)} accuracy (%)", ylim=(0, 1.03))
    for axes in figure.axes:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda top1, _: f"{100 * top1:g}"))
    return figure


def draw_novelty(states: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """How well images of classes yet to come are told from known ones."""
    figure = _draw(states, runs, "novelty_auroc", "classes known", "AUROC", ylim=(0.4, 1.02))
    for axes in figure.axes:
        axes.axhline(0.5, color="#888888", ls=":", lw=1)
    return figure


def scored(runs: pd.DataFrame) -> str:
    """On which images the columns of :func:`forgetting` are: a sentence where runs end on others than they are scored on."""
    phases, final = images_of(runs), images_of(runs, "final_on")
    if phases == final:
        return ""
    return f"The final accuracy is that on the {final} images; all else is measured on the {phases} images, phase by phase."


def forgetting(states: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """A line per variant: final accuracy, forgetting, and how new classes are noticed; means, least and most of the seeds.

    Forgetting is a group's accuracy when it had just been learned minus that at the end, averaged over all groups but
    the last. The final accuracy is that of the run's summary, :func:`scored` says of which images the others are.
    """
    if runs.empty:
        return pd.DataFrame(columns=["variant"])
    each = _of_each(states, runs)
    order = list(dict.fromkeys(in_order(runs).variant))
    called = names(runs)
    shown = {name: f"{called[str(name)]}: {protocol(next(own.itertuples()))}" for name, own in runs.groupby("variant")}
    grouped = each.groupby("variant")
    table = pd.DataFrame({"variant": [shown[name] for name in order], "runs": grouped.size().loc[order].to_numpy()})
    for column in (name for name in MEASURES if name in each):
        for words, how in (("", "mean"), (", min", "min"), (", max", "max")):
            table[f"{column}{words}"] = grouped[column].agg(how).loc[order].to_numpy()
    return table


def forgetting_shown(table: pd.DataFrame) -> pd.DataFrame:
    """A table of :func:`forgetting` as a page shows it: each mean with the range of its seeds."""
    if table.empty:
        return table
    kept = table[["variant"]].copy()
    for name, digits in MEASURES.items():
        if name in table:
            columns = (table[name], table[f"{name}, min"], table[f"{name}, max"], table.runs)
            kept[name] = [ranged(*row, digits) for row in zip(*columns, strict=True)]
    return kept


def _of_each(states: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """A line for each run, its final accuracy that of its summary.

    In a system of codes nearly every vector is vacant, so that the share of these tells nothing there.
    Older records have it all the same.
    """
    ends_with = {(run["variant"], run["seed"]): run["final_top1"] for run in runs.to_dict("records")}
    each = pd.DataFrame(
        {"variant": variant, "final accuracy (%)": 100 * ends_with[variant, seed]} | _of_run(phases)
        for (variant, seed), phases in states.groupby(["variant", "seed"])
    )
    columns = [column for column in each if str(column).startswith("vacant")]
    each.loc[each.variant.isin(runs[runs.system == "codes"].variant), columns] = math.nan
    return each


def _of_run(phases: pd.DataFrame) -> dict[str, Any]:
    phases = phases.sort_values("phase")
    groups = phases.group_top1.tolist()
    lost = [groups[group][group] - groups[-1][group] for group in range(len(groups) - 1)]

    def mean(column: str) -> float:
        return phases[column].mean() if column in phases else math.nan

    return {
        _FORGOTTEN: 100 * np.mean(lost) if lost else math.nan,
        _NOTICED: mean("novelty_auroc"),
        "vacant, new classes (%)": 100 * mean("vacant_new"),
        "vacant, known classes (%)": 100 * mean("vacant_known"),
    }


def in_short(runs: pd.DataFrame, scripts: pd.DataFrame) -> str:
    """Final accuracy on all classes of cosine centers against a growing layer, by protocol, and by sums; then for scripts."""
    text, further = _against(runs), _against(scripts)
    if not further:
        return text
    return (
        f"{text} Among characters of scripts that arrive one after another, {further[0].lower()}{further[1:]}".strip()
    )


def _against(runs: pd.DataFrame) -> str:
    parts = [
        f"{percent(ours)} against {percent(theirs)}{within(ours, theirs)} with {words}"
        for words, ours, theirs in _pairs(runs)
    ]
    text = f"Cosine centers against a growing layer: {'; '.join(parts)}." if parts else ""
    sums = ", ".join(_by_sums(runs))
    return f"{text} With sums of the read-out and no old image: {sums}.".strip() if sums else text


def findings(states: pd.DataFrame, runs: pd.DataFrame) -> str:
    """Accuracy and forgetting of cosine centers against a growing layer, by protocol; then how new classes are noticed."""
    if runs.empty:
        return ""
    parts = [
        f"{words}: {percent(ours)} against {percent(theirs)}, {compared(ours, theirs)}"
        for words, ours, theirs in _pairs(runs)
    ]
    sentences = []
    if parts:
        sentences.append(
            f"Final accuracy on all classes, cosine centers against a growing classification layer. {upper('; '.join(parts))}."
        )
        sentences += _forgotten(states, runs)
    sums = _by_sums(runs)
    if sums:
        sentences.append(
            "Where the network stays as it is after the first group and the read-out takes in the others by sums, without an old "
            f"image and without a step, it ends with {', '.join(sums)} ([docs/learning.md](docs/learning.md))."
        )
    return " ".join([*sentences, *_noticed(states, runs)])


def _noticed(states: pd.DataFrame, runs: pd.DataFrame) -> Iterator[str]:
    """How well new classes are told from known ones, by the same protocols, and what share of them falls on vacant vectors."""
    parts, more, less = _measured(states, runs, _NOTICED, 2)
    if parts:
        yield (
            f"New classes are noticed better by cosine centers in {more} and by cross-entropy in {less} of {len(parts)} "
            f"comparisons (AUROC; {'; '.join(parts)})."
        )
    each = _of_each(states, runs).groupby("variant").mean(numeric_only=True)
    auroc = each[_NOTICED]
    by_sums = auroc.reindex(runs[runs.sums.astype(bool)].variant.unique()).dropna()
    if len(by_sums):
        between = span(f"{by_sums.min():.2f}", f"{by_sums.max():.2f}")
        yield f"Where the read-out goes on by sums, the AUROC is {between}."
    new, known = each["vacant, new classes (%)"].dropna(), each["vacant, known classes (%)"].dropna()
    if len(new):
        yield (
            f"The test by vacant vectors flags {new.min():.0f} to {new.max():.0f} % of the images of new classes, and "
            f"{known.min():.0f} to {known.max():.0f} % of those of known ones."
        )


def _forgotten(states: pd.DataFrame, runs: pd.DataFrame) -> Iterator[str]:
    """What each forgets, by the same protocols."""
    parts, more, less = _measured(states, runs, _FORGOTTEN, 1)
    if parts:
        undecided = _others(len(parts) - less - more)
        yield (
            "Predefined centers spare the network its growth. Networks with centers forget less than those with a growing "
            f"layer in {less} and more in {more} of {len(parts)} comparisons{undecided} (points; {'; '.join(parts)})."
        )


def _others(undecided: int) -> str:
    return "; the seeds do not decide the others" if undecided else ""


def _measured(states: pd.DataFrame, runs: pd.DataFrame, column: str, digits: int) -> tuple[list[str], int, int]:
    """A measure of cosine centers against that of the growing layer, by protocol.

    Returns:
        a part of a sentence for each, and in how many the first has more, and less, with every seed.
    """
    each, parts, more, less = _of_each(states, runs), [], 0, 0
    for words, *both in _pairs(runs):
        ours, theirs = (each[each.variant == own.variant.iloc[0]] for own in both)
        mine, rival = ours[column].mean(), theirs[column].mean()
        if math.isnan(mine + rival):
            continue
        parts.append(f"{words}: {mine:.{digits}f} against {rival:.{digits}f}{within(ours, theirs, column)}")
        if apart(ours, theirs, column):
            more, less = more + (mine > rival), less + (mine < rival)
    return parts, more, less


def _pairs(runs: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """Cosine centers and the baseline under the same protocol, in the order of :func:`protocols`."""
    theirs = runs[runs.role == "baseline"]
    for words, rows in protocols(runs):
        for _, own in rows[rows.pulls_by == "cosine"].groupby("variant", sort=False):
            rival = twin(theirs, own.changes.iloc[0], "objective")
            if not rival.empty:
                yield words, own, rival


def _by_sums(runs: pd.DataFrame) -> list[str]:
    """What the runs of each variant end with whose read-out takes new groups in by sums."""
    sums = in_order(runs[runs.sums.astype(bool)])
    called = names(sums)
    return [f"{percent(own)} ({called[str(variant)]})" for variant, own in sums.groupby("variant", sort=False)]
