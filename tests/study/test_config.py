"""The configuration: merged as documented, and every mistake in it named by its key."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from lsc.errors import UserError
from lsc.settings import merge
from lsc.study.configuration import EXPERIMENTS, read_study, study_from
from lsc.study.plan import plan_from
from lsc.training.options import Duration
from lsc.training.run import read_run, run_from
from tests.conftest import ROOT, tiny_run

STUDY: dict[str, Any] = {
    "study": "small",
    "chapters": ["low_dim"],
    "seeds": [0, 1],
    "run": {"data": {"name": "digits"}, "training": {"duration": "2 epochs"}},
    "experiments": {
        "low_dim": {
            "run": {"training": {"batch_size": 32}},
            "variants": {
                "cross_entropy": {"objective": {"name": "cross_entropy", "label_smoothing": 0.1}},
                "cosine": {"objective": {"name": "cosine"}, "training": {"batch_size": 16}},
            },
        }
    },
}


def test_a_run_is_study_then_experiment_then_variant() -> None:
    study = study_from(STUDY)
    assert study.run_names("low_dim") == [
        f"low_dim/{variant}/seed_{seed}" for variant in ("cross_entropy", "cosine") for seed in (0, 1)
    ]
    run = study.run_of("low_dim/cosine/seed_1")
    assert (run.seed, run.training.batch_size, str(run.training.duration)) == (1, 16, "2 epochs")
    assert study.run_of("low_dim/cross_entropy/seed_0").training.batch_size == 32


@pytest.mark.parametrize("study", ["demo", "gpu", "paper"])
def test_every_run_of_the_shipped_studies_is_read_as_it_was_written(study: str) -> None:
    shipped = read_study(ROOT / "config" / f"{study}.yaml")
    for experiment in shipped.experiments:
        for name in shipped.run_names(experiment):
            run = shipped.run_of(name)
            assert run_from(run.plain()) == run, name
            assert run_from(run.plain()).digest == run.digest


def test_a_duration_is_kept_as_it_was_written() -> None:
    for text in ("4000000 examples", "0.3333333 epochs", "123456.7 steps"):
        assert str(Duration(text)) == text
    assert Duration("2 epochs") == Duration("2.0 epoch") != Duration("2 steps")


def test_a_block_of_another_name_replaces_the_old_one_whole() -> None:
    assert merge({"data": {"name": "digits", "image_size": 8}}, {"data": {"name": "cinic10"}}) == {
        "data": {"name": "cinic10"}
    }
    assert merge({"data": {"name": "digits", "image_size": 8}}, {"data": {"classes": 6}}) == {
        "data": {"name": "digits", "image_size": 8, "classes": 6}
    }


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"studdy": 1}, ["studdy", "unknown key"]),
        ({"chapters": ["low_dims"]}, ["chapters.0", "low_dims"]),
        ({"run": {"data": {"name": "digitz"}}}, ["data", "digitz", "digits", "fractals"]),
        ({"run": {"data": {"name": "digits", "size": 3}}}, ["low_dim", "data.size", "unknown key"]),
        ({"run": {"data": {"name": "digits"}, "training": {"batch_size": "many"}}}, ["training.batch_size", "many"]),
        ({"run": {"data": {"name": "digits"}, "training": {"duration": "3 weeks"}}}, ["training.duration", "3 weeks"]),
        ({"run": {"data": {"name": "digits"}, "training": {"learning_rate": "1e-3x"}}}, ["training.learning_rate"]),
        ({"run": {"data": {"name": "digits"}, "training": {"accumulate": 5}}}, ["accumulate", "multiple"]),
        ({"run": {"data": {"name": "digits"}, "objective": {"name": "hinge"}}}, ["objective", "hinge", "cosine"]),
        ({"run": {"data": {"name": "digits"}, "teacher": {"run": "low_dim/none"}}}, ["teacher.run", "low_dim/none"]),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(change: dict[str, Any], parts: list[str]) -> None:
    settings = merge(copy.deepcopy(STUDY), change)
    settings["experiments"]["low_dim"]["run"] = {}
    settings["experiments"]["low_dim"]["variants"] = {"cosine": {}}
    with pytest.raises(UserError) as caught:
        study_from(settings, "file.yaml")
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("high_dims", r"^experiments\.high_dims: no chapter shows such an experiment; did you mean high_dim\?$"),
        ("qqq", r"^experiments\.qqq: no chapter shows such an experiment; there are low_dim, .*scripts$"),
    ],
)
def test_an_experiment_that_no_chapter_shows_is_refused_by_the_workflow(name: str, said: str) -> None:
    """Its runs can be trained one by one."""
    settings = merge(STUDY, {"experiments": {name: {"variants": {"cosine": {}}}}})
    assert study_from(settings).run_of(f"{name}/cosine/seed_0").experiment == name
    with pytest.raises(UserError, match=said):
        plan_from(settings)


def test_every_experiment_that_a_chapter_reads_may_be_named() -> None:
    chapters = yaml.safe_load((ROOT / "workflow" / "chapters.yaml").read_text())
    assert {name for chapter in chapters.values() for name in chapter["experiments"]} == set(EXPERIMENTS)


@pytest.mark.parametrize(
    ("change", "key"),
    [({"seeds": [0, 1, 0]}, "seeds"), ({"experiments": {"low_dim": {"seeds": [0, 0]}}}, "experiments.low_dim.seeds")],
)
def test_a_seed_that_stands_twice_is_refused(change: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError) as caught:
        study_from(merge(STUDY, change))
    assert str(caught.value) == f"{key}: 0 stands there twice; a seed names one run of each variant"


@pytest.mark.parametrize("name", ["low_dim/cosine", "low_dim/none/seed_0", "none/cosine/seed_0"])
def test_a_run_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="--run"):
        study_from(STUDY).run_of(name)


def test_a_file_that_is_no_configuration_is_one_line(tmp_path: Path) -> None:
    for content in ("a: [", "- 1", ""):
        (tmp_path / "study.yaml").write_text(content)
        with pytest.raises(UserError, match=r"study\.yaml"):
            read_study(tmp_path / "study.yaml")
    with pytest.raises(UserError, match=r"none\.yaml"):
        read_study(tmp_path / "none.yaml")


def test_a_run_survives_its_file(tmp_path: Path) -> None:
    run = study_from(STUDY).run_of("low_dim/cosine/seed_1")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(run.plain()))
    assert read_run(tmp_path / "config.yaml") == run
    assert read_run(tmp_path / "config.yaml").digest == run.digest


def test_the_digest_follows_the_result_and_not_the_resources() -> None:
    run = study_from(STUDY).run_of("low_dim/cosine/seed_0")
    assert run_from(merge(run.plain(), {"resources": {"gpu": 4}})).digest == run.digest
    assert run_from(merge(run.plain(), {"training": {"batch_size": 64}})).digest != run.digest


def test_durations_become_steps_in_one_place() -> None:
    assert Duration("2 epochs").steps(10, 64) == 20
    assert Duration("0.5 epochs").steps(10, 64) == 5
    assert Duration("7 steps").steps(10, 64) == 7
    assert Duration("640 examples").steps(10, 64) == 10


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_studies_that_we_ship_are_whole(path: Path) -> None:
    study = read_study(path)
    assert study.study == path.stem
    for experiment in study.experiments:
        assert study.run_names(experiment)


def test_an_exponent_needs_no_point_in_a_list() -> None:
    assert tiny_run(data={"classes": ["1e0", "2e0"]}).plain()["data"]["classes"] == [1, 2]
    assert tiny_run(variant="1e3").variant == "1e3"


@pytest.mark.parametrize(
    "block",
    ["training: {learning_rate: 1e-3}", "data: {jitter: 5e-1, num_classes: 1E2}", "centers: {perturbation: .1e0}"],
)
def test_an_exponent_needs_no_point_in_any_block(block: str) -> None:
    run = run_from(merge({"data": {"name": "fractals", "num_classes": 9}}, yaml.safe_load(block)))
    key, settings = next(iter(yaml.safe_load(block).items()))
    for name, value in settings.items():
        assert getattr(getattr(run, key), name) == float(value)
