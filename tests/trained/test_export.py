"""Exports give what the run gives, in ONNX and in torch.export, and their README runs as it stands."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import lsc
from lsc.data.trees import write_cinic10_tree
from lsc.trained.export_readme import readme
from lsc.training.loop import train
from tests.conftest import Called, assert_refused, tiny_run
from tests.trained.conftest import only

onnxruntime = pytest.importorskip("onnxruntime")


def run_onnx(folder: Path, images: NDArray[Any]) -> list[NDArray[Any]]:
    return onnxruntime.InferenceSession(folder / "model.onnx").run(None, {"images": images})


def as_rgb(trained: lsc.Trained, files: list[Path]) -> NDArray[np.uint8]:
    """(B, H, W, 3) of files that have the run's size."""
    views = torch.stack([trained.read(path) for path in files]).expand(-1, 3, -1, -1)
    return np.ascontiguousarray(views.permute(0, 2, 3, 1).numpy())


def some_of(pictures: Path) -> list[Path]:
    return [path for digit in range(10) for path in sorted((pictures / "test" / str(digit)).iterdir())[:6]]


def assert_same(trained: lsc.Trained, files: list[Path], found: Any, k: int) -> None:
    embeddings, labels, scores = (torch.as_tensor(part) for part in found)
    wanted_labels, wanted_scores = trained.ranked(trained.embed(files), k)
    assert torch.allclose(embeddings, trained.embed(files), atol=1e-4)
    assert torch.allclose(scores, wanted_scores, atol=1e-4)
    clear = wanted_scores[:, 0] - wanted_scores[:, 1] > 1e-3
    assert clear.float().mean() > 0.8
    assert torch.equal(labels[clear, 0], wanted_labels[clear, 0])


def test_both_formats_give_what_the_run_gives_and_the_readme_runs(
    with_sums: Path, pictures: Path, tmp_path: Path, lsc_here: Called
) -> None:
    done = lsc_here("export", with_sums, "--out", "exported", "-k", "3", "--unknown", "0.1")
    assert done.returncode == 0, done.stderr
    folder, trained = tmp_path / "exported", lsc.load(with_sums)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "model.json", "model.onnx", "model.pt2"]
    files = some_of(pictures)
    images = as_rgb(trained, files)
    program = torch.export.load(folder / "model.pt2").module()
    assert_same(trained, files, run_onnx(folder, images), 3)
    assert_same(trained, files, program(torch.from_numpy(images)), 3)
    for count in (1, 2, 7):  # any number of images
        assert run_onnx(folder, images[:count])[0].shape == (count, 16)
        assert program(torch.from_numpy(images[:count]))[1].shape == (count, 3)
    about = json.loads((folder / "model.json").read_text())
    assert about["classes"] == trained.classes
    assert (about["score"], about["threshold"]) == ("cosine", trained.threshold(0.1))
    assert "10 % of held-out images" in (folder / "README.md").read_text()
    assert_readme_agrees(folder, trained, pictures / "test" / "3" / "000.png", 3)


def test_a_layer_gives_its_probabilities(with_layer: Path, pictures: Path, tmp_path: Path) -> None:
    trained, files = lsc.load(with_layer), some_of(pictures)
    trained.export(tmp_path / "exported", formats=("onnx",))
    assert_same(trained, files, run_onnx(tmp_path / "exported", as_rgb(trained, files)), 5)


def test_classes_known_by_examples_are_exported_too(without_sums: Path, pictures: Path, tmp_path: Path) -> None:
    new = only(pictures, "train", [8, 9], tmp_path / "new")
    trained, files = lsc.load(without_sums).extend(new, out=tmp_path / "extended"), some_of(pictures)
    trained.export(tmp_path / "exported", formats=("pt2",))
    program = torch.export.load(tmp_path / "exported" / "model.pt2").module()
    assert_same(trained, files, program(torch.from_numpy(as_rgb(trained, files))), 5)


def test_photographs_are_cut_to_the_central_square(tmp_path: Path) -> None:
    write_cinic10_tree(tmp_path / "images", per_class=2)
    data = {"name": "folder", "root": str(tmp_path / "images"), "image_size": 16, "workers": 0}
    settings = {"duration": "2 steps", "batch_size": 20}
    train(tiny_run(data=data, training=settings), tmp_path / "run", accelerator="cpu")
    trained = lsc.load(tmp_path / "run")
    trained.export(tmp_path / "exported", formats=("onnx",), pixels="float32")
    large = tmp_path / "large.png"
    from PIL import Image

    Image.open(next((tmp_path / "images" / "test" / "cat").iterdir())).resize((90, 61)).save(large)
    assert_readme_agrees(tmp_path / "exported", trained, large, 5)


def test_an_image_that_lies_on_its_side_is_turned_upright(tmp_path: Path) -> None:
    from PIL import Image

    write_cinic10_tree(tmp_path / "images", per_class=2)
    data = {"name": "folder", "root": str(tmp_path / "images"), "image_size": 16, "workers": 0}
    train(tiny_run(data=data, training={"duration": "2 steps", "batch_size": 20}), tmp_path / "run", accelerator="cpu")
    trained, lying = lsc.load(tmp_path / "run"), tmp_path / "lying.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: to be turned by a quarter
    image = Image.open(next((tmp_path / "images" / "test" / "cat").iterdir())).convert("RGB").resize((20, 14))
    image.save(lying, exif=exif, quality=95)
    assert trained.classify(Image.open(lying), 5) == trained.classify(lying, 5)
    assert trained.classify(np.asarray(Image.open(lying)), 5) != trained.classify(lying, 5)
    trained.export(tmp_path / "exported", formats=("onnx",))
    assert_readme_agrees(tmp_path / "exported", trained, lying, 5)
    assert "turned upright first, as its EXIF data say" in (tmp_path / "exported" / "README.md").read_text()


def assert_readme_agrees(folder: Path, trained: lsc.Trained, image: Path, k: int) -> None:
    """The lines in a README print what the run says of the image, but for the rounding of pixels in resizing."""
    text = (folder / "README.md").read_text()
    code = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(code) == 1
    assert "lsc" not in code[0]
    assert len([line for line in code[0].splitlines() if line and "import" not in line]) <= 10
    (folder / "image.png").write_bytes(image.read_bytes())
    done = subprocess.run([sys.executable, "-c", code[0]], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = dict(eval(done.stdout))
    wanted = {prediction.name: prediction.score for prediction in trained.classify(image, k)[0]}
    assert found.keys() == wanted.keys()
    assert max(abs(found[name] - wanted[name]) for name in wanted) < 0.01


def test_of_very_many_classes_the_embedding_comes_alone(with_sums: Path, pictures: Path, tmp_path: Path) -> None:
    trained = lsc.load(with_sums)
    trained.export(tmp_path / "exported", formats=("pt2",), most_classes=7)
    file = pictures / "test" / "3" / "000.png"
    embeddings = torch.export.load(tmp_path / "exported" / "model.pt2").module()(
        torch.from_numpy(as_rgb(trained, [file]))
    )
    assert torch.allclose(embeddings, trained.embed(file), atol=1e-4)
    assert "nearest center" in (tmp_path / "exported" / "README.md").read_text()
    about = json.loads((tmp_path / "exported" / "model.json").read_text())
    assert "(embeddings,) = model.run" in readme(trained, about, ("onnx",))


def test_a_run_on_tensors_is_exported_as_it_is(tmp_path: Path) -> None:
    points = torch.randn(60, 3)
    data = torch.utils.data.TensorDataset(points, points.argmax(1))
    network = nn.Sequential(nn.Linear(3, 8), nn.ReLU())
    trained = lsc.fit(network, data, tmp_path / "run", device="cpu", training={"duration": "5 steps", "batch_size": 20})
    trained.export(tmp_path / "exported", formats=("pt2",))
    embeddings, labels, scores = torch.export.load(tmp_path / "exported" / "model.pt2").module()(points)
    assert np.allclose(embeddings, trained.embed(points), atol=1e-4)
    assert np.allclose(scores, trained.ranked(trained.embed(points), 3)[1], atol=1e-4)
    assert (labels[:, 0] == trained.predict(points)[:, 0]).float().mean() > 0.95


def test_mistakes_are_one_line_and_leave_nothing(
    with_sums: Path, tmp_path: Path, lsc_here: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "precious").write_text("")
    assert_refused(lsc_here("export", with_sums, "--out", "used"), "--out used: holds something already")
    assert_refused(lsc_here("export", "used", "--out", "out"), "no finished run")
    with monkeypatch.context() as patch:
        patch.setattr("lsc.trained.export.exported_program", lambda *_: pytest.fail("the network was exported"))
        for out in ("/proc/nowhere/out", "used/precious/out", "x" * 300):
            assert_refused(lsc_here("export", with_sums, "--out", out), f"--out {out[:150]}")
    assert_refused(lsc_here("export", with_sums, "--out", "out", "--unknown", "2"), "between 0 and 1")
    with pytest.raises(lsc.UserError, match="formats tflite"):
        lsc.load(with_sums).export(tmp_path / "out", formats=("tflite",))

    class Branches(nn.Module):
        features = 4

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, :4] * (2 if float(x.sum()) > 0 else 1)

    trained = lsc.load(with_sums)
    trained.task.encoder.backbone = Branches()
    with pytest.raises(lsc.UserError, match=r"its encoder small_cnn cannot be exported") as caught:
        trained.export(tmp_path / "out", formats=("pt2",))
    assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert_refused(lsc_here("export", with_sums, "--out", "out"), "needs onnxscript", "pip install 'lsc[export]'")
    assert [path.name for path in tmp_path.iterdir()] == ["used"]
