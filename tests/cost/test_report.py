"""Chapter 7 speaks of what the study's cost block names, and its verdicts follow the intervals."""

import json
import shutil
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

from lsc.cost import figures, report
from lsc.cost.measured import Measurements, shown_as
from lsc.errors import UserError
from lsc.objectives import OBJECTIVES
from lsc.training.records import read_rows, write_rows
from tests.study.shipped import REFERENCE, demo, opened


def measured(folder: Path, study: dict[str, Any] | None = None) -> Measurements:
    """The demo's reference measurements, in a folder where they may be changed."""
    (folder / "runs").mkdir(exist_ok=True)
    if not (folder / "cost").exists():
        shutil.copytree(REFERENCE / "cost", folder / "cost")
    return Measurements(opened(folder, study or demo()))


def add(path: Path, **changes: Any) -> None:
    """Add the file's first row once more, with changes."""
    rows = read_rows(path)
    write_rows(path, [*rows, rows[0] | changes])


def test_what_the_cost_block_does_not_name_is_not_shown(tmp_path: Path) -> None:
    tables = (report.step_table, report.search_table, report.hnsw_table)
    before = [table(measured(tmp_path)).to_csv() for table in tables]
    cost = tmp_path / "cost"
    for changes in ({"objective": "arcface", "classes": 1000}, {"system": "V22"}, {"dim": 32}, {"encoder": "resnet18"},
                    {"objective": "cosine", "classes": 12_345}):  # fmt: skip
        add(cost / "step.jsonl", step_seconds=9.0, **changes)
    for changes in ({"k": 7}, {"cosine": 0.5}, {"classes": 5}, {"system": "V21"}):
        add(cost / "decode.jsonl", seconds=9.0, **changes)
    add(cost / "hnsw.jsonl", classes=77, hnsw_seconds=9.0)
    assert [table(measured(tmp_path)).to_csv() for table in tables] == before


def test_what_the_cost_block_names_is_shown_or_missed(tmp_path: Path) -> None:
    study = demo()
    study["cost"]["step"]["rivals"] = ["partial_fc"]
    study["cost"]["decode"]["cases"] = ["half"]
    found = measured(tmp_path, study)
    assert "cross-entropy" not in set(report.step_table(found).objective)
    assert set(report.search_table(found).case) == {"half"}
    assert "Cross-entropy" not in report.findings(found)
    study["cost"]["step"]["class_counts"] = [1000, 5000]
    with pytest.raises(
        UserError, match=r"step.jsonl: has no measurement of objective cosine, classes 5000, .*; make it with"
    ):
        measured(tmp_path, study)
    (tmp_path / "cost" / "step.jsonl").unlink()
    with pytest.raises(UserError, match=r"step.jsonl: is missing; make it with: snakemake .*step.jsonl$"):
        measured(tmp_path)


def test_the_workflow_is_that_of_this_study(tmp_path: Path) -> None:
    whole = report.workflow_table(measured(tmp_path))
    assert "one figure again" in set(whole.what)
    add(tmp_path / "cost" / "workflow.jsonl", what="figure", study="another", seconds=1e6)
    assert report.workflow_table(measured(tmp_path)).equals(whole)
    study = demo()
    del study["experiments"]["lifelong"]
    assert set(report.jobs_table(measured(tmp_path, study)).experiment) == set(study["experiments"])
    found = measured(tmp_path, study | {"study": "other"})
    assert report.workflow_table(found).empty
    assert report.jobs_table(found).empty
    assert not report.targets(found).target.str.contains("nothing to do").any()


@pytest.mark.parametrize(
    ("values", "expected"), [([1, 2, 3], report.MET), ([6, 7, 8], report.MISSED), ([4, 5, 6], report.UNDECIDED)]
)
def test_a_target_is_met_when_both_ends_of_the_interval_meet_it(values: list[float], expected: str) -> None:
    assert report.verdict(values, lambda x: x <= 5) == expected


def test_a_spread_is_the_median_with_its_interval() -> None:
    assert report.spread([3.0, 1.0, 2.0], 1) == "2.0 (1.0 to 3.0)"
    assert report.spread([float("nan")]) == ""


def test_targets_and_findings_follow_the_measurements(tmp_path: Path) -> None:
    found = measured(tmp_path)
    aims = report.targets(found).set_index("target")
    step = "step of cross-entropy at 1,000,000 classes more than 3 times that of cosine centers"
    assert aims.verdict[step] == report.MET
    rows = read_rows(tmp_path / "cost" / "step.jsonl")
    slowed = [row | {"ratio_to_cosine": 2.0} if row["objective"] == "cross_entropy" else row for row in rows]
    write_rows(tmp_path / "cost" / "step.jsonl", slowed)
    found = measured(tmp_path)
    aims = report.targets(found)
    assert aims.set_index("target").verdict[step] == report.MISSED
    text = report.findings(found)
    assert "Cross-entropy at 1,000,000 classes takes 2.0 (2.0 to 2.0) times the step" in text


def test_predictions_stand_beside_what_was_measured_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lsc.cost.measured.BENCHMARKS", tmp_path / "step.jsonl")
    plain = report.predictions(measured(tmp_path))
    assert plain.startswith("2 of the steps are predicted, not measured: ")
    assert "too low" not in plain
    like = {"objective": "cross_entropy", "classes": 10_000_000, "predicted": False, "encoder": "small_cnn", "dim": 64,
            "batch": 64, "system": "V33", "precision": "float32", "device": "AMD EPYC, 2 cores", "threads": 2}  # fmt: skip
    rows = [like | {"ratio_to_bare": ratio} for ratio in (300.0, 400.0, 500.0)]
    others = (
        {"batch": 32},
        {"device": "another"},
        {"classes": 1_000_000},
        {"predicted": True},
        {"objective": "cosine"},
    )
    write_rows(tmp_path / "step.jsonl", [*rows, *(like | {"ratio_to_bare": 1.0} | other for other in others)])
    text = report.predictions(measured(tmp_path))
    assert "Such a prediction has proved too low." in text
    assert "cross-entropy 400 (300 to 500) times at 10,000,000 classes, predicted here as about 248" in text
    write_rows(tmp_path / "step.jsonl", [like | {"ratio_to_bare": ratio} for ratio in (200.0, 400.0, 500.0)])
    assert "too low" not in report.predictions(measured(tmp_path))


def test_where_the_jobs_of_the_workflow_ran_is_said(tmp_path: Path) -> None:
    text = report.of_workflow(measured(tmp_path))
    assert "measured it on AMD EPYC, 2 cores, at commit 1d4e90cea6db" in text
    assert "was not measured" in report.of_workflow(measured(tmp_path, demo() | {"study": "other"}))


def test_everything_measured_has_a_label_and_a_colour_of_its_own(tmp_path: Path) -> None:
    names = [*OBJECTIVES, "arcface", "proxy_nca", "bare"]
    assert len({shown_as(name).label for name in names}) == len({shown_as(name).color for name in names}) == len(names)
    figure = figures.draw_step(measured(tmp_path))
    drawn = {str(line.get_label()): line.get_color() for line in figure.axes[0].lines}
    for name in ("cosine", "partial_fc", "bare"):
        assert drawn[shown_as(name).label] == shown_as(name).color
    plt.close(figure)


def test_a_search_without_faiss_is_drawn_and_told(tmp_path: Path) -> None:
    measured(tmp_path)
    path = tmp_path / "cost" / "decode.jsonl"
    rows = [{key: value for key, value in row.items() if not key.startswith("faiss")} for row in read_rows(path)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = measured(tmp_path)
    assert set(report.search_table(found)["faiss flat to search"]) == {""}
    figure = figures.draw_search(found)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["exact search", "matrix product"]
    plt.close(figure)
