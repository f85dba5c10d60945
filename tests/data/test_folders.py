"""ImageNet's layout, a user's own folder and instances as classes, on small trees: from files to batches."""

import io
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lsc.data import open_dataset
from lsc.data.base import Batch
from lsc.data.decoding import decode
from lsc.data.file_index import load_index, save_index
from lsc.data.imagenet import ImagenetOptions, check_imagenet
from lsc.data.instances import Instances
from lsc.data.loading import default_workers
from lsc.data.scanning import scan
from lsc.data.trees import write_cinic10_tree, write_imagenet_tree
from lsc.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("imagenet")
    write_imagenet_tree(path, num_classes=4, train_per_class=10, val_per_class=3, image_size=64)
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A tree to break."""
    write_imagenet_tree(tmp_path / "tree", num_classes=3, train_per_class=2, val_per_class=1, image_size=32)
    return tmp_path / "tree"


def same(left: Batch, right: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_imagenet_layout_from_files_to_batches(root: Path) -> None:
    dataset = open_dataset("imagenet", root=str(root), image_size=32, valid_every=5, workers=0)
    assert {split: dataset.size(split) for split in dataset.splits} == {"train": 32, "valid": 8, "test": 12}
    assert dataset.labels("valid").bincount().tolist() == [2, 2, 2, 2]
    assert dataset.class_names == ["n10000000", "n10000001", "n10000002", "n10000003"]
    (first, *_) = dataset.train_batches(16, seed=0, epoch=0)
    assert first.images.shape == (16, 3, 32, 32)
    assert torch.equal(first.labels, dataset.labels("train")[first.indexes])
    seen = torch.cat([batch.indexes for batch in dataset.eval_batches("test", 5)])
    assert seen.tolist() == list(range(12))


def test_any_number_of_workers_makes_the_same_batches(root: Path) -> None:
    one, two = (open_dataset("folder", root=str(root), image_size=32, workers=workers) for workers in (0, 2))
    whole = list(one.train_batches(8, seed=3, epoch=1))
    assert all(same(a, b) for a, b in zip(whole, two.train_batches(8, seed=3, epoch=1), strict=True))
    assert same(whole[3], next(iter(two.train_batches(8, seed=3, epoch=1, skip=3))))
    half = next(iter(two.train_batches(8, seed=3, epoch=1, rank=1, world_size=2)))
    assert torch.equal(whole[0].images[4:], half.images)


def test_loading_leaves_the_generator_of_the_training_alone(root: Path) -> None:
    dataset = open_dataset("folder", root=str(root), image_size=32, workers=1)
    before = torch.get_rng_state()
    list(dataset.train_batches(20, seed=0, epoch=0))
    assert torch.equal(torch.get_rng_state(), before)


def test_training_views_differ_and_evaluation_images_do_not(root: Path) -> None:
    dataset = open_dataset("folder", root=str(root), image_size=32, workers=0)
    subset = torch.tensor([5])
    first, second = (next(iter(dataset.train_batches(1, seed=0, epoch=e, subset=subset))).images for e in range(2))
    assert not torch.equal(first, second)
    plain = next(iter(dataset.eval_batches("train", 1, subset=subset)))
    torch.testing.assert_close(plain.images, dataset.normalise(dataset.images("train", subset)))


def test_a_folder_of_ones_own_keeps_its_class_names(tmp_path: Path) -> None:
    write_cinic10_tree(tmp_path, per_class=1)
    (tmp_path / "train" / "cat").rename(tmp_path / "train" / "chat noir é")
    (tmp_path / "test" / "cat").rename(tmp_path / "test" / "chat noir é")
    (tmp_path / "valid" / "cat").rename(tmp_path / "valid" / "chat noir é")
    dataset = open_dataset("folder", root=str(tmp_path), image_size=32, workers=0)
    assert dataset.splits == ("train", "valid", "test")
    assert dataset.class_names is not None
    assert dataset.class_names[3] == "chat noir é"
    assert len(next(iter(dataset.eval_batches("train", 10))).labels.unique()) == 10


def test_an_index_freezes_files_and_labels(root: Path, tmp_path: Path) -> None:
    index = scan(root, ImagenetOptions.folders)
    save_index(index, tmp_path / "index.parquet")
    again = load_index(tmp_path / "index.parquet")
    assert again.fingerprint == index.fingerprint == scan(root, ImagenetOptions.folders).fingerprint
    assert again.class_names == index.class_names
    assert all(
        (again.files[s] == index.files[s]).all() and (again.labels[s] == index.labels[s]).all() for s in index.files
    )
    by_index = open_dataset("imagenet", root=str(root), index=str(tmp_path / "index.parquet"), image_size=32, workers=0)
    by_scan = open_dataset("imagenet", root=str(root), image_size=32, workers=0)
    assert same(*(next(iter(dataset.train_batches(8, seed=0, epoch=0))) for dataset in (by_index, by_scan)))


def test_a_new_image_does_not_move_the_labels_of_an_index(small: Path, tmp_path: Path) -> None:
    save_index(scan(small, ImagenetOptions.folders), tmp_path / "index.parquet")
    (small / "train" / "n00000000").mkdir()
    (small / "train" / "n10000000" / "n10000000_0.JPEG").rename(small / "train" / "n00000000" / "x.JPEG")
    dataset = open_dataset("imagenet", root=str(small), index=str(tmp_path / "index.parquet"), image_size=32, workers=0)
    assert dataset.size("train") == 6
    with pytest.raises(UserError, match=r"n10000000_0\.JPEG cannot be read .*restore it"):
        dataset.images("train", torch.tensor([0]))


def test_a_damaged_or_changed_index_is_refused(small: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "index.parquet"
    with pytest.raises(UserError, match="is missing: write it with `lsc data index`"):
        load_index(path)
    save_index(scan(small, ImagenetOptions.folders), path)
    table = pq.read_table(path)
    pq.write_table(table.set_column(2, "file", pa.array(["x"] * len(table))), path)
    with pytest.raises(UserError, match="was changed since it was written"):
        load_index(path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UserError, match="is no index or damaged"):
        load_index(path)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_image_is_named(small: Path, workers: int) -> None:
    victim = small / "train" / "n10000001" / "n10000001_1.JPEG"
    victim.write_bytes(victim.read_bytes()[:100])
    dataset = open_dataset("imagenet", root=str(small), image_size=32, workers=workers)
    with pytest.raises(UserError, match=r"n10000001_1\.JPEG does not decode") as caught:
        list(dataset.train_batches(6, seed=0, epoch=0))
    assert "\n" not in str(caught.value)
    victim.write_bytes(b"")
    with pytest.raises(UserError, match=r"n10000001_1\.JPEG is empty"):
        list(dataset.train_batches(6, seed=0, epoch=0))


def test_deep_pictures_are_made_plain_and_animations_named() -> None:
    levels = np.array([[0, 257, 65535]], dtype=np.uint16)
    deep, moving = io.BytesIO(), io.BytesIO()
    Image.fromarray(levels).save(deep, "PNG")
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(moving, "GIF", save_all=True, append_images=frames[1:])
    found = decode(deep.getvalue(), "deep.png", "")
    assert found.dtype == torch.uint8
    assert found[0].tolist() == [[0, 1, 255]]
    with pytest.raises(UserError, match=r"moving\.gif holds 2 pictures"):
        decode(moving.getvalue(), "moving.gif", "give one")


def test_a_file_name_that_is_no_text_is_refused(small: Path) -> None:
    (small / "train" / "n10000001" / "n10000001_1.JPEG").rename(small / "train" / "n10000001" / "b\udcffd.JPEG")
    with pytest.raises(UserError, match="not UTF-8"):
        scan(small, ImagenetOptions.folders)


def test_missing_folders_are_named(small: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere is no folder"):
        open_dataset("folder", root=str(tmp_path / "nowhere"))
    (small / "val").rename(small / "validation")
    with pytest.raises(UserError, match="val is missing: it should hold one folder"):
        open_dataset("imagenet", root=str(small))
    with pytest.raises(UserError, match=r"val is missing: unpack ILSVRC2012_img_val\.tar .*sorted by the labels"):
        check_imagenet(small)


def test_a_wrong_layout_is_named(small: Path) -> None:
    (small / "val" / "n10000001").rename(small / "val" / "n10000009")
    with pytest.raises(UserError, match=r"val/n10000009 is a class that .*train does not have"):
        open_dataset("imagenet", root=str(small))
    for folder in sorted((small / "val").iterdir()):
        for image in folder.iterdir():
            image.rename(small / "val" / image.name)
        folder.rmdir()
    with pytest.raises(UserError, match="val holds images without class folders: move"):
        open_dataset("imagenet", root=str(small))


def test_an_empty_class_and_a_single_class_are_refused(small: Path) -> None:
    for image in (small / "train" / "n10000001").iterdir():
        image.rename(image.with_suffix(".txt"))
    with pytest.raises(UserError, match="train/n10000001 is a class without images"):
        open_dataset("folder", root=str(small))
    for name in ("n10000001", "n10000002"):
        (small / "train" / name).rename(small / name)
    with pytest.raises(UserError, match="has one class only, n10000000"):
        open_dataset("folder", root=str(small))


def test_checking_imagenet_counts_classes_and_images(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"has 3 classes instead of 1000: unpack ILSVRC2012_img_train\.tar"):
        check_imagenet(small)
    monkeypatch.setattr("lsc.data.imagenet.NUM_CLASSES", 3)
    with pytest.raises(UserError, match="train has 6 images instead of 1281167"):
        check_imagenet(small)
    monkeypatch.setattr("lsc.data.imagenet.COUNTS", {"train": 6, "test": 3})
    assert len(check_imagenet(small).files["train"]) == 6


def test_validation_cannot_come_from_two_places(root: Path, tmp_path: Path) -> None:
    write_cinic10_tree(tmp_path, per_class=1)
    with pytest.raises(UserError, match="has a split valid of its own: option valid_every should be 0"):
        open_dataset("folder", root=str(tmp_path), valid_every=2)
    with pytest.raises(UserError, match="valid_every: 1000 leaves no images for valid"):
        open_dataset("imagenet", root=str(root), valid_every=1000)


def test_workers_follow_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "12")
    assert default_workers() == 12
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert default_workers() == 3
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "")
    monkeypatch.delattr("os.sched_getaffinity", raising=False)  # as on macOS
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert default_workers() == 2


@pytest.mark.parametrize("of", ["files", "instances"])
def test_the_epochs_of_a_training_share_their_loading_processes(of: str, root: Path) -> None:
    files = {"name": "folder", "root": str(root), "image_size": 32, "workers": 2}
    dataset = open_dataset("instances", of=files) if of == "instances" else open_dataset(**files)
    stream = dataset.train_batches(8, seed=3, epoch=0, epochs=3)
    found, loading = [], set()
    for batch in stream:
        found.append(batch)
        loading |= {process.pid for process in multiprocessing.active_children()}
    assert len(loading) == 2
    one_by_one = [batch for epoch in range(3) for batch in dataset.train_batches(8, seed=3, epoch=epoch)]
    assert all(same(a, b) for a, b in zip(found, one_by_one, strict=True))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_loading_goes_on_when_the_whole_job_is_told_to_end(number: signal.Signals, root: Path) -> None:
    """SLURM signals every process of a job; the training decides when to stop, and needs its loaders until then."""
    dataset = open_dataset("folder", root=str(root), image_size=32, workers=2)
    batches = dataset.train_batches(4, seed=0, epoch=0)
    next(batches), next(batches)  # one of each loader: both are past their start
    for loader in multiprocessing.active_children():
        assert loader.pid
        os.kill(loader.pid, number)
    assert len(list(batches)) == 8


def instances(**options: object) -> Instances:
    dataset = open_dataset("instances", **options)
    assert isinstance(dataset, Instances)
    return dataset


def test_instances_of_files_are_classes_with_views(root: Path) -> None:
    dataset = instances(of={"name": "imagenet", "root": str(root), "image_size": 32, "workers": 0})
    assert dataset.num_classes == 40 == dataset.size("train") == dataset.size("test")
    batch = next(iter(dataset.train_batches(10, seed=0, epoch=0)))
    assert torch.equal(batch.labels, batch.indexes)
    assert dataset.underlying.labels("train")[dataset.members].bincount().tolist() == [10] * 4
    once, again = (next(iter(dataset.eval_batches("test", 40))) for _ in range(2))
    assert same(once, again)
    assert once.labels.tolist() == list(range(40))
    plain = next(iter(dataset.underlying.eval_batches("train", 40)))
    assert not torch.equal(once.images, plain.images)


def test_test_views_of_instances_are_no_training_views() -> None:
    dataset = instances(of={"name": "digits", "augment": {"rotation": 30.0}}, limit=50)
    tested = next(iter(dataset.eval_batches("test", 50)))
    for epoch in range(2):
        trained = next(iter(dataset.train_batches(50, seed=0, epoch=epoch)))
        back = trained.labels.argsort()
        assert not (trained.images[back] == tested.images).flatten(1).all(1).any()
    other = next(iter(dataset.eval_batches("test", 50, views=1)))
    assert not torch.equal(other.images, tested.images)


def test_instances_can_be_limited_and_sampled() -> None:
    dataset = instances(of={"name": "digits"}, limit=100, test_images=30)
    assert (dataset.num_classes, dataset.size("test")) == (100, 30)
    labels = next(iter(dataset.eval_batches("test", 30))).labels
    assert torch.equal(labels, dataset.labels("test"))
    assert labels.max() > 50
    assert dataset.members.max() > 1400
    assert torch.equal(
        dataset.images("test", torch.arange(30)), dataset.underlying.images("train", dataset.members[labels])
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"of": {"name": "digits"}, "limit": 5000}, "limit: 5000 exceeds the 1438 images of digits/train"),
        ({"of": {"name": "fractals", "endless": True}}, "of.endless"),
        ({"of": {"name": "fractals"}}, "of.augment: without it all views"),
        ({"of": {"name": "instances", "of": {"name": "digits"}}}, "option of:"),
        ({}, "option of: Field required"),
    ],
)
def test_instances_that_make_no_sense_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_dataset("instances", **options)
