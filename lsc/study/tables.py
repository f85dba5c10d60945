"""The records of a study's runs as tables."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from lsc.errors import UserError
from lsc.training.records import CONFIG, METRICS, SUMMARY, read_json, read_rows


def run_folders(runs: Path, experiment: str) -> list[Path]:
    """The folders of the finished runs of an experiment, in order of variant and seed."""
    return sorted(path.parent for path in (runs / experiment).glob(f"*/seed_*/{SUMMARY}"))


def _labelled(folders: Iterable[Path], rows_of: Any) -> pd.DataFrame:
    rows = [
        {"experiment": folder.parts[-3], "variant": folder.parts[-2], "seed": int(folder.name.removeprefix("seed_"))}
        | row
        for folder in folders
        for row in rows_of(folder)
    ]
    return pd.DataFrame(rows)


def read_metrics(runs: Path, experiment: str) -> pd.DataFrame:
    """One line per epoch of every finished run: experiment, variant, seed and the columns of ``metrics.jsonl``."""
    return _labelled(run_folders(runs, experiment), lambda folder: read_rows(folder / METRICS))


def read_summaries(runs: Path, experiment: str) -> pd.DataFrame:
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
