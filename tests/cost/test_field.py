"""The comparison with the field: at a small size, with exact rivals that must agree."""

import pytest
from typer.testing import CliRunner

from lsc.cli import app
from lsc.cost.field import APPROXIMATE, EXACT, Grid, field_records, line, verdict
from lsc.training.records import read_rows


def test_every_rival_answers_and_the_exact_ones_agree() -> None:
    pytest.importorskip("faiss")
    grid = Grid(systems=("V22",), sizes=(500,), top=(1, 3), cosines=(0.95, 0.0), batch=4, repetitions=2)
    records = list(field_records(grid))
    assert len(records) == 5 * 2 * 2
    for record in records:
        assert all(record[f"{name}_recall"] > 0.99 for name in EXACT)
        assert all(0 <= record[f"{name}_recall"] <= 1 for name in APPROXIMATE)
        assert record["matmul_low"] <= record["matmul_ratio"] <= record["matmul_high"]
        assert "faiss_flat" in line(record)
    assert "comparisons with exact rivals" in verdict(records)


def test_rivals_that_do_not_fit_are_left_out_and_the_rest_is_measured(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    grid = Grid(systems=("V22",), cases=("full",), sizes=(500,), top=(1,), cosines=(0.95,), batch=4, repetitions=1)
    [whole] = field_records(grid)
    matrix = 4 * whole["classes"] * whole["dim"]
    monkeypatch.setattr("lsc.cost.field.available_bytes", lambda device: 2 * matrix)
    [product_alone] = field_records(grid)
    assert product_alone["matmul_recall"] > 0.99
    assert set(product_alone["left_out"]) == {"faiss_flat", "sklearn", "hnsw", "ivf"}
    monkeypatch.setattr("lsc.cost.field.available_bytes", lambda device: matrix)
    [alone] = field_records(grid)
    assert set(alone["left_out"]) == {*EXACT, *APPROXIMATE}
    assert alone["seconds"] > 0


def test_a_lost_comparison_is_named() -> None:
    row = {"system": "A", "case": "full", "classes": 7, "k": 1, "cosine": 0.9, "seconds": 0.002}
    lost = row | {"matmul_ratio": 0.5, "matmul_low": 0.4, "matmul_high": 0.6}
    won = row | {"matmul_ratio": 2.0, "matmul_low": 1.5, "matmul_high": 3.0}
    assert verdict([won]) == (
        "Of 1 comparisons with exact rivals 0 are lost and 0 undecided.\n"
        "In 0 of 1 cases the search takes more than 1.5 times as long as the matrix product."
    )
    assert "In 1 of 2 cases the search takes more than 1.5 times" in verdict([won, lost])
    assert "matmul takes 0.50 of the search's 2.00 ms: A, full, 7 classes" in verdict([won, lost])


def test_the_command_measures_all_of_it(tmp_path) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("faiss")
    words = [
        "--cases",
        "full,perturbed",
        "--sizes",
        "20",
        "--systems",
        "V22",
        "--repetitions",
        "1",
        "--index-up-to",
        "9",
    ]
    result = CliRunner().invoke(app, ["cost", "decode", "--all", *words, "--output", str(tmp_path / "field.jsonl")])
    assert result.exit_code == 0, result.output
    assert "comparisons with exact rivals" in result.output
    rows = read_rows(tmp_path / "field.jsonl")
    assert {row["case"] for row in rows} == {"full", "perturbed"}
    assert len(rows) == 2 * 3 * 3
    assert not any("hnsw_ratio" in row for row in rows)
