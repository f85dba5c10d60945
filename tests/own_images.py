"""Folders of images as somebody has them who knows nothing of the method; drawn, so that a test needs no download.

Every drawing is a function of its seed. Each function writes ``root/<split>/<class>/<number>.png``.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIGNS = "字語αβγδθλπσωЖДЯéñÅßø∞∑√♞♣★☂あカABGKQRSWXYZ"

# The fonts that come with matplotlib, and have most of the signs.
FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf", "DejaVuSerif-Italic.ttf")

Draw = Callable[[int, np.random.Generator], Image.Image]


def write_classes(root: Path, draws: Mapping[str, Draw], counts: Mapping[str, int], seed: int = 0) -> Path:
    """Write ``counts[split]`` images of each class.

    Args:
        draws: class name -> a function of the image's number and a random generator.
        counts: split -> images of each class.
    """
    for label, (name, draw) in enumerate(draws.items()):
        for place, (split, count) in enumerate(counts.items()):
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng([seed, place, label])
            for number in range(count):
                draw(number, rng).save(folder / f"{number:03}.png")
    return root


def write_glyphs(root: Path, classes: int = 20, size: int = 64, seed: int = 0, **counts: int) -> Path:
    """Dark signs on light ground, each in several fonts, sizes, places and turns; the class is the sign, its name too."""
    import matplotlib

    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    signs = _drawable(fonts)[:classes]

    def sign(letter: str) -> Draw:
        def draw(_number: int, rng: np.random.Generator) -> Image.Image:
            canvas = Image.new("L", (size, size), 255)
            font = ImageFont.truetype(str(fonts / rng.choice(FONTS)), int(size * rng.uniform(0.45, 0.7)))
            middle = tuple(size / 2 + size * rng.uniform(-0.1, 0.1, 2))
            ImageDraw.Draw(canvas).text(middle, letter, fill=int(rng.integers(0, 80)), font=font, anchor="mm")
            return canvas.rotate(rng.uniform(-20, 20), Image.Resampling.BILINEAR, fillcolor=255)

        return draw

    return write_classes(root, {letter: sign(letter) for letter in signs}, counts, seed)


def _drawable(fonts: Path) -> list[str]:
    """The signs that every one of the fonts has: any other would be the same empty box in all classes."""
    from fontTools.ttLib import TTFont

    known = [set(TTFont(fonts / name).getBestCmap()) for name in FONTS]
    return [sign for sign in SIGNS if all(ord(sign) in letters for letters in known)]


def write_scenes(root: Path, seed: int = 0, **counts: int) -> Path:
    """Two classes of coloured scenes, 96 by 80 pixels: a round tree or a pointed one, under skies of any colour."""

    def tree(pointed: bool) -> Draw:
        def draw(_number: int, rng: np.random.Generator) -> Image.Image:
            width, height = 96, 80
            top, bottom = rng.integers(60, 255, 3), rng.integers(20, 200, 3)
            share = np.linspace(0, 1, height)[:, None, None]
            ground = (top * (1 - share) + bottom * share + rng.normal(0, 12, (height, width, 3))).clip(0, 255)
            picture = Image.fromarray(ground.astype(np.uint8))
            pen = ImageDraw.Draw(picture)
            x, y, r = rng.uniform(30, 66), rng.uniform(28, 44), rng.uniform(14, 22)
            green = tuple(int(value) for value in (rng.integers(0, 120), rng.integers(70, 200), rng.integers(0, 120)))
            pen.rectangle([x - 3, y, x + 3, y + 2 * r], fill=(90, 60, 30))
            if pointed:
                pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=green)
            else:
                pen.ellipse([x - r, y - r, x + r, y + r], fill=green)
            return picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.2)))

        return draw

    return write_classes(root, {"fir": tree(True), "oak": tree(False)}, counts, seed)


def write_textures(root: Path, size: int = 224, seed: int = 0, **counts: int) -> Path:
    """Three classes of noise, which differ in how far neighbouring pixels go together; brightness and contrast vary."""

    def texture(exponent: float) -> Draw:
        def draw(_number: int, rng: np.random.Generator) -> Image.Image:
            rows, columns = np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size), indexing="ij")
            radius = np.maximum(np.hypot(rows, columns), 1 / size)
            noise = np.fft.fft2(rng.normal(size=(size, size, 3)), axes=(0, 1)) / radius[:, :, None] ** exponent
            values = np.fft.ifft2(noise, axes=(0, 1)).real
            values = (values - values.mean()) / values.std() * rng.uniform(25, 60) + rng.uniform(90, 160)
            return Image.fromarray(values.clip(0, 255).astype(np.uint8))

        return draw

    return write_classes(root, {"coarse": texture(1.5), "even": texture(1.0), "fine": texture(0.5)}, counts, seed)


def write_digits(root: Path, seed: int = 0, **counts: int) -> Path:
    """scikit-learn's handwritten digits, 8 by 8 pixels; a split takes the images of each class that none before it took."""
    from sklearn.datasets import load_digits

    found = load_digits()
    draws: dict[str, Draw] = {}
    for label in range(10):
        pictures = iter(np.random.default_rng(seed).permutation(found.images[found.target == label]))
        draws[str(label)] = lambda _number, _rng, pictures=pictures: Image.fromarray(  # type: ignore[misc]
            (next(pictures) * 255 / 16).astype(np.uint8)
        )
    return write_classes(root, draws, counts)


def write_spirals(root: Path, classes: int = 3, size: int = 24, seed: int = 0, **counts: int) -> Path:
    """Thin coloured spirals of one, two, ... turns, for tests that want a folder in no time."""

    def spiral(turns: int) -> Draw:
        def draw(_number: int, rng: np.random.Generator) -> Image.Image:
            canvas = Image.new("RGB", (size, size), tuple(int(v) for v in rng.integers(0, 60, 3)))
            start = rng.uniform(0, 2 * math.pi)
            angles = np.linspace(0, 2 * math.pi * turns, 60)
            radii = np.linspace(1, size * 0.42, 60)
            points = [
                (size / 2 + r * math.cos(a + start), size / 2 + r * math.sin(a + start))
                for a, r in zip(angles, radii, strict=True)
            ]
            ImageDraw.Draw(canvas).line(points, fill=tuple(int(v) for v in rng.integers(150, 255, 3)), width=2)
            return canvas

        return draw

    return write_classes(root, {f"turns {n}": spiral(n) for n in range(1, classes + 1)}, counts, seed)
