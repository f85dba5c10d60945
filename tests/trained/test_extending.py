"""New classes for a finished run: by sums as all images together would give, by examples, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import lsc
from lsc.centers import CodedCenters
from lsc.centers.codes import nearest_codes
from lsc.encoders.closed_form import ClosedFormReadout
from lsc.trained import extending
from lsc.training import records
from lsc.training.sums import images_in, load_sums
from lsc.training.weights import weights_digest
from tests.conftest import Called, assert_refused
from tests.trained.conftest import make_run, only


def scores(lsc_here: Called, run: Path, images: Path) -> dict[str, Any]:
    done = lsc_here("evaluate", run, "--images", images, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_new_classes_join_by_the_sums_and_are_recognised(
    with_sums: Path, pictures: Path, tmp_path: Path, lsc_here: Called
) -> None:
    new, before = only(pictures, "train", [8, 9], tmp_path / "new"), (with_sums / records.SUMMARY).read_bytes()
    done = lsc_here("extend", with_sums, new, "--out", "extended")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "extended: 10 classes, 2 of them new, by the sums of the read-out, from 40 images\n"
    found = scores(lsc_here, tmp_path / "extended", pictures / "test")
    assert found["top1_before"] > 0.85
    assert found["top1_new"] > 0.4
    # The source is as it was, and so are its classes' centers.
    assert (with_sums / records.SUMMARY).read_bytes() == before
    old, extended = lsc.load(with_sums), lsc.load(tmp_path / "extended")
    assert extended.classes == [str(digit) for digit in range(10)]
    labels = torch.arange(8)
    assert torch.equal(old.task.centers.vectors(labels), extended.task.centers.vectors(labels))  # type: ignore[union-attr]
    assert extended.summary["extended"] | {"images": 40, "by": "sums"} == extended.summary["extended"]
    assert extended.summary["extended"]["from"] == weights_digest(with_sums)


def test_the_read_out_is_that_of_old_and_new_images_together(with_sums: Path, pictures: Path, tmp_path: Path) -> None:
    trained = lsc.load(with_sums)
    new = only(pictures, "train", [8, 9], tmp_path / "new")
    extended = trained.extend(new, out=tmp_path / "extended")
    dataset = lsc.open_dataset(trained.run.data)
    centers = lsc.load(tmp_path / "extended").task.objective.targets  # type: ignore[operator]
    together = ClosedFormReadout(96, 16, centers, ridge=None)
    with torch.no_grad():
        for batch in dataset.eval_batches("train", 512):
            together.add(trained.task.encoder.hidden(batch.images), batch.labels)
        per_class = dataset.size("train") / 8
        for label in (8, 9):
            files = sorted((new / str(label)).iterdir())
            hidden = trained.task.encoder.hidden(trained.normalise(torch.stack([trained.read(path) for path in files])))
            # A new class counts as 1.5 average old ones.
            weights = torch.full((len(files),), 1.5 * per_class / len(files))
            together.add(hidden, torch.full((len(files),), label), weights)
    weight, bias = together.solve()
    with torch.no_grad():
        assert torch.allclose(extended.task.encoder.last(hidden), hidden @ weight.T + bias, atol=2e-3)
    kept = load_sums(tmp_path / "extended", extended.task, extended.run)
    assert kept is not None
    assert kept[1] == 10
    assert images_in(kept[0]) == pytest.approx(11 * per_class, rel=1e-4)


def test_where_centers_fit_new_classes_get_those_nearest_to_them(pictures: Path, tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "run",
        objective={"name": "center_softmax"},
        centers={"system": "codes", "dim": 24, "fit": {"at": ["10 steps", "20 steps"]}},
        readout={"sums": None},
    )
    trained, new = lsc.load(run), only(pictures, "train", [8, 9], tmp_path / "new")
    extended = trained.extend(new, out=tmp_path / "extended")
    old, centers = trained.task.centers, lsc.load(tmp_path / "extended").task.centers
    assert isinstance(old, CodedCenters)
    assert isinstance(centers, CodedCenters)
    assert torch.equal(centers.codes[:8], old.codes)
    for label in (8, 9):
        mean = trained.embed([str(path) for path in sorted((new / str(label)).iterdir())]).mean(0, keepdim=True)
        assert torch.equal(centers.codes[label], nearest_codes(mean, centers.system)[0])
    files = [path for digit in (8, 9) for path in sorted((pictures / "test" / str(digit)).iterdir())]
    wanted = torch.tensor([int(path.parent.name) for path in files])
    assert (extended.predict(files)[:, 0] == wanted).float().mean() > 0.5


def test_weights_count_an_image_so_many_times() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, targets = torch.randn(6, 5, generator=generator), torch.randn(3, 4, generator=generator)
    labels, times = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([1, 2, 3, 1, 2, 3])
    weighted, repeated = (ClosedFormReadout(5, 4, lambda wanted: targets[wanted]) for _ in range(2))
    weighted.add(hidden, labels, times)
    repeated.add(hidden.repeat_interleave(times, 0), labels.repeat_interleave(times))
    assert torch.allclose(weighted.gram, repeated.gram, atol=1e-5)
    assert torch.allclose(weighted.cross, repeated.cross, atol=1e-5)
    assert torch.allclose(weighted.squares, repeated.squares, atol=1e-5)


def test_a_run_is_extended_again_and_a_known_class_gets_more_images(
    with_sums: Path, pictures: Path, tmp_path: Path
) -> None:
    first = lsc.load(with_sums).extend(only(pictures, "train", [8], tmp_path / "a"), out=tmp_path / "one")
    second = first.extend(only(pictures, "train", [0, 9], tmp_path / "b"), out=tmp_path / "two")
    assert second.classes == [str(digit) for digit in range(10)]
    assert second.summary["extended"]["new_classes"] == 1
    assert second.summary["extended"]["before"]["new_classes"] == 1
    files = [path for digit in (8, 9) for path in sorted((pictures / "test" / str(digit)).iterdir())]
    wanted = torch.tensor([int(path.parent.name) for path in files])
    assert (second.predict(files)[:, 0] == wanted).float().mean() > 0.4


def test_without_sums_examples_stand_for_new_classes(
    without_sums: Path, pictures: Path, tmp_path: Path, lsc_here: Called
) -> None:
    new = only(pictures, "train", [8, 9], tmp_path / "new")
    done = lsc_here("extend", without_sums, new, "--out", "extended")
    assert done.returncode == 0, done.stderr
    assert "by examples alone" in done.stdout
    old, extended = lsc.load(without_sums), lsc.load(tmp_path / "extended")
    files = sorted((pictures / "test" / "9").iterdir())
    assert torch.equal(old.embed(files), extended.embed(files))
    # Nearest center or mean, by brute force.
    z = F.normalize(extended.embed(files), dim=1)
    means = [F.normalize(old.embed(sorted((new / name).iterdir())), dim=1).mean(0) for name in ("8", "9")]
    centers = old.task.centers.vectors(torch.arange(8))  # type: ignore[union-attr]
    cosines = z @ F.normalize(torch.cat([centers, torch.stack(means)]), dim=1).T
    labels, found = extended.ranked(extended.embed(files), 10)
    assert torch.equal(labels[:, 0], cosines.argmax(1))
    assert torch.allclose(found, cosines.sort(dim=1, descending=True).values, atol=1e-5)
    assert torch.equal(extended.predict(files, 3), labels[:, :3])
    assert scores(lsc_here, tmp_path / "extended", pictures / "test")["top1_before"] > 0.6
    # Once more: a class that examples stand for takes further ones.
    again = extended.extend(only(pictures, "test", [9], tmp_path / "more"), out=tmp_path / "again")
    assert again.task.objective.counts.tolist() == [20, 20 + len(files)]
    with pytest.raises(lsc.UserError, match=r"class 0: the run has it already"):
        extended.extend(only(pictures, "test", [0], tmp_path / "zero"), out=tmp_path / "none")


def test_images_and_names_from_python(with_sums: Path, pictures: Path, tmp_path: Path) -> None:
    trained = lsc.load(with_sums)
    files = [path for digit in (8, 9) for path in sorted((pictures / "train" / str(digit)).iterdir())]
    names = ["eight"] * 20 + ["nine"] * 20
    by_file = trained.extend(files, names, out=tmp_path / "files")
    by_picture = trained.extend([Image.open(path) for path in files], names, out=tmp_path / "pictures")
    by_array = trained.extend([np.asarray(Image.open(path)) for path in files], names, out=tmp_path / "arrays")
    by_tensor = trained.extend(torch.stack([trained.read(path) for path in files]), names, out=tmp_path / "tensors")
    for extended in (by_file, by_picture, by_array, by_tensor):
        assert extended.classes[8:] == ["eight", "nine"]
        assert torch.allclose(extended.task.encoder.last.weight, by_file.task.encoder.last.weight)
    with pytest.raises(lsc.UserError, match="2 names for 40 images"):
        trained.extend(files, names[:2], out=tmp_path / "none")
    with pytest.raises(lsc.UserError, match="give a folder"):
        trained.extend(files, out=tmp_path / "none")


def test_mistakes_are_one_line_and_leave_nothing(
    with_sums: Path, with_layer: Path, pictures: Path, tmp_path: Path, lsc_here: Called
) -> None:
    new = only(pictures, "train", [8, 9], tmp_path / "new")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "precious").write_text("")
    (tmp_path / "file").write_text("")
    (tmp_path / "empty" / "class").mkdir(parents=True)
    (tmp_path / "cased" / "Nine").mkdir(parents=True)
    (tmp_path / "cased" / "nine").mkdir()
    for name in ("Nine", "nine"):
        shutil.copy(pictures / "train" / "9" / "000.png", tmp_path / "cased" / name)
    shutil.copytree(with_sums, tmp_path / "unfinished")
    (tmp_path / "unfinished" / records.SUMMARY).unlink()
    cases = [
        ([with_layer, new], ["cross_entropy has a layer", "lsc train --from"]),
        ([with_sums, pictures / "train" / "9"], ["holds images without class folders"]),
        ([with_sums, tmp_path / "empty"], ["class: a class without images"]),
        ([with_sums, tmp_path / "nowhere"], ["nowhere: is no folder"]),
        ([with_sums, tmp_path / "cased"], ["'Nine' and 'nine': differ in case alone"]),
        ([tmp_path / "unfinished", new], ["no finished run"]),
        ([with_sums, pictures / "train", "--enrol"], ["class 0: the run has it already", "with --enrol"]),
    ]
    for words, parts in cases:
        assert_refused(lsc_here("extend", *words, "--out", "out"), *parts)
        assert not (tmp_path / "out").exists(), words
    for out in ("used", "file", with_sums, "file/out", "x" * 300):
        assert_refused(lsc_here("extend", with_sums, new, "--out", out), str(out)[:150])
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_a_name_in_another_unicode_form_is_the_same_class(
    with_sums: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = sorted((pictures / "train" / "8").iterdir())
    trained = lsc.load(with_sums).extend(images, ["caf\u00e9"] * 20, out=tmp_path / "composed")
    again = trained.extend(images, ["cafe\u0301"] * 20, out=tmp_path / "again")
    assert again.classes == trained.classes
    assert "one name, two Unicode forms" in capsys.readouterr().err
    with pytest.raises(lsc.UserError, match="differ in case alone"):
        trained.extend(images, ["CAF\u00c9"] * 20, out=tmp_path / "none")


def test_a_system_without_free_vectors_says_so(pictures: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "run", centers={"system": "polygon", "dim": 2}, readout={}, training={"duration": "2 epochs"})
    new = only(pictures, "train", [8], tmp_path / "new")
    with pytest.raises(lsc.UserError, match=r"no vector is free for 1 more classes.*--enrol"):
        lsc.load(tmp_path / "run").extend(new, out=tmp_path / "none")
    assert len(lsc.load(tmp_path / "run").extend(new, out=tmp_path / "out", enrol=True).classes) == 9


def test_sums_of_other_weights_are_refused(with_sums: Path, pictures: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", readout={}, seed=1, training={"duration": "1 epoch"})
    shutil.copy(with_sums / records.SUMS, run / records.SUMS)
    with pytest.raises(lsc.UserError, match=r"sums\.safetensors: belongs to other weights"):
        lsc.load(run).extend(only(pictures, "train", [8], tmp_path / "new"), out=tmp_path / "none")


def test_a_file_that_does_not_decode_is_left_out(
    with_sums: Path, pictures: Path, tmp_path: Path, lsc_here: Called
) -> None:
    shutil.copytree(pictures / "train" / "8", tmp_path / "new" / "8")
    (tmp_path / "new" / "8" / "broken.png").write_bytes(b"no picture")
    done = lsc_here("extend", with_sums, "new", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1
    assert "broken.png does not decode" in done.stderr
    assert "from 20 images" in done.stdout


@pytest.mark.parametrize("fitted", [False, True], ids=["predefined", "fitted"])
def test_a_new_class_counts_by_the_images_that_were_read_and_a_fault_is_named_once(
    fitted: bool, with_sums: Path, pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = with_sums
    if fitted:
        fit = {
            "centers": {"system": "codes", "dim": 24, "fit": {"at": ["10 steps", "20 steps"]}},
            "readout": {"sums": None},
        }
        run = make_run(tmp_path / "run", objective={"name": "center_softmax"}, **fit)
    trained, new, good = lsc.load(run), tmp_path / "new", pictures / "train" / "8" / "000.png"
    for name in ("8", "9"):
        (new / name).mkdir(parents=True)
        shutil.copy(good, new / name)
    for number in range(9):
        (new / "8" / f"broken_{number}.png").write_bytes(b"no picture")
    capfd.readouterr()
    extended = trained.extend(new, out=tmp_path / "extended")
    warned = capfd.readouterr().err.splitlines()
    assert [line.partition(" does not")[0] for line in warned] == [
        f"lsc: warning: {new}/8/broken_{number}.png" for number in range(9)
    ]
    assert extended.summary["extended"]["images"] == 2
    before, after = (load_sums(t.folder, t.task, t.run) for t in (trained, extended))
    assert before is not None
    assert after is not None
    # Two classes of 1.5 average ones each, beside eight.
    assert images_in(after[0]) == pytest.approx(11 / 8 * images_in(before[0]), rel=1e-4)


@pytest.mark.parametrize("name", ["Train", "training", "TRAINING", "train"])
def test_the_images_of_a_split_are_those_that_fit_would_train_on(
    name: str, without_sums: Path, pictures: Path, tmp_path: Path, lsc_here: Called
) -> None:
    only(pictures, "train", [8, 9], tmp_path / "new" / name)
    only(pictures, "test", [8, 9], tmp_path / "new" / "Test")
    (tmp_path / "new" / "other").mkdir()
    done = lsc_here("extend", without_sums, "new", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert lsc.load(tmp_path / "out").classes[8:] == ["8", "9"]
    assert "from 40 images" in done.stdout
    assert done.stderr.splitlines() == [
        "lsc: warning: new: 1 left out, other/: it is the folder of no split (train, valid, test)",
        "lsc: warning: new: 1 left out, Test/: it is the folder of another split than train",
    ]
    # Two folders of one split, or another split alone: nothing says which is meant.
    only(pictures, "train", [8], tmp_path / "twice" / "Train")
    only(pictures, "train", [9], tmp_path / "twice" / "training")
    assert_refused(lsc_here("extend", without_sums, "twice", "--out", "none"), "for the split train: keep one of them")
    only(pictures, "train", [8], tmp_path / "alone" / "Validation")
    assert_refused(lsc_here("extend", without_sums, "alone", "--out", "none"), "alone: has Validation/ and no train/")


def test_what_is_passed_over_is_said(without_sums: Path, pictures: Path, tmp_path: Path, lsc_here: Called) -> None:
    shutil.copytree(pictures / "train" / "8", tmp_path / "new" / "8")
    shutil.copy(pictures / "train" / "9" / "000.png", tmp_path / "new" / "loose.png")
    (tmp_path / "new" / "8" / "notes.txt").write_text("")
    (tmp_path / "new" / "8" / "gone.png").symlink_to("nowhere")
    done = lsc_here("extend", without_sums, "new", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "from 20 images" in done.stdout
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    for part in (
        "new: 1 left out, new/loose.png: it lies in no class folder",
        "new: 1 left out, new/8/notes.txt: it is none of .jpg",
        "new: 1 left out, new/8/gone.png: the link leads to no file",
    ):
        assert any(line.startswith(f"lsc: warning: {part}") for line in lines), done.stderr


def in_a_table(pictures: Path, root: Path, digits: dict[str, list[int]], name: str = "labels.csv") -> Path:
    """Three images of each digit below ``root/images``, whose splits and classes a table has."""
    (root / "images").mkdir(parents=True)
    rows = []
    for split, members in digits.items():
        for digit in members:
            for number in range(3):
                file = f"images/{split}_{digit}_{number}.png"
                shutil.copy(pictures / "train" / str(digit) / f"{number:03d}.png", root / file)
                rows.append(f"{file},{digit},{split}")
    (root / name).write_text("path,class,split\n" + "\n".join(rows) + "\n")
    return root


def test_classes_come_in_a_table_as_fit_takes_it(
    without_sums: Path, pictures: Path, tmp_path: Path, lsc_here: Called
) -> None:
    in_a_table(pictures, tmp_path / "new", {"train": [8], "test": [8, 0]})
    done = lsc_here("extend", without_sums, "new", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "9 classes, 1 of them new" in done.stdout
    assert "from 3 images" in done.stdout
    passed = "new: 6 left out, the first images/test_0_0.png: labels.csv has it in another split than train"
    assert done.stderr == f"lsc: warning: {passed}\n"
    assert lsc.load(tmp_path / "out").classes[8:] == ["8"]
    done = lsc_here("evaluate", "out", "--images", "new", "--device", "cpu")
    assert json.loads(done.stdout) | {"split": "test", "images": 6} == json.loads(done.stdout)
    assert (
        "new: 3 left out, the first images/train_8_0.png: labels.csv has it in another split than test" in done.stderr
    )
    # With folders of splits beside it the table is not read.
    only(pictures, "train", [9], tmp_path / "new" / "train")
    done = lsc_here("extend", without_sums, "new", "--out", "other")
    assert lsc.load(tmp_path / "other").classes[8:] == ["9"]
    assert "labels.csv is not read, since new has train/" in done.stderr
    in_a_table(pictures, tmp_path / "alone", {"test": [8]})
    assert_refused(
        lsc_here("extend", without_sums, "alone", "--out", "none"), "alone: has rows of test and no rows of train"
    )
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "labels.csv").write_text("path,class\n")
    assert_refused(lsc_here("extend", without_sums, "empty", "--out", "none"), "labels.csv: lists no images")


def test_a_run_is_judged_by_the_test_images_of_a_folder_with_splits(
    without_sums: Path, pictures: Path, tmp_path: Path, lsc_here: Called
) -> None:
    for split, name in (("train", "train"), ("test", "Testing")):
        only(pictures, split, list(range(8)), tmp_path / "new" / name)
    done = lsc_here("evaluate", without_sums, "--images", "new", "--device", "cpu")
    by_splits = json.loads(done.stdout)
    assert done.stderr == "lsc: warning: new: 1 left out, train/: it is the folder of another split than test\n"
    alone = scores(lsc_here, without_sums, Path("new/Testing"))
    assert by_splits == alone | {"split": "test", "folder": "new"}
    # One split alone is the one that is meant; of several without test nothing says which.
    (tmp_path / "new" / "Testing").rename(tmp_path / "Testing")
    assert scores(lsc_here, without_sums, Path("new"))["split"] == "train"
    (tmp_path / "Testing").rename(tmp_path / "new" / "val")
    refused = lsc_here("evaluate", without_sums, "--images", "new", "--device", "cpu")
    assert_refused(
        refused, "new: has train/ and val/ and no test/, by which a run is judged; give the folder of the split"
    )


def test_a_folder_that_cannot_be_written_is_known_before_the_first_image(
    with_sums: Path, pictures: Path, tmp_path: Path, lsc_here: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = only(pictures, "train", [8], tmp_path / "new")
    here = tmp_path / "here"
    here.mkdir()
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "target").mkdir()

    def unwanted(*_: Any, **__: Any) -> None:
        raise AssertionError("the images were looked at")

    trained = lsc.load(with_sums)
    with monkeypatch.context() as patch:
        patch.setattr(extending, "new_images", unwanted)
        patch.chdir(here)
        for out, words in ((Path("."), "is the current folder"), (Path("/proc/nowhere/out"), "No such file")):
            with pytest.raises(lsc.UserError, match=rf"^--out {out}: {words}"):
                trained.extend(new, out=out)
    assert not list(here.iterdir())
    done = lsc_here("extend", with_sums, new, "--out", "link")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "link").is_symlink()
    assert lsc.load(tmp_path / "target").classes[8:] == ["8"]


def test_examples_that_join_later_are_counted_alone(without_sums: Path, pictures: Path, tmp_path: Path) -> None:
    files = sorted((pictures / "train" / "8").iterdir())[:9]
    first = lsc.load(without_sums).extend(files[:6], ["new"] * 6, out=tmp_path / "one", enrol=True)
    second = first.extend(files[6:8], ["new"] * 2, out=tmp_path / "two", enrol=True)
    assert second.summary["extended"]["images"] == 2
    assert second.task.objective.counts.tolist() == [8]
    assert first.task.objective.counts.tolist() == [6]
    # None of a class's further images can be read: that is said, and not hidden by those that it has.
    (tmp_path / "bad" / "new").mkdir(parents=True)
    (tmp_path / "bad" / "new" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(lsc.UserError, match="class new: none of its images could be read"):
        second.extend(tmp_path / "bad", out=tmp_path / "none")
    assert not (tmp_path / "none").exists()
