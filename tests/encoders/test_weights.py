"""Backbones that start from trained weights: published models, state dicts, finished runs; frozen or not."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from lsc.encoders import ENCODERS, build_encoder
from lsc.encoders.published import Published
from lsc.encoders.weights import load_backbone
from lsc.errors import UserError

SHAPE = (3, 32, 32)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A torchvision model's whole state dict, classification layer included."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    torch.save(models.squeezenet1_1(num_classes=3).state_dict(), path.with_name("other.pth"))
    torch.save(models.resnet18().state_dict(), path)
    return path


def test_a_published_model_gives_the_features_before_its_classification_layer(saved: Path) -> None:
    whole = models.resnet18()
    whole.load_state_dict(torch.load(saved))
    whole.eval()
    whole.fc = nn.Identity()
    backbone = ENCODERS["torchvision"](SHAPE, model="resnet18")
    assert load_backbone(backbone, str(saved)) is None
    backbone.eval()
    values = torch.rand(2, *SHAPE)
    mean, std = (torch.tensor(three).view(-1, 1, 1) for three in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    normalised = (values - mean) / std
    with torch.no_grad():
        torch.testing.assert_close(backbone(values), whole(normalised))
        grey = ENCODERS["torchvision"]((1, 32, 32), model="resnet18")
        load_backbone(grey, str(saved))
        torch.testing.assert_close(grey.eval()(values[:, :1]), backbone(values[:, :1].expand(-1, 3, -1, -1)))
    assert backbone.features == 512
    assert backbone.statistics == ((0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize("form", ["safetensors", "nested", "parallel", "bare"])
def test_weights_come_in_the_forms_in_which_people_save_them(form: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    source, target = (ENCODERS["small_cnn"](SHAPE, width=4) for _ in range(2))
    weights: Any = source.state_dict() | {"fc.weight": torch.zeros(3, 16)}
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt")
    if form == "safetensors":
        save_file(weights, path)
    elif form == "nested":
        torch.save({"epoch": 3, "state_dict": weights}, path)
    elif form == "parallel":
        torch.save({f"module.{key}": value for key, value in weights.items()}, path)
    else:
        torch.save({key: value for key, value in weights.items() if "num_batches" not in key}, path)
    load_backbone(target, str(path))
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value), name


def test_what_holds_other_weights_or_none_is_one_line(saved: Path, tmp_path: Path) -> None:
    backbone = ENCODERS["torchvision"](SHAPE, model="resnet18")
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    (tmp_path / "no.pth").write_bytes(b"nonsense")
    (tmp_path / "no.safetensors").write_bytes(b"nonsense")
    (tmp_path / "text.pth").write_text("hello world")
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    cases = {
        str(saved.with_name("other.pth")): "has no conv1.weight: weights of another network",
        str(tmp_path / "no.pth"): "cannot be read as weights",
        str(tmp_path / "no.safetensors"): "cannot be read as weights",
        str(tmp_path / "text.pth"): "cannot be read as weights",
        "x" * 300: r"x+\.\.\. cannot be looked at \(File name too long\)",
        str(tmp_path / "tensor.pth"): "holds Tensor, no state dict",
        str(tmp_path / "none.pth"): r"none\.pth is not there; give a state dict",
        str(tmp_path): "encoder.safetensors is not there",
    }
    for source, words in cases.items():
        with pytest.raises(UserError, match=words) as caught:
            load_backbone(backbone, source)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"has shape \(64, 3, 7, 7\), here \(64, 1, 7, 7\)"):
        load_backbone(ENCODERS["resnet18"]((1, 32, 32), small_images=False), str(saved))
    with pytest.raises(UserError, match="torchvision's and timm's models have published weights alone"):
        load_backbone(ENCODERS["small_cnn"](SHAPE), "cached")
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_cached_weights_are_looked_for_where_torch_keeps_them(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    backbone = ENCODERS["torchvision"](SHAPE, model="resnet18")
    with pytest.raises(UserError, match=r"resnet18-f37072fd\.pth is not there; fetch it .*get_model\('resnet18'"):
        load_backbone(backbone, "cached")
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth").write_bytes(saved.read_bytes())
    load_backbone(backbone, "cached")
    assert torch.equal(backbone.state_dict()["model.conv1.weight"], torch.load(saved)["conv1.weight"])


def test_models_that_are_not_there_or_do_not_fit_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for model, words in {
        "resnet19": "torchvision has alexnet",
        "alexnet": r"takes no images of 32x32 pixels .*data\.image_size",
        "squeezenet1_1": "does not end with a linear layer",
    }.items():
        with pytest.raises(UserError, match=words):
            ENCODERS["torchvision"](SHAPE, model=model)
    with pytest.raises(UserError, match="not images of 2 channels"):
        ENCODERS["torchvision"]((2, 32, 32), model="resnet18")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"encoder timm, model resnet18: needs timm.*lsc\[timm\]"):
        ENCODERS["timm"](SHAPE, model="resnet18")


def test_timm_models_have_their_own_statistics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    source = timm.create_model("vit_tiny_patch16_224", num_classes=5)
    torch.save(source.state_dict(), tmp_path / "vit.pth")
    backbone = ENCODERS["timm"]((3, 224, 224), model="vit_tiny_patch16_224")
    assert isinstance(backbone, Published)
    assert backbone.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    load_backbone(backbone, str(tmp_path / "vit.pth"))
    values = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        wanted = source.eval().forward_head(source.forward_features((values - 0.5) / 0.5), pre_logits=True)
        torch.testing.assert_close(backbone.eval()(values), wanted)
    with pytest.raises(UserError, match=r"is not there; fetch it .*timm\.create_model"):
        load_backbone(backbone, "cached")
    with pytest.raises(UserError, match=r"timm\.list_models\(\) has all"):
        ENCODERS["timm"](SHAPE, model="resnet19")


def test_a_frozen_backbone_is_neither_trained_nor_are_its_statistics() -> None:
    encoder = build_encoder("small_cnn", SHAPE, 8, hidden=16, frozen=True, width=4)
    before = {name: value.clone() for name, value in encoder.backbone.state_dict().items()}
    encoder.train()
    assert encoder.projection.training
    encoder(torch.randn(4, *SHAPE)).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in encoder.backbone.state_dict().items())
    assert all(parameter.grad is None for parameter in encoder.backbone.parameters())
    assert all(parameter.grad is not None for parameter in encoder.projection.parameters())


def test_patches_lose_nothing_and_must_fit() -> None:
    backbone = ENCODERS["small_cnn"]((3, 64, 64), width=4, patch=2)
    unshuffled = backbone[0](torch.arange(3 * 64 * 64.0).view(1, 3, 64, 64))
    assert unshuffled.shape == (1, 12, 32, 32)
    assert sorted(unshuffled.flatten().tolist()) == list(range(3 * 64 * 64))
    assert backbone(torch.zeros(2, 3, 64, 64)).shape == (2, 16)
    with pytest.raises(UserError, match=r"encoder\.patch 3: must divide"):
        ENCODERS["small_cnn"]((3, 64, 64), patch=3)
