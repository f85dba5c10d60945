"""`lsc.CenterClassifier`: scikit-learn's conventions, on images and on features."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone, is_classifier
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import lsc
from lsc.errors import UserError

QUICK = {"duration": "30 steps", "device": "cpu"}


def vectors() -> tuple[np.ndarray, np.ndarray]:
    """(60, 4) features of which the first tells the class, and the classes."""
    y = np.arange(60) % 2
    values = np.random.default_rng(0).normal(size=(60, 4))
    values[:, 0] += 10 * y
    return values, y


@pytest.fixture(scope="module")
def digits() -> Any:
    found = load_digits(n_class=5)
    order = np.random.default_rng(0).permutation(len(found.target))
    return (found.images[order] * 15).astype(np.uint8), np.array(list("abcde"))[found.target[order]]


@pytest.fixture(scope="module")
def featured() -> lsc.CenterClassifier:
    return lsc.CenterClassifier(**QUICK).fit(*vectors())


@pytest.fixture(scope="module")
def fitted(digits: Any) -> lsc.CenterClassifier:
    images, names = digits
    return lsc.CenterClassifier(**QUICK, settings={"encoder": {"width": 8}}).fit(images[:600], names[:600])


def test_images_are_classified_by_their_names(fitted: lsc.CenterClassifier, digits: Any) -> None:
    images, names = digits
    assert fitted.classes_.tolist() == list("abcde")
    assert fitted.score(images[600:], names[600:]) > 0.9
    predicted = fitted.predict(images[600:])
    assert predicted.dtype == names.dtype
    assert fitted.score(images[600:], predicted) == 1
    embeddings = fitted.transform(images[:7])
    assert embeddings.shape == (7, 128)
    assert np.array_equal(embeddings, fitted.transform(images[:7, None]))
    assert fitted.predict(images[:0]).shape == (0,)


def test_it_repeats_and_survives_pickle(fitted: lsc.CenterClassifier, digits: Any) -> None:
    images, names = digits
    again = clone(fitted)
    assert not hasattr(again, "classes_")
    assert again.get_params() == fitted.get_params()
    again.fit(images[:600], names[:600])
    assert np.array_equal(again.transform(images[:50]), fitted.transform(images[:50]))
    copied = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(copied.transform(images[:50]), fitted.transform(images[:50]))


def test_features_go_through_pipelines_and_cross_validation(tmp_path: Path) -> None:
    iris = load_iris()
    classifier = lsc.CenterClassifier(**QUICK)
    assert is_classifier(classifier)
    scores = cross_val_score(make_pipeline(StandardScaler(), classifier), iris.data, iris.target, cv=2)
    assert scores.min() > 0.85
    kept = clone(classifier).set_params(out=tmp_path / "run").fit(iris.data, iris.target)
    assert kept.n_features_in_ == 4
    assert (tmp_path / "run" / "summary.json").exists()
    assert np.array_equal(pickle.loads(pickle.dumps(kept)).predict(iris.data), kept.predict(iris.data))


def test_a_backbone_takes_images_by_its_name(digits: Any) -> None:
    images, names = digits
    found = lsc.CenterClassifier("small_cnn", duration="60 steps", device="cpu").fit(images[:600], names[:600])
    assert found.trained_.run.encoder.name == "small_cnn"
    assert found.score(images[600:], names[600:]) > 0.5


def test_a_feature_that_varies_later_alone_decides_nothing() -> None:
    """A rare word, a pixel at the border; and a feature counts the same in whatever unit it is measured."""
    iris = load_iris()
    values = np.hstack([iris.data, np.full((len(iris.data), 1), 3.0)])
    found = lsc.CenterClassifier(**QUICK).fit(values, iris.target)
    later = values.copy()
    later[:, 4] += 1
    assert np.array_equal(found.predict(later), found.predict(values))
    tiny = lsc.CenterClassifier(**QUICK).fit(iris.data * 1e-9, iris.target)
    assert tiny.score(iris.data * 1e-9, iris.target) > 0.85


def test_features_far_from_zero_keep_their_digits() -> None:
    """Such as seconds since 1970, of which float32 has one number in 128."""
    values, y = vectors()
    values[:, 0] += 1.7e9
    found = lsc.CenterClassifier(**QUICK).fit(values, y)
    assert found.score(values, y) == 1
    copied = pickle.loads(pickle.dumps(found))
    assert np.array_equal(copied.transform(values), found.transform(values))


def test_rounding_of_a_constant_feature_decides_nothing() -> None:
    values, y = vectors()
    values[:, 1] = np.where(y, 0.1 + 0.2, 0.3)
    values[:, 2] = y * 1e-200  # its square is none
    found = lsc.CenterClassifier(**QUICK).fit(values, y)
    other = values.copy()
    other[:, 1:3] = 0.3
    assert np.array_equal(found.transform(other), found.transform(values))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.int8, np.bool_])
def test_features_of_any_kind_of_number_count_as_they_are(kind: Any, featured: lsc.CenterClassifier) -> None:
    values = vectors()[0].round(1).astype(kind)
    assert np.array_equal(featured.transform(values), featured.transform(values.astype(np.float64)))


def test_copies_leave_the_generator_alone(fitted: lsc.CenterClassifier, featured: lsc.CenterClassifier) -> None:
    for classifier in (fitted, featured):
        before = torch.get_rng_state()
        copied = copy.deepcopy(classifier)
        assert torch.equal(torch.get_rng_state(), before)
        weights = [model.trained_.task.state_dict() for model in (copied, classifier)]
        assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_training_that_fails_leaves_what_was_fitted(featured: lsc.CenterClassifier) -> None:
    values, y = vectors()
    found = copy.deepcopy(featured)
    predicted = found.predict(values)
    with pytest.raises(UserError, match="no duration"):
        found.set_params(duration="bogus").fit(values[:, :3] * 5, np.array(list("abc"))[np.arange(60) % 3])
    assert found.classes_.tolist() == [0, 1]
    assert found.n_features_in_ == 4
    assert np.array_equal(found.predict(values), predicted)
    new = lsc.CenterClassifier(duration="bogus")
    with pytest.raises(UserError, match="no duration"):
        new.fit(values, y)
    assert not hasattr(new, "classes_")


def test_what_came_out_is_there_without_a_folder(featured: lsc.CenterClassifier) -> None:
    for classifier in (featured, copy.deepcopy(featured)):
        assert 0 <= classifier.trained_.summary["final_top1"] <= 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"data": {"nonsense": 1}}, "settings data: arrays are taken as they are"),
        ({"seed": 1}, "settings seed: use random_state"),
        ({"device": "cpu"}, "settings device: use the parameter device"),
        ({"workers": 2}, "settings workers: arrays need none"),
        (
            {"encoder": {"name": "resnet18", "frozen": True, "hidden": 8}},
            "hidden alone, not name, frozen: leave them out",
        ),
        ({"encoder": {"nonsense": 3}}, "hidden alone, not nonsense: leave it out"),
        ({"encoder": None}, "settings encoder: must be a block"),
        ({"encoder": "resnet18"}, "settings encoder: must be a block"),
        ({"training": {"nonsense": 3}}, "nonsense: unknown key"),
    ],
)
def test_settings_that_nothing_would_heed_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as refused:
        lsc.CenterClassifier(**QUICK, settings=settings).fit(*vectors())
    assert "\n" not in str(refused.value)


def test_settings_of_images_and_of_the_layer_are_taken(digits: Any) -> None:
    images, names = digits
    with pytest.raises(UserError, match="settings data"):
        lsc.CenterClassifier(**QUICK, settings={"data": {"flip": True}}).fit(images, names)
    with pytest.raises(UserError, match="settings encoder: must be a block"):
        lsc.CenterClassifier(**QUICK, settings={"encoder": None}).fit(images, names)
    found = lsc.CenterClassifier(duration="2 steps", device="cpu", settings={"encoder": {"hidden": 8}}).fit(*vectors())
    assert found.trained_.run.encoder.hidden == 8


def test_text_that_looks_like_a_number_stays_text() -> None:
    """The digest of a network for 263 features is 8283529e9317."""
    generator = np.random.default_rng(0)
    found = lsc.CenterClassifier(duration="2 steps", device="cpu").fit(generator.random((20, 263)), np.arange(20) % 2)
    assert found.trained_.run.encoder.fingerprint == "8283529e9317"


def test_what_it_cannot_take_is_one_line(fitted: lsc.CenterClassifier, digits: Any) -> None:
    images, names = digits
    new = lsc.CenterClassifier(**QUICK)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        new.predict(images)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        new.predict([])
    with pytest.raises(UserError, match=r"y must have shape \(10,\), a class for each of X, not \(10, 1\)"):
        fitted.score(images[:10], names[:10, None])
    for X, y, words in [  # noqa: N806
        (images[:10], names[:9], r"y must have shape \(10,\)"),
        (images[:10], np.full(10, "a"), "one class alone"),
        (images[:10].astype(np.float32), names[:10], "uint8 images"),
        (np.full((10, 3), np.nan), names[:10], "not finite"),
        (np.full((10, 3), 1e300), names[:10], "not finite in float32"),
        (np.array([["x"]] * 10), names[:10], "uint8 images"),
    ]:
        with pytest.raises(UserError, match=words):
            new.fit(X, y)
    with pytest.raises(UserError, match=r"items of shape \(1, 4, 8\); it was fitted to \(1, 8, 8\)"):
        fitted.predict(images[:2, :4])
    with pytest.raises(UserError, match="no parameter 'durations'"):
        new.set_params(durations=3)
    with pytest.raises(UserError, match="takes images"):
        lsc.CenterClassifier("small_cnn", **QUICK).fit(np.eye(4), [0, 1, 0, 1])
    assert repr(new) == "CenterClassifier(duration='30 steps', device='cpu')"
