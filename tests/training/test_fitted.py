"""Centers that are given anew as a run trains: what moves with them, and everything else that a run may hold."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from lsc.centers import CodedCenters
from lsc.encoders.closed_form import ClosedFormReadout
from lsc.errors import UserError
from lsc.settings import merge
from lsc.training import checkpoints, fitted, records
from lsc.training import loop as training
from lsc.training.loop import begin_phase, train
from lsc.training.optimization import learning_rate
from lsc.training.options import TrainingOptions
from lsc.training.phases import Phase, plan_phases, replay_memory
from lsc.training.run import Run
from lsc.training.session import Session, open_session
from lsc.training.weights import load_task
from tests.conftest import assert_refused, tiny_run
from tests.training.test_last_layer import READOUT
from tests.training.test_training import assert_same, torchrun, train_killed

CENTERS: dict[str, Any] = {"system": "codes", "dim": 24, "fit": {"at": ["3 steps", "8 steps"], "per_class": 5}}


def fitted_run(**changes: Any) -> Run:
    return tiny_run(**merge({"encoder": {"hidden": 24}, "centers": CENTERS}, changes))


def opened(run: Run, folder: Path) -> Session:
    return open_session(
        run, folder, folder / "checkpoints", teacher=None, start=None, restart=False, accelerator="cpu", dataset=None,
        backbone=None, owners=[],
    )  # fmt: skip


def coded(session: Session) -> CodedCenters:
    centers = session.task.centers
    assert isinstance(centers, CodedCenters)
    return centers


@pytest.mark.parametrize(
    ("objective", "readout"),
    [("cosine", READOUT), ("cosine", None), ("center_softmax", None)],
    ids=["closed-form", "cosine", "softmax"],
)
def test_it_learns(objective: str, readout: dict[str, Any] | None, tmp_path: Path) -> None:
    run = fitted_run(
        objective={"name": objective},
        encoder={"width": 8},
        training={"duration": "6 epochs", "batch_size": 64},
        readout=readout,
    )
    assert train(run, tmp_path)["final_top1"] > 0.8
    rows = records.read_rows(tmp_path / records.METRICS)
    assert [row.get("centers_moved", 0) for row in rows] == [2] + [0] * 5
    assert 0 < rows[0]["centers_seconds"] < rows[0]["seconds"]


def test_embeddings_and_centers_move_together(tmp_path: Path) -> None:
    """The map is one and the same for all; the centers are the codes nearest to where it puts the class means."""
    session = opened(fitted_run(training={"ema": 0.9}), tmp_path)
    learner = begin_phase(session, session.phases[0])
    batch = next(session.dataset.train_batches(128, seed=0, epoch=0))
    for _ in range(3):
        learner.step(batch, 0.01)
    tasks = [learner.task.eval(), learner.evaluated.eval()]
    before = [task.encoder(batch.images).double() for task in tasks]
    old = coded(session).codes.clone()
    fitted.move_centers(session, learner)
    after = [task.encoder(batch.images).double() for task in tasks]
    assert not torch.equal(coded(session).codes, old)
    assert torch.equal(learner.evaluated.objective.centers.codes, coded(session).codes)  # type: ignore[union-attr]
    # One affine map, for the task and for the average of its weights: fitted on the one, it holds for the other.
    ones = torch.ones(len(batch.images), 1, dtype=torch.float64)
    found = torch.linalg.lstsq(torch.cat([before[0], ones], 1), after[0], driver="gelsd").solution
    for x, y in zip(before, after, strict=True):
        assert torch.allclose(torch.cat([x, ones], 1) @ found, y, atol=1e-3)
    # What the optimiser remembered of the layer was of other coordinates.
    state = learner.optimizer.optimizer.state
    for parameter, values in state.items():
        forgotten = any(parameter is other for other in session.task.encoder.last.parameters())
        assert all(bool(value.any()) != forgotten for value in values.values())
    # Embeddings are as long as their targets, on average over the images.
    chosen = session.dataset.images("train", every_image(session))
    lengths = session.task.encoder(session.dataset.normalise(chosen)).detach().norm(dim=1)
    assert float(lengths.square().mean()) == pytest.approx(1, rel=1e-4)
    # Class means lie near their centers, nearer than to those of other classes.
    means = fitted.class_means(torch.arange(6), session, every_image(session)).means.float()
    cosines = (
        torch.nn.functional.normalize(means, dim=1) @ coded(session).vectors(torch.arange(6)).T / coded(session).radius
    )
    assert cosines.diagonal().min() > 0.65
    assert torch.equal(cosines.argmax(1), torch.arange(6))


def every_image(session: Session) -> Tensor:
    return replay_memory(session.dataset.labels("train"), 5, session.run.seed)


def test_mean_embeddings_are_those_of_the_images_chosen(tmp_path: Path) -> None:
    session = opened(fitted_run(), tmp_path)
    chosen = every_image(session)
    found = fitted.class_means(torch.tensor([1, 4]), session, chosen)
    assert found.seen.tolist() == [5, 5]
    labels = session.dataset.labels("train")[chosen]
    for mean, label in zip(found.means.float(), (1, 4), strict=True):
        images = session.dataset.images("train", chosen[labels == label])
        embeddings = session.task.eval().encoder(session.dataset.normalise(images))
        assert torch.allclose(mean, embeddings.mean(0), atol=1e-5)


def test_blocks_of_classes_give_what_all_at_once_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = opened(fitted_run(), tmp_path)
    images = every_image(session)
    whole = fitted.class_means(torch.arange(6), session, images)
    matrix, origin = fitted.whitening(whole.means, 0.4)
    codes = fitted._codes(session.task, 0, [whole], matrix, origin)
    monkeypatch.setattr(fitted, "_CLASSES_AT_ONCE", 4)
    assert torch.equal(fitted._codes(session.task, 0, fitted._blocks(session, images, 0), matrix, origin), codes)
    # Then the whitening is that of a part of the classes.
    fitted.move_centers(session, begin_phase(session, session.phases[0]))
    assert len(coded(session).codes.unique(dim=0)) == 6


def test_classes_without_images_get_random_codes(tmp_path: Path) -> None:
    session = opened(fitted_run(), tmp_path)
    found = fitted.class_means(torch.arange(6), session, every_image(session))
    found.seen[2] = 0
    codes = fitted._codes(session.task, 0, [found], *fitted.whitening(found.means, 0.4))
    assert torch.equal(codes[2], CodedCenters(coded(session).system, 6, seed=coded(session).seed).codes[2])


def test_moved_sums_are_solved_by_the_moved_layer() -> None:
    """Of one process's part of the sums and of another's, added up."""
    torch.manual_seed(0)
    parts = [ClosedFormReadout(6, 3, lambda labels: torch.eye(3)[labels]) for _ in range(2)]
    layer = torch.nn.Linear(6, 3)
    for part in parts:
        part.update(torch.randn(40, 6), torch.randint(3, (40,)))
        part.expect(layer)
    parts[0].gram += parts[1].gram
    parts[0].cross += parts[1].cross
    weight, bias = parts[0].solve()
    assert torch.allclose(weight, layer.weight, atol=1e-5)
    assert torch.allclose(bias, layer.bias, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": {"name": "center_softmax"}},
        {"readout": READOUT},
        {"readout": {**READOUT, "sums": "passes"}},
        {"training": {"ema": 0.9, "accumulate": 2}},
        {"training": {"optimizer": "sgd", "precision": "bfloat16"}, "encoder": {"hidden": None}},
    ],
    ids=["plain", "running-sums", "passes", "ema-accumulated", "sgd-bfloat16"],
)
def test_it_resumes_to_the_bit(changes: dict[str, Any], tmp_path: Path) -> None:
    run = fitted_run(**merge(changes, {"training": {"checkpoint_minutes": 1e-9}}))  # after every step
    train(run, tmp_path / "whole")

    train_killed(run, tmp_path / "killed", 3)  # as the centers have moved
    train_killed(run, tmp_path / "killed", 4)  # between this and the next time
    train(run, tmp_path / "killed")
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_the_codes_of_a_finished_run_are_restored(tmp_path: Path) -> None:
    train(fitted_run(), tmp_path)
    saved = load_file(tmp_path / records.OBJECTIVE)["centers.codes"]
    assert saved.dtype == torch.uint8
    assert saved.shape == (6, 6)
    centers = load_task(tmp_path).task.centers
    assert isinstance(centers, CodedCenters)
    assert torch.equal(centers.codes, saved)


def test_a_student_has_the_codes_of_its_teacher(tmp_path: Path) -> None:
    train(fitted_run(), tmp_path / "teacher")
    student = fitted_run(centers={"fit": None}, seed=1, teacher={"run": "own/own"})
    train(student, tmp_path / "student", teacher=tmp_path / "teacher")
    codes = [load_file(tmp_path / name / records.OBJECTIVE)["centers.codes"] for name in ("teacher", "student")]
    assert torch.equal(*codes)
    student = fitted_run(centers={"fit": None, "dim": 28}, teacher={"run": "own/own", "targets": "class_means"})
    with pytest.raises(UserError, match="the teacher's codes have 24 coordinates"):
        train(student, tmp_path / "other", teacher=tmp_path / "teacher")


def test_instances_get_the_vectors_nearest_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One image per class: the assignment of Noise As Targets."""
    near: list[float] = []
    move = fitted.move_centers

    def move_and_look(session: Session, learner: Any) -> None:
        move(session, learner)
        labels = torch.arange(session.dataset.num_classes)
        found = fitted.class_means(labels, session, labels)
        assert (found.seen == 1).all()
        near.append(float(torch.cosine_similarity(found.means.detach(), coded(session).vectors(labels)).mean()))

    monkeypatch.setattr(training, "move_centers", move_and_look)
    run = fitted_run(data={"name": "instances", "of": {"name": "digits", "image_size": 8}}, centers={"dim": 64})
    train(run, tmp_path)
    assert len(near) == 2
    assert min(near) > 0.85


@pytest.mark.slow
def test_two_processes_move_as_one_does(tmp_path: Path) -> None:
    run = fitted_run(training={"optimizer": "sgd"}, readout=READOUT)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run.plain()))
    done = torchrun(2, tmp_path, "train", "--config", "run.yaml", "--out", "two", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    train(run, tmp_path / "one", accelerator="cpu")
    codes = [load_file(tmp_path / name / records.OBJECTIVE)["centers.codes"] for name in ("one", "two")]
    assert torch.equal(codes[0], codes[1])
    for first, second in zip(
        *(records.read_rows(tmp_path / name / records.METRICS) for name in ("one", "two")), strict=True
    ):
        assert first.get("centers_moved") == second.get("centers_moved")
        assert first["train_loss"] == pytest.approx(second["train_loss"], rel=1e-3)
        assert first["top1"] == pytest.approx(second["top1"], abs=0.02)
    state = checkpoints.read_checkpoint(tmp_path / "two" / "checkpoints")
    assert state is not None
    assert state["progress"]["moves"] == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"centers": {"system": "V22"}}, "centers.fit: in V22 no vector is near.*set centers.system to codes"),
        ({"centers": {"dim": None}}, "centers.dim: the system codes has no least dimension"),
        ({"centers": {"perturbation": 0.1}}, "leave centers.perturbation and centers.assignment out"),
        ({"centers": {"fit": {"at": []}}}, "centers.fit.at"),
        ({"centers": {"fit": {"power": 0.6}}}, "centers.fit.power"),
        ({"objective": {"name": "euclidean"}}, "take center_softmax or cosine"),
        ({"objective": {"name": "orbit_softmax"}}, "take center_softmax or cosine"),
        ({"objective": {"name": "cross_entropy"}}, "cross_entropy has no centers to move"),
        ({"teacher": {"run": "own/own"}}, "centers.fit moves the whole latent space"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        fitted_run(**changes)


def test_a_time_after_the_end_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    run = fitted_run(centers={"fit": {"at": ["1 step", "3 epochs"]}})
    with pytest.raises(UserError, match=r"centers.fit.at: 3 epochs is no time within the training"):
        train(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("classes", "duration", "moves"),
    [(6, "9 epochs", [10, 20, 40]), (6, "20 epochs", [10, 20, 40, 80]), (10, "19 steps", []), (10, "21 steps", [10])],
)
def test_where_nothing_is_said_they_move_early(classes: int, duration: str, moves: list[int]) -> None:
    run = fitted_run(
        data={"classes": classes}, centers={"fit": {"at": None}}, training={"duration": duration, "batch_size": 96}
    )
    assert sorted(plan_phases(run, run.data.open())[0].moves) == moves


def test_the_rate_rises_again_after_a_move() -> None:
    phase = Phase(0, 0, 400, 0, 40, 0, 6, None, moves=frozenset({40, 60}))
    still = dataclasses.replace(phase, moves=frozenset())
    options = TrainingOptions(warmup="0 steps")
    shares = [learning_rate(step, phase, options) / learning_rate(step, still, options) for step in range(100)]
    assert shares[:40] == [1.0] * 40
    assert shares[40:60] == pytest.approx([(since + 1) / 15 for since in range(15)] + [1.0] * 5)
    assert shares[60:] == pytest.approx([(since + 1) / 15 for since in range(15)] + [1.0] * 25)


def test_codes_alone_train_and_hold_classes_that_come_later(tmp_path: Path) -> None:
    run = fitted_run(centers={"fit": None}, lifelong={"groups": 2, "replay": 5})
    train(run, tmp_path)
    assert "centers_moved" not in records.read_rows(tmp_path / records.METRICS)[0]
    assert len(load_file(tmp_path / records.OBJECTIVE)["centers.codes"].unique(dim=0)) == 6


@pytest.mark.parametrize("sums", [True, False], ids=["sums", "steps"])
def test_classes_of_later_groups_get_the_codes_nearest_to_their_means(
    sums: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the latent space is when they come; the older classes keep theirs, and a run that is resumed gives the same ones."""
    joined: list[tuple[int, Tensor, Tensor, Tensor]] = []
    join = fitted.join

    def join_and_look(session: Session, first: int) -> None:
        old = coded(session).codes[:first].clone()
        means = fitted.class_means(torch.arange(first, 6), session, every_image(session)).means
        join(session, first)
        joined.append((first, old, means, coded(session).codes.clone()))

    monkeypatch.setattr(training, "join", join_and_look)
    run = fitted_run(
        objective={"name": "center_softmax"},
        lifelong={"groups": 2, "sums": True} if sums else {"groups": 2, "replay": 5},
        training={"checkpoint_minutes": 1e-9},
    )
    train(run, tmp_path / "whole")
    ((first, old, means, codes),) = joined
    assert first == 3
    assert torch.equal(codes[:3], old)
    centers = load_task(tmp_path / "whole").task.centers
    assert isinstance(centers, CodedCenters)
    assert torch.equal(centers.codes, codes)
    cosines = torch.nn.functional.normalize(means.float(), dim=1) @ centers.vectors(torch.arange(6)).T / centers.radius
    assert torch.equal(cosines[:, 3:].argmax(1), torch.arange(3))
    assert cosines[:, 3:].diagonal().min() > 0.65
    # The centers moved within the first group alone.
    rows = records.read_rows(tmp_path / "whole" / records.METRICS)
    assert {row["phase"] for row in rows if "centers_moved" in row} == {0}

    for moment in (9, 4, 1):  # towards the end of the first group, then before the second one or as it has come
        train_killed(run, tmp_path / "killed", moment)
    train(run, tmp_path / "killed")
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_runs_without_it_are_what_they_were() -> None:
    run = tiny_run()
    plain = run.plain()
    assert plain["centers"].pop("fit") is None
    assert Run.model_validate(plain).digest == run.digest
    assert run.digest == "48e3218792d7"
    assert fitted_run().digest != fitted_run(centers={"fit": None}).digest


def test_a_user_trains_and_uses_one(lsc_here: Any, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(fitted_run().plain()))
    words = ["train", "--config", "run.yaml", "--out", "out", "--set"]
    done = lsc_here(*words, "centers.fit={at: [0.5 epochs, 1 epoch], power: 0.3}")
    assert done.returncode == 0, done.stderr
    used = yaml.safe_load((tmp_path / "out" / records.CONFIG).read_text())["centers"]["fit"]
    assert used == {"at": ["0.5 epochs", "1 epochs"], "per_class": 5, "power": 0.3}
    assert sum(row.get("centers_moved", 0) for row in records.read_rows(tmp_path / "out" / records.METRICS)) == 2
    assert lsc_here("evaluate", "out").returncode == 0
    assert_refused(lsc_here(*words, "centers.fit={at: [soon]}"), "centers.fit.at", "'soon' is no duration")
