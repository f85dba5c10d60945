"""A classifier with scikit-learn's conventions: arrays in, ``fit``, ``predict``, ``transform``, ``score``."""

import inspect
import io
import json
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
        settings: further blocks of a run's settings, as :func:`lsc.fit` takes them, but for ``data``: arrays are taken as they
            are. For features ``encoder`` has the key ``hidden`` alone.
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
            UserError: other shapes or types, numbers that are not finite, a single class, or settings that do not go with arrays.
        """
        values = _checked(X)
        classes, labels = np.unique(_checked_classes(y, len(values)), return_inverse=True)
        if len(classes) < 2:
            raise UserError(f"y has one class alone, {classes.tolist()}: training needs two")
        _refuse_settings(self.settings or {}, features=values.ndim == 2)
        targets = torch.from_numpy(labels.astype(np.int64))
        quiet = nullcontext() if self.verbose else redirect_stderr(io.StringIO())
        with tempfile.TemporaryDirectory() as temporary, quiet:
            folder = Path(temporary) / "run" if self.out is None else Path(self.out)
            if values.ndim == 2:
                mean, std = values.mean(0, dtype=np.float64), _deviation(values)
                trained = self._fit_features(_scaled(values, mean, std), targets, folder)
            else:
                trained = self._fit_images(torch.from_numpy(values), targets, folder)
            files = {name: (folder / name).read_bytes() for name in _KEPT}
        # Last, and all together: a training that fails leaves what was fitted before.
        if values.ndim == 2:
            self._mean, self._std = mean, std
        self.classes_, self._shape, self._files = classes, values.shape[1:], files
        self.n_features_in_ = int(np.prod(self._shape))
        self.trained_ = _Held(trained, files[records.SUMMARY]) if self.out is None else trained
        return self

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """(N,) the classes of images or features, of the kind and shape that it was fitted to."""
        trained = self._fitted()
        if len(X) == 0:
            return self.classes_[:0]
        found = torch.cat([trained.predict(part)[:, 0] for part in torch.split(self._inputs(X), _BATCH)])
        predicted: NDArray[Any] = self.classes_[found.numpy()]
        return predicted

    def transform(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """(N, dim) embeddings, float32."""
        inputs, trained = self._inputs(X), self._fitted()
        return torch.cat([trained.embed(part) for part in torch.split(inputs, _BATCH)]).numpy()

    def score(self, X: Any, y: Any) -> float:  # noqa: N803
        """Share of ``X`` whose class is predicted right.

        Raises:
            UserError: what ``X`` is, or ``y`` has not a class for each of it.
        """
        predicted = self.predict(X)
        return float(np.mean(predicted == _checked_classes(y, len(predicted))))

    def __getstate__(self) -> dict[str, Any]:
        """For pickle: the run's files stand for what was loaded from them."""
        return {name: value for name, value in vars(self).items() if name != "trained_"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if "_files" in state:
            backbone = self._network(self.n_features_in_) if len(self._shape) == 1 else None
            with tempfile.TemporaryDirectory() as temporary:
                for name, content in state["_files"].items():
                    (Path(temporary) / name).write_bytes(content)
                self.trained_ = _Held(load(temporary, backbone=backbone), state["_files"][records.SUMMARY])

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
        about = _about(labels, min(images.shape[2:]))
        about |= {"colour": any(map(is_coloured, sample)), "ground": float(np.median([ground(p) for p in sample]))}
        described = Images(**about)
        # Shifts do no harm to any class; whether they may be mirrored nobody knows here.
        views = Augmentation(crop_padding=max(1, min(images.shape[2:]) // 12))
        data = MemoryDataset(
            "given", {"train": Split(images, labels)}, num_classes=len(described.counts), augment=views
        )
        return self._trained(described, data, self.backbone, folder)

    def _fit_features(self, values: Tensor, labels: Tensor, folder: Path) -> Trained:
        if self.backbone is not None:
            raise UserError(f"backbone {self.backbone!r} takes images, X has vectors: leave it out")
        described = Images(**_about(labels, 32))
        data = Given({"train": TensorDataset(values, labels)}, num_classes=len(described.counts))
        return self._trained(described, data, self._network(values.shape[1]), folder)

    def _network(self, features: int) -> nn.Module:
        """What features go through before the read-out. torch goes on afterwards as if nothing had been drawn."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(self.random_state))  # torch.manual_seed would seed GPUs as well
            return nn.Sequential(nn.Linear(features, _WIDTH), nn.GELU())

    def _trained(self, about: Images, data: Dataset, backbone: nn.Module | str | None, folder: Path) -> Trained:
        given: dict[str, Any] = {"training": {"evaluate_every": 10**9, "embeddings": 0}}
        if self.duration is not None:
            given["training"]["duration"] = self.duration
        block = {"encoder": {"name": backbone}} if isinstance(backbone, str) else {}
        given = merge(merge(block, given), self.settings or {})
        on = "cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu"
        side = {"data": {"image_size": about.side}}  # arrays are taken in the size that they have
        chosen = settings_of(advise(about, merge(side, given), on), given)
        chosen.pop("data")
        name = chosen["encoder"].pop("name")
        patch = chosen["encoder"].get("patch", 1)
        if any(length % patch for length in data.image_shape[1:]):
            chosen["encoder"].pop("patch")
        if isinstance(backbone, nn.Module):
            chosen["encoder"] = {"hidden": chosen["encoder"]["hidden"]}
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
        return _scaled(values, self._mean, self._std) if values.ndim == 2 else torch.from_numpy(values)

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


class _Held(Trained):
    """A run whose folder does not last: what came out of it is held in memory.

    Args:
        trained: the run.
        summary: content of its ``summary.json``.
    """

    def __init__(self, trained: Trained, summary: bytes) -> None:
        super().__init__(trained.folder, trained.restored)
        self._summary = summary

    @property
    def summary(self) -> dict[str, Any]:
        """What came out of the training."""
        return json.loads(self._summary)


def _about(labels: Tensor, side: int) -> dict[str, Any]:
    return {
        "name": "X", "counts": tuple(torch.bincount(labels).tolist()), "side": side, "longest": side, "colour": False,
        "ground": 0.0, "splits": ("train",),
    }  # fmt: skip


def _refuse_settings(settings: dict[str, Any], *, features: bool) -> None:
    """Raise a UserError where settings hold what is no block, or what the estimator decides or has a parameter for."""
    refuse_words(settings, "settings")
    if settings.get("encoder", {}) is None:
        raise UserError("settings encoder: must be a block of settings, such as {hidden: 256}, got None")
    for key in settings:
        if key == "data":
            raise UserError("settings data: arrays are taken as they are: leave it out")
        if key == "seed":
            raise UserError("settings seed: use random_state")
        if key in _DEFAULTS:
            raise UserError(f"settings {key}: use the parameter {key} of CenterClassifier")
        if key in inspect.signature(fit_backbone).parameters:
            raise UserError(f"settings {key}: arrays need none: leave it out")
    others = [key for key in settings.get("encoder", {}) if key != "hidden"]
    if features and others:
        them = "it" if len(others) == 1 else "them"
        raise UserError(
            f"settings encoder: for features it has hidden alone, not {', '.join(others)}: leave {them} out"
        )


def _deviation(values: NDArray[Any]) -> NDArray[np.float64]:
    """Standard deviation (F,) of the columns; infinite where one is constant, so that what varies later counts for nothing.

    What differs in the last digits of float64 alone is constant: it was rounded. So is what is too small to be squared.
    """
    deviation: NDArray[np.float64] = values.std(0, dtype=np.float64)
    least, most = (ends.astype(np.float64) for ends in (values.min(0), values.max(0)))
    rounding = 16 * np.finfo(np.float64).eps * np.maximum(abs(least), abs(most))
    return np.where((most - least <= rounding) | (deviation == 0), np.inf, deviation)


def _scaled(values: NDArray[Any], mean: NDArray[np.float64], std: NDArray[np.float64]) -> Tensor:
    """Features (N, F) in deviations from the mean: float32, rounded once the mean, which may be large, is off."""
    return torch.from_numpy(((values - mean) / std).astype(np.float32))


def _checked_classes(y: Any, count: int) -> NDArray[Any]:
    """The classes (N,) of ``count`` items."""
    classes = np.asarray(y)
    if classes.shape != (count,):
        raise UserError(f"y must have shape ({count},), a class for each of X, not {classes.shape}")
    return classes


def _checked(X: Any) -> NDArray[Any]:  # noqa: N803
    """Images as uint8 (N, C, H, W), or features (N, F) as float16 or float32, if they are, else float64."""
    values = np.asarray(X)
    if values.ndim == 2 and values.dtype.kind in "fiub":
        if values.dtype not in (np.float16, np.float32):
            values = values.astype(np.float64, copy=False)
        with np.errstate(over="ignore"):
            finite = np.isfinite(values.astype(np.float32, copy=False)).all()
        if not finite:
            raise UserError(
                "X has numbers that are not finite in float32 (NaN, infinity, beyond 3e38): fill or remove them"
            )
        return values
    if values.ndim in (3, 4) and values.dtype == np.uint8:
        images = values[:, None] if values.ndim == 3 else values
        if images.shape[1] in (1, 2, 3, 4):
            return np.ascontiguousarray(images)
    raise UserError(
        f"X must be uint8 images of shape (N, H, W) or (N, C, H, W), or numbers of shape (N, F), not {values.dtype} of shape "
        f"{values.shape}"
    )
