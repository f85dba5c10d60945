"""Distillation and lifelong learning as settings of the one loop, and a trained run in use."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.io import write_png

from lsc.data import open_dataset
from lsc.data.trees import write_imagenet_tree
from lsc.errors import UserError
from lsc.training import records
from lsc.training.class_means import mean_images
from lsc.training.evaluation import Sample, auroc, neighbour_accuracy
from lsc.training.loop import train
from lsc.training.phases import class_groups, plan_phases, replay_memory
from lsc.training.run import run_from
from lsc.training.weights import Restored, load_task
from tests.conftest import assert_refused, tiny_run
from tests.training.test_training import assert_same, train_killed


def accuracy(trained: Restored) -> float:
    """Top-1 on the test split, counted here."""
    hits = [
        trained.task.objective.predict(trained.task.encoder(batch.images), 1)[:, 0] == batch.labels
        for batch in open_dataset(trained.run.data).eval_batches("test", 100)
    ]
    return torch.cat(hits).float().mean().item()


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teachers")
    changes: dict[str, Any] = {"encoder": {"width": 8}, "training": {"duration": "6 epochs"}}
    train(tiny_run(**changes), folder / "cosine")
    train(tiny_run(**changes, objective={"name": "cross_entropy"}), folder / "cross_entropy")
    return folder


@pytest.mark.parametrize(
    ("teacher", "changes"),
    [
        ("cosine", {"teacher": {"run": "a/b", "labels_weight": 0}}),
        ("cosine", {"teacher": {"run": "a/b"}}),
        ("cross_entropy", {"teacher": {"run": "a/b", "targets": "logits"}, "objective": {"name": "cross_entropy"}}),
        ("cross_entropy", {"teacher": {"run": "a/b", "targets": "class_means"}, "centers": {"system": "teacher"}}),
    ],
    ids=["embeddings-alone", "both", "soft-logits", "class-means"],
)
def test_a_student_learns_from_its_teacher(
    teachers: Path, teacher: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    run = tiny_run(**changes, training={"duration": "30 epochs"})
    summary = train(run, tmp_path / "student", teacher=teachers / teacher)
    assert summary["final_top1"] > 2 / 6
    # The teacher's weights are not the student's to save, and the student can be used without it.
    student = load_task(tmp_path / "student")
    expected = summary["encoder_parameters"]
    assert sum(parameter.numel() for parameter in student.task.encoder.parameters()) == expected
    assert accuracy(student) == pytest.approx(summary["final_top1"])


def test_a_teacher_sees_images_as_it_was_trained_on_them(teachers: Path) -> None:
    """Where the student's data set, or the weights that the student starts from, have other statistics."""
    taught = load_task(teachers / "cosine")
    data = open_dataset(taught.run.data)
    others = data.normalised_by((0.0,), (1.0,))
    usual, plain = (next(iter(each.eval_batches("test", 50))).images for each in (data, others))
    assert 0 <= plain.min() < plain.max() <= 1
    expected = taught.task.encoder(usual)
    for each, images in ((others, plain), (data, usual), (others, plain), (others, plain)):
        taught.sees(each)
        assert torch.allclose(taught.task.encoder(images), expected, atol=1e-5)


def test_views_of_instances_are_normalised_by_the_statistics_of_weights() -> None:
    data = open_dataset("instances", of={"name": "digits", "image_size": 8}, limit=20)
    before = next(iter(data.eval_batches("train", 20))).images
    plain = next(iter(data.normalised_by((0.0,), (1.0,)).eval_batches("train", 20))).images
    assert 0 <= plain.min() < plain.max() <= 1
    assert torch.equal(next(iter(data.eval_batches("train", 20))).images, before)
    assert torch.allclose(before * data.std[0] + data.mean[0], plain, atol=1e-6)


def test_a_teacher_of_other_names_teaches_embeddings_alone(teachers: Path, tmp_path: Path) -> None:
    data = {"classes": [0, 1, 2, 3, 4, 9]}
    alone = {"run": "a/b", "labels_weight": 0}
    run = tiny_run(teacher=alone, data=data, training={"duration": "1 step", "warmup": "0 steps"})
    train(run, tmp_path / "alone", teacher=teachers / "cosine")
    for name, changes in (
        ("embeddings", {}),
        ("logits", {"objective": {"name": "cross_entropy"}}),
        ("class_means", {"centers": {"system": "teacher"}}),
    ):
        run = tiny_run(teacher={"run": "a/b", "targets": name}, data=data, **changes)
        with pytest.raises(UserError, match=r"its class 5 is '5', but run .* has '9' there; from a teacher"):
            train(run, tmp_path / name, teacher=teachers / ("cosine" if name == "embeddings" else "cross_entropy"))
        assert not (tmp_path / name).exists()


def test_a_teacher_of_another_dimension_is_refused(teachers: Path, tmp_path: Path) -> None:
    run = tiny_run(teacher={"run": "a/b"}, centers={"dim": 5})
    with pytest.raises(Exception, match="3 coordinates, these 5"):
        train(run, tmp_path, teacher=teachers / "cosine")


def test_a_teacher_of_other_images_or_classes_is_refused(teachers: Path, tmp_path: Path) -> None:
    for data, what in (({"image_size": 16}, "image shape"), ({"classes": 5}, "number of classes")):
        run = tiny_run(teacher={"run": "a/b"}, data=data, encoder={"width": 8})
        with pytest.raises(UserError, match=f"its {what} is"):
            train(run, tmp_path, teacher=teachers / "cosine")
    assert list(tmp_path.iterdir()) == []


def test_a_student_does_not_go_on_with_another_teacher(teachers: Path, tmp_path: Path) -> None:
    train(tiny_run(encoder={"width": 4}, training={"duration": "1 epoch"}), tmp_path / "other")
    run = tiny_run(teacher={"run": "a/b"})
    train(run, tmp_path / "student", teacher=teachers / "cosine")
    with pytest.raises(UserError, match="taught_by"):
        train(run, tmp_path / "student", teacher=tmp_path / "other")


@pytest.mark.parametrize("objective", ["cosine", "cross_entropy"])
def test_classes_arrive_in_groups(objective: str, tmp_path: Path) -> None:
    run = tiny_run(
        objective={"name": objective},
        lifelong={"groups": 3, "replay": 5},
        centers={"dim": 4},
        training={"duration": "4 epochs", "batch_size": 32},
    )
    summary = train(run, tmp_path)
    rows = [row for row in records.read_rows(tmp_path / records.METRICS) if "top1" in row]
    last = [[row for row in rows if row["phase"] == phase][-1] for phase in range(3)]
    assert [row["classes_seen"] for row in last] == [2, 4, 6]
    # A group has no accuracy before it came.
    assert last[0]["group_top1"][1:] == [None, None]
    assert all(value is not None for value in last[2]["group_top1"])
    assert last[0]["group_top1"][0] > 0.8
    assert 0 <= last[0]["novelty_auroc"] <= 1
    assert ("vacant_new" in last[0]) == (objective == "cosine")
    assert load_task(tmp_path).task.objective.num_classes == 6
    grown = 6 * (4 + 1) if objective == "cross_entropy" else 0
    assert summary["objective_parameters"] == grown


@pytest.mark.parametrize("writes", [13, 14])
def test_a_run_is_resumed_within_a_later_group(writes: int, tmp_path: Path) -> None:
    """Nine steps and three ends of epochs are of the first group; then the account of an epoch is that of the second."""
    run = tiny_run(lifelong={"groups": 2, "replay": 5}, training={"checkpoint_minutes": 1e-9})
    train(run, tmp_path / "whole")
    train_killed(run, tmp_path / "killed", writes)
    train(run, tmp_path / "killed")
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_lifelong_phases_see_new_classes_and_the_memory_alone() -> None:
    run = tiny_run(lifelong={"groups": 3, "replay": 5}, training={"batch_size": 32})
    dataset = open_dataset(run.data)
    labels = dataset.labels("train")
    assert run.lifelong is not None
    assert class_groups(6, run.lifelong).tolist() == [0, 0, 1, 1, 2, 2]
    phases = plan_phases(run, dataset)
    for phase in phases:
        assert phase.subset is not None
        counts = torch.bincount(labels[phase.subset], minlength=6).tolist()
        new = 2 * phase.index
        assert counts[:new] == [5] * new
        assert counts[new : new + 2] == torch.bincount(labels)[new : new + 2].tolist()
        assert counts[new + 2 :] == [0] * (4 - new)
    assert [(phase.start, phase.first_epoch) for phase in phases[1:]] == [(phases[0].end, 3), (phases[1].end, 6)]
    # The memory of a class is the same at every start.
    assert torch.equal(replay_memory(labels, 5, 0), replay_memory(labels, 5, 0))


def test_classes_that_come_in_groups_of_their_own_arrive_so() -> None:
    letters = {"name": "glyphs", "characters": ["U+0041-U+0045", "U+0061-U+0062"], "image_size": 8}
    run = tiny_run(data=letters, lifelong={"groups": 2}, training={"batch_size": 8})
    assert run.lifelong is not None
    dataset = open_dataset(run.data)
    assert dataset.group_sizes == (5, 2)
    assert class_groups(7, run.lifelong, dataset.group_sizes).tolist() == [0] * 5 + [1] * 2
    labels = dataset.labels("train")
    phases = plan_phases(run, dataset)
    assert [phase.num_classes for phase in phases] == [5, 7]
    assert [sorted(set(labels[phase.subset].tolist())) for phase in phases] == [[0, 1, 2, 3, 4], [5, 6]]
    with pytest.raises(UserError, match="groups: 3, and the data set's classes come in 2 groups"):
        plan_phases(tiny_run(data=letters, lifelong={"groups": 3}), dataset)


@pytest.mark.parametrize(("size", "side"), [(8, 16), (16, 16), (32, 16), (24, 7)])
def test_mean_images_are_averages_and_stay_small(size: int, side: int) -> None:
    dataset = open_dataset(tiny_run(data={"image_size": size}).data)
    means = mean_images(dataset, per_class=5, side=side)
    small = min(size, side)
    assert means.shape == (6, small * small)
    chosen = (dataset.labels("train") == 4).nonzero()[:5, 0]
    images = dataset.images("train", chosen).float()
    assert torch.allclose(means[4].mean(), images.mean(), rtol=0.05)
    if size % small == 0:
        blocks = images.mean(0)[0].reshape(small, size // small, small, size // small)
        assert torch.allclose(means[4].view(small, small), blocks.mean((1, 3)))


def test_auroc_against_counting_pairs() -> None:
    positive, negative = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([0.0, 2.0])
    assert auroc(positive, negative) == pytest.approx((2 + 1 + 1.5) / 6)


def test_neighbours_vote() -> None:
    def sample(points: list[list[float]], labels: list[int]) -> Sample:
        return Sample(torch.tensor(points).float(), torch.tensor(labels), torch.arange(len(labels)))

    known = sample([[1, 0], [2, 0.1], [0, 1], [0.1, 3]], [0, 0, 1, 1])
    assert neighbour_accuracy(known, sample([[9, 1], [1, 9]], [0, 1]), 1) == 1.0
    assert neighbour_accuracy(known, sample([[9, 1], [1, 9]], [1, 1]), 1) == 0.5


def test_classes_that_changed_since_the_training_are_noticed(lsc_here: Any, tmp_path: Path) -> None:
    write_imagenet_tree(tmp_path / "tree", num_classes=3, train_per_class=4, val_per_class=2, image_size=32)
    for old, new in (("val", "test"), ("train", "train")):
        (tmp_path / "tree" / old).rename(tmp_path / "tree" / new)
    data = {"name": "folder", "root": str(tmp_path / "tree"), "image_size": 16, "workers": 0}
    run = run_from(
        {"data": data, "encoder": {"width": 4}, "training": {"duration": "2 epochs", "batch_size": 4, "embeddings": 0}}
    )
    train(run, tmp_path / "run")
    assert lsc_here("evaluate", tmp_path / "run").returncode == 0
    for split in ("train", "test"):
        first = sorted((tmp_path / "tree" / split).iterdir())[0]
        first.rename(first.with_name("zebra"))
    assert_refused(lsc_here("evaluate", tmp_path / "run"), "other classes", "train again")
    with pytest.raises(UserError, match="dataset"):
        train(run, tmp_path / "run")
    # With training images alone, each would be its own nearest neighbour.
    shutil.rmtree(tmp_path / "tree" / "test")
    alone = run.model_copy(update={"training": run.training.model_copy(update={"neighbours": 1})})
    with pytest.raises(UserError, match="its own neighbour"):
        train(alone, tmp_path / "alone")


def test_what_an_earlier_training_left_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    train(tiny_run(training={"duration": "1 epoch"}), tmp_path)
    with pytest.raises(UserError, match="not finite"):
        train(tiny_run(training={"learning_rate": 1e30, "clip_norm": None}), tmp_path, restart=True)
    assert not (tmp_path / records.SUMMARY).exists()
    with pytest.raises(UserError, match="no finished run"):
        load_task(tmp_path)


def test_evaluate_and_predict_on_the_command_line(lsc_here: Any, teachers: Path, tmp_path: Path) -> None:
    done = lsc_here("evaluate", teachers / "cosine", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    summary = records.read_json(teachers / "cosine" / records.SUMMARY)
    assert found["top1"] == summary["final_top1"]
    dataset = open_dataset(tiny_run().data)
    for place in range(3):
        write_png(dataset.images("test", torch.tensor([place]))[0], str(tmp_path / f"{place}.png"))
    done = lsc_here("predict", teachers / "cosine", "0.png", "1.png", "2.png", "--k", "2")
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == ["0.png", "1.png", "2.png"]
    assert all(len(line) == 3 and line[1] != line[2] and line[1] in "012345" for line in lines)
    (tmp_path / "text.png").write_text("no image")
    done = lsc_here("predict", teachers / "cosine", "text.png")
    assert done.returncode == 1
    assert "text.png does not decode" in done.stderr
    assert_refused(lsc_here("predict", "nowhere", "0.png"), "nowhere", "no finished run")
    assert_refused(lsc_here("evaluate", teachers / "cosine", "--split", "valid"), "valid", "train, test")


def test_a_run_with_a_validation_split_is_judged_by_the_test(tmp_path: Path) -> None:
    run = tiny_run(data={"valid_share": 0.2}, training={"neighbours": 5})
    summary = train(run, tmp_path)
    assert (summary["scored_on"], summary["final_on"]) == ("valid", "test")
    assert summary["best_top1"] == max(row["top1"] for row in records.read_rows(tmp_path / records.METRICS))
    assert summary["final_top1"] == pytest.approx(accuracy(load_task(tmp_path)))
    assert summary["neighbour_top1"] > 2 / 6


def test_instances_transfer_to_the_labels_of_their_set(tmp_path: Path) -> None:
    instances = {"name": "instances", "of": {"name": "digits", "image_size": 8, "classes": 6}, "limit": 200}
    run = tiny_run(data=instances, centers={"system": "V22"}, training={"batch_size": 50, "neighbours": 5})
    summary = train(run, tmp_path)
    assert summary["num_classes"] == 200
    assert summary["neighbour_top1"] > 2 / 6


def test_transfer_is_judged_on_classes_that_were_never_seen(tmp_path: Path) -> None:
    seen = {"name": "digits", "image_size": 8, "classes": [0, 1, 2, 3, 4, 5]}
    other = {"name": "digits", "image_size": 8, "classes": [6, 7, 8, 9]}
    run = tiny_run(data=seen, training={"neighbours": 5, "transfer": other})
    summary = train(run, tmp_path / "run")
    assert summary["neighbour_on"] == "4 classes of digits"
    assert summary["neighbour_top1"] > 2 / 4
    larger = tiny_run(data=seen, training={"neighbours": 5, "transfer": other | {"image_size": 16}})
    with pytest.raises(UserError, match=r"training\.transfer: images of digits have shape \(1, 16, 16\)"):
        train(larger, tmp_path / "larger")
    assert not (tmp_path / "larger").exists()


def test_mean_images_are_those_of_one_class_after_another_to_the_bit() -> None:
    """Whatever is looked at together; of fewer images than wanted all count, and a class without images is black."""
    dataset = open_dataset("digits", image_size=16)
    for per_class in (1, 7, 1000):
        means = mean_images(dataset, per_class=per_class, side=8)
        labels = dataset.labels("train")
        for label in range(10):
            chosen = (labels == label).nonzero()[:per_class, 0]
            whole = dataset.images("train", chosen).float().mean(0)
            assert torch.equal(means[label], torch.nn.functional.adaptive_avg_pool2d(whole, (8, 8)).flatten())


def test_classes_alike_are_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on takes the assignment out of its checkpoint."""
    from lsc.training import building

    looks: list[int] = []

    def counted(*arguments: Any) -> torch.Tensor:
        looks.append(1)
        return mean_images(*arguments)

    monkeypatch.setattr(building, "mean_images", counted)
    run = tiny_run(centers={"assignment": "similarity"}, training={"duration": "2 epochs"})
    first = train(run, tmp_path)
    assert len(looks) == 1
    (tmp_path / records.SUMMARY).unlink()
    assert train(run, tmp_path)["final_top1"] == first["final_top1"]
    assert len(looks) == 1


@pytest.mark.parametrize("instances", [False, True])
def test_mean_images_of_a_gpu_are_the_same(instances: bool) -> None:
    from lsc.training.class_means import mean_images_on
    from tests.standin import pretended_gpu
    from tests.training.test_device_waits import OneGPU

    of = {"name": "fractals", "num_classes": 9, "image_size": 16, "train_per_class": 4, "augment": {"crop_padding": 2}}
    options = {"name": "instances", "of": of} if instances else of
    dataset = open_dataset(**options)  # type: ignore[arg-type]
    expected = mean_images(dataset, per_class=3, side=8)
    with pretended_gpu():
        means = mean_images_on(dataset, OneGPU(), per_class=3, side=8)  # type: ignore[arg-type]
    torch.testing.assert_close(means, expected, atol=1e-3, rtol=1e-4)
