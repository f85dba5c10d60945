"""``lsc predict``, ``lsc embed`` and the same from Python: files, folders, lists; scores, unknowns, faults."""

import csv
import io
import json
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from pyarrow import parquet
from safetensors import safe_open
from torch.utils.data import TensorDataset

import lsc
from lsc.data.scanning import images_below
from lsc.trained.images import listed, loaded
from lsc.trained.unknown import KNOWN_SCORES, Known
from tests.conftest import ROOT, Called, assert_refused
from tests.trained.conftest import make_run, only


@pytest.fixture(scope="session")
def some(pictures: Path) -> list[Path]:
    return [pictures / "test" / str(digit) / "000.png" for digit in range(10)]


def test_lines_of_text_jsonl_and_csv_say_the_same(with_sums: Path, some: list[Path], lsc_here: Called) -> None:
    trained = lsc.load(with_sums)
    labels, scores = trained.ranked(trained.embed(some), 3)
    text = lsc_here("predict", with_sums, *some, "-k", "3")
    assert text.returncode == 0, text.stderr
    rows = [line.split("\t") for line in text.stdout.splitlines()]
    assert rows == [[str(path), *map(str, row)] for path, row in zip(some, labels.tolist(), strict=True)]
    with_scores = lsc_here("predict", with_sums, *some, "-k", "3", "--scores").stdout.splitlines()
    assert with_scores[0].split("\t")[1::2] == rows[0][1:]
    answers = [
        json.loads(line)
        for line in lsc_here("predict", with_sums, *some, "--k", "3", "--format", "jsonl").stdout.splitlines()
    ]
    assert [[answer["path"], *answer["classes"]] for answer in answers] == rows
    assert {answer["score"] for answer in answers} == {"cosine"}
    assert np.allclose([answer["scores"] for answer in answers], scores, atol=1e-5)
    table = list(
        csv.DictReader(io.StringIO(lsc_here("predict", with_sums, *some, "-k", "3", "--format", "csv").stdout))
    )
    assert [[row["path"], *(row[f"class_{rank}"] for rank in (1, 2, 3))] for row in table] == rows
    assert np.allclose([float(row["cosine_1"]) for row in table], scores[:, 0], atol=1e-5)
    # By brute force: cosines to the centers.
    centers = trained.task.centers.vectors(torch.arange(8))  # type: ignore[union-attr]
    cosines = F.normalize(trained.embed(some), dim=1) @ F.normalize(centers, dim=1).T
    assert torch.allclose(scores, cosines.topk(3).values, atol=1e-5)


def test_scores_of_a_layer_are_probabilities(with_layer: Path, some: list[Path], lsc_here: Called) -> None:
    done = lsc_here("predict", with_layer, *some, "-k", "8", "--format", "jsonl")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert {answer["score"] for answer in answers} == {"probability"}
    assert np.allclose([sum(answer["scores"]) for answer in answers], 1, atol=1e-4)
    trained = lsc.load(with_layer)
    assert [answer["classes"][0] for answer in answers] == [trained.classes[i] for i in trained.predict(some)[:, 0]]


def test_files_folders_lists_and_stdin_name_the_same_images(with_sums: Path, pictures: Path, tmp_path: Path) -> None:
    folder = pictures / "test" / "3"
    (tmp_path / "list.txt").write_text("\n".join(map(str, sorted(folder.iterdir()))) + "\n\n")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}

    def call(*words: str | Path, **options: Any) -> str:
        command = [sys.executable, "-m", "lsc", "predict", str(with_sums), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, **options)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    by_folder = call(folder)
    assert len(by_folder.splitlines()) == len(list(folder.iterdir()))
    assert call("-", input=(tmp_path / "list.txt").read_text()) == by_folder
    assert listed([folder]) == sorted(folder.iterdir())


def test_a_list_in_a_file_and_lines_into_a_file(
    with_sums: Path, some: list[Path], tmp_path: Path, lsc_here: Called
) -> None:
    (tmp_path / "list.txt").write_text("\n".join(map(str, some)))
    done = lsc_here("predict", with_sums, "--from", "list.txt", "--out", "found/lines.txt")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "found" / "lines.txt").read_text() == lsc_here("predict", with_sums, *some).stdout


def test_a_fault_has_its_own_line_and_the_rest_go_on(
    with_sums: Path, some: list[Path], tmp_path: Path, lsc_here: Called
) -> None:
    (tmp_path / "broken.png").write_bytes(some[0].read_bytes()[:60])
    (tmp_path / "empty.png").write_bytes(b"")
    mixed = [some[0], "broken.png", "nowhere.png", some[1], "empty.png"]
    done = lsc_here("predict", with_sums, *mixed)
    assert done.returncode == 1
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [str(some[0]), str(some[1])]
    faults = done.stderr.splitlines()
    assert [name in line for name, line in zip(("broken.png", "nowhere.png", "empty.png"), faults, strict=False)] == [
        True
    ] * 3
    assert faults[3:] == ["lsc: 3 of 5 files could not be read"]
    done = lsc_here("predict", with_sums, *mixed, "--format", "jsonl", "--out", "lines.jsonl")
    assert done.returncode == 1
    answers = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert ["error" in answer for answer in answers] == [False, True, True, False, True]
    done = lsc_here("predict", with_sums, *mixed, "--format", "csv")
    assert [bool(row["error"]) for row in csv.DictReader(io.StringIO(done.stdout))] == [False, True, True, False, True]


def test_odd_names_come_through(with_sums: Path, some: list[Path], tmp_path: Path, lsc_here: Called) -> None:
    names = ["tab\there.png", "line\nend.png", "umlaut ü.png"]
    for name in names:
        (tmp_path / name).write_bytes(some[0].read_bytes())
    bytes_name = os.fsencode(tmp_path) + b"/not-utf8-\xff.png"
    with open(bytes_name, "wb") as stream:
        stream.write(some[0].read_bytes())
    text = lsc_here("predict", with_sums, *names).stdout.splitlines()
    assert [line.split("\t")[0] for line in text] == ["tab\\there.png", "line\\nend.png", "umlaut ü.png"]
    done = lsc_here("predict", with_sums, *names, os.fsdecode(bytes_name), "--format", "jsonl", "--out", "lines.jsonl")
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert [answer["path"] for answer in answers] == [*names, os.fsdecode(bytes_name)]
    assert lsc_here("embed", with_sums, os.fsdecode(bytes_name), "--out", "x.parquet").returncode == 0


def test_names_that_are_not_utf8_come_by_stdin_as_by_a_list(
    with_sums: Path, some: list[Path], tmp_path: Path, lsc_command: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["not-utf8-\udcff.png", "umlaut ü.png"]
    for name in names:
        (tmp_path / name).write_bytes(some[0].read_bytes())
    (tmp_path / "list.txt").write_bytes(b"not-utf8-\xff.png\r\n\n" + "umlaut ü.png".encode())
    for encoding in ("utf-8:strict", "latin-1:strict"):
        monkeypatch.setenv("PYTHONIOENCODING", encoding)
        for number, words in enumerate((["-"], ["--from", "list.txt"])):
            with (tmp_path / "list.txt").open("rb") as stream:
                done = lsc_command(
                    "predict", with_sums, *words, "--format", "jsonl", "--out", f"{number}.jsonl", stdin=stream
                )
            assert (done.returncode, done.stderr) == (0, "")
            answers = [json.loads(line) for line in (tmp_path / f"{number}.jsonl").read_text().splitlines()]
            assert [answer["path"] for answer in answers] == names


def test_names_between_nuls_are_one_line(
    with_sums: Path, some: list[Path], tmp_path: Path, lsc_here: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"".join(os.fsencode(path) + b"\0" for path in some)
    (tmp_path / "list.txt").write_bytes(content)
    assert_refused(
        lsc_here("predict", with_sums, "--from", "list.txt"), "--from list.txt: holds NUL", "one name a line"
    )
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert_refused(lsc_here("embed", with_sums, "-", "--out", "x.npz"), "stdin: holds NUL", "without -print0")
    with pytest.raises(lsc.UserError, match=r"'a\\x00b.png': holds a NUL character"):
        lsc.load(with_sums).embed("a\0b.png")
    assert [path.name for path in tmp_path.iterdir()] == ["list.txt"]


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_unknown_keeps_the_rate_of_false_alarms(
    rate: float, with_sums: Path, pictures: Path, tmp_path: Path, lsc_here: Called
) -> None:
    done = lsc_here("predict", with_sums, pictures / "test", "--unknown", str(rate), "--format", "jsonl")
    assert done.returncode == 0, done.stderr
    assert f"at most {100 * rate:g} % of images of known classes, by the 288 of digits/valid" in done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    is_known = [int(Path(answer["path"]).parent.name) < 8 for answer in answers]
    unknown = np.array([answer["unknown"] for answer in answers])
    # 288 images of known classes: within three standard deviations of the rate, where both samples are of that size.
    assert unknown[np.array(is_known)].mean() < rate + 3 * (2 * rate * (1 - rate) / 288) ** 0.5
    assert unknown[~np.array(is_known)].mean() > unknown[np.array(is_known)].mean()
    assert {answer["classes"][0] == "unknown" for answer in answers if answer["unknown"]} == {True}
    trained = lsc.load(with_sums)
    found = trained.classify(sorted((pictures / "test" / "9").iterdir()), 2, unknown=rate)
    assert all(len(row) == (1 if row[0].label < 0 else 2) for row in found)
    assert all((row[0].score < trained.threshold(rate)) == (row[0].name == "unknown") for row in found)


def test_the_threshold_is_the_score_that_so_many_known_images_miss() -> None:
    generator = torch.Generator().manual_seed(0)
    misses = []
    for _ in range(300):
        scores = torch.rand(49, generator=generator)
        misses.append(
            float(
                torch.rand(100, generator=generator).lt(Known(scores.sort().values, "x").threshold(0.1)).float().mean()
            )
        )
    assert np.mean(misses) == pytest.approx(5 / 50, abs=0.01)
    with pytest.raises(lsc.UserError, match="needs 100 held-out images or more"):
        Known(torch.rand(49), "x").threshold(0.01)
    for rate in (1.5, 0.0, float("nan"), float("inf"), -float("inf")):
        with pytest.raises(lsc.UserError, match="between 0 and 1"):
            Known(torch.rand(49), "x").threshold(rate)


def test_known_scores_are_kept_in_the_run_and_used_where_its_images_are_not(
    with_sums: Path, some: list[Path], tmp_path: Path
) -> None:
    import shutil

    trained = lsc.load(with_sums)
    value = trained.threshold(0.05)
    shutil.copytree(with_sums, tmp_path / "moved")
    config = tmp_path / "moved" / "config.yaml"
    moved = lsc.load(tmp_path / "moved")
    moved.restored.run.data.__dict__["classes"] = 99  # its data cannot be opened any more
    assert moved.threshold(0.05) == value
    (tmp_path / "moved" / KNOWN_SCORES).unlink()
    with pytest.raises(lsc.UserError, match=r"no held-out images to set a threshold by.*give --threshold"):
        moved.threshold(0.05)
    assert config.exists()
    assert moved.classify(some, threshold=2.0)[0][0].name == "unknown"
    with pytest.raises(lsc.UserError, match="--threshold nan: must be a number"):
        moved.classify(some, threshold=float("nan"))


def test_vacant_vectors_are_of_no_known_class(
    with_sums: Path, with_layer: Path, pictures: Path, tmp_path: Path, lsc_here: Called
) -> None:
    done = lsc_here("predict", with_sums, pictures / "test", "--vacant", "--format", "jsonl")
    assert done.returncode == 0, done.stderr
    trained = lsc.load(with_sums)
    files = list(images_below(pictures / "test"))
    expected = trained.task.centers.vacant(trained.embed(files))  # type: ignore[union-attr]
    assert [json.loads(line)["unknown"] for line in done.stdout.splitlines()] == expected.tolist()
    assert_refused(lsc_here("predict", with_layer, files[0], "--vacant"), "a classification layer has no vectors")
    make_run(tmp_path / "full", centers={"system": "polygon", "dim": 2}, training={"duration": "1 step"})
    assert_refused(lsc_here("predict", "full", files[0], "--vacant"), "all 8 vectors of polygon", "--unknown")


def test_mistakes_are_one_line(with_sums: Path, some: list[Path], tmp_path: Path, lsc_here: Called) -> None:
    (tmp_path / "none").mkdir()
    cases = [
        (["predict", with_sums], ["no images"]),
        (["predict", with_sums, "none"], ["none: holds no image"]),
        (["predict", with_sums, "--from", "nowhere.txt"], ["--from nowhere.txt"]),
        (["predict", with_sums, some[0], "--out", "none"], ["--out none: is a folder"]),
        (["predict", with_sums, some[0], "--unknown", "0.001"], ["needs 1000 held-out images"]),
        (["predict", with_sums, some[0], "--unknown", "nan"], ["--unknown nan: must lie between 0 and 1"]),
        (["predict", with_sums, some[0], "--unknown", "inf"], ["--unknown inf: must lie between 0 and 1"]),
        (["predict", with_sums, some[0], "--unknown", "1e-320"], ["needs inf held-out images"]),
        (["predict", with_sums, some[0], "--threshold", "nan"], ["--threshold nan: must be a number"]),
        (["predict", with_sums, some[0], "--threshold", "-inf"], ["--threshold -inf: must be a number"]),
        (["predict", with_sums, some[0], "--unknown", "0.1", "--vacant"], ["give one of them"]),
        (["predict", "none", some[0]], ["no finished run"]),
        (["embed", with_sums, some[0], "--out", "x.txt"], [".parquet, .safetensors, .npz"]),
        (["embed", with_sums, "nowhere.png", "--out", "x.npz"], ["none of the 1 files"]),
    ]
    for words, parts in cases:
        done = lsc_here(*words)
        done.stderr = done.stderr.splitlines()[-1]
        assert_refused(done, *parts)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["none"]


def test_a_stdout_that_is_full_is_one_line_and_one_that_nobody_reads_is_none(
    with_sums: Path, some: list[Path], lsc_here: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    full = os.open("/dev/full", os.O_WRONLY)
    for descriptor, code, words in ((full, 2, "lsc: error: standard output: the disk is full"), (writing, 1, "")):
        with os.fdopen(descriptor, "w") as stream:
            monkeypatch.setattr(sys, "stdout", stream)
            done = lsc_here("predict", with_sums, some[0])
        assert done.returncode == code
        assert done.stderr.splitlines()[-1].startswith(words) if words else "lsc:" not in done.stderr


@pytest.mark.parametrize("ending", ["parquet", "safetensors", "npz"])
def test_embeddings_come_back_from_every_format(
    ending: str, with_sums: Path, pictures: Path, tmp_path: Path, lsc_here: Called
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    done = lsc_here(
        "embed", with_sums, pictures / "test", "broken.png", "--out", f"x.{ending}", "--classes", "--batch-size", "64"
    )
    assert done.returncode == 1
    assert "1 of" in done.stderr
    files = list(images_below(pictures / "test"))
    trained = lsc.load(with_sums)
    wanted, (labels, scores) = trained.embed(files), trained.ranked(trained.embed(files))
    names = [trained.classes[label] for label in labels[:, 0].tolist()]
    path = tmp_path / f"x.{ending}"
    if ending == "parquet":
        table = parquet.read_table(path)
        assert table["path"].to_pylist() == list(map(str, files))
        assert table["class"].to_pylist() == names
        found, found_scores = torch.tensor(table["embedding"].to_pylist()), torch.tensor(table["score"].to_pylist())
    elif ending == "npz":
        arrays = np.load(path)
        assert arrays["paths"].tolist() == list(map(str, files))
        assert arrays["classes"].tolist() == names
        found, found_scores = torch.from_numpy(arrays["embeddings"]), torch.from_numpy(arrays["scores"])
    else:
        with safe_open(path, framework="pt") as file:
            assert json.loads(file.metadata()["paths"]) == list(map(str, files))
            found, found_scores = file.get_tensor("embeddings"), file.get_tensor("scores")
            assert torch.equal(file.get_tensor("labels"), labels[:, 0])
    assert torch.allclose(found, wanted, atol=1e-5)
    assert torch.allclose(found_scores, scores[:, 0], atol=1e-5)


@pytest.mark.parametrize("ending", ["parquet", "safetensors", "npz"])
def test_a_place_that_cannot_be_written_to_is_known_before_the_first_image(
    ending: str, with_sums: Path, some: list[Path], tmp_path: Path, lsc_here: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwanted(*_: Any, **__: Any) -> None:
        raise AssertionError("an image was read")

    monkeypatch.setattr(lsc.Trained, "read", unwanted)
    (tmp_path / "file").write_text("")
    for out in (f"file/x.{ending}", f"/proc/nowhere/x.{ending}", f"{'x' * 300}.{ending}"):
        for command in ("embed", "predict"):
            assert_refused(lsc_here(command, with_sums, *some, "--out", out), f"--out {out[:150]}")


def test_more_names_than_the_metadata_hold_are_a_tensor(
    with_sums: Path, some: list[Path], tmp_path: Path, lsc_here: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = list(map(str, some))
    for most, kept in ((90_000_000, {"paths", "classes", "score"}), (200, {"classes", "score"}), (20, {"score"})):
        monkeypatch.setattr("lsc.trained.embeddings._MOST_METADATA", most)
        done = lsc_here("embed", with_sums, *some, "--classes", "--out", "x.safetensors")
        assert done.returncode == 0, done.stderr
        with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
            about = file.metadata() or {}
            assert set(about) == kept
            for name, wanted in (("paths", names), ("classes", [str(digit) for digit in range(8)])):
                text = about[name] if name in about else bytes(file.get_tensor(name).numpy())
                assert json.loads(text) == wanted
            assert len(file.get_tensor("embeddings")) == len(some)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.safetensors"]


def test_pictures_arrays_strings_and_paths_are_all_the_same(with_sums: Path, some: list[Path]) -> None:
    trained = lsc.load(str(with_sums))
    expected = trained.embed(some)
    large = [Image.open(path).resize((40, 30)) for path in some]
    assert torch.equal(trained.embed(list(map(str, some))), expected)
    assert torch.equal(trained.embed([Image.open(path) for path in some]), expected)
    assert torch.equal(trained.embed([np.asarray(Image.open(path).convert("RGB")) for path in some]), expected)
    assert torch.allclose(trained.embed(np.asarray(Image.open(some[0]))), expected[:1], atol=1e-4)
    assert torch.allclose(trained.embed([some[0], Image.open(some[1])]), expected[:2], atol=1e-4)
    assert trained.embed(large).shape == expected.shape
    assert trained.predict(some[0]).dtype == torch.int64
    best = trained.classify(some[0], 2)[0]
    assert [prediction.label for prediction in best] == trained.predict(some[0], 2)[0].tolist()
    for wrong in ([3], 3, [np.zeros((2, 8, 8, 3))], np.zeros((8, 8))):
        with pytest.raises(lsc.UserError, match="image"):
            trained.embed(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["I;16", "P", "LA", "1", "CMYK"])
def test_a_picture_of_any_mode_is_what_its_file_is(mode: str, with_sums: Path, tmp_path: Path) -> None:
    trained = lsc.load(with_sums)
    levels = np.random.default_rng(0).integers(0, 256, (16, 16))
    deep = mode == "I;16"
    picture = Image.fromarray((levels * 257).astype(np.uint16) if deep else levels.astype(np.uint8))
    picture = picture if deep else picture.convert(mode)
    picture.save(tmp_path / "picture.tif")
    assert np.array_equal(trained.embed(picture), trained.embed(tmp_path / "picture.tif"))
    with pytest.raises(lsc.UserError, match="no known range"):
        trained.embed(Image.fromarray(levels.astype(np.float32)))


def test_an_image_of_too_many_pixels_is_a_line_and_takes_no_memory(with_sums: Path, tmp_path: Path) -> None:
    import resource

    # A whole header and no pixels: nobody should get as far as these.
    header = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (tmp_path / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(lsc.UserError, match=r"huge\.png holds 40,000 x 40,000 pixels, more than the 178,956,970"):
        lsc.load(with_sums).embed(tmp_path / "huge.png")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB; decoded it has 4.8 GB
    Image.new("L", (40_000, 20)).save(tmp_path / "long.png")
    assert lsc.load(with_sums).embed(tmp_path / "long.png").shape == (1, 16)


def test_links_that_lead_in_circles_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("a/1.png", "a/b/2.JPG", "a/.hidden.png", "a/notes.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a" / "b" / "back").symlink_to(tmp_path / "a")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "3.png").write_bytes(b"")
    (tmp_path / "a" / "link").symlink_to(tmp_path / "elsewhere")
    assert [path.name for path in listed([tmp_path / "a"])] == ["1.png", "2.JPG", "3.png"]


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_come_in_order_whatever_the_threads(workers: int) -> None:
    def read(path: Path) -> torch.Tensor:
        if int(path.name) % 7 == 0:
            raise lsc.UserError(f"{path}: seven")
        return torch.tensor([int(path.name)])

    paths = [Path(str(number)) for number in range(50)]
    batches = list(loaded(paths, read, batch_size=8, workers=workers))
    assert [len(batch.paths) for batch in batches] == [8] * 6 + [2]
    assert torch.cat([batch.images for batch in batches]).flatten().tolist() == [n for n in range(50) if n % 7]
    assert [8 * i + place for i, batch in enumerate(batches) for place in batch.faults] == list(range(0, 50, 7))


def test_what_a_folder_has_besides_images_is_said_once(
    with_sums: Path, some: list[Path], tmp_path: Path, lsc_here: Called
) -> None:
    (tmp_path / "mixed").mkdir()
    for number in range(3):
        (tmp_path / "mixed" / f"{number}.heic").write_bytes(b"")
    (tmp_path / "mixed" / "one.png").write_bytes(some[0].read_bytes())
    for words in (["predict"], ["embed", "--out", "x.npz"]):
        done = lsc_here(words[0], with_sums, "mixed", "mixed", *words[1:])
        assert done.returncode == 0, done.stderr
        (line,) = done.stderr.splitlines()
        assert line.startswith("lsc: warning: mixed: 3 left out, the first mixed/0.heic: it is none of .jpg")


def test_a_path_that_cannot_be_looked_at_is_a_fault_of_its_own(
    with_sums: Path, some: list[Path], tmp_path: Path, lsc_here: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data.json").write_text("[" + '"x.png", ' * 9999 + f"]\n{some[0]}\n")
    done = lsc_here("predict", with_sums, "--from", "data.json")
    assert done.returncode == 1
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [str(some[0])]
    fault, total = done.stderr.splitlines()
    assert fault.endswith("...: File name too long; give image files")
    assert len(fault) < 300
    assert total == "lsc: 1 of 2 files could not be read"
    plain = Path.stat

    def refuse(path: Path, **options: Any) -> os.stat_result:
        if "closed" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        return plain(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    assert listed(["closed/a.png", *some]) == [Path("closed/a.png"), *some]


def test_lines_go_where_a_link_leads_and_into_pipes(
    with_sums: Path, some: list[Path], tmp_path: Path, lsc_here: Called
) -> None:
    wanted = lsc_here("predict", with_sums, *some).stdout
    (tmp_path / "shared.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("shared.txt")
    assert lsc_here("predict", with_sums, *some, "--out", "link.txt").returncode == 0
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "shared.txt").read_text() == wanted
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert lsc_here("predict", with_sums, *some, "--out", "pipe").returncode == 0
    assert os.read(reader, 1 << 16).decode() == wanted
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


@pytest.fixture(scope="session")
def on_tensors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs on tensors of somebody's own (3, 8, 8): "floats", which the data set normalised, and "uint8"."""
    pixels, labels = torch.randint(256, (32, 3, 8, 8), dtype=torch.uint8), torch.arange(32) % 2
    pixels[labels == 1] //= 4
    runs = {name: tmp_path_factory.mktemp("on_tensors") / name for name in ("floats", "uint8")}
    for name, images in (("floats", (pixels / 255 - 0.5) / 0.25), ("uint8", pixels)):
        items = TensorDataset(images, labels)
        training = {"duration": "4 epochs", "batch_size": 16, "learning_rate": 0.01}
        lsc.fit("small_cnn", items, runs[name], device="cpu", training=training, encoder={"width": 4})
    return runs


def test_a_run_on_floats_takes_no_pictures(
    on_tensors: dict[str, Path], some: list[Path], pictures: Path, tmp_path: Path, lsc_here: Called
) -> None:
    trained, said = lsc.load(on_tensors["floats"]), "was trained on float tensors of shape (3, 8, 8), not on images"
    asked: list[Any] = [some[0], some, Image.open(some[0]), [Image.open(some[0])], np.zeros((8, 8), np.uint8)]
    for images in asked:
        for ask in (trained.predict, trained.embed, trained.classify):
            with pytest.raises(lsc.UserError, match=re.escape(said)):
                ask(images)
        if isinstance(images, list):
            with pytest.raises(lsc.UserError, match=re.escape(said)):
                trained.extend(images, ["new"] * len(images), out=tmp_path / "new")
    with pytest.raises(lsc.UserError, match="float tensors, not on uint8 ones; give floats"):
        trained.predict(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    assert trained.predict(torch.zeros(2, 3, 8, 8)).shape == (2, 1)
    only(pictures, "test", [0, 1], tmp_path / "judged")
    for words in (
        ["predict", some[0]],
        ["predict", *some, "--format", "csv"],
        ["embed", *some, "--out", "x.npz"],
        ["extend", "judged", "--out", "new"],
        ["evaluate", "--images", "judged"],
    ):
        done = lsc_here(words[0], on_tensors["floats"], *words[1:])
        assert_refused(done, said, "give tensors as its data set gave them")
        assert done.stdout == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["judged"]


def test_a_run_on_uint8_tensors_takes_pictures(
    on_tensors: dict[str, Path], some: list[Path], tmp_path: Path, lsc_here: Called
) -> None:
    trained = lsc.load(on_tensors["uint8"])
    tensor = torch.stack([trained.read(path) for path in some])
    assert torch.equal(trained.embed(some), trained.embed(tensor))
    assert torch.equal(trained.embed(some), trained.embed(tensor.float()))
    done = lsc_here("predict", on_tensors["uint8"], some[0])
    assert (done.returncode, done.stderr) == (0, "")


def test_a_score_that_is_no_number_is_below_every_threshold(
    with_sums: Path, some: list[Path], lsc_here: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(self: lsc.Trained, images: torch.Tensor) -> torch.Tensor:
        return torch.full((len(images), 16), torch.nan)

    monkeypatch.setattr(lsc.Trained, "_embedded", nowhere)
    trained = lsc.load(with_sums)
    assert [row[0][::2] for row in trained.classify(some, threshold=-2.0)] == [("unknown", -1)] * 10
    done = lsc_here("predict", with_sums, *some, "--threshold", "-2")
    assert [line.split("\t")[1] for line in done.stdout.splitlines()] == ["unknown"] * 10
