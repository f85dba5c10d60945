"""Records: written so that a crash loses nothing, read as tables."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lsc.errors import UserError
from lsc.provenance import provenance
from lsc.study import tables
from lsc.training import records
from tests.conftest import ROOT


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


def test_text_is_utf8_whatever_the_locale(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from lsc.training import records; "
        "records.write_text(Path('x.json'), '{\"class\": \"\\xe9\"}\\n'); "
        "print(ascii(records.read_json(Path('x.json'))['class']), ascii(records.read_rows(Path('x.json'))[0]['class']))"
    )
    ascii_alone = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | ascii_alone,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout, done.stderr) == ("'\\xe9' '\\xe9'\n", "")
    assert (tmp_path / "x.json").read_bytes() == '{"class": "\u00e9"}\n'.encode()


def test_no_number_that_json_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        records.append_row(tmp_path / "m.jsonl", {"step": float("nan")})


def test_runs_are_found_by_experiment_variant_and_seed(tmp_path: Path) -> None:
    for variant, seed in (("cosine", 0), ("cosine", 11), ("euclidean", 0)):
        folder = tmp_path / "low_dim" / variant / f"seed_{seed}"
        folder.mkdir(parents=True)
        records.append_row(folder / records.METRICS, {"step": 1, "top1": 0.5})
        if variant == "cosine":
            records.write_json(folder / records.SUMMARY, {"final_top1": 0.5, "num_classes": 10, "dim": 4})
    named_by_the_study(tmp_path, "cosine")
    found = tables.Records(tmp_path, tmp_path)
    metrics, summaries = found.metrics("low_dim"), found.summaries("low_dim")
    # What the study does not name, here a run that was never finished, does not count.
    assert list(zip(metrics.variant, metrics.seed, strict=True)) == [("cosine", 0), ("cosine", 11)]
    assert summaries.final_top1.tolist() == [0.5, 0.5]
    assert found.metrics("high_dim").empty
    # A run that it names and that is not finished is missing.
    named_by_the_study(tmp_path, "cosine", "euclidean")
    with pytest.raises(
        UserError, match=r"low_dim/euclidean/seed_0: the run is missing; make it with: snakemake .*seed_0"
    ):
        tables.Records(tmp_path, tmp_path).metrics("low_dim")


def named_by_the_study(folder: Path, *variants: str) -> None:
    experiment = {"variants": {variant: {"objective": {"name": variant}} for variant in variants}}
    study = {"study": "small", "chapters": ["low_dim"], "seeds": [0, 11], "run": {"data": {"name": "digits"}}}
    records.write_json(folder / "study.yaml", study | {"experiments": {"low_dim": experiment}})


def test_provenance_is_whole_and_plain() -> None:
    found = json.loads(json.dumps(provenance()))
    assert found["versions"]["torch"]
    assert "cores" in found["processor"]
