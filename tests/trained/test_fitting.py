"""`lsc.fit`: any module on any map-style data set, with the loop and the records of the workflow."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset, TensorDataset

import lsc
from lsc.data.given import Given, labels_of
from lsc.errors import UserError
from lsc.training import loop
from lsc.training.records import RUN_FILES, read_rows

SHORT = {"duration": "4 epochs", "batch_size": 16, "learning_rate": 0.01}
LONG = SHORT | {"duration": "30 epochs", "evaluate_every": 10}


class Blobs(Dataset[Any]):
    """Points around three corners, moved at random whenever they are asked for."""

    def __init__(self, size: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.targets = torch.arange(size) % 3
        self.points = 3 * torch.eye(3)[self.targets] + torch.randn(size, 3, generator=generator)

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        moved = self.points[index] + 0.1 * torch.randn(3) + 0.1 * float(np.random.rand())
        return moved, int(self.targets[index])


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 16), nn.ReLU())


def fit(out: Path, workers: int = 0, training: Any = SHORT) -> lsc.Trained:
    return lsc.fit(network(), Blobs(96), out, test=Blobs(30, seed=1), workers=workers, device="cpu", training=training)


def weights(trained: lsc.Trained) -> dict[str, Tensor]:
    return trained.task.encoder.state_dict()


def test_a_module_learns_and_leaves_a_run(tmp_path: Path) -> None:
    trained = fit(tmp_path / "run", training=LONG)
    assert trained.summary["final_on"] == "test"
    assert trained.summary["final_top1"] > 0.8
    assert {path.name for path in (tmp_path / "run").iterdir()} >= set(RUN_FILES)
    assert len(read_rows(tmp_path / "run" / "metrics.jsonl")) == 30
    points = torch.stack([3 * torch.eye(3)[label] for label in range(3)])
    assert trained.predict(points)[:, 0].tolist() == [0, 1, 2]
    again = lsc.load(str(tmp_path / "run"), backbone=nn.Sequential(nn.Linear(3, 16), nn.ReLU()))
    assert torch.equal(again.embed(points), trained.embed(points))


def test_a_module_that_was_given_is_asked_for_again(tmp_path: Path) -> None:
    fit(tmp_path / "run")
    with pytest.raises(UserError, match=r"encoder given.*Sequential.*backbone="):
        lsc.load(tmp_path / "run")
    with pytest.raises(UserError, match="another configuration"):
        lsc.fit(nn.Linear(3, 8), Blobs(96), tmp_path / "run", test=Blobs(30, seed=1), device="cpu", training=SHORT)


@pytest.mark.parametrize("workers", [0, 2])
def test_it_goes_on_to_the_bit_where_it_was_stopped(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = fit(tmp_path / "straight")
    written = []
    write = loop.write_checkpoint

    def write_and_stop(folder: Path, state: dict[str, Any]) -> None:
        write(folder, state)
        written.append(folder)
        if len(written) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "write_checkpoint", write_and_stop)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "stopped", workers)
    monkeypatch.setattr(loop, "write_checkpoint", write)
    resumed = fit(tmp_path / "stopped", workers)
    assert resumed.summary["starts"] == 2
    assert resumed.summary["final_top1"] == straight.summary["final_top1"]
    for name, value in weights(straight).items():
        assert torch.equal(value, weights(resumed)[name]), name


def test_pictures_become_uint8_tensors_and_are_normalised(tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    pixels = (rng.random((40, 12, 10)) * 60).astype(np.uint8)
    pixels[::2] += 120
    pairs = [(Image.fromarray(array), index % 2) for index, array in enumerate(pixels)]
    data = Given({"train": pairs}, class_names=["bright", "dark"])
    assert data.image_shape == (1, 12, 10)
    images = next(data.eval_batches("train", 40)).images
    assert abs(float(images.mean())) < 0.05
    assert abs(float(images.std()) - 1) < 0.05
    same = [(array, index % 2) for index, array in enumerate(pixels)]
    assert torch.equal(Given({"train": same}).images("train", torch.arange(40)), data.images("train", torch.arange(40)))
    trained = lsc.fit("small_cnn", data, tmp_path / "run", device="cpu", training=SHORT, encoder={"width": 4})
    assert trained.classes == ["bright", "dark"]
    assert trained.predict(data.images("train", torch.arange(4)))[:, 0].tolist() == [0, 1, 0, 1]


def test_a_set_of_ours_is_taken_by_name(tmp_path: Path) -> None:
    data = {"name": "digits", "image_size": 8, "classes": 3}
    settings = {"training": SHORT | {"batch_size": 64}, "encoder": {"width": 4}, "centers": {"dim": 4}}
    trained = lsc.fit("small_cnn", data, tmp_path / "run", device="cpu", **settings)
    assert trained.summary["final_top1"] > 0.5
    assert lsc.load(tmp_path / "run").classes == ["0", "1", "2"]


def test_labels_are_taken_from_where_torch_data_sets_keep_them() -> None:
    tensors = TensorDataset(torch.zeros(6, 2), torch.tensor([0, 1, 2, 0, 1, 2]))
    assert labels_of(tensors, "train").tolist() == [0, 1, 2, 0, 1, 2]
    assert labels_of(Subset(tensors, [5, 0]), "train").tolist() == [2, 0]
    assert labels_of(Blobs(4), "train").tolist() == [0, 1, 2, 0]
    assert labels_of([(0.0, 3), (0.0, 1)], "train").tolist() == [3, 1]


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([], "train set is empty"),
        ([torch.zeros(3)], r"item 0 of train is float32 of shape \(3,\); it must be \(image or tensor, label\)"),
        ([(torch.zeros(3), 0.5), (torch.zeros(3), 1.5)], "labels must be whole numbers"),
        ([("a.png", 0), ("b.png", 1)], "item 0 of train is str"),
        ([(torch.zeros(3), 0), (torch.zeros(4), 1)], r"item 1 of train is float32 of shape \(4,\)"),
        ([(torch.zeros(3), 0), (torch.zeros(3), -1)], "lies outside of 0 to 0"),
        ([(torch.zeros(3), 0)], "two classes at least"),
        (iter([(torch.zeros(3), 0)]), "no length"),
    ],
)
def test_data_that_cannot_be_learned_is_one_line(items: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words) as caught:
        lsc.fit(network(), items, tmp_path / "run", device="cpu", training={"duration": "1 step"})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"objectiv": {"name": "cosine"}}, "lsc.fit.objectiv: unknown key; did you mean objective"),
        ({"objective": {"name": "hinge"}}, "lsc.fit.objective: unknown objective 'hinge'"),
        ({"training": {"duration": "4 weeks"}}, "lsc.fit.training.duration"),
        ({"centers": {"dim": 1}}, "cannot hold"),
    ],
)
def test_settings_are_those_of_a_study(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        lsc.fit(network(), Blobs(96), tmp_path / "run", device="cpu", **settings)


def test_a_network_without_features_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"backbone Unflatten.*not features of shape \(2, F\)"):
        lsc.fit(nn.Unflatten(1, (3, 1)), Blobs(96), tmp_path / "run", device="cpu")
    with pytest.raises(UserError, match="torch module or the name of an encoder, not int"):
        lsc.fit(3, Blobs(96), tmp_path / "run", device="cpu")  # type: ignore[arg-type]


def test_afterwards_torch_computes_and_draws_as_before(tmp_path: Path) -> None:
    model, data = network(), Blobs(96)
    torch.manual_seed(3)
    expected, _ = torch.rand(2), torch.manual_seed(3)
    fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    lsc.fit(model, data, tmp_path / "run", device="cpu", training=SHORT)
    assert torch.equal(torch.rand(2), expected)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory == fills  # type: ignore[attr-defined]


def test_another_thread_may_train(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lsc.fit, network(), Blobs(96), tmp_path / "run", device="cpu", training=SHORT).result()
    assert (tmp_path / "run" / "summary.json").exists()
