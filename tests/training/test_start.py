"""``lsc train --from``: a training that begins with a finished run's encoder, whose classes keep their centers."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import lsc
from lsc.centers import CodedCenters
from lsc.data import open_dataset
from lsc.errors import UserError
from lsc.settings import merge
from lsc.training import records
from lsc.training.loop import train
from lsc.training.run import Run, run_from
from lsc.training.start import settings_from
from lsc.training.weights import load_task, weights_digest
from tests.conftest import assert_refused, tiny_run

SHORT: dict[str, Any] = {"training": {"duration": "1 step", "learning_rate": 1e-9, "warmup": "0 steps"}}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits 2, 5 and 7."""
    out = tmp_path_factory.mktemp("source") / "run"
    train(tiny_run(data={"classes": [2, 5, 7]}, centers={"dim": 6}), out, accelerator="cpu")
    return out


def begun(source: Path, **changes: Any) -> Run:
    return run_from(merge(settings_from(source).plain(), merge(SHORT, changes)))


@pytest.mark.parametrize("classes", [[2, 5, 7, 1, 9], [1, 2, 5, 7, 9], [9, 7, 5]])
def test_classes_keep_their_centers_by_name_and_new_ones_get_free_vectors(
    classes: list[int], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(begun(source, data={"classes": classes}), tmp_path, start=source, accelerator="cpu")
    old, new = lsc.load(source), lsc.load(tmp_path)
    assert new.classes == list(map(str, classes))
    old_centers, new_centers = old.task.centers, new.task.centers
    assert old_centers is not None
    assert new_centers is not None
    vectors = new_centers.vectors(torch.arange(len(classes)))
    assert len(torch.unique(vectors, dim=0)) == len(classes)
    for label, digit in enumerate(classes):
        if digit in (2, 5, 7):
            assert torch.equal(vectors[label], old_centers.vectors(torch.tensor([2, 5, 7].index(digit))))
    kept = len({2, 5, 7} & set(classes))
    assert f"{kept} classes keep what they had, {len(classes) - kept} are new" in capsys.readouterr().err
    assert new.run.start == weights_digest(source)
    # One step of almost no length: the encoder is that of the source, and sees images as that one did.
    images = torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8)
    assert torch.allclose(new.task.encoder(new.normalise(images)), old.task.encoder(old.normalise(images)), atol=1e-4)
    dataset = open_dataset(new.run.data)
    statistics = [(each.mean, each.std) for each in (load_task(source), load_task(tmp_path), dataset)]
    assert statistics[0] == statistics[1] != statistics[2]


def test_the_scale_of_a_softmax_and_the_rows_of_a_layer_are_taken_over(tmp_path: Path) -> None:
    for name in ("center_softmax", "cross_entropy"):
        run = tiny_run(data={"classes": 3}, objective={"name": name}, centers={"dim": 6})
        train(run, tmp_path / name, accelerator="cpu")
        folder = tmp_path / f"{name}_on"
        train(begun(tmp_path / name, data={"classes": 5}), folder, start=tmp_path / name, accelerator="cpu")
        old, new = load_task(tmp_path / name).task.objective.state_dict(), load_task(folder).task.objective.state_dict()
        for key in {"center_softmax": ["log_scale"], "cross_entropy": ["layer.weight", "layer.bias"]}[name]:
            mine = new[key][:3] if old[key].ndim else new[key]
            assert torch.allclose(mine, old[key], atol=1e-5), key


def test_it_learns_more_classes_and_goes_on_where_it_stopped(source: Path, lsc_here: Any, tmp_path: Path) -> None:
    words = ("train", "--from", source, "--set", "data.classes=5", "--out", "out")
    done = lsc_here(*words, "--set", "training.duration=20 epochs")
    assert done.returncode == 0, done.stderr
    summary = records.read_json(tmp_path / "out" / records.SUMMARY)
    assert summary["final_top1"] > 0.6
    assert yaml.safe_load((tmp_path / "out" / records.CONFIG).read_text())["start"] == weights_digest(source)
    run = begun(source, data={"classes": 5}, training=tiny_run().training.model_dump(mode="json"))
    train(run, tmp_path / "again", start=source, accelerator="cpu")
    assert train(run, tmp_path / "again", start=source, accelerator="cpu")["starts"] == 2


def test_codes_are_kept_by_name(tmp_path: Path) -> None:
    """Where new classes sort between the old ones, and where old ones are gone."""
    settings: dict[str, Any] = {"objective": {"name": "center_softmax"}, "centers": {"system": "codes", "dim": 16}}
    train(tiny_run(data={"classes": [2, 5, 7]}, **settings), tmp_path / "source", accelerator="cpu")
    old = lsc.load(tmp_path / "source").task.centers
    for classes in ([1, 2, 5, 6, 7], [7, 5]):
        out = tmp_path / "".join(map(str, classes))
        train(begun(tmp_path / "source", data={"classes": classes}), out, start=tmp_path / "source", accelerator="cpu")
        new = lsc.load(out).task.centers
        assert isinstance(old, CodedCenters)
        assert isinstance(new, CodedCenters)
        for label, digit in enumerate(classes):
            if digit in (2, 5, 7):
                assert torch.equal(new.codes[label], old.codes[[2, 5, 7].index(digit)])


def test_where_no_vector_is_free_new_classes_get_those_of_classes_that_are_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A_2 has six vectors, and all were taken; codes need four vectors for each class."""
    for number, centers in enumerate(({"dim": 3}, {"system": "codes", "dim": 6})):
        objective = {"name": "center_softmax"}
        source = tmp_path / f"source_{number}"
        train(tiny_run(objective=objective, centers=centers), source, accelerator="cpu")
        old = lsc.load(source).task.centers
        assert old is not None
        assert old.room < 3
        classes = [7, 0, 1, 8, 2, 9]
        train(begun(source, data={"classes": classes}), tmp_path / f"on_{number}", start=source, accelerator="cpu")
        new = lsc.load(tmp_path / f"on_{number}").task.centers
        assert new is not None
        vectors = new.vectors(torch.arange(6))
        assert len(torch.unique(vectors, dim=0)) == 6
        assert torch.equal(vectors[[1, 2, 4]], old.vectors(torch.tensor([0, 1, 2])))
        said = "3 classes keep what they had, 3 are new; 3 classes of that run are none of digits's"
        assert said in capsys.readouterr().err
        with pytest.raises(UserError, match="8 classes"):
            train(begun(source, data={"classes": 8}), tmp_path / "more", start=source, accelerator="cpu")


def test_fewer_classes_keep_perturbed_centers(tmp_path: Path) -> None:
    train(tiny_run(centers={"perturbation": 0.1, "dim": 4}), tmp_path / "source", accelerator="cpu")
    train(
        begun(tmp_path / "source", data={"classes": 4}), tmp_path / "on", start=tmp_path / "source", accelerator="cpu"
    )
    old, new = (lsc.load(tmp_path / name).task.centers for name in ("source", "on"))
    assert old is not None
    assert new is not None
    assert new.perturbation == 0.1
    assert torch.equal(new.vectors(torch.arange(4)), old.vectors(torch.arange(4)))


def test_a_run_that_examples_extended_keeps_its_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tiny_run(data={"classes": 4}, objective={"name": "center_softmax"}, centers={"dim": 6})
    train(run, tmp_path / "source", accelerator="cpu")
    images = open_dataset("digits", image_size=8).images("train", torch.arange(3))
    pictures = [picture.permute(1, 2, 0).expand(-1, -1, 3).numpy() for picture in images]
    lsc.load(tmp_path / "source").extend(pictures, ["4", "4", "4"], out=tmp_path / "extended", enrol=True)
    capsys.readouterr()
    for name in ("source", "extended"):
        train(
            begun(tmp_path / name, data={"classes": 6}),
            tmp_path / f"{name}_on",
            start=tmp_path / name,
            accelerator="cpu",
        )
        assert "4 classes keep what they had, 2 are new\n" in capsys.readouterr().err
    scales = [load_task(tmp_path / name).task.objective.state_dict() for name in ("source", "source_on", "extended_on")]
    for found in scales[1:]:
        assert torch.allclose(found["log_scale"], scales[0]["log_scale"], atol=1e-5)


def test_other_weights_are_not_looked_for_where_a_run_begins_with_those_of_another(
    source: Path, tmp_path: Path
) -> None:
    """Nor where it goes on."""
    shutil.copytree(source, tmp_path / "weights")
    settings: dict[str, Any] = {"encoder": {"weights": str(tmp_path / "weights")}, "training": {"duration": "20 steps"}}
    train(tiny_run(data={"classes": [1, 3]}, centers={"dim": 6}, **settings), tmp_path / "tuned", accelerator="cpu")
    shutil.rmtree(tmp_path / "weights")
    train(begun(tmp_path / "tuned"), tmp_path / "on", start=tmp_path / "tuned", accelerator="cpu")
    first, tuned, on = (load_task(folder) for folder in (source, tmp_path / "tuned", tmp_path / "on"))
    assert (first.mean, first.std) == (tuned.mean, tuned.std) == (on.mean, on.std)
    again = train(begun(tmp_path / "tuned"), tmp_path / "on", start=tmp_path / "tuned", accelerator="cpu")
    assert again["starts"] == 2


def test_what_was_trained_goes_before_the_weights_that_it_began_with(source: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"data": {"classes": [2, 5, 7]}, "centers": {"dim": 6}}
    train(tiny_run(encoder={"weights": str(source)}, **changes), tmp_path / "tuned", accelerator="cpu")
    train(begun(tmp_path / "tuned"), tmp_path / "on", start=tmp_path / "tuned", accelerator="cpu")
    first, tuned, on = (
        load_task(folder).task.encoder.state_dict() for folder in (source, tmp_path / "tuned", tmp_path / "on")
    )
    weights = [key for key in tuned if key.startswith("backbone.") and tuned[key].ndim == 4]
    assert all(torch.allclose(on[key], tuned[key], atol=1e-5) for key in weights)
    assert not any(torch.allclose(first[key], tuned[key], atol=1e-3) for key in weights)


def test_a_finished_run_is_never_lost_to_a_training(source: Path, lsc_here: Any, tmp_path: Path) -> None:
    """Its checkpoints may lie elsewhere, or have been deleted; runs by ``lsc extend`` have none."""
    shutil.copytree(source, tmp_path / "kept")
    shutil.rmtree(tmp_path / "kept" / "checkpoints")
    before = {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()}
    shutil.copy(source / records.CONFIG, tmp_path / "run.yaml")
    short = ("--set", "training.duration=3 steps")
    for words, said in (
        (
            ("--config", "run.yaml"),
            "kept: holds a finished run without a checkpoint to go on from; choose another folder",
        ),
        (("--from", "kept"), "kept: the run begins with what is there"),
        (("--from", "kept", "--restart"), "kept: the run begins with what is there"),
        (
            ("--config", "run.yaml", "--set", "encoder.weights=kept", "--restart"),
            "kept: the run begins with what is there",
        ),
        (
            ("--config", "run.yaml", "--set", "encoder.weights=kept/encoder.safetensors", "--restart"),
            "kept: the run begins with what is there",
        ),
    ):
        assert_refused(lsc_here("train", *words, *short, "--out", "kept"), said)
        assert {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir() if path.is_file()} == before
    assert lsc_here("train", "--config", "run.yaml", *short, "--out", "kept", "--restart").returncode == 0
    assert records.read_json(tmp_path / "kept" / records.SUMMARY)["steps"] == 3


def test_what_does_not_fit_is_refused(source: Path, lsc_here: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished run"):
        settings_from(tmp_path)
    with pytest.raises(UserError, match=r"start is None; leave --from out"):
        train(tiny_run(), tmp_path / "out", start=source, accelerator="cpu")
    with pytest.raises(UserError, match=r"give the run with the weights [0-9a-f]{12} as --from"):
        train(begun(source), tmp_path / "out", accelerator="cpu")
    with pytest.raises(UserError, match="holds the weights"):
        train(begun(source, start="0" * 12), tmp_path / "out", start=source, accelerator="cpu")
    with pytest.raises(UserError, match="do not fit the settings"):
        train(begun(source, centers={"dim": 7}), tmp_path / "out", start=source, accelerator="cpu")
    with pytest.raises(UserError, match="do not fit the settings"):
        train(begun(source, centers={"system": "V21"}), tmp_path / "out", start=source, accelerator="cpu")
    with pytest.raises(UserError, match="lifelong begins with its first group"):
        begun(source, lifelong={"groups": 2})
    assert not (tmp_path / "out" / records.SUMMARY).exists()
    assert_refused(lsc_here("train", "--from", "nowhere", "--out", "out"), "nowhere: no finished run")
