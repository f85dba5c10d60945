"""A chapter reads exactly the runs of its study: no more, whatever lies in the folder, and no fewer."""

import json
import shutil
from pathlib import Path

import pytest

from lsc.errors import UserError
from lsc.study import plots
from lsc.study.looks import GREY
from lsc.study.tables import Records
from tests.study.shipped import REFERENCE, demo, opened


def test_variants_and_seeds_that_were_taken_out_appear_nowhere(tmp_path: Path) -> None:
    study = demo()
    del study["experiments"]["low_dim"]["variants"]["cosine_perturbed_30"]
    study["seeds"] = [1]
    assert (REFERENCE / "runs" / "low_dim" / "cosine_perturbed_30" / "seed_0").is_dir()
    records = opened(tmp_path, study)
    summaries, metrics = records.summaries("low_dim"), records.metrics("low_dim")
    assert list(dict.fromkeys(summaries.variant)) == list(study["experiments"]["low_dim"]["variants"])
    for table in (summaries, metrics):
        assert set(table.variant) == set(study["experiments"]["low_dim"]["variants"])
        assert set(table.seed) == {1}
    assert set(plots.accuracy_table(summaries).seeds) == {"1"}
    assert "12 runs, seed 1, on" in records.account("low_dim")


def test_the_settings_are_those_of_the_study(tmp_path: Path) -> None:
    runs = opened(tmp_path, demo()).summaries("lifelong").drop_duplicates("variant").set_index("variant")
    assert runs.replay.to_dict() == {
        "cross_entropy_replay_0": 0, "cross_entropy_replay_20": 20, "cross_entropy_joint": float("inf"),
        "cosine_replay_0": 0, "cosine_replay_20": 20, "cosine_joint": float("inf"), "cosine_sums": 0, "one_hot_sums": 0,
        "cosine_wide_replay_20": 20, "cross_entropy_wide_replay_20": 20,
    }  # fmt: skip
    assert set(runs.groups) == {5}
    assert list(zip(runs.label, runs.role, runs.pulls_by.fillna(""), strict=True))[::3][:2] == [
        ("cross-entropy", "baseline", ""),
        ("cosine", "paper", "cosine"),
    ]


def test_what_is_missing_is_one_line_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"study.yaml: is missing .* snakemake --cores all writes it$"):
        Records(tmp_path, tmp_path)
    study = demo()
    study["experiments"]["low_dim"]["variants"]["cosine_dim_5"] = {"objective": {"name": "cosine"}}
    for read in (opened(tmp_path, study).summaries, opened(tmp_path, study).metrics, opened(tmp_path, study).account):
        with pytest.raises(
            UserError, match=r"low_dim/cosine_dim_5/seed_0: the run is missing; make it with: snakemake"
        ):
            read("low_dim")
    with pytest.raises(UserError, match="make reference STUDY=demo"):
        opened(tmp_path, study | {"records": "reference"}).summaries("low_dim")
    with pytest.raises(UserError, match=r"no run of .*study.yaml; it names low_dim, high_dim"):
        opened(tmp_path, study).folder("low_dim/cosine/seed_7")
    with pytest.raises(UserError, match="names no run of 'glyphs'"):
        opened(tmp_path, study).account("glyphs")
    assert opened(tmp_path, study).summaries("glyphs").empty


@pytest.fixture
def own_objective(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of one's own in the current folder; and low_dim/cosine is what was trained with it."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"own_{tmp_path.name}.py"
    path.write_text(
        "from lsc.objectives import Cosine\n\n\n"
        "class Pull(Cosine):\n    label, color, role, pulls_by = 'pull', '#123456', 'own', None\n"
    )
    return path


def test_an_objective_of_ones_own_is_shown_as_its_class_says(own_objective: Path, tmp_path: Path) -> None:
    study = demo()
    study["experiments"]["low_dim"]["variants"]["cosine"]["objective"]["name"] = f"{own_objective.stem}:Pull"
    runs = opened(tmp_path, study).summaries("low_dim")
    style = plots.line_styles(runs)["cosine"]
    assert (style["color"], style["label"]) == ("#123456", "pull, cosine")
    assert runs[runs.variant == "cosine"].has_centers.all()


def test_an_objective_that_is_gone_is_shown_by_its_name_in_grey(tmp_path: Path) -> None:
    study = demo()
    study["experiments"]["low_dim"]["variants"]["cosine_dim_16"]["objective"]["name"] = "gone:Loss"
    runs = opened(tmp_path, study).summaries("low_dim")
    style = plots.line_styles(runs)["cosine_dim_16"]
    assert (style["color"], style["label"]) == (GREY, "gone:Loss, dim 16")
    assert runs[runs.variant == "cosine_dim_16"].changes.iloc[0] == {"centers.dim": 16}


def test_runs_of_other_code_than_todays_are_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = opened(tmp_path, demo())
    others: list[str] = []
    monkeypatch.setattr("lsc.study.tables.made_by_other_code", lambda run, summary: run.name in others)
    assert records.older("low_dim") == ""
    one = "low_dim/cosine/seed_0"
    others.append(one)
    assert f"**Of the runs of low_dim, {one} were made by other code than today's**" in records.older("low_dim")
    others.extend(records.study.run_names("low_dim"))
    assert "**All runs of low_dim were made by other code than today's**" in records.older("low_dim")
    assert "other code" not in records.account("low_dim")


def test_the_number_of_images_behind_an_accuracy_is_told_where_records_have_it(tmp_path: Path) -> None:
    own = tmp_path / "runs" / "low_dim"
    shutil.copytree(REFERENCE / "runs" / "low_dim", own)
    summaries = {path: json.loads(path.read_text()) for path in own.glob("*/*/summary.json")}
    for path, summary in summaries.items():
        path.write_text(json.dumps({key: value for key, value in summary.items() if key != "final_images"}))
    assert "shares of" not in opened(tmp_path, demo()).account("low_dim")
    for path, summary in summaries.items():
        images = 215 if summary["num_classes"] == 6 else 359
        path.write_text(json.dumps(summary | {"final_images": images}))
    records = opened(tmp_path, demo())
    assert "are on the test images, final ones shares of 215 to 359 images: one image is 0.28 to 0.47 points" in (
        records.account("low_dim")
    )
    table = plots.accuracy_table(records.summaries("low_dim"))
    shown = plots.accuracy_shown(table).set_index("variant")
    assert shown.images["cosine, 6 classes"] == 215
    assert shown.images["cosine"] == 359
    ten = table[table.classes == 10]
    assert set(ten.images) == {359}
    assert "images" not in plots.accuracy_shown(ten)


def test_a_split_that_curves_are_of_is_called_by_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "high_dim"
    shutil.copytree(REFERENCE / "runs" / "high_dim", folder)
    for path in folder.glob("*/*/summary.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"scored_on": "valid"}))
    said = opened(tmp_path, demo()).account("high_dim")
    assert "Curves show accuracy on the validation images, tables the final accuracy on the test images" in said


def test_what_is_said_of_runs_is_said_where_there_are_any(tmp_path: Path) -> None:
    records = opened(tmp_path, demo())
    assert records.about("low_dim", "", "More.") == f"{records.account('low_dim')} More."
    assert records.about("glyphs", "More.") == "This study has no runs of the experiment `glyphs`."
