"""The schema by which editors check a study: as the models are, and as strict where it matters."""

import copy
import json
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from lsc.settings import merge
from lsc.study.schema import schema_text, study_schema
from tests.conftest import ROOT

SCHEMA = json.loads((ROOT / "config" / "schema.json").read_text())
STUDIES = sorted((ROOT / "config").glob("*.yaml"))


def faults(study: dict[str, Any]) -> list[str]:
    return [error.json_path for error in Draft202012Validator(SCHEMA).iter_errors(study)]


def study_with(**changes: Any) -> dict[str, Any]:
    """A small study with ``changes`` in the settings of its one variant."""
    study = {
        "study": "small",
        "chapters": ["low_dim"],
        "run": {"data": {"name": "digits"}},
        "experiments": {"low_dim": {"variants": {"cosine": {"objective": {"name": "cosine"}}}}},
    }
    return merge(copy.deepcopy(study), {"experiments": {"low_dim": {"variants": {"cosine": changes}}}})


def test_the_schema_is_that_of_the_models() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert study_schema() == SCHEMA, "the models have changed: make schema"
    assert (ROOT / "config" / "schema.json").read_text() == schema_text()


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_shipped_studies_have_no_fault_and_name_the_schema(path: Any) -> None:
    text = path.read_text()
    assert faults(yaml.safe_load(text)) == []
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_key_of_the_shipped_studies_is_missed_when_it_is_misspelt(path: Any) -> None:
    study = yaml.safe_load(path.read_text())
    assert len(list(misspelt(study))) > 40
    for where, wrong in misspelt(study):
        assert faults(wrong), where


def misspelt(study: dict[str, Any]) -> Any:
    """Every key of the study's blocks in turn, but for names of experiments and variants, with a letter too many."""
    for *place, key in keys_of(study):
        if place[-1:] in (["experiments"], ["variants"]):
            continue
        wrong = copy.deepcopy(study)
        block = wrong
        for part in place:
            block = block[part]
        block[f"{key}x"] = block.pop(key)
        yield [*place, key], wrong


def keys_of(block: Any, *place: str) -> Any:
    if isinstance(block, dict):
        for key, value in block.items():
            yield [*place, key]
            yield from keys_of(value, *place, key)


def test_a_part_of_a_run_needs_no_name_and_no_other_key() -> None:
    assert faults(study_with(data={"image_size": 8}, encoder={"hidden": 32}, lifelong={"replay": 3})) == []
    assert faults(study_with(training={"duration": "0.5 epochs"}, teacher=None)) == []


def test_a_key_of_another_objective_is_a_fault() -> None:
    assert faults(study_with(objective={"name": "orbit_softmax", "margin": 0.2})) == []
    assert faults(study_with(objective={"name": "cosine", "margin": 0.2}))
    assert faults(study_with(objective={"name": "cosin"}))


def test_values_are_checked_as_well() -> None:
    assert faults(study_with(training={"duration": "20 eons"}))
    assert faults(study_with(training={"learning_rate": 0}))
    assert faults(study_with(centers={"assignment": "random"}))


def test_something_of_ones_own_may_have_any_settings() -> None:
    assert faults(study_with(objective={"name": "my_file:MyLoss", "sharpness": 3})) == []
    assert faults(study_with(data={"name": "instances", "of": {"name": "my_file:MyImages"}})) == []
