"""The cost of training steps: the rivals do what is published, and records say what was measured and what was not."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from lsc.cli import app
from lsc.cost.rivals import least_bytes
from lsc.cost.step import _line, step_records
from lsc.errors import UserError
from lsc.study.configuration import study_from
from lsc.study.measurements import StepCost
from tests.conftest import Called, assert_refused


def small(**changes: Any) -> StepCost:
    return StepCost.model_validate(
        {
            "encoder": {"name": "small_cnn", "width": 2}, "image_size": 8, "batch": 8, "system": "V22", "dim": 24,
            "class_counts": [100, 2000], "center_class_counts": [50_000], "repetitions": 2,
        } | changes
    )  # fmt: skip


def test_every_objective_is_measured_in_turns_and_centers_need_the_same_memory_always() -> None:
    records = list(step_records(small()))
    seen = {(record["objective"], record["classes"]) for record in records}
    centers = {(name, count) for name in ("cosine", "euclidean", "orbit_softmax") for count in (100, 2000, 50_000)}
    rivals = {(name, n) for name in ("cross_entropy", "partial_fc", "arcface", "proxy_nca") for n in (100, 2000)}
    assert seen == {("bare", 0)} | centers | rivals
    assert len(records) == 2 * len(seen)
    assert not any(record["predicted"] for record in records)
    for record in records:
        assert record["images_per_second"] == pytest.approx(8 / record["step_seconds"])
        if record["objective"] == "bare":
            assert record["ratio_to_bare"] == 1
    peak = {(record["objective"], record["classes"]): record["peak_bytes"] for record in records}
    # Few classes keep their indexes, 8 bytes each.
    assert peak["cosine", 50_000] <= peak["cosine", 100] <= peak["cosine", 50_000] + 8 * 100
    for name in ("cross_entropy", "arcface", "proxy_nca", "partial_fc"):
        least = least_bytes(name, 2000, 24, 8, 0.1)
        assert least <= peak[name, 2000] <= 2 * least + peak["bare", 0]
    assert peak["partial_fc", 2000] < peak["cross_entropy", 2000]


def test_the_closed_form_is_measured_beside_the_same_encoder_trained_by_steps() -> None:
    options = small(rivals=[], center_class_counts=[], readout_hidden=16)
    records = [record for record in step_records(options) if record["objective"] == "cosine_closed_form"]
    assert [(record["classes"], record["repetition"]) for record in records] == [
        (100, 0),
        (2000, 0),
        (100, 1),
        (2000, 1),
    ]
    for record in records:
        assert record["hidden"] == 16
        trained = record["step_seconds"] / record["ratio_to_trained"]
        assert record["step_seconds"] > record["solve_seconds"] / 20
        assert trained > 0
    # The sums take (F + 1)^2 + (F + 1) dim numbers, whatever the number of classes; few classes keep their indexes.
    peak = {record["classes"]: record["peak_bytes"] for record in records}
    assert abs(peak[2000] - peak[100]) <= 8 * 2000


def test_what_does_not_fit_or_takes_too_long_is_predicted_and_says_so() -> None:
    options = small(rivals=["cross_entropy"], class_counts=[100, 200, 400, 40_000], memory_gb=0.005, repetitions=1)
    last = list(step_records(options))[-1]
    assert (last["classes"], last["predicted"], last["reason"]) == (40_000, True, "memory")
    assert last["peak_bytes"] >= least_bytes("cross_entropy", 40_000, 24, 8, 0.1)
    assert last["step_seconds"] is None or last["step_seconds"] > 0
    assert "ratio_to_bare" not in last


def test_an_allocator_that_fails_makes_a_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    from lsc.cost import step

    def full(*_: object) -> torch.nn.Module:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setitem(step.RIVALS, "cross_entropy", full)
    options = small(rivals=["cross_entropy"], class_counts=[100], center_class_counts=[], repetitions=1)
    last = list(step_records(options))[-1]
    assert (last["objective"], last["predicted"], last["reason"]) == ("cross_entropy", True, "memory")


def run(*words: str) -> None:
    done = CliRunner().invoke(app, ["cost", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def test_the_command_takes_a_study_and_writes_lines(tmp_path: Path) -> None:
    settings = small(rivals=["partial_fc"], class_counts=[50], center_class_counts=[], repetitions=1).model_dump(
        mode="json"
    )
    study, output = tmp_path / "study.yaml", tmp_path / "cost" / "step.jsonl"
    study.write_text(json.dumps({"study": "tiny", "chapters": ["cost"], "cost": {"step": settings}}))
    run("step", "--study", str(study), "--batch", "4", "--output", str(output))
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [record["objective"] for record in records] == ["bare", "euclidean", "cosine", "orbit_softmax", "partial_fc"]
    assert {record["batch"] for record in records} == {4}


@pytest.mark.parametrize(
    "words", ["step", "decode", "decode --all", "hnsw", "loss", "loop --study STUDY --run r", "workflow", "data"]
)
def test_a_place_that_cannot_be_written_to_is_refused_before_anything_is_measured(
    words: str, tmp_path: Path, lsc_here: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: Any, **__: Any) -> Iterator[Any]:
        raise AssertionError("something was measured")
        yield

    for name in (
        "step.step",
        "decode.decode",
        "field.field",
        "hnsw.hnsw",
        "loss.loss",
        "loop.loop",
        "workflow.workflow",
    ):
        monkeypatch.setattr(f"lsc.cost.{name}_records", measured)
    monkeypatch.setattr("lsc.cost.data.measure", lambda *_: next(measured()))
    monkeypatch.setattr("lsc.study.configuration.read_study", lambda _: SimpleNamespace(run_of=str))
    option = "--out" if words == "data" else "--output"
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    for place, reason in (
        ("folder", "is a folder"),
        ("file/x.jsonl", "Not a directory"),
        ("/proc/x/y.jsonl", "give a file that can be written"),
    ):
        done = lsc_here("cost", *words.split(), option, place)
        assert_refused(done, f"{option} {place}", reason)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


def test_an_unknown_rival_is_named() -> None:
    with pytest.raises(UserError, match="'partial_fc'"):
        CliRunner().invoke(app, ["cost", "step", "--rivals", "magic"], catch_exceptions=False)


def test_the_approximate_index_is_measured_beside_the_exact_search(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    output = tmp_path / "hnsw.jsonl"
    run("hnsw", "--classes", "500", "--batch", "8", "--repetitions", "1", "--output", str(output))
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [record["breadth"] for record in records] == [16, 64, 256]
    for record in records:
        assert record["classes"] == 506
        assert record["hnsw_ratio"] == pytest.approx(record["hnsw_seconds"] / record["seconds"])
    # Searching half of all vectors finds what there is to find.
    assert records[-1]["recall"] > 0.9


def test_a_mistake_in_the_cost_block_is_named() -> None:
    with pytest.raises(UserError, match=r"cost\.step\.bacth: unknown key"):
        study_from({"study": "s", "chapters": ["cost"], "cost": {"step": {"bacth": 3}}})


def test_a_prediction_follows_the_last_two_points_and_never_falls() -> None:
    assert _line({10: 1.0, 100: 2.0, 200: 4.0}, 300, 0.0) == pytest.approx(6.0)
    assert _line({100: 2.0, 200: 1.5}, 300, 0.0) == 1.5
    assert _line({100: 2.0}, 300, 7.0) == 7.0
