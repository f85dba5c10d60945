"""Models that others published, as backbones: torchvision's and timm's by their names, without their classification layer.

They are made untrained; their trained weights come from a file (``encoder.weights``, see :mod:`lsc.encoders.weights`). They
take values from 0 to 1, in three channels or one, and shift and scale them themselves by the statistics that the weights
were trained with, which are not those of the data set.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import torch
from torch import Tensor, nn

from lsc.errors import UserError, needing
from lsc.parameters import Setting

Model = Annotated[str, Setting("name of the model, as its package lists it")]

# The usual statistics of ImageNet-1K, where the package says nothing else of a model.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Published(nn.Module):
    """A published model: (B, C, H, W) of values from 0 to 1, C 1 or 3 -> features (B, F).

    Args:
        model: from normalised images (B, 3, H, W) to features.
        name: of the model, for messages.
        mean, std: per channel, what ``model`` was trained with.
        places: files in which its package keeps the published weights on this machine, the best first.
        remedy: how they get there.

    Attributes:
        statistics: mean and deviation with which it wants its images normalised: not at all.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        name: str,
        image_shape: tuple[int, int, int],
        *,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
        places: Sequence[Path] = (),
        remedy: str = "",
    ) -> None:
        super().__init__()
        channels = image_shape[0]
        if channels not in (1, 3):
            raise UserError(f"encoder.model {name}: takes colour or grey images, not images of {channels} channels")
        self.model, self.name, self._places, self._remedy = model, name, tuple(places), remedy
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)
        self.statistics = ((0.0,) * channels, (1.0,) * channels)
        self.features = self._tried(image_shape)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.model((images.expand(-1, 3, -1, -1) - self.mean) / self.std)
        return features

    def cached(self) -> Path:
        """The file of the published weights on this machine.

        Raises:
            UserError: it is not there; it says which was looked for, and how to get it.
        """
        found = next((path for path in self._places if path.is_file()), None)
        if found is not None:
            return found
        looked = f"{self._places[0]} is not there" if self._places else "none were published"
        raise UserError(f"encoder.weights cached: of {self.name} {looked}; {self._remedy}, or give a file")

    def _tried(self, image_shape: tuple[int, int, int]) -> int:
        """F, after one image was tried."""
        self.model.eval()
        try:
            with torch.no_grad():
                out = self.model(torch.zeros(1, 3, *image_shape[1:]))
        except (AssertionError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:120]
            raise UserError(
                f"encoder.model {self.name}: takes no images of {image_shape[1]}x{image_shape[2]} pixels ({reason}); set "
                "data.image_size to what the model was made for, often 224"
            ) from None
        self.model.train()
        if not isinstance(out, Tensor) or out.ndim != 2:
            raise UserError(f"encoder.model {self.name}: gives no vector for each image; choose another model")
        return out.shape[1]


def torchvision(image_shape: tuple[int, int, int], model: Model = "resnet18") -> nn.Module:
    """A classification model of torchvision, e.g. resnet50, convnext_tiny, vit_b_16."""
    from torchvision import models

    known = models.list_models(module=models)
    if model not in known:
        raise UserError(f"encoder.model {model!r}: torchvision has {', '.join(known)}")
    made = models.get_model(model, weights=None)
    # The second classifier of Inception and GoogLeNet is for training from scratch.
    if getattr(made, "aux_logits", False):
        made.aux_logits = False
    layers = [name for name, layer in made.named_modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise UserError(f"encoder.model {model}: does not end with a linear layer; choose another, e.g. resnet18")
    made.set_submodule(layers[-1], nn.Identity())
    published = list(models.get_model_weights(model))
    published.sort(key=lambda weights: weights != models.get_model_weights(model).DEFAULT)
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    return Published(
        made,
        f"torchvision's {model}",
        image_shape,
        places=[folder / weights.url.rpartition("/")[2] for weights in published],
        remedy="fetch it where there is internet by python -c \"import torchvision; torchvision.models.get_model("
        f"'{model}', weights='DEFAULT')\"",
    )  # fmt: skip


def timm(image_shape: tuple[int, int, int], model: Model = "resnet18") -> nn.Module:
    """A model of timm (PyTorch Image Models), which the extra lsc[timm] brings."""
    with needing("timm", f"encoder timm, model {model}"):
        import timm as package
    try:
        made = package.create_model(model, pretrained=False, num_classes=0)
    except RuntimeError as error:
        raise UserError(
            f"encoder.model {model!r}: {' '.join(str(error).split())}; timm.list_models() has all"
        ) from None
    about = cast(dict[str, Any], made.pretrained_cfg)
    return Published(
        made,
        f"timm's {model}",
        image_shape,
        mean=about.get("mean") or MEAN,
        std=about.get("std") or STD,
        places=_timm_places(about),
        remedy=f"fetch it where there is internet by python -c \"import timm; timm.create_model('{model}', pretrained=True)\"",
    )


def _timm_places(about: dict[str, Any]) -> list[Path]:
    """Where timm keeps a model's published weights: the Hugging Face cache, or torch's."""
    places = []
    if about.get("hf_hub_id"):
        with needing("timm", "weights of timm"):
            from huggingface_hub import constants, try_to_load_from_cache
        for name in ("model.safetensors", "pytorch_model.bin"):
            found = try_to_load_from_cache(about["hf_hub_id"], name)
            folder = f"models--{about['hf_hub_id'].replace('/', '--')}"
            places.append(Path(found) if isinstance(found, str) else Path(constants.HF_HUB_CACHE) / folder / name)
    if about.get("url"):
        places.append(Path(torch.hub.get_dir()) / "checkpoints" / about["url"].rpartition("/")[2])
    return places
