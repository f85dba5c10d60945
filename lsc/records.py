"""A run's records: ``metrics.jsonl`` and ``summary.json``, written by trainings and read by notebooks as tables."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lsc.errors import UserError
from lsc.files import written_whole

if TYPE_CHECKING:  # trainings need no tables, and importing pandas takes longer than a demo epoch
    import pandas as pd

METRICS, SUMMARY, CONFIG = "metrics.jsonl", "summary.json", "config.yaml"
ENCODER, OBJECTIVE, EMBEDDINGS = "encoder.safetensors", "objective.safetensors", "embeddings.npz"
RUN_FILES = (CONFIG, METRICS, SUMMARY, ENCODER, OBJECTIVE, EMBEDDINGS)

# What a second run of the same seed on the same machine may change; everything else is repeated to the bit.
TIMINGS = ("seconds", "images_per_second", "data_wait_share", "peak_memory_mb", "model_flops_utilisation")


def write_text(path: Path, content: str) -> None:
    """Write a text file so that a reader, or a crash, meets the old content or the new and nothing between."""
    with written_whole(path) as temporary:
        temporary.write_text(content)


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add one line to a JSON-lines file."""
    with open(path, "a") as file:
        file.write(json.dumps(row, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSON-lines file; a last line cut short by a crash is left out."""
    rows = []
    lines = path.read_text().splitlines() if path.exists() else []
    for number, line in enumerate(lines):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(lines) - 1:
                raise UserError(f"{path}: line {number + 1} is not JSON; remove the file and run again") from None
    return rows


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSON-lines file whole."""
    write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file for people to read, atomically."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file."""
    return json.loads(path.read_text())


def run_folders(runs: Path, experiment: str) -> list[Path]:
    """The folders of the finished runs of an experiment, in order of variant and seed."""
    return sorted(path.parent for path in (runs / experiment).glob(f"*/seed_*/{SUMMARY}"))


def _labelled(folders: Iterable[Path], rows_of: Any) -> "pd.DataFrame":
    import pandas as pd

    rows = [
        {"experiment": folder.parts[-3], "variant": folder.parts[-2], "seed": int(folder.name.removeprefix("seed_"))}
        | row
        for folder in folders
        for row in rows_of(folder)
    ]
    return pd.DataFrame(rows)


def read_metrics(runs: Path, experiment: str) -> "pd.DataFrame":
    """One line per epoch of every finished run: experiment, variant, seed and the columns of ``metrics.jsonl``."""
    return _labelled(run_folders(runs, experiment), lambda folder: read_rows(folder / METRICS))


def read_summaries(runs: Path, experiment: str) -> "pd.DataFrame":
    """One line per finished run: experiment, variant, seed and the fields of ``summary.json``."""
    return _labelled(run_folders(runs, experiment), lambda folder: [read_json(folder / SUMMARY)])


def account_of(runs: Path, experiment: str) -> str:
    """One paragraph, in Markdown, on what an experiment's finished runs did: data, encoder, training, seeds, hardware.

    Raises:
        UserError: there is no finished run.
    """
    folders = run_folders(runs, experiment)
    if not folders:
        raise UserError(f"{runs}/{experiment}: no finished run; make them with: snakemake --cores all {experiment}")
    summaries = [read_json(folder / SUMMARY) for folder in folders]
    settings = [yaml.safe_load((folder / CONFIG).read_text()) for folder in folders]

    def listed(values: Iterable[object]) -> str:
        return ", ".join(dict.fromkeys(str(value) for value in values))

    training = [block["training"] for block in settings]
    one = summaries[0]
    return (
        f"**What was done.** Data: {listed(block['data']['name'] for block in settings)}, "
        f"{listed(format(count, ',') for count in sorted({summary['num_classes'] for summary in summaries}))} classes. "
        f"Encoder: {listed(block['encoder']['name'] for block in settings)}, "
        f"{listed(format(count, ',') for count in sorted({summary['encoder_parameters'] for summary in summaries}))} parameters. "
        f"Training: {listed(block['duration'] for block in training)} of "
        f"{listed(block['optimizer'] for block in training)}, batch {listed(block['batch_size'] for block in training)}, "
        f"learning rate {listed(format(block['learning_rate'], 'g') for block in training)}. "
        f"{len(folders)} runs, seeds {listed(sorted({summary['seed'] for summary in summaries}))}, on "
        f"{listed(summary['device'] for summary in summaries)} ({listed(summary['processor'] for summary in summaries)}); "
        f"torch {one['versions']['torch']}, commit {listed(summary['commit'] for summary in summaries)}. "
        f"Curves show the split {listed(summary['scored_on'] for summary in summaries)}, final accuracies the split "
        f"{listed(summary['final_on'] for summary in summaries)}."
    )
