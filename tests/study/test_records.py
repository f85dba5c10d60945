"""Records: written so that a crash loses nothing, read as tables."""

import json
from pathlib import Path

import pytest

from lsc.errors import UserError
from lsc.provenance import provenance
from lsc.study import tables
from lsc.training import records


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [{"step": step, "top1": step / 7} for step in range(5)]
    for row in rows:
        records.append_row(tmp_path / "m.jsonl", row)
    assert records.read_rows(tmp_path / "m.jsonl") == rows
    records.write_rows(tmp_path / "m.jsonl", rows[:3])
    assert records.read_rows(tmp_path / "m.jsonl") == rows[:3]


def test_a_last_line_cut_short_by_a_crash_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"step": 1}\n{"step": 2')
    assert records.read_rows(tmp_path / "m.jsonl") == [{"step": 1}]
    (tmp_path / "m.jsonl").write_text('{"step": \n{"step": 2}\n')
    with pytest.raises(UserError, match="line 1 is not JSON"):
        records.read_rows(tmp_path / "m.jsonl")


def test_a_file_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*folder"):
        records.write_text(tmp_path / "folder", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_no_number_that_json_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        records.append_row(tmp_path / "m.jsonl", {"step": float("nan")})


def test_runs_are_found_by_experiment_variant_and_seed(tmp_path: Path) -> None:
    for variant, seed in (("cosine", 0), ("cosine", 11), ("euclidean", 0)):
        folder = tmp_path / "low_dim" / variant / f"seed_{seed}"
        folder.mkdir(parents=True)
        records.append_row(folder / records.METRICS, {"step": 1, "top1": 0.5})
        if variant == "cosine":
            records.write_json(folder / records.SUMMARY, {"final_top1": 0.5})
    metrics, summaries = tables.read_metrics(tmp_path, "low_dim"), tables.read_summaries(tmp_path, "low_dim")
    # A run without a summary has not finished, and does not count.
    assert list(zip(metrics.variant, metrics.seed, strict=True)) == [("cosine", 0), ("cosine", 11)]
    assert summaries.final_top1.tolist() == [0.5, 0.5]
    assert tables.read_metrics(tmp_path, "high_dim").empty


def test_provenance_is_whole_and_plain() -> None:
    found = json.loads(json.dumps(provenance()))
    assert found["versions"]["torch"]
    assert "cores" in found["processor"]
