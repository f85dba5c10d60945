"""What the measurements say: the table and the sentences of chapter 7, and the data and targets of docs/performance.md."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pandas as pd

from lsc.cost.interval import median_interval
from lsc.cost.measured import BARE, Measurements, shown_as
from lsc.cost.step import EVERY

MET, MISSED, UNDECIDED = "met", "missed", "undecided"

# By how many times the step of a layer is to exceed that of cosine centers.
_SLOWER = {"rival": 1, "baseline": 3}
_WHAT = {
    "whole": "the study from nothing",
    "nothing": "nothing to do",
    "figure": "one figure again",
    "start": "a training of one step",
    "torch": "import torch alone",
}


def spread(values: Iterable[float], digits: int = 3) -> str:
    """Median of the repetitions with its interval: "1.05 (1.03 to 1.11)"; empty where there are none."""
    known = pd.Series(list(values), dtype=float).dropna()
    if known.empty:
        return ""
    median, low, high = median_interval(known.tolist())
    return f"{median:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def verdict(values: Iterable[float], met: Callable[[float], bool]) -> str:
    """ "met" if both ends of the median's interval meet a target, "missed" if neither does, else "undecided"."""
    _, low, high = median_interval(list(values))
    return {0: MISSED, 2: MET}.get(met(low) + met(high), UNDECIDED)


def protocol(found: Measurements) -> str:
    """One paragraph, in Markdown, on what was measured and how."""
    one, asked = found.steps.iloc[0], found.search.iloc[0]
    return (
        f"**What was done.** On {one.device} with {one.threads} CPU thread{'s' if one.threads > 1 else ''}, torch "
        f"{one.torch}. A training "
        f"step is forward, backward and AdamW of `{one.encoder}` with {one['dim']} coordinates on {one.batch} images of noise, "
        f"{one.precision}; centers are vectors of {one.system}. Up to {found.measured.repetition.nunique()} "
        "repetitions each take every "
        "step once, in random order, and a ratio is formed within a repetition. Given are medians with the "
        "interval that holds the "
        "true median with 95 % confidence (with fewer than six repetitions, the least and the greatest). A "
        "prediction is the nearest "
        f"center of {asked.system} for each of {asked.batch} embeddings; the rivals find the matrix of all "
        "centers ready in memory. "
        "`lsc cost --help` repeats every measurement on another machine."
    )


def summary_table(found: Measurements) -> pd.DataFrame:
    """What a step and a prediction cost: a line for each number of classes, a column for each objective.

    Steps are given as multiples of the bare encoder's step and with the memory that they need; predictions in microseconds
    an embedding, by exact search among centers and by a product with the matrix of all of a layer's weights.
    """
    names = [found.cosine, *found.own_layers]
    rows = []
    for count in sorted(found.steps[found.steps.objective == found.cosine].classes.unique()):
        cells = {shown_as(name).label: _step_cell(found, name, count) for name in names}
        rows.append({"what": f"a training step, {count:,} classes", **cells})
    plain = found.search[(found.search.case == "full") & (found.search.k == found.search.k.min())]
    if len(plain):
        of = {column: 1e6 * (plain[column] / plain.batch).median() for column in ("seconds", "matmul_seconds")}
        cells = {shown_as(name).label: f"{of['matmul_seconds']:,.0f} µs" for name in found.own_layers}
        ours = {shown_as(found.cosine).label: f"{of['seconds']:,.0f} µs"}
        rows.append({"what": f"a prediction, {plain.classes.iloc[0]:,} classes", **ours, **cells})
    return pd.DataFrame(rows).rename(columns={shown_as(found.cosine).label: f"{shown_as(found.cosine).label} centers"})


def _step_cell(found: Measurements, name: str, classes: int) -> str:
    """The step of an objective: "1.06 × (1.04 to 1.07), 37 MB"; "about" what was predicted."""
    rows = found.steps[(found.steps.objective == name) & (found.steps.classes == classes)]
    if rows.empty:
        return ""
    digits = _digits(rows.ratio_to_bare.median())
    memory = f"{rows.peak_bytes.max() / 1e6:,.0f} MB"
    if not rows.predicted.any():
        median, low, high = median_interval(rows.ratio_to_bare.tolist())
        return f"{median:,.{digits}f} × ({low:,.{digits}f} to {high:,.{digits}f}), {memory}"
    ratio = _predicted_ratio(found, rows)
    return f"about {ratio:,.{_digits(ratio)}f} ×, {memory} (predicted)"


def _predicted_ratio(found: Measurements, rows: pd.DataFrame) -> float:
    """How many times the step of the bare encoder a step is predicted to take."""
    ratio = float(rows.ratio_to_bare.median())
    bare = found.of(BARE).step_seconds.median()
    return float(rows.step_seconds.median() / bare) if math.isnan(ratio) else ratio


def predictions(found: Measurements) -> str:
    """How many steps are predicted, and what those took that were measured elsewhere, in Markdown."""
    guessed = int(found.steps.predicted.sum())
    if not guessed:
        return "Every step was measured."
    text = f"{guessed} of the steps are predicted, not measured: their last two measured points were carried on along a line."
    parts, low = [], []
    for _, rows in found.elsewhere.groupby(["objective", "classes"]) if len(found.elsewhere) else ():
        name, count = rows.objective.iloc[0], rows.classes.iloc[0]
        ours = found.steps[(found.steps.objective == name) & (found.steps.classes == count)]
        predicted, taken = _predicted_ratio(found, ours), spread(rows.ratio_to_bare, 0)
        parts.append(
            f"{shown_as(name).label} {taken} times at {count:,} classes, predicted here as about {predicted:,.0f}"
        )
        low.append(predicted < median_interval(rows.ratio_to_bare.tolist())[1])
    if not parts:
        return text
    judged = "Such a prediction has proved too low. " if all(low) else ""
    return (
        f"{text} {judged}Where memory sufficed to measure the same steps "
        f"([docs/performance.md](docs/performance.md)), they took, as a multiple of that of the bare encoder: {'; '.join(parts)}."
    )


def _digits(ratio: float) -> int:
    """After the point of a ratio: those that tell it from 1."""
    return 2 if ratio < 10 else 0


def step_table(found: Measurements) -> pd.DataFrame:
    """A line for each objective and number of classes: time, memory, and ratios to the bare encoder and to cosine centers."""
    return pd.DataFrame(
        {
            "objective": shown_as(group.objective.iloc[0]).label,
            "classes": group.classes.iloc[0],
            "step (ms)": round(1e3 * group.step_seconds.median(), 2),
            "images/s": round(group.images_per_second.median(), 1),
            "time to bare encoder": spread(group.ratio_to_bare),
            "time to cosine centers": spread(group.ratio_to_cosine),
            "peak (MB)": round(group.peak_bytes.max() / 1e6, 1),
            "repetitions": len(group),
            "how": f"predicted: {group.reason.iloc[0]}" if group.predicted.any() else "measured",
        }
        for _, group in found.steps.groupby(["objective", "classes"], sort=False)
    )


def search_table(found: Measurements) -> pd.DataFrame:
    """A line for each case, number of answers and cosine: the exact search beside the matrix product and faiss."""
    return pd.DataFrame(
        {
            "case": group.case.iloc[0],
            "top": group.k.iloc[0],
            "classes": group.classes.iloc[0],
            "dim": group["dim"].iloc[0],
            "cosine": group.cosine.iloc[0],
            "search (us per embedding)": round(1e6 * (group.seconds / group.batch).median(), 2),
            "looked at": round(group.looked_at.mean(), 1),
            "matrix product to search": spread(group.matmul_ratio, 1),
            "faiss flat to search": spread(group.faiss_ratio, 1) if "faiss_ratio" in group else "",
            "same first answer as the matrix product": round(group.matmul_agrees.min(), 4),
            "matrix (MB)": round(4e-6 * group.classes.iloc[0] * group["dim"].iloc[0], 1),
        }
        for _, group in found.search.groupby(["case", "k", "cosine"], sort=False)
    )


def hnsw_table(found: Measurements) -> pd.DataFrame:
    """A line for each breadth of the approximate index: its time to build, its time beside the exact search, its recall."""
    return pd.DataFrame(
        {
            "classes": group.classes.iloc[0],
            "dim": group["dim"].iloc[0],
            "breadth": group.breadth.iloc[0],
            "build (s)": round(group.build_seconds.iloc[0], 2),
            "index (MB)": round(group.index_bytes.iloc[0] / 1e6, 1),
            "HNSW (us per embedding)": round(1e6 * (group.hnsw_seconds / group.batch).median(), 2),
            "HNSW to exact search": spread(group.hnsw_ratio),
            "recall": round(group.recall.iloc[0], 4),
        }
        for _, group in found.hnsw.groupby("breadth")
    )


def workflow_table(found: Measurements) -> pd.DataFrame:
    """A line for each command of the workflow; none where it was not measured (lsc cost workflow)."""
    columns = ["what", "seconds", "repetitions"]
    if found.workflow.empty:
        return pd.DataFrame(columns=columns)
    rows = ((label, found.workflow[found.workflow.what == what]) for what, label in _WHAT.items())
    table = (
        {"what": label, "seconds": spread(group.seconds, 1), "repetitions": len(group)}
        for label, group in rows
        if not group.empty
    )
    return pd.DataFrame(table, columns=columns)


def of_workflow(found: Measurements) -> str:
    """What the tables of the workflow were taken from, in Markdown."""
    if found.workflow.empty:
        return "What the workflow costs by itself was not measured here: `lsc cost workflow` does so."
    one = found.workflow.iloc[0]
    processor = one.get("processor", "a machine that is not recorded")
    commit = f", at commit {one.commit}" if isinstance(one.commit, str) else ""
    return (
        f"What the workflow costs by itself is as `lsc cost workflow` measured it on {processor}{commit} "
        "([](ref:table_cost_workflow)). [](ref:table_cost_jobs) accounts for the runs that lay there at that time: where the "
        "other chapters show runs of another machine or time, their seconds are not these."
    )


def jobs_table(found: Measurements) -> pd.DataFrame:
    """A line for each experiment: where its jobs spent their time; without a line where that was not measured."""
    jobs = found.workflow[found.workflow.what == "jobs"] if len(found.workflow) else found.workflow
    rows = [_jobs(job) for job in jobs.to_dict("records") if job["runs"]]
    return pd.DataFrame(rows, columns=list(rows[0]) if rows else ["experiment"])


def _jobs(job: dict[Any, Any]) -> dict[str, Any]:
    training, startup = job["training_seconds"] / job["seconds"], job["startup_seconds"] / job["seconds"]
    return {
        "experiment": job["experiment"],
        "runs": int(job["runs"]),
        "seconds of all jobs": round(job["seconds"], 1),
        "training (%)": round(100 * training, 1),
        "start-up (%)": round(100 * startup, 1),
        "evaluation, checkpoints, results (%)": round(100 * (1 - (training + startup)), 1),
    }


def targets(found: Measurements) -> pd.DataFrame:
    """The targets: target, measured (median with interval), verdict."""
    aims = (*_centers_aims(found), *_layers_aims(found), *_search_aims(found), *_workflow_aims(found))
    rows = []
    for text, values, met, digits in aims:
        known = pd.Series(list(values), dtype=float).dropna().tolist()
        if known:
            rows.append({"target": text, "measured": spread(known, digits), "verdict": verdict(known, met)})
    return pd.DataFrame(rows, columns=["target", "measured", "verdict"])


# A target, the values, when one of them meets it, and the digits that are shown.
Aim = tuple[str, Iterable[float], Callable[[float], bool], int]


def _sizes(found: Measurements) -> tuple[int, int, int]:
    """Numbers of classes: the fewest and the most of centers, and the most that layers share with them."""
    counts = found.of(found.cosine).classes
    shared = found.steps[found.steps.objective.isin(found.own_layers)].classes
    return counts.min(), counts.max(), counts.max() if shared.empty else shared.max()


def _centers_aims(found: Measurements) -> Iterator[Aim]:
    fewest, most, common = _sizes(found)
    for name in found.centers:
        label, rows = shown_as(name).label, found.of(name, common)
        yield (
            f"{label}: step at {common:,} classes at most 1.02 times that at {fewest:,}",
            rows.ratio_to_fewest,
            _most(1.02),
            3,
        )
        yield (
            f"{label}: step at {common:,} classes at most 1.05 times that of the bare encoder",
            rows.ratio_to_bare,
            _most(1.05),
            3,
        )
        memory = found.of(name, most).peak_bytes.to_numpy() / found.of(name, fewest).peak_bytes.to_numpy()
        text = f"{label}: peak memory at {most:,} classes within 1 % of that at {fewest:,}"
        yield text, memory, lambda x: abs(x - 1) <= 0.01, 4


def _layers_aims(found: Measurements) -> Iterator[Aim]:
    for name in sorted(found.own_layers, key=lambda name: _SLOWER.get(shown_as(name).role, 1)):
        rows, factor = _at_most_classes(found, name), _SLOWER.get(shown_as(name).role, 1)
        if rows.empty:
            continue
        count, label = rows.classes.iloc[0], shown_as(name).label
        text = f"step of {label} at {count:,} classes more than {factor} times that of cosine centers"
        yield text, rows.ratio_to_cosine, _more(factor), 2
        memory = rows.peak_bytes / found.of(found.cosine, count).peak_bytes.median()
        yield f"memory of {label} at {count:,} classes more than that of cosine centers", memory, _more(1), 2


def _search_aims(found: Measurements) -> Iterator[Aim]:
    for _, group in found.search.groupby(["case", "k"], sort=False):
        where = f"{group.case.iloc[0]}, top-{group.k.iloc[0]}, {group.classes.iloc[0]:,} classes"
        text = f"matrix product at least 1,000 times as slow as the exact search ({where})"
        yield text, group.matmul_ratio, lambda x: x >= 1000, 1


def _workflow_aims(found: Measurements) -> Iterator[Aim]:
    rows = found.workflow
    if len(rows):
        yield "a run with nothing to do in less than 10 s", rows[rows.what == "nothing"].seconds, lambda x: x < 10, 1
        yield "one figure again in less than 30 s", rows[rows.what == "figure"].seconds, lambda x: x < 30, 1


def _most(limit: float) -> Callable[[float], bool]:
    return lambda x: x <= limit


def _more(limit: float) -> Callable[[float], bool]:
    return lambda x: x > limit


def _at_most_classes(found: Measurements, name: str) -> pd.DataFrame:
    """The steps of an objective at the largest number of classes at which it was measured."""
    rows = found.of(name)
    return rows[rows.classes == rows.classes.max()]


def findings(found: Measurements) -> str:
    """What the measurements show, in Markdown."""
    sentences = [
        *_of_centers(found),
        _of_closed_form(found),
        *filter(None, (_of_layer(found, name) for name in found.layers)),
        "The smaller the encoder, the more any objective weighs in these ratios.",
        *_of_search(found),
        *_of_index(found),
    ]
    return " ".join(filter(None, sentences))


def in_short(found: Measurements) -> str:
    """What centers and a layer cost, in one sentence."""
    _, most, _ = _sizes(found)
    text = (
        f"Among {most:,} classes a training step with {shown_as(found.cosine).label} centers takes "
        f"{found.of(found.cosine, most).ratio_to_bare.median():.2f} times that of the bare encoder"
    )
    layers = [name for name in found.own_layers if shown_as(name).role == "baseline" and not found.of(name).empty]
    if layers:
        rows = _at_most_classes(found, layers[0])
        ratio = rows.ratio_to_bare.median()
        text += (
            f"; {shown_as(layers[0]).label} takes {ratio:,.{_digits(ratio)}f} times that among {rows.classes.iloc[0]:,}"
        )
    return f"{text}."


def _of_centers(found: Measurements) -> Iterator[str]:
    fewest, most, _ = _sizes(found)
    times = ", ".join(
        f"{spread(found.of(name, most).ratio_to_bare, 2)} with {shown_as(name).label}" for name in found.centers
    )
    memory = max(
        abs(found.of(name, most).peak_bytes.max() / found.of(name, fewest).peak_bytes.max() - 1)
        for name in found.centers
    )
    yield (
        f"A step among {most:,} classes takes, as a multiple of that of the bare encoder, {times}. It needs the "
        "memory of one among "
        f"{fewest:,} classes within {100 * memory:.2f} %."
    )
    noise = 1e3 * found.of(BARE).step_seconds
    yield (
        "The machine was as steady as this: the step of the bare encoder took between "
        f"{noise.quantile(0.05):.1f} and {noise.quantile(0.95):.1f} ms in nine repetitions of ten."
    )


def _of_closed_form(found: Measurements) -> str:
    rows = found.closed_form
    if rows.empty:
        return ""
    per_count = [(count, own) for count, own in rows.groupby("classes")]
    times = " and ".join(f"{spread(own.ratio_to_trained, 2)} among {count:,}" for count, own in per_count)
    memory = " and ".join(f"{own.peak_bytes.max() / 1e6:,.1f} MB" for _, own in per_count)
    return (
        f"With {int(rows.hidden.iloc[0]):,} hidden activations and the last layer in closed form, sums in every step and a "
        f"solution every {EVERY}, a step takes, as a multiple of one that trains this layer, {times} classes, and needs {memory}."
    )


def _of_layer(found: Measurements, name: str) -> str:
    rows, label = _at_most_classes(found, name), shown_as(name).label
    if rows.empty:
        return ""
    count = rows.classes.iloc[0]
    memory = rows.peak_bytes.max() / found.of(found.cosine, count).peak_bytes.max()
    return (
        f"{label[0].upper()}{label[1:]} at {count:,} classes takes {spread(rows.ratio_to_cosine, 1)} times the step and "
        f"{memory:.1f} times the memory of cosine centers."
    )


def _of_search(found: Measurements) -> Iterator[str]:
    search = found.search
    plain = search[(search.case == "full") & (search.k == search.k.min())]
    if not plain.empty:
        yield (
            f"Among {plain.classes.iloc[0]:,} classes the exact search is {spread(plain.matmul_ratio, 1)} times as fast as the "
            "matrix product where all vectors are classes, and it needs no matrix."
        )
    ratios = search.groupby(["case", "k"], sort=False).matmul_ratio.median()
    slow = [
        f"{key[0]}, the nearest {key[1]} ({ratio:.2f} times)"  # type: ignore[index]
        for key, ratio in ratios.items()
        if ratio < 1
    ]
    if slow:
        yield f"It is slower where its speed is below that of the product: {'; '.join(slow)}."


def _of_index(found: Measurements) -> Iterator[str]:
    """Where an approximate index is faster than the exact search, and what share of the answers it finds there."""
    parts = []
    for breadth, group in found.hnsw.groupby("breadth"):
        ratio, recall = group.hnsw_ratio.median(), 100 * group.recall.iloc[0]
        parts.append(
            f"at breadth {breadth} {ratio:.2f} times the time of the exact search and {recall:.0f} % of the answers"
        )
    if parts:
        one = found.hnsw.iloc[0]
        misses = (found.hnsw.recall < 1).all()
        yield (
            f"An approximate index (HNSW) over {one.classes:,} centers, built in {one.build_seconds:.0f} s, takes "
            f"{'; '.join(parts)}. "
            f"{'It misses answers at each.' if misses else ''}"
        ).strip()
