"""Settings for somebody who has images and no wish to choose: all the rules, each with its reason, and nothing else.

The rules are functions of what the images are like (:class:`Images`), of the machine, and of the settings that were given,
which always win. They hold up on the sets that the tests draw (``tests/own_images.py``), but few alternatives were tried there;
docs/learning.md tells where the widths of the read-out come from. Those for a GPU are a guess.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lsc.settings import merge

# From so many classes on centers are made to fit the network. Until then a read-out in closed form, with two hidden activations
# for each class, serves as well (docs/learning.md); beyond, its sums and solutions would take longer than the network.
MANY = 2000

# Few images are gone through until so many steps are made: of a network without weights, and of one with published ones.
LEAST_STEPS = (400, 300)

# Images whose most frequent brightness covers so much are drawn on a plain ground: characters, symbols, diagrams.
PLAIN_GROUND = 0.5


@dataclass(frozen=True)
class Images:
    """What a folder's images are like.

    Attributes:
        name: the folder, for people.
        counts: training images of each class.
        side: the median length of an image's shorter side, in pixels.
        longest: the greatest length of any side that was seen.
        colour: whether any is coloured.
        ground: the median share of an image that has its most frequent brightness.
        splits: those that there are, "train" among them.
    """

    name: str
    counts: tuple[int, ...]
    side: int
    longest: int
    colour: bool
    ground: float
    splits: tuple[str, ...]

    @property
    def train(self) -> int:
        """Number of training images."""
        return sum(self.counts)

    @property
    def drawn(self) -> bool:
        """Whether they are drawn on a plain ground, as characters are."""
        return self.ground >= PLAIN_GROUND

    def __str__(self) -> str:
        least, most = min(self.counts), max(self.counts)
        each = f"{least} each" if least == most else f"{least} to {most} each"
        kind = "colour" if self.colour else "grey"
        splits = [split for split in ("valid", "test") if split in self.splits]
        also = f"; also {' and '.join(splits)}" if splits else "; no valid, no test"
        return (
            f"{self.name}: {len(self.counts):,} classes, {self.train:,} training images ({each}), {kind}, about "
            f"{self.side} pixels{', on a plain ground' if self.drawn else ''}{also}"
        )


@dataclass(frozen=True)
class Choice:
    """A few settings that belong together, and why they are what they are."""

    settings: Mapping[str, Any]
    why: str

    def __str__(self) -> str:
        return " ".join(f"{key}={value}" for key, value in _flat(self.settings).items())


def advise(images: Images, given: Mapping[str, Any], device: str = "cpu") -> list[Choice]:
    """The choices for a folder of images, in the order in which they are made.

    Args:
        given: settings that are given, as blocks of a run; no choice is made for them, and the others fit them.
        device: "cpu" or "cuda".
    """
    block = dict(given.get("encoder") or {})
    name = block.get("name") or usual_encoder(images, device)
    published, frozen = name in ("torchvision", "timm"), bool(block.get("frozen"))
    size = int((given.get("data") or {}).get("image_size") or image_size(images, name, device))
    choices = [
        hold_out(images),
        backbone(images, name, size, device, given_weights="weights" in block),
        Choice({"data": {"image_size": size}}, _why_size(images, size, published)),
        colours(images, published),
        loading(images),
        views(images),
        fitted_centers(images) if _fits(images, frozen, given) else read_out(images, frozen),
        training(images, name, frozen, weights=published or block.get("weights") is not None),
    ]
    return [choice for choice in (_without(choice, given) for choice in choices if choice.settings) if choice.settings]


def settings_of(choices: list[Choice], given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run: those chosen, with those given laid over them."""
    settings: dict[str, Any] = {"data": {"name": "folder"}, "objective": {"name": "cosine"}}
    if "name" in (given.get("encoder") or {}):
        # A block that got its name later would be replaced whole.
        settings["encoder"] = {"name": given["encoder"]["name"]}
    for choice in choices:
        settings = merge(settings, dict(choice.settings))
    if (given.get("objective") or {}).get("name") in ("cross_entropy", "partial_fc"):
        settings.pop("readout", None)  # a layer of rows has no closed form
    return merge(settings, dict(given))


def hold_out(images: Images) -> Choice:
    """Images to judge by while it trains."""
    if "valid" in images.splits:
        return Choice({}, "")
    share = 0.2 if images.train < 50 * len(images.counts) else 0.1
    last = "" if "test" in images.splits else " and to judge the result, as there is no test"
    return Choice(
        {"data": {"valid_share": share}},
        f"no valid: {share:.0%} of each class are held out to watch the training{last}",
    )


def usual_encoder(images: Images, device: str) -> str:
    """The small network, which is quick and enough for some thousand images; a deeper one where a GPU has many to learn from."""
    return "resnet18" if device == "cuda" and images.train >= 5000 and images.side > 32 else "small_cnn"


def image_size(images: Images, name: str, device: str) -> int:
    """The side that images are brought to, a multiple of 32."""
    if name in ("torchvision", "timm"):
        return 224
    if name == "resnet18" and device == "cuda":
        return 224 if images.side >= 160 else 64
    if images.side <= 40:
        return 32
    return 64 if images.side <= 100 else 128


def backbone(images: Images, name: str, size: int, device: str, given_weights: bool) -> Choice:
    """The network."""
    if name == "small_cnn":
        patch = max(1, size // 32) if size % 32 == 0 else 1
        taken = f"; {patch}x{patch} pixels are taken together, so that large images cost no more" if patch > 1 else ""
        return Choice({"encoder": {"name": name} | ({"patch": patch} if patch > 1 else {})}, f"small and quick{taken}")
    if name in ("torchvision", "timm") and not given_weights:
        return Choice(
            {"encoder": {"name": name, "weights": "cached"}}, "published weights, which this machine must have"
        )
    if name == "resnet18" and size > 64:
        return Choice({"encoder": {"name": name, "small_images": False}}, f"{images.train:,} images and a GPU")
    return Choice(
        {"encoder": {"name": name}}, f"{images.train:,} images and a GPU" if name == "resnet18" else "as given"
    )


def colours(images: Images, published: bool) -> Choice:
    """One channel where none is coloured."""
    if images.colour or published:
        return Choice({}, "")
    return Choice({"data": {"channels": 1}}, "no image has colours")


def loading(images: Images) -> Choice:
    """Loading processes, where they are worth their start in every epoch."""
    if images.train > 2000 or images.longest > 400:
        return Choice({}, "")
    return Choice({"data": {"workers": 0}}, "so few small images are read sooner than loading processes start")


def views(images: Images) -> Choice:
    """How training images are varied: as far as the classes surely stay what they are."""
    if images.drawn:
        why, area, flip = "on a plain ground, as characters are: mirrored or cut they may be others", 0.7, False
    elif images.side < 48:
        why, area, flip = "small images: little can be cut off, and mirrored they may be others", 0.6, False
    elif not images.colour:
        why, area, flip = "grey: mirrored they may be others", 0.4, False
    else:
        why, area, flip = "photographs show the same in parts and mirrored", 0.3, True
    return Choice({"data": {"min_area": area, "flip": flip}}, why)


def read_out(images: Images, frozen: bool) -> Choice:
    """Centers and the read-out to them, whose last layer is solved for."""
    classes = len(images.counts)
    hidden = min(8192, max(2048 if frozen else 256, _rounded(2 * classes)))
    dim = min(512, max(128, _rounded(classes)))
    settings: dict[str, Any] = {
        "encoder": {"hidden": hidden},
        "centers": {"system": "V22", "dim": dim},
        "readout": {},
    }
    wide = "random and wide, since nothing before it is trained" if frozen else "at least twice the classes"
    return Choice(settings, f"{dim} coordinates for {classes:,} classes; hidden {wide}; the last layer is solved for")


def fitted_centers(images: Images) -> Choice:
    """Centers that are made anew to fit the network, and the softmax over them; of what is drawn, one refit of the last layer."""
    settings: dict[str, Any] = {
        "objective": {"name": "center_softmax"},
        "encoder": {"hidden": 2048},
        "centers": {"system": "codes", "dim": 512, "fit": {}},
    }
    why = f"{len(images.counts):,} classes: their centers are made anew to fit the network, a few times early on"
    if images.drawn:
        settings["readout"] = {"sums": None}
        why += "; drawn: the last layer is refitted at the end"
    return Choice(settings, why)


def _fits(images: Images, frozen: bool, given: Mapping[str, Any]) -> bool:
    """Whether there are so many classes, a network to fit, and nothing given that says otherwise or does not go with it."""
    centers, duration = dict(given.get("centers") or {}), (given.get("training") or {}).get("duration")
    otherwise = (
        bool({"objective", "readout", "lifelong", "teacher"} & set(given))
        or bool(set(centers) - {"dim"})
        or centers.get("dim", 1) is None
        or str(duration or 1).split()[0] == "0"
    )
    return len(images.counts) >= MANY and not frozen and not otherwise


def training(images: Images, name: str, frozen: bool, weights: bool) -> Choice:
    """How long, in which batches, how fast."""
    if frozen:
        return Choice(
            {"training": {"duration": "0 steps", "warmup": "0 steps", "batch_size": 1}},
            "the network stays as it is: one pass over the images is all",
        )
    # What is held out is left out, and no batch is larger than what is left.
    left = int(images.train * 0.8)
    batch = 64 if left >= 2000 else min(left, 32 if left >= 96 else 16)
    per_epoch = max(1, left // batch)
    epochs = 20 if weights else 30
    steps = max(epochs * per_epoch if left > 5000 else 0, LEAST_STEPS[weights])
    epochs = -(-steps // per_epoch)
    rate = 3.0e-4 if weights else 2.0e-3
    settings = {
        "duration": f"{epochs} epochs",
        "warmup": f"{max(1, steps // 10)} steps",
        "batch_size": batch,
        "learning_rate": rate,
        "evaluate_every": max(1, epochs // 20),
    }
    why = f"for a training of about {epochs * per_epoch:,} steps"
    return Choice({"training": settings}, f"{why}, slowly since the weights are good already" if weights else why)


def _why_size(images: Images, size: int, published: bool) -> str:
    if published:
        return "what published models were trained with"
    return f"they have about {images.side} pixels" + (", and more would take long" if images.side > size else "")


def _rounded(number: int) -> int:
    """The next multiple of 64."""
    return -(-number // 64) * 64


def _without(choice: Choice, given: Mapping[str, Any]) -> Choice:
    """A choice without what was given."""
    return Choice(_left(choice.settings, given), choice.why)


def _left(settings: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    left: dict[str, Any] = {}
    for key, value in settings.items():
        other = given.get(key)
        if key not in given:
            left[key] = value
        elif isinstance(value, Mapping) and isinstance(other, Mapping):
            inner = _left(value, other)
            if inner:
                left[key] = inner
    return left


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = "{}" if isinstance(value, Mapping) else value
    return flat
