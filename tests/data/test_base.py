"""The promises every data set keeps: batches are pure functions of (seed, epoch, step), shared out without overlap."""

import math
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import pytest
import torch

from lsc.data import open_dataset, parse_options
from lsc.data.augment import NUM_DRAWS, random_views
from lsc.data.base import Batch, Dataset, Request, TrainingRequests, epoch_order, with_draws
from lsc.data.digits import DigitsOptions
from lsc.data.memory import MemoryDataset, Split
from lsc.data.options import Augmentation
from lsc.errors import UserError


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return open_dataset("digits", valid_share=0.1, augment={"crop_padding": 2, "flip": True, "rotation": 10.0})


def join(batches: Iterable[Batch]) -> Batch:
    return Batch(*(torch.cat(parts) for parts in zip(*batches, strict=True)))


def same(left: Batch, right: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_a_batch_depends_on_seed_epoch_and_step_alone(digits: Dataset) -> None:
    first = list(digits.train_batches(100, seed=1, epoch=2))
    assert len(first) == digits.steps_per_epoch(100)
    assert all(same(a, b) for a, b in zip(first, digits.train_batches(100, seed=1, epoch=2), strict=True))
    assert not same(first[0], next(iter(digits.train_batches(100, seed=1, epoch=3))))
    assert not same(first[0], next(iter(digits.train_batches(100, seed=2, epoch=2))))


def test_skipping_equals_a_restart_in_the_middle_of_an_epoch(digits: Dataset) -> None:
    whole = list(digits.train_batches(100, seed=1, epoch=0))
    rest = list(digits.train_batches(100, seed=1, epoch=0, skip=5))
    assert all(same(a, b) for a, b in zip(whole[5:], rest, strict=True))


def test_two_processes_together_see_what_one_sees(digits: Dataset) -> None:
    one = digits.train_batches(100, seed=1, epoch=0)
    two = [digits.train_batches(100, seed=1, epoch=0, rank=rank, world_size=2) for rank in range(2)]
    for whole, left, right in zip(one, *two, strict=True):
        assert same(whole, join([left, right]))


def test_the_same_batches_come_in_another_process(digits: Dataset) -> None:
    code = (
        "from lsc.data import open_dataset;"
        "d = open_dataset('digits', valid_share=0.1, augment={'crop_padding': 2, 'flip': True, 'rotation': 10.0});"
        "b = next(iter(d.train_batches(100, seed=1, epoch=2, skip=4)));"
        "print(b.indexes.tolist(), b.images.double().sum().item())"
    )
    here = next(iter(digits.train_batches(100, seed=1, epoch=2, skip=4)))
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert there == f"{here.indexes.tolist()} {here.images.double().sum().item()}"


EPOCHS = {
    "memory": {"name": "digits", "augment": {"rotation": 10.0}},
    "drawn": {"name": "fractals", "num_classes": 10, "train_per_class": 30, "image_size": 8, "endless": True},
    "instances": {"name": "instances", "of": {"name": "digits"}, "limit": 300},
}  # fmt: skip


@pytest.mark.parametrize("kind", EPOCHS)
@pytest.mark.parametrize("pairs", [False, True])
def test_epochs_in_one_stream_are_the_epochs_one_by_one(kind: str, pairs: bool) -> None:
    dataset = open_dataset(**EPOCHS[kind])
    settings: dict[str, Any] = {"seed": 1, "rank": 1, "world_size": 2, "pairs": pairs}
    one_by_one = [batch for epoch in (2, 3, 4) for batch in dataset.train_batches(64, epoch=epoch, **settings)]
    stream = list(dataset.train_batches(64, epoch=2, epochs=3, skip=3, **settings))
    assert len(stream) == len(one_by_one) - 3 > 6
    assert all(same(a, b) for a, b in zip(stream, one_by_one[3:], strict=True))


def test_requests_of_training_are_had_by_their_places(digits: Dataset) -> None:
    requests = TrainingRequests("train", 100, 30, 3, seed=0, epoch=5, epochs=4, skip=2, subset=torch.arange(100) + 7)
    listed = list(requests)
    assert len(requests) == len(listed) == 10
    assert [request.epoch for request in listed] == [5, 6, 6, 6, 7, 7, 7, 8, 8, 8]
    for place in (9, 0, -1, 4):
        assert torch.equal(requests[place].indexes, listed[place].indexes)
    with pytest.raises(IndexError):
        requests[10]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_sees_every_image_once(digits: Dataset, world_size: int) -> None:
    parts = [
        batch.indexes
        for rank in range(world_size)
        for batch in digits.eval_batches("test", 50, rank=rank, world_size=world_size)
    ]
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(digits.size("test")))


def test_evaluation_images_are_the_stored_ones_normalised(digits: Dataset) -> None:
    batch = join(digits.eval_batches("test", 64))
    stored = digits.images("test", batch.indexes)
    assert stored.dtype == torch.uint8
    torch.testing.assert_close(batch.images, digits.normalise(stored))
    assert torch.equal(batch.labels, digits.labels("test"))


def test_views_of_evaluation_images_are_augmented_and_repeatable(digits: Dataset) -> None:
    plain, first, again, other = (join(digits.eval_batches("test", 64, views=v)) for v in (None, 1, 1, 2))
    assert same(first, again)
    assert not torch.equal(first.images, plain.images)
    assert not torch.equal(first.images, other.images)


def test_an_epoch_shows_every_image_at_most_once(digits: Dataset) -> None:
    seen = join(digits.train_batches(50, seed=0, epoch=0)).indexes
    assert len(seen.unique()) == len(seen) > digits.size("train") - 50


def test_a_subset_may_repeat_images_and_repeats_get_views_of_their_own(digits: Dataset) -> None:
    subset = torch.tensor([3, 3, 7, 9])
    (batch,) = digits.train_batches(4, seed=0, epoch=0, subset=subset)
    assert batch.indexes.sort().values.tolist() == subset.tolist()
    twice = batch.images[batch.indexes == 3]
    assert not torch.equal(twice[0], twice[1])


def test_the_order_is_a_permutation_that_is_fixed_for_ever() -> None:
    assert epoch_order(8, seed=0, epoch=0).tolist() == [4, 3, 6, 5, 0, 1, 7, 2]
    assert torch.equal(epoch_order(1000, seed=5, epoch=1).sort().values, torch.arange(1000))


def test_digits_are_split_by_class_without_overlap(digits: Dataset) -> None:
    assert digits.splits == ("train", "valid", "test")
    assert sum(digits.size(split) for split in digits.splits) == 1797
    assert (digits.labels("test").bincount() >= 34).all()
    assert digits.image_shape == (1, 16, 16)


def test_digits_can_be_limited_to_some_classes() -> None:
    six = open_dataset("digits", classes=6)
    assert (six.num_classes, six.class_names) == (6, ["0", "1", "2", "3", "4", "5"])
    some = open_dataset("digits", classes=[9, 4])
    assert some.class_names == ["9", "4"]
    assert some.labels("train").unique().tolist() == [0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 1}, "outside 2 to 10"),
        ({"classes": [1, 1]}, "two different ids"),
        ({"classes": [0, 10]}, "ids from 0 to 9"),
        ({"sise": 8}, "option sise.*options of digits: image_size"),
        ({"image_size": "16"}, "option image_size"),
        ({"augment": {"flip": 3}}, "option augment.flip"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_dataset("digits", **options)


def test_an_unknown_set_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="unknown data set 'mnist'; known are digits, glyphs, fractals, cinic10"):
        open_dataset("mnist")


def test_an_unknown_split_is_answered_with_the_known_ones(digits: Dataset) -> None:
    with pytest.raises(UserError, match="no split 'val'; it has train, valid, test"):
        digits.size("val")


def test_batches_that_cannot_be_made_are_refused(digits: Dataset) -> None:
    with pytest.raises(UserError, match="lower batch_size"):
        digits.train_batches(2000, seed=0, epoch=0)
    with pytest.raises(UserError, match="among 3 processes"):
        digits.train_batches(100, seed=0, epoch=0, world_size=3)


def test_labels_outside_the_range_and_empty_splits_are_refused() -> None:
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(UserError, match="label of train lies outside 0 to 1"):
        MemoryDataset("x", {"train": Split(images, torch.tensor([0, 2]))}, num_classes=2, augment=Augmentation())
    with pytest.raises(UserError, match="train has no images"):
        MemoryDataset("x", {"train": Split(images[:0], torch.arange(0))}, num_classes=2, augment=Augmentation())


def test_options_come_without_torch() -> None:
    code = "import sys, lsc.data.options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert isinstance(parse_options("digits"), DigitsOptions)


@pytest.mark.parametrize(
    "augment",
    [
        {"crop_padding": 2},
        {"flip": True},
        {"rotation": 20.0},
        {"scale": 0.2},
        {"shear": 20.0},
        {"brightness": 0.5},
        {"cutout": 4},
    ],
)
def test_every_augmentation_changes_images_within_their_range(augment: dict[str, object]) -> None:
    dataset = open_dataset("digits", augment=augment)
    batch = next(iter(dataset.train_batches(64, seed=0, epoch=0)))
    plain = dataset.normalise(dataset.images("train", batch.indexes))
    assert not torch.equal(batch.images, plain)
    lowest, highest = dataset.normalise(torch.tensor([0.0, 255.0]).view(2, 1, 1, 1)).flatten().tolist()
    assert batch.images.min() >= lowest - 1e-5
    assert batch.images.max() <= highest + 1e-5


def test_a_crop_moves_the_image_and_fills_with_black() -> None:
    images = torch.full((1, 1, 8, 8), 255, dtype=torch.uint8)
    data = {"train": Split(images.repeat(64, 1, 1, 1), torch.arange(64) % 2)}
    dataset = MemoryDataset("x", data, num_classes=2, augment=Augmentation(crop_padding=2), mean=(0.5,), std=(0.5,))
    views = next(iter(dataset.train_batches(64, seed=0, epoch=0))).images
    bright = (views == 1).flatten(1).sum(1)
    assert set(bright.tolist()) <= {(8 - a) * (8 - b) for a in range(3) for b in range(3)}
    assert bright.unique().numel() > 3


def test_a_shear_slants_an_upright_line_by_the_angle_drawn() -> None:
    side, angle = 33, 30
    images = torch.zeros(1, 1, side, side, dtype=torch.uint8)
    images[..., side // 2] = 200
    draws = torch.full((1, NUM_DRAWS), 0.5)
    draws[0, 9] = 1.0
    view = random_views(images, torch.zeros(1, dtype=torch.long), draws, Augmentation(shear=angle))[0, 0]
    columns = torch.arange(side, dtype=torch.float32)
    for row in range(8, 25):
        center = (view[row] * columns).sum() / view[row].sum()
        assert abs(center - side // 2 + (row - side // 2) * math.tan(math.radians(angle))) < 0.1


def test_views_drawn_for_many_batches_at_once_are_those_of_each_batch(digits: Dataset) -> None:
    requests = [Request("train", torch.arange(100) + 7 * i, 1, i // 40, torch.arange(100) + 100 * i) for i in range(60)]
    requests.insert(30, Request("train", torch.arange(5)))
    drawn = list(with_draws(requests, 4))
    assert all(request is given for (request, _), given in zip(drawn, requests, strict=True))
    for request, draws in drawn:
        assert (draws is None) == (request.positions is None)
        assert draws is None or torch.equal(draws, request.draws(4))
