"""Data sets of torch as they are given: their labels, pictures of every kind, and what is drawn outside of them."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from lsc.data.decoding import decode
from lsc.data.given import Given, as_tensor, labels_of
from lsc.errors import UserError
from tests.data.images import picture


class Kept(Dataset[Any]):
    """A data set as torchvision's are: ``targets`` as stored, and items whose labels are transformed."""

    classes = ("cat", "dog", "emu", "fox")

    def __init__(self, transform: Any = None, wrapped: Any = None, size: int = 40) -> None:
        self.targets = [index % 4 for index in range(size)]
        self.target_transform, self._wrapped = transform, wrapped

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        label = self.targets[index]
        for change in filter(None, (self.target_transform, self._wrapped)):
            label = change(label)
        return torch.rand(3), label


@pytest.mark.parametrize("way", ["transform", "wrapped"])
def test_labels_are_those_of_the_items(way: str) -> None:
    def reversed_of(label: int) -> int:
        return 3 - label

    items = Kept(**{way: reversed_of})
    assert labels_of(items, "train").tolist() == [3 - index % 4 for index in range(40)]
    assert labels_of(Subset(items, [5, 0]), "train").tolist() == [2, 3]
    assert Given({"train": items}).class_names is None
    assert Given({"train": items}, class_names=list("abcd")).class_names == list("abcd")
    assert Given({"train": Kept(**{way: lambda label: label})}).class_names == ["cat", "dog", "emu", "fox"]
    assert Given({"train": Kept()}).class_names == ["cat", "dog", "emu", "fox"]


def test_names_of_classes_are_kept_where_a_set_has_items_alone() -> None:
    items = Kept()
    items.targets, labels = None, items.targets  # type: ignore[assignment]
    items.__class__ = type(
        "Bare", (Kept,), {"__len__": lambda _: 40, "__getitem__": lambda _, i: (torch.zeros(3), labels[i])}
    )
    assert Given({"train": items}).class_names == ["cat", "dog", "emu", "fox"]
    items.target_transform = lambda label: label
    assert Given({"train": items}).class_names is None


def test_few_items_are_read_where_targets_agree() -> None:
    read = []
    labels_of(Kept(wrapped=lambda label: read.append(label) or label, size=1000), "train")
    assert len(read) == 16


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("cat", "'cat'"),
        (None, "NoneType"),
        (torch.zeros(2), r"float32 of shape \(2,\)"),
        (2**70, "int"),
        ([1, 2], "list"),
    ],
)
def test_labels_that_are_no_numbers_are_named(label: Any, said: str) -> None:
    items = [(torch.zeros(3), 0), (torch.zeros(3), 1), (torch.zeros(3), label)]
    with pytest.raises(UserError, match=rf"the label of item 2 of train is {said}: give whole numbers from 0 to C - 1"):
        labels_of(items, "train")
    named = Kept()
    named.targets = ["cat"] * 40  # type: ignore[list-item]
    with pytest.raises(UserError, match="the label of item 0 of train is 'cat': give whole numbers"):
        labels_of(named, "train")


def test_nothing_outside_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the generators of the GPUs, which the training draws from, nor those of the CPU."""
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda _: pytest.fail("the GPUs were seeded"))
    monkeypatch.setattr(torch, "manual_seed", lambda _: pytest.fail("more than the CPU was seeded"))
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[union-attr, index]
    data = Given({"train": Kept()})
    first, again = (data.images("train", torch.arange(4)) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]  # type: ignore[union-attr, index]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "I;16", "I"])
def test_pictures_are_taken_as_files_are(mode: str, tmp_path: Any) -> None:
    image = picture().convert("L" if mode.startswith("I") else mode)
    if mode.startswith("I"):
        levels = np.array(image).astype(np.int32 if mode == "I" else np.uint16) * 257
        image = Image.fromarray(levels)
        assert image.mode == mode
    found = as_tensor(image, "it")
    image.save(tmp_path / "x.tif")
    expected = decode((tmp_path / "x.tif").read_bytes(), "", "")
    if mode == "YCbCr":
        expected = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    assert found.dtype == torch.uint8
    assert len(found) == (1 if mode in ("1", "L") or mode.startswith("I") else 3)
    assert torch.equal(found.expand(3, -1, -1), expected)


def test_pictures_of_unknown_range_are_refused() -> None:
    for mode in ("F", "LAB"):
        with pytest.raises(
            UserError, match=f"item 0 of train is a PIL image of mode {mode}, of no known range: make it"
        ):
            as_tensor(Image.new(mode, (3, 2)), "item 0 of train")


def test_floats_are_taken_as_they_are_whatever_statistics_weights_want() -> None:
    floats, labels = torch.randn(12, 3, 4, 4), torch.arange(12) % 3
    for images, is_normalised in ((floats, False), ((floats * 40 + 120).clamp(0, 255).to(torch.uint8), True)):
        data = Given({"train": TensorDataset(images, labels)})
        assert data.is_normalised == is_normalised
        changed = data.normalised_by((0.5,) * 3, (0.2,) * 3)
        found = next(iter(changed.eval_batches("train", 12))).images
        expected = (images / 255 - 0.5) / 0.2 if is_normalised else images
        assert torch.allclose(found, expected, atol=1e-5)


def test_arrays_may_be_read_backwards_and_others_are_refused() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    expected = torch.from_numpy(colours[:, ::-1].copy()).permute(2, 0, 1)
    assert torch.equal(as_tensor(colours[:, ::-1], "it"), expected)
    assert torch.equal(as_tensor(colours.astype(np.float32).transpose(2, 0, 1)[:, :, ::-1], "it"), expected.float())
    assert torch.equal(as_tensor(colours[:, ::-1, 0], "it"), expected[:1])
    for shape in ((5,), (2, 5, 4, 3)):
        with pytest.raises(UserError, match="item 3 of train is ndarray: give a uint8 tensor"):
            as_tensor(np.zeros(shape, np.uint8), "item 3 of train")
