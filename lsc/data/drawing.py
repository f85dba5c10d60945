"""Characters as pictures: drawn with Pillow from one face, white on black. Free of torch.

All characters of a face have one size, and one baseline, as in a line of text, so that a comma is no apostrophe and a small c
no capital C; each is centred from left to right. They are drawn four times as large and averaged down, so that neither
hints nor the bitmaps that some fonts hold for small sizes play a part. What would leave the picture at its top or bottom is
moved inwards, and what is larger than it is drawn smaller.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from lsc.data.fonts import Face
from lsc.errors import UserError, needing

# Of the picture's side: the size of the font, an em, and the place of the baseline from the top. Ideographs, which reach from
# 0.12 em below the baseline to 0.88 em above, then just fit.
EM, BASELINE = 0.875, 0.8
# Draw so many times larger.
_FINER = 4
# Part of the key of drawn images: to be raised with every change of what is drawn.
VERSION = 1

_NO_CHARACTER = "\U0010ffff"  # which no font has


def library() -> str:
    """Pillow and FreeType with their versions, which may decide a bit of a picture."""
    with needing("plots", "data set glyphs"):
        import PIL
        from PIL import features
    return f"Pillow {PIL.__version__}, FreeType {features.version('freetype2')}"


class Pen:
    """Draws characters of one face as pictures of one size.

    Raises:
        UserError: Pillow cannot read the face.
    """

    def __init__(self, face: Face, image_size: int) -> None:
        self.face, self.side = face, _FINER * image_size
        self._em = round(EM * self.side)
        self._font = self._sized(self._em)
        self._stand_in = self._picture(_NO_CHARACTER)

    def draw(self, code: int) -> np.ndarray | None:
        """(S, S) uint8, or None where nothing shows, or what the face shows for a character that it does not have."""
        picture = self._picture(chr(code))
        if picture is None or (self._stand_in is not None and np.array_equal(picture, self._stand_in)):
            return None
        return picture

    def _sized(self, em: int) -> Any:
        from PIL import ImageFont

        try:
            return ImageFont.truetype(
                str(self.face.path), em, index=self.face.index, layout_engine=ImageFont.Layout.BASIC
            )
        except OSError as error:
            raise UserError(
                f"data set glyphs, option fonts: {self.face.path} cannot be drawn ({error}); leave it out or replace it"
            ) from None

    def _picture(self, character: str) -> np.ndarray | None:
        from PIL import Image

        em = self._em
        mask, (_, above) = self._font.getmask2(character, mode="L", anchor="ls")
        while max(mask.size) > self.side:
            em = min(em - 1, em * self.side // max(mask.size))
            if em < 1:
                return None
            mask, (_, above) = self._sized(em).getmask2(character, mode="L", anchor="ls")
        width, height = mask.size
        if not width or not height or mask.getbbox() is None:
            return None
        left = (self.side - width) // 2
        top = min(max(round(BASELINE * self.side) + above, 0), self.side - height)
        canvas = Image.new("L", (self.side, self.side))
        canvas.im.paste(mask, (left, top, left + width, top + height))
        small = np.asarray(canvas.reduce(_FINER))
        return small if small.any() else None


def draw_all(face: Face, codes: Iterable[int], image_size: int) -> tuple[list[int], np.ndarray]:
    """The characters of which something shows, in the order given, and their pictures: uint8 (N, S, S)."""
    pen = Pen(face, image_size)
    shown, pictures = [], []
    for code in codes:
        picture = pen.draw(code)
        if picture is not None:
            shown.append(code)
            pictures.append(picture)
    return shown, np.stack(pictures) if pictures else np.zeros((0, image_size, image_size), np.uint8)
