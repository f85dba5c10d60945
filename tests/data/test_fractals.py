"""Fractals: the same on every machine, never degenerate, told apart, no image both in train and test."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lsc.data import ifs, open_dataset
from lsc.data.fractals import Fractals
from lsc.hashing import random_uniform


def draws(count: int, seed: int = 9) -> Tensor:
    return random_uniform(seed, torch.arange(count)[:, None], torch.arange(ifs.NUM_JITTER + ifs.NUM_VIEW))


def fractals(**options: object) -> Fractals:
    dataset = open_dataset("fractals", **options)
    assert isinstance(dataset, Fractals)
    return dataset


def test_normalised_systems_have_mean_zero_and_covariance_one() -> None:
    """Against the power iteration of the covariance equation, the brute-force twin of its solution."""
    maps = ifs.complete(ifs.class_maps(0, torch.arange(300)))
    _, weights = ifs.allot(maps)
    normal = ifs.normalise(maps, weights)
    matrix, shift, weight = normal[..., :2], normal[..., 2], weights[..., None]
    assert ((weight * shift).sum(1)).abs().max() < 1e-9
    covariance = torch.zeros(300, 2, 2, dtype=torch.float64)
    for _ in range(2000):
        pushed = matrix @ covariance[:, None] @ matrix.mT + shift[..., :, None] * shift[..., None, :]
        covariance = (weight[..., None] * pushed).sum(1)
    eigenvalues = torch.linalg.eigvalsh(covariance)
    assert eigenvalues.max() < 1
    assert eigenvalues[:, 1].min() > 0.97
    assert eigenvalues[:, 0].median() > 0.9


def test_two_maps_and_their_pairs_have_the_same_attractor() -> None:
    maps = ifs.class_maps(0, torch.arange(50))
    two = (maps.abs().sum((2, 3)) > 0).sum(1) == 2
    assert two.any()
    full = ifs.complete(maps)[two]
    point = torch.linalg.solve(torch.eye(2) - maps[two][:, 0, :, :2], maps[two][:, 0, :, 2])
    through_a = (maps[two][:, 1, :, :2] @ point[..., None])[..., 0] + maps[two][:, 1, :, 2]
    through_both = (maps[two][:, 0, :, :2] @ through_a[..., None])[..., 0] + maps[two][:, 0, :, 2]
    by_pair = (full[:, 1, :, :2] @ point[..., None])[..., 0] + full[:, 1, :, 2]
    torch.testing.assert_close(by_pair, through_both)


def test_every_count_of_maps_occurs_and_maps_contract() -> None:
    maps = ifs.class_maps(0, torch.arange(1000))
    assert set((maps.abs().sum((2, 3)) > 0).sum(1).tolist()) == {2, 3, 4}
    assert torch.linalg.svdvals(maps[..., :2]).max() <= 0.92 + 1e-9


def test_pictures_are_fixed_for_ever() -> None:
    """Within the rounding of a float, which a few pixels may feel on another processor."""
    pictures = ifs.render(0, torch.arange(4), draws(4), image_size=32, color=False, jitter=1.0).float()
    pooled = functional.avg_pool2d(pictures, 16).flatten().round().int().tolist()
    assert sum(abs(a - b) for a, b in zip(pooled, POOLED, strict=True)) < 10


# Mean brightness of the four quarters of each picture.
POOLED = [41, 37, 47, 67, 38, 37, 27, 34, 35, 30, 25, 6, 64, 73, 39, 48]


@pytest.mark.parametrize("color", [False, True])
def test_a_picture_does_not_depend_on_its_neighbours_in_the_batch(color: bool) -> None:
    classes, numbers = torch.arange(37), draws(37)
    together = ifs.render(0, classes, numbers, image_size=32, color=color, jitter=1.0)
    alone = [
        ifs.render(0, classes[i : i + 1], numbers[i : i + 1], image_size=32, color=color, jitter=1.0) for i in range(37)
    ]
    assert torch.equal(together, torch.cat(alone))


def test_no_class_is_nearly_empty_or_nearly_full() -> None:
    pictures = fractals(num_classes=2000, train_per_class=1).images("train", torch.arange(2000))
    filled = (pictures > 0).float().mean((1, 2, 3))
    assert filled.min() > 0.02
    assert filled.max() < 0.9


def test_classes_far_out_exist_at_once() -> None:
    far = fractals(num_classes=10**9, first_class=10**12)
    assert far.images("train", torch.tensor([10**9 * 24 - 1])).float().std() > 25


def test_a_small_set_is_told_apart_by_its_nearest_neighbours() -> None:
    dataset = fractals(num_classes=100)
    train, test = (dataset.images(split, torch.arange(dataset.size(split))).float() for split in ("train", "test"))
    train, test = (functional.normalize(functional.avg_pool2d(x, 3, 1, 1).flatten(1)) for x in (train, test))
    found = dataset.labels("train")[(test @ train.T).argmax(1)]
    assert (found == dataset.labels("test")).float().mean() > 0.5


def test_train_test_and_endless_images_never_coincide() -> None:
    dataset = fractals(num_classes=20, train_per_class=30, test_per_class=30, endless=True)
    seen = {split: dataset.images(split, torch.arange(600)) for split in ("train", "test")}
    hashes = {hashlib.sha256(image.numpy().tobytes()).digest() for images in seen.values() for image in images}
    assert len(hashes) == 1200
    fresh = {
        hashlib.sha256(image.numpy().tobytes()).digest()
        for epoch in range(2)
        for batch in dataset.train_batches(100, seed=0, epoch=epoch)
        for image in batch.images
    }
    assert len(fresh) == 1200


def test_held_and_streamed_images_are_the_same() -> None:
    held, streamed = fractals(num_classes=10), fractals(num_classes=10, memory_mb=0)
    for a, b in zip(held.train_batches(60, seed=1, epoch=0), streamed.train_batches(60, seed=1, epoch=0), strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)


@pytest.mark.parametrize("endless", [False, True])
def test_streamed_batches_are_pure_functions_of_seed_epoch_and_step(endless: bool) -> None:
    dataset = fractals(num_classes=10, memory_mb=0, endless=endless, augment={"crop_padding": 2})
    whole = list(dataset.train_batches(60, seed=1, epoch=1))
    rest = list(dataset.train_batches(60, seed=1, epoch=1, skip=2))
    half = list(dataset.train_batches(60, seed=1, epoch=1, skip=2, rank=1, world_size=2))
    assert torch.equal(whole[2].images, rest[0].images)
    assert torch.equal(whole[2].images[30:], half[0].images)
    other = next(iter(dataset.train_batches(60, seed=1, epoch=2)))
    assert not torch.equal(whole[0].images, other.images)


def test_endless_training_images_differ_between_epochs_and_test_images_do_not() -> None:
    dataset = fractals(num_classes=4, endless=True)
    first, second = (
        {
            int(b): image
            for batch in dataset.train_batches(96, seed=0, epoch=e)
            for b, image in zip(batch.indexes, batch.images, strict=True)
        }
        for e in range(2)
    )
    assert not any(torch.equal(first[i], second[i]) for i in first)
    once, again = (next(iter(dataset.eval_batches("test", 20))) for _ in range(2))
    assert torch.equal(once.images, again.images)


def test_an_epoch_can_be_a_random_part_of_a_huge_set() -> None:
    dataset = fractals(num_classes=50_000, train_per_class=1, epoch_size=64, memory_mb=0)
    assert dataset.steps_per_epoch(32) == 2
    labels = torch.cat([batch.labels for epoch in range(2) for batch in dataset.train_batches(32, seed=0, epoch=epoch)])
    assert len(labels.unique()) > 120
    assert labels.max() > 25_000


def test_a_sample_of_test_images_covers_all_classes() -> None:
    dataset = fractals(num_classes=1_281_167, test_images=2000)
    labels = dataset.labels("test")
    assert dataset.size("test") == len(labels) == 2000
    assert labels.min() < 10_000
    assert labels.max() > 1_270_000
    assert len(labels.unique()) > 1990


def test_ranges_of_classes_that_do_not_meet_show_other_classes() -> None:
    whole, later = fractals(num_classes=6, train_per_class=2), fractals(num_classes=3, first_class=3, train_per_class=2)
    assert torch.equal(whole.images("train", torch.arange(6, 12)), later.images("train", torch.arange(6)))
    assert not torch.equal(whole.images("train", torch.arange(6)), later.images("train", torch.arange(6)))


def test_color_has_three_channels_and_hues_of_the_class() -> None:
    dataset = fractals(num_classes=8, color=True, image_size=64)
    pictures = dataset.images("train", torch.arange(4) * 24).float()
    assert pictures.shape == (4, 3, 64, 64)
    hues = functional.normalize(pictures.sum((2, 3)))
    assert (hues[:, None] - hues).abs().sum() > 0.1


def test_no_jitter_makes_the_images_of_a_class_equal() -> None:
    same = fractals(num_classes=2, jitter=0.0).images("train", torch.arange(24))
    assert (same == same[0]).all()


def test_rendered_images_are_kept_in_a_cache_and_a_damaged_one_is_replaced(tmp_path: Path) -> None:
    options = {"num_classes": 5, "cache": str(tmp_path / "cache")}
    first = next(iter(fractals(**options).eval_batches("test", 25)))
    (file,) = (tmp_path / "cache").iterdir()
    before = file.stat().st_mtime_ns
    again = next(iter(fractals(**options).eval_batches("test", 25)))
    assert file.stat().st_mtime_ns == before
    file.write_bytes(file.read_bytes()[:1000])
    mended = next(iter(fractals(**options).eval_batches("test", 25)))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.images, mended.images)
    assert file.stat().st_size > 1000
    other = next(iter(fractals(**options, jitter=0.5).eval_batches("test", 25)))
    assert not torch.equal(first.images, other.images)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_the_same_pictures() -> None:
    classes, numbers = torch.arange(64), draws(64)
    here = ifs.render(0, classes, numbers, image_size=32, color=True, jitter=1.0)
    there = ifs.render(0, classes.cuda(), numbers.cuda(), image_size=32, color=True, jitter=1.0).cpu()
    assert ((here.int() - there.int()).abs() > 8).float().mean() < 0.01


def test_rendering_ahead_in_threads_changes_nothing_and_can_be_left_early(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = fractals(num_classes=40, memory_mb=0, endless=True, augment={"crop_padding": 2})
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        monkeypatch.setattr("lsc.data.fractals.has_idle_core", lambda: False)
        alone = list(dataset.train_batches(60, seed=1, epoch=0))
        monkeypatch.setattr("lsc.data.fractals.has_idle_core", lambda: True)
        beside = list(dataset.train_batches(60, seed=1, epoch=0))
        torch.set_num_threads(4)
        ahead = list(dataset.train_batches(60, seed=1, epoch=0))
        first = next(iter(dataset.train_batches(60, seed=1, epoch=0)))
    finally:
        torch.set_num_threads(before)
    assert len(alone) == 16
    for others in (beside, ahead):
        assert all(
            torch.equal(a.images, b.images) and torch.equal(a.indexes, b.indexes)
            for a, b in zip(alone, others, strict=True)
        )
    assert torch.equal(first.images, alone[0].images)


def test_a_system_without_a_covariance_is_drawn_all_the_same() -> None:
    """Of the classes of this seed one has an instance that does not contract on average."""
    dataset = fractals(num_classes=1000, seed=77, image_size=16)
    images = dataset.images("train", torch.arange(4096, 4096 + 1024))
    assert images.shape == (1024, 1, 16, 16)
    assert int((images.flatten(1).amax(1) > 0).sum()) >= 1023


def test_a_validation_split_shares_no_image_with_the_others(tmp_path: Path) -> None:
    plain = fractals(num_classes=5, cache=str(tmp_path))
    split = fractals(num_classes=5, valid_per_class=3, cache=str(tmp_path))
    assert plain.splits == ("train", "test")
    assert split.splits == ("train", "valid", "test")
    assert split.labels("valid").tolist() == [label for label in range(5) for _ in range(3)]
    images = {
        name: {bytes(x.numpy()) for x in split.images(name, torch.arange(split.size(name)))} for name in split.splits
    }
    assert not images["valid"] & (images["train"] | images["test"])
    assert len(images["valid"]) == 15
    for name in plain.splits:
        everything = torch.arange(plain.size(name))
        assert torch.equal(plain.images(name, everything), split.images(name, everything))
    batch = next(iter(split.eval_batches("valid", 15)))
    assert batch.labels.tolist() == split.labels("valid").tolist()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"memory_mb": 0}, "they take 1 MB and data.memory_mb is 0"),
        ({"endless": True}, "of an endless set"),
        ({}, ""),
    ],
)
def test_a_cache_that_keeps_nothing_says_so(
    options: dict[str, Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_dataset("fractals", num_classes=4, train_per_class=3, cache=str(tmp_path), **options)
    warned = capsys.readouterr().err
    assert words in warned
    assert ("warning" in warned) == bool(words)


def test_other_statistics_are_those_of_a_copy_alone() -> None:
    """Whichever of the two has drawn its images first."""
    for first in (0, 1):
        data = fractals(num_classes=3, train_per_class=4, test_per_class=4)
        both = (data, data.normalised_by((0.0,), (1.0,)))
        order = both if first == 0 else both[::-1]
        for each in (*order, *order, data.normalised_by((0.0,), (1.0,))):
            images = next(iter(each.eval_batches("test", 12))).images
            pixels = images * each.std[0] + each.mean[0]
            assert (each.mean == (0.0,)) == (each is not data)
            assert torch.allclose(pixels * 255, data.images("test", torch.arange(12)).float(), atol=1e-3)
