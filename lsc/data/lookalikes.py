"""Characters that look alike: Latin A, Greek Alpha and Cyrillic A are one class, since no picture tells them apart.

Two characters look alike if, of the faces that have both, at least one draws them exactly alike and every other nearly: the
absolute difference of the pictures, summed over the pixels, is at most a share of the ink of the lighter one. Characters that
look like one character look like each other.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

# Pictures of a character by face.
Drawn = Mapping[int, Mapping[int, np.ndarray]]


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """How far two uint8 pictures are apart, in units of the ink of the lighter one."""
    ink = min(int(one.sum(dtype=np.int64)), int(other.sum(dtype=np.int64)))
    return float(np.abs(one.astype(np.int32) - other).sum()) / max(ink, 1)


def content_of(picture: np.ndarray) -> bytes:
    """Eight bytes that are equal for equal pictures, and for no others as far as anybody will see."""
    return hashlib.blake2b(np.ascontiguousarray(picture).tobytes(), digest_size=8).digest()


def look_alike(one: Mapping[int, np.ndarray], other: Mapping[int, np.ndarray], bound: float) -> bool:
    """The rule, for the pictures of two characters by face."""
    apart = [difference(one[face], other[face]) for face in one if face in other]
    return bool(apart) and min(apart) == 0 and max(apart) <= bound


def merged(drawn: Drawn, order: Sequence[int], bound: float) -> list[list[int]]:
    """The classes: lists of characters that look alike, in the order of the first of each.

    Args:
        drawn: the pictures of each character, by face.
        order: the characters; the first of those that look alike gives a class its place.
        bound: see the rule.
    """
    place = {code: position for position, code in enumerate(order)}
    first = dict(zip(order, order, strict=True))

    def root(code: int) -> int:
        while first[code] != code:
            first[code] = code = first[first[code]]
        return code

    for one, other in _candidates(drawn):
        if root(one) != root(other) and look_alike(drawn[one], drawn[other], bound):
            early, late = sorted((root(one), root(other)), key=place.__getitem__)
            first[late] = early
    classes: dict[int, list[int]] = defaultdict(list)
    for code in order:
        classes[root(code)].append(code)
    return list(classes.values())


def _candidates(drawn: Drawn) -> Iterator[tuple[int, int]]:
    """Pairs of characters that some face draws exactly alike, each once."""
    alike: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for code, pictures in drawn.items():
        for face, picture in pictures.items():
            alike[face, content_of(picture)].append(code)
    seen = set()
    for codes in alike.values():
        for pair in combinations(codes, 2):
            if pair not in seen:
                seen.add(pair)
                yield pair
