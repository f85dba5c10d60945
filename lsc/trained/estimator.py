"""A classifier with scikit-learn's conventions: arrays in, ``fit``, ``predict``, ``transform``, ``score``."""

import inspect
import io
import tempfile
from contextlib import nullcontext, redirect_stderr
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from lsc.data.base import Dataset
from lsc.data.given import Given
from lsc.data.memory import MemoryDataset, Split
from lsc.data.options import Augmentation
from lsc.errors import UserError
from lsc.settings import merge
from lsc.trained.advice import Images, advise, settings_of
from lsc.trained.fitting import fit as fit_backbone
from lsc.trained.looking import ground, is_coloured
from lsc.trained.planning import refuse_words
from lsc.trained.trained import Trained, load
from lsc.training import records

# Width of the layer that features of one's own go through.
_WIDTH = 512
# What is predicted at a time.
_BATCH = 1024
# Of a run's folder, what it takes to predict.
_KEPT = (records.CONFIG, records.SUMMARY, records.ENCODER, records.OBJECTIVE)


class CenterClassifier:
    """Classify images, or vectors of features, by the nearest of predefined class centers.

    It has no layer with a row for each class, so that many classes cost no more than few. Settings that are not given are
    chosen to suit the data, as ``lsc fit`` does for a folder.

    >>> from sklearn.datasets import load_digits
    >>> digits = load_digits()
    >>> images = (digits.images * 15).astype("uint8")  # (1797, 8, 8)
    >>> classifier = CenterClassifier(duration="40 steps").fit(images[:1500], digits.target[:1500])
    >>> bool(classifier.score(images[1500:], digits.target[1500:]) > 0.8)
    True

    Args:
        backbone: name of one of :data:`lsc.encoders.ENCODERS`; None: the usual one. For features a layer is put before the
            read-out.
        duration: as ``30 epochs`` or ``500 steps``; None: what suits the number of images.
        random_state: the seed of everything that is random.
        device: "auto", "cpu" or "cuda".
        settings: further blocks of a run's settings, as :func:`lsc.fit` takes them.
        out: folder of the run, to be opened by :func:`lsc.load` later on; None: nothing is kept on the disk.
        verbose: show how the training goes, on stderr.

    Attributes:
        classes_: (num_classes,) the classes, sorted, as ``y`` had them.
        n_features_in_: numbers of a vector, where ``X`` had vectors.
    """

    _estimator_type = "classifier"

    def __init__(
        self,
        backbone: str | None = None,
        *,
        duration: str | None = None,
        random_state: int = 0,
        device: str = "auto",
        settings: dict[str, Any] | None = None,
        out: str | Path | None = None,
        verbose: bool = False,
    ) -> None:
        self.backbone = backbone
        self.duration = duration
        self.random_state = random_state
        self.device = device
        self.settings = settings
        self.out = out
        self.verbose = verbose

    def __repr__(self) -> str:
        given = [f"{key}={value!r}" for key, value in self.get_params().items() if value != _DEFAULTS[key]]
        return f"CenterClassifier({', '.join(given)})"

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name; ``deep`` is there for scikit-learn."""
        return {name: getattr(self, name) for name in _DEFAULTS}

    def set_params(self, **params: Any) -> Self:
        """Change parameters.

        Raises:
            UserError: there is no parameter of that name.
        """
        for name, value in params.items():
            if name not in _DEFAULTS:
                raise UserError(f"CenterClassifier has no parameter {name!r}; it has {', '.join(_DEFAULTS)}")
            setattr(self, name, value)
        return self

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Train on images or features.

        Args:
            X: uint8 images (N, H, W) or (N, C, H, W), or floats (N, F).
            y: (N,) classes, numbers or text.

        Raises:
            UserError: other shapes or types, numbers that are not finite, or a single class.
        """
        values, y = _checked(X), np.asarray(y)
        if y.ndim != 1 or len(y) != len(values):
            raise UserError(f"y must have shape ({len(values)},), a class for each of X, not {y.shape}")
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise UserError(f"y has one class alone, {self.classes_.tolist()}: training needs two")
        self._shape = values.shape[1:]
        self.n_features_in_ = int(np.prod(self._shape))
        targets = torch.from_numpy(labels.astype(np.int64))
        quiet = nullcontext() if self.verbose else redirect_stderr(io.StringIO())
        with tempfile.TemporaryDirectory() as temporary, quiet:
            folder = Path(temporary) / "run" if self.out is None else Path(self.out)
            if values.ndim == 2:
                self._mean, self._std = values.mean(0, dtype=np.float64), _deviation(values)
                self.trained_ = self._fit_features(values, targets, folder)
            else:
                self.trained_ = self._fit_images(torch.from_numpy(values), targets, folder)
            self._files = {name: (folder / name).read_bytes() for name in _KEPT}
        return self

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """(N,) the classes of images or features, of the kind and shape that it was fitted to."""
        if len(X) == 0:
            return self.classes_[:0]
        inputs, trained = self._inputs(X), self._fitted()
        found = torch.cat([trained.predict(part)[:, 0] for part in torch.split(inputs, _BATCH)])
        predicted: NDArray[Any] = self.classes_[found.numpy()]
        return predicted

    def transform(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """(N, dim) embeddings, float32."""
        inputs, trained = self._inputs(X), self._fitted()
        return torch.cat([trained.embed(part) for part in torch.split(inputs, _BATCH)]).numpy()

    def score(self, X: Any, y: Any) -> float:  # noqa: N803
        """Share of ``X`` whose class is predicted right."""
        return float(np.mean(self.predict(X) == np.asarray(y)))

    def __getstate__(self) -> dict[str, Any]:
        """For pickle: the run's files stand for what was loaded from them."""
        return {name: value for name, value in vars(self).items() if name != "trained_"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if "_files" in state:
            with tempfile.TemporaryDirectory() as temporary:
                for name, content in state["_files"].items():
                    (Path(temporary) / name).write_bytes(content)
                self.trained_ = load(temporary, backbone=self._network() if len(self._shape) == 1 else None)

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            transformer_tags=TransformerTags(),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(two_d_array=True, three_d_array=True),
        )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "trained_")

    def _fit_images(self, images: Tensor, labels: Tensor, folder: Path) -> Trained:
        sample = [
            picture.expand(3, -1, -1) if len(picture) == 1 else picture
            for picture in images[:: max(1, len(images) // 64)]
        ]
        about = self._about(labels, min(images.shape[2:]))
        about |= {"colour": any(map(is_coloured, sample)), "ground": float(np.median([ground(p) for p in sample]))}
        described = Images(**about)
        # Shifts do no harm to any class; whether they may be mirrored nobody knows here.
        views = Augmentation(crop_padding=max(1, min(images.shape[2:]) // 12))
        data = MemoryDataset("given", {"train": Split(images, labels)}, num_classes=len(self.classes_), augment=views)
        return self._trained(described, data, self.backbone, folder)

    def _fit_features(self, values: NDArray[np.float32], labels: Tensor, folder: Path) -> Trained:
        if self.backbone is not None:
            raise UserError(f"backbone {self.backbone!r} takes images, X has vectors: leave it out")
        data = Given({"train": TensorDataset(self._scaled(values), labels)}, num_classes=len(self.classes_))
        return self._trained(Images(**self._about(labels, 32)), data, self._network(), folder)

    def _network(self) -> nn.Module:
        """What features go through before the read-out."""
        torch.manual_seed(self.random_state)
        return nn.Sequential(nn.Linear(self.n_features_in_, _WIDTH), nn.GELU())

    def _about(self, labels: Tensor, side: int) -> dict[str, Any]:
        counts = tuple(torch.bincount(labels, minlength=len(self.classes_)).tolist())
        return {
            "name": "X", "counts": counts, "side": side, "longest": side, "colour": False, "ground": 0.0,
            "splits": ("train",),
        }  # fmt: skip

    def _trained(self, about: Images, data: Dataset, backbone: nn.Module | str | None, folder: Path) -> Trained:
        given: dict[str, Any] = {"training": {"evaluate_every": 10**9, "embeddings": 0}}
        if self.duration is not None:
            given["training"]["duration"] = self.duration
        block = {"encoder": {"name": backbone}} if isinstance(backbone, str) else {}
        given = merge(merge(block, given), self.settings or {})
        refuse_words(given, "settings")
        on = "cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu"
        side = {"data": {"image_size": about.side}}  # arrays are taken in the size that they have
        chosen = settings_of(advise(about, merge(side, given), on), given)
        chosen.pop("data")
        name = chosen["encoder"].pop("name")
        patch = chosen["encoder"].get("patch", 1)
        if any(length % patch for length in data.image_shape[1:]):
            chosen["encoder"].pop("patch")
        if isinstance(backbone, nn.Module):
            chosen["encoder"] = {key: chosen["encoder"][key] for key in ("hidden",)}
        return fit_backbone(
            backbone if isinstance(backbone, nn.Module) else name,
            data,
            folder,
            seed=self.random_state,
            device=self.device,
            restart=True,
            **chosen,
        )

    def _inputs(self, X: Any) -> Tensor:  # noqa: N803
        self._fitted()
        values = _checked(X)
        if values.shape[1:] != self._shape:
            raise UserError(f"X has items of shape {values.shape[1:]}; it was fitted to {self._shape}")
        return self._scaled(values) if values.ndim == 2 else torch.from_numpy(values)

    def _scaled(self, values: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(((values - self._mean) / self._std).astype(np.float32))

    def _fitted(self) -> Trained:
        if hasattr(self, "trained_"):
            return self.trained_
        message = "this CenterClassifier is not fitted yet: call fit(X, y) first"
        try:
            from sklearn.exceptions import NotFittedError
        except ModuleNotFoundError:
            raise UserError(message) from None
        raise NotFittedError(message)


_DEFAULTS = {
    name: parameter.default for name, parameter in inspect.signature(CenterClassifier).parameters.items()
}  # fmt: skip


def _deviation(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Standard deviation (F,) of the columns; infinite where one is constant, so that what varies later counts for nothing."""
    deviation: NDArray[np.float64] = values.std(0, dtype=np.float64)
    return np.where(values.max(0) == values.min(0), np.inf, deviation)


def _checked(X: Any) -> NDArray[Any]:  # noqa: N803
    """Images as uint8 (N, C, H, W), or features as float32 (N, F)."""
    values = np.asarray(X)
    if values.ndim == 2 and values.dtype.kind in "fiub":
        values = values.astype(np.float32)
        if not np.isfinite(values).all():
            raise UserError("X has numbers that are not finite (NaN or infinity): fill or remove them")
        return values
    if values.ndim in (3, 4) and values.dtype == np.uint8:
        images = values[:, None] if values.ndim == 3 else values
        if images.shape[1] in (1, 2, 3, 4):
            return np.ascontiguousarray(images)
    raise UserError(
        f"X must be uint8 images of shape (N, H, W) or (N, C, H, W), or numbers of shape (N, F), not {values.dtype} of shape "
        f"{values.shape}"
    )
