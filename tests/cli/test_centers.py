"""``lsc centers`` and ``lsc cost``: what they print, what they write, and what a mistake looks like."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lsc.cli import app
from lsc.errors import UserError
from tests.conftest import ROOT

runner = CliRunner()
DEMO = str(ROOT / "config" / "demo.yaml")


def run(*arguments: str) -> str:
    result = runner.invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_centers_of_a_million_classes() -> None:
    text = run("centers", "--system", "A", "--classes", "1281167")
    for words in ("1,133", "1,282,556", "0.5000 (60.00 degrees)", "10.2 MB", "5.81 GB"):
        assert words in text


def test_compare_shows_the_systems_side_by_side() -> None:
    text = run("centers", "--classes", "1281167", "--compare")
    rows = {line.split()[0]: line.split() for line in text.splitlines()}
    assert [rows[name][1] for name in ("V11", "V21", "V22", "simplex")] == ["1133", "138", "50", "1281166"]


@pytest.mark.parametrize("system", ["simplex", "orthoplex", "one_hot", "gaussian", "polygon", "V33"])
def test_every_system_can_be_shown(system: str) -> None:
    assert "largest cosine" in run("centers", "--classes", "30", "--system", system)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["centers", "--classes", "1000", "--dim", "20"], "33 dimensions"),
        (["centers", "--classes", "1000", "--system", "E8"], "use one of"),
        (["centers", "--classes", "1000", "--compare", "--dim", "20"], "leave out --dim"),
        (["cost", "decode", "--cases", "empty", "--classes", "100"], "unknown"),
        (["cost", "decode", "--system", "simplex", "--classes", "100"], "use A"),
        (["centers", "--classes", "1000", "--system", "gaussian", "--dim", "-3"], "1 or more"),
        (["centers", "--classes", "300000", "--system", "polygon"], "too many to list"),
        (["cost", "loss", "--classes", "many"], "list of positive numbers"),
        (["cost", "loss", "--classes", "inf"], "list of positive numbers"),
        (["cost", "loss", "--device", "cuda"], "no usable GPU"),
        (["cost", "decode", "--device", "gpu"], "use cpu or cuda"),
        (["cost", "step", "--device", "tpu"], "use cpu or cuda"),
        (["cost", "decode", "--cosines", "2"], "cosine 2.0"),
        (["cost", "decode", "--top", "200", "--classes", "100"], "top 200"),
        (["cost", "loop", "--study", DEMO, "--run", "distillation/student_both/seed_0"], "has a teacher"),
    ],
)
def test_mistakes_name_the_remedy(arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = runner.invoke(app, arguments)
    assert isinstance(result.exception, UserError)
    assert words in str(result.exception)


def test_a_mistake_is_one_line_and_exit_code_2() -> None:
    command = [sys.executable, "-m", "lsc", "centers", "--classes", "1000", "--dim", "20"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert done.returncode == 2
    assert done.stderr.startswith("lsc: error: system A in 20 dimensions")
    assert done.stderr.count("\n") == 1


def test_cost_decode_measures_all_sides(tmp_path: Path) -> None:
    output = tmp_path / "cost" / "decode.jsonl"
    run("cost", "decode", "--classes", "2000", "--batch", "16", "--repetitions", "1", "--cosines", "0.9",
        "--no-faiss", "--output", str(output))  # fmt: skip
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [record["case"] for record in records] == ["full", "half", "perturbed"]
    for record in records:
        assert record["correct"] == record["matmul_agrees"] == 1
        assert record["matmul_ratio"] == pytest.approx(record["matmul_seconds"] / record["seconds"])
        assert record["seconds"] > 0


def test_cost_loss_needs_as_much_memory_for_a_thousand_million_classes(tmp_path: Path) -> None:
    output = tmp_path / "loss.jsonl"
    run("cost", "loss", "--classes", "1e3,1e9", "--batch", "8", "--repetitions", "1", "--output", str(output))
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert {(r["objective"], r["classes"]) for r in records} == {
        *((name, count) for name in ("euclidean", "cosine", "orbit_softmax") for count in (10**3, 10**9)),
        ("dense_softmax", 10**3),
    }
    for record in records:
        assert record["peak_bytes"] > 8 * 384 * 4
        if record["objective"] != "dense_softmax":
            assert record["memory_ratio"] == pytest.approx(1, abs=0.05)
