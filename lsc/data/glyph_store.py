"""All pictures of the chosen characters in all faces of a set of glyphs: drawn once, and kept in a file where one is named."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lsc.data import drawing
from lsc.data.characters import UNICODE, in_groups, is_class
from lsc.data.fonts import INSTALL, Face, coverage
from lsc.data.lookalikes import content_of, merged
from lsc.errors import UserError
from lsc.files import save_tensors


@dataclass(frozen=True)
class Pictures:
    """Pictures in the order of the characters, then of the faces.

    Attributes:
        images: (N, 1, S, S) uint8.
        codes: (N,) int64, the characters.
        faces: (N,) int64, places in the list of faces.
        contents: (N,) int64, equal for equal images.
        classes: characters that look alike, class by class.
        groups: for each class, which entry of the option ``characters`` chose it.
        left_out: what was not drawn, and how often: characters in too few faces; of the glyphs empty ones and stand-ins.
    """

    images: Tensor
    codes: Tensor
    faces: Tensor
    contents: Tensor
    classes: list[list[int]]
    groups: list[int]
    left_out: dict[str, int]


@dataclass(frozen=True)
class Order:
    """What is to be drawn."""

    faces: Sequence[Face]
    characters: Sequence[str]
    min_faces: int
    image_size: int
    alike: float

    @property
    def key(self) -> str:
        """Digest of all that decides the pictures: the font files, the choice, the rules, the libraries that draw."""
        fonts = [[face.name, face.digest] for face in self.faces]
        content = [drawing.VERSION, drawing.library(), UNICODE, fonts, list(self.characters)]
        content += [self.min_faces, self.image_size, self.alike]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def pictures(order: Order, cache: str | None) -> Pictures:
    """The pictures: from the folder ``cache`` if they are there, else drawn, and put there.

    Raises:
        UserError: no face has the characters, or too few have them.
    """
    path = None if cache is None else Path(cache) / f"glyphs-{order.key}.safetensors"
    if path is not None and path.is_file():
        try:
            return _read(path)
        except (SafetensorError, KeyError, OSError):
            path.unlink(missing_ok=True)  # damaged: it is only a copy of what can be drawn again
    drawn = _drawn(order)
    if path is not None:
        about = {"classes": drawn.classes, "groups": drawn.groups, "left_out": drawn.left_out}
        tensors = {name: getattr(drawn, name) for name in _TENSORS}
        save_tensors(path, tensors, {key: json.dumps(value) for key, value in about.items()})
    return drawn


_TENSORS = ("images", "codes", "faces", "contents")


def _read(path: Path) -> Pictures:
    with safe_open(path, framework="pt") as file:
        about = {key: json.loads(value) for key, value in file.metadata().items()}
        return Pictures(*(file.get_tensor(name) for name in _TENSORS), **about)


def _drawn(order: Order) -> Pictures:
    groups, left_out = _choice(order)
    chosen = [code for group in groups for code in group]
    parts: dict[int, dict[int, np.ndarray]] = {code: {} for code in chosen}
    for place, face in enumerate(order.faces):
        had = coverage(face).characters
        wanted = [code for code in chosen if code in had]
        shown, images = drawing.draw_all(face, wanted, order.image_size)
        left_out["empty, or drawn as a missing one"] += len(wanted) - len(shown)
        for code, image in zip(shown, images, strict=True):
            parts[code][place] = image
    enough = [code for code in chosen if len(parts[code]) >= order.min_faces]
    left_out["characters in too few faces"] += len(chosen) - len(enough)
    if not enough:
        raise _too_few(order, ", ".join(order.characters))
    classes = merged({code: parts[code] for code in enough}, enough, order.alike)
    group_of = {code: place for place, group in enumerate(groups) for code in group}
    rows = [(code, place, image) for code in enough for place, image in parts[code].items()]
    images = np.stack([image for _, _, image in rows])
    return Pictures(
        torch.from_numpy(images)[:, None],
        torch.tensor([code for code, _, _ in rows]),
        torch.tensor([place for _, place, _ in rows]),
        torch.from_numpy(np.frombuffer(b"".join(map(content_of, images)), np.int64).copy()),
        classes,
        [group_of[members[0]] for members in classes],
        dict(left_out),
    )


def _choice(order: Order) -> tuple[list[list[int]], Counter[str]]:
    """The characters that enough faces have, entry by entry of the option, and what was left out."""
    left_out: Counter[str] = Counter()
    times: Counter[int] = Counter()
    for face in order.faces:
        found = coverage(face)
        times.update(found.characters)
        left_out["stand-ins for missing glyphs"] += found.stand_ins
    covered = [code for code in times if is_class(code)]
    groups = in_groups(order.characters, covered)
    for entry, group in zip(order.characters, groups, strict=True):
        if not group:
            raise UserError(
                f"data set glyphs, option characters: none of the {len(order.faces)} faces has a character of {entry!r}, "
                f"or an earlier entry has them all; {INSTALL}, or choose other characters"
            )
    enough = [[code for code in group if times[code] >= order.min_faces] for group in groups]
    left_out["characters in too few faces"] = sum(map(len, groups)) - sum(map(len, enough))
    for entry, group in zip(order.characters, enough, strict=True):
        if not group:
            raise _too_few(order, entry)
    return enough, left_out


def _too_few(order: Order, characters: str) -> UserError:
    return UserError(
        f"data set glyphs, option min_faces: no character of {characters} is in {order.min_faces} of the {len(order.faces)} "
        f"faces; lower it, or add fonts ({INSTALL})"
    )
