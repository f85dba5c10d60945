"""Characters as classes: thousands of real ones, with nothing to download, drawn from the fonts that are installed.

Fonts are split, not pictures: a test face is one that no training saw. And no picture of the test was trained on: many faces
take signs over from one another, so a picture that an earlier split has, to the last bit and of the same class, is left out.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from lsc.data.characters import chooser, class_name
from lsc.data.drawing import library
from lsc.data.fonts import Face, find_faces, named_faces
from lsc.data.glyph_store import Order, Pictures, pictures
from lsc.data.memory import MemoryDataset, Split, channel_statistics
from lsc.data.options import Augmentation, DatasetOptions
from lsc.errors import UserError

SPLITS = ("train", "valid", "test")
# Of matplotlib's twelve faces, where none are named: of each family the bold oblique face tests, and one more validates.
_USUAL = {
    "valid": ["DejaVu Sans Bold"],
    "test": ["DejaVu Sans Bold Oblique", "DejaVu Sans Mono Bold Oblique", "DejaVu Serif Bold Italic"],
}
# Training images from which the mean and the deviation of the pixels are taken.
_SAMPLE = 4096


class GlyphsOptions(DatasetOptions):
    """Characters of the fonts that are installed: thousands of real classes, nothing to download; tested on unseen faces."""

    name: Literal["glyphs"] = "glyphs"
    fonts: str | list[str] = Field(
        default="matplotlib",
        description="matplotlib (its twelve DejaVu faces), system (all that fontconfig knows), files or folders",
    )
    characters: str | list[str] = Field(
        default="all",
        description="all, a range (U+4E00-U+9FFF), or a script's or block's name (Greek); of several, each is a group of "
        "classes that lifelong learning takes in after another",
    )
    num_classes: int | None = Field(default=None, ge=2, description="the first so many classes; null: all")
    first_class: int = Field(
        default=0, ge=0, description="leave out so many classes before: ranges that do not meet share no class"
    )
    train_faces: list[str] | None = Field(default=None, description="by full name; null: all that no other split has")
    valid_faces: list[str] | None = Field(
        default=None, description="null: of matplotlib's one (DejaVu Sans Bold), else none"
    )
    test_faces: list[str] | None = Field(
        default=None, description="null: of matplotlib's the three that are bold and oblique; of other fonts required"
    )
    once: str | list[str] | None = Field(
        default=None, description="characters with a single training image, that of the first face that has them"
    )
    min_faces: int | None = Field(
        default=None, ge=1, description="a character is in so many faces or no class; null: half of them"
    )
    alike: float = Field(
        default=0.2,
        ge=0,
        description="characters are one class that some face draws exactly alike and every other to this share of their ink",
    )
    image_size: int = Field(default=32, ge=8, le=256, description="side in pixels")
    cache: str | None = Field(default=None, description="folder that keeps the drawn images between runs")
    augment: Augmentation = Field(
        default_factory=lambda: Augmentation(crop_padding=2, rotation=10, scale=0.15, shear=10),
        description="training views",
    )

    def open(self) -> "Glyphs":
        return Glyphs(self)


class Glyphs(MemoryDataset):
    """Grey pictures of characters, white on black; see :mod:`lsc.data.drawing` for how they are drawn.

    Attributes:
        faces: split -> its faces.
        members: characters of each class.
        copies: split -> how many pictures were left out since an earlier split, or the same one, has them.
        left_out: what is in no split, and how often.
    """

    def __init__(self, options: GlyphsOptions) -> None:
        self.options = options
        self.faces = _roles(options)
        used = [face for split in SPLITS for face in self.faces[split]]
        entries = _listed(options.characters)
        min_faces = -(-len(used) // 2) if options.min_faces is None else options.min_faces
        if min_faces > len(used):
            raise UserError(f"data set glyphs, option min_faces: {min_faces} exceeds the {len(used)} faces; lower it")
        drawn = pictures(Order(used, entries, min_faces, options.image_size, options.alike), options.cache)
        self._check_faces(drawn)
        roles = np.repeat(np.arange(3), [len(self.faces[split]) for split in SPLITS])[drawn.faces.numpy()]
        classes, groups = self._choose(drawn, roles)
        self.members, self.left_out = classes, drawn.left_out
        label_of = {code: label for label, members in enumerate(classes) for code in members}
        labels = np.array([label_of.get(code, -1) for code in drawn.codes.tolist()])
        data = self._split(drawn, roles, labels)
        train = data["train"].images
        sample = train[torch.arange(min(len(train), _SAMPLE)) * len(train) // min(len(train), _SAMPLE)]
        mean, std = channel_statistics(sample)
        names = [class_name(members) for members in classes]
        super().__init__(
            "glyphs", data, num_classes=len(classes), class_names=names, augment=options.augment, mean=mean, std=std
        )
        if len(entries) > 1:
            sizes = [groups.count(group) for group in range(len(entries))]
            if 0 in sizes and options.first_class == 0 and options.num_classes is None:
                raise UserError(
                    f"data set glyphs, option characters: no class is left for {entries[sizes.index(0)]!r}: all its characters "
                    "look like earlier ones, or no training face has them; leave it out"
                )
            self.group_sizes = tuple(size for size in sizes if size)

    @property
    def fingerprint(self) -> str:
        """Also of the font files, and of the libraries that decide how their outlines become pixels."""
        fonts = {split: [face.digest for face in faces] for split, faces in self.faces.items()}
        return hashlib.sha256(json.dumps([super().fingerprint, fonts, library()]).encode()).hexdigest()[:12]

    def _check_faces(self, drawn: Pictures) -> None:
        """Refuse a face that was asked for by name and has none of the characters."""
        place = 0
        for split in SPLITS:
            for face in self.faces[split]:
                if getattr(self.options, f"{split}_faces") is not None and not bool((drawn.faces == place).any()):
                    raise UserError(
                        f"data set glyphs, option {split}_faces: {face.name} has none of the characters "
                        f"{', '.join(_listed(self.options.characters))}; name another face, or other characters"
                    )
                place += 1

    def _choose(self, drawn: Pictures, roles: np.ndarray) -> tuple[list[list[int]], list[int]]:
        """The classes that a training face has, within the range asked for, and the group of each."""
        trained = set(drawn.codes.numpy()[roles == 0].tolist())
        found = [
            (members, group)
            for members, group in zip(drawn.classes, drawn.groups, strict=True)
            if not trained.isdisjoint(members)
        ]
        first, count = self.options.first_class, self.options.num_classes
        last = len(found) if count is None else first + count
        if last > len(found) or last - first < 2:
            wanted = "two" if count is None else f"{count:,}"
            raise UserError(
                f"data set glyphs, options first_class and num_classes: {wanted} classes from {first:,} on, and there are "
                f"{len(found):,} in all; lower them, or choose more characters"
            )
        return [members for members, _ in found[first:last]], [group for _, group in found[first:last]]

    def _split(self, drawn: Pictures, roles: np.ndarray, labels: np.ndarray) -> dict[str, Split]:
        """The images of each split by class, each picture of a class once, in the first split that has it."""
        order = np.lexsort((drawn.codes.numpy(), drawn.faces.numpy(), roles))
        order = order[labels[order] >= 0]
        keys = np.stack([labels[order], drawn.contents.numpy()[order]], 1)
        kept = np.zeros(len(order), bool)
        kept[np.unique(keys, axis=0, return_index=True)[1]] = True
        self.copies = {split: int((~kept & (roles[order] == role)).sum()) for role, split in enumerate(SPLITS)}
        order = order[kept]
        order = order[self._once(drawn, roles, labels, order)]
        data = {}
        for role, split in enumerate(SPLITS):
            rows = order[roles[order] == role]
            rows = torch.from_numpy(rows[np.argsort(labels[rows], kind="stable")])
            if len(rows):
                data[split] = Split(drawn.images[rows], torch.from_numpy(labels)[rows])
            elif self.faces[split]:
                names = ", ".join(face.name for face in self.faces[split])
                raise UserError(
                    f"data set glyphs, option {split}_faces: {names} draw every character exactly as an earlier split "
                    "does, or have none of them; name other faces"
                )
        return data

    def _once(self, drawn: Pictures, roles: np.ndarray, labels: np.ndarray, order: np.ndarray) -> np.ndarray:
        """Which rows stay if classes of the option ``once`` have a single training image."""
        if self.options.once is None:
            return np.ones(len(order), bool)
        wanted = [chooser(entry) for entry in _listed(self.options.once)]
        single = np.array([any(chosen(members[0]) for chosen in wanted) for members in self.members])
        training = (roles[order] == 0) & single[labels[order]]
        first = np.zeros(len(order), bool)
        places = np.flatnonzero(training)
        first[places[np.unique(labels[order][places], return_index=True)[1]]] = True
        return ~training | first


def _roles(options: GlyphsOptions) -> dict[str, list[Face]]:
    """The faces of each split.

    Raises:
        UserError: a face is unknown or in two splits, or none is left to train with.
    """
    faces = find_faces(_listed(options.fonts))
    named: dict[str, list[str] | None] = {split: getattr(options, f"{split}_faces") for split in SPLITS}
    usual = options.fonts in ("matplotlib", ["matplotlib"])
    others = [name.casefold() for names in named.values() for name in names or []]
    for split, names in _USUAL.items():
        if usual and named[split] is None:
            named[split] = [name for name in names if name.casefold() not in others]
    if not named["test"]:
        known = ", ".join(face.name for face in faces[:12])
        raise UserError(f"data set glyphs, option test_faces: name the faces that test, of these fonts: {known}")
    roles = {split: named_faces(faces, names or [], f"{split}_faces") for split, names in named.items()}
    taken: dict[str, str] = {}
    for split, chosen in roles.items():
        for face in chosen:
            if face.name in taken:
                raise UserError(
                    f"data set glyphs, option {split}_faces: {face.name} is among {taken[face.name]}_faces already; name it once"
                )
            taken[face.name] = split
    if named["train"] is None:
        roles["train"] = [face for face in faces if face.name not in taken]
    if not roles["train"]:
        raise UserError("data set glyphs, option train_faces: no face is left to train with; add fonts or free one")
    return roles


def _listed(entries: str | Sequence[str]) -> list[str]:
    """One entry or several, as a list."""
    return [entries] if isinstance(entries, str) else list(entries)
