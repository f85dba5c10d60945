"""A run's records, ``metrics.jsonl`` and ``summary.json``: how they are written and read back."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lsc.errors import UserError
from lsc.files import append_line, written_whole

METRICS, SUMMARY, CONFIG = "metrics.jsonl", "summary.json", "config.yaml"
ENCODER, OBJECTIVE, EMBEDDINGS = "encoder.safetensors", "objective.safetensors", "embeddings.npz"
RUN_FILES = (CONFIG, METRICS, SUMMARY, ENCODER, OBJECTIVE, EMBEDDINGS)
# What some runs have besides: the sums that their read-out was solved from, and classes that examples alone stand for.
SUMS, EXAMPLES = "sums.safetensors", "examples.safetensors"

# What a second run of the same seed on the same machine may change; everything else is repeated to the bit.
TIMINGS = (
    "seconds",
    "images_per_second",
    "data_wait_share",
    "peak_memory_mb",
    "model_flops_utilisation",
    "centers_seconds",
)


def write_text(path: Path, content: str) -> None:
    """Write a text file so that a reader, or a crash, meets the old content or the new and nothing between.

    It is UTF-8, whatever the locale.
    """
    with written_whole(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add one line to a JSON-lines file; as :func:`lsc.files.append_line`."""
    append_line(path, json.dumps(row, allow_nan=False))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSON-lines file; a last line cut short by a crash is left out."""
    rows = []
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
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
    return json.loads(path.read_text(encoding="utf-8"))
