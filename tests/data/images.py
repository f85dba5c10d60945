"""Pictures for tests of folders: few pixels, every one of them known."""

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(number: int = 0, size: tuple[int, int] = (24, 16)) -> Image.Image:
    """A picture (width, height) that no turn and no mirror leaves as it is."""
    width, height = size
    down, across = np.mgrid[0:height, 0:width]
    channels = [across * 255 // width, down * 255 // height, (across + 2 * down + 40 * number) % 256]
    return Image.fromarray(np.stack(channels, 2).astype(np.uint8))


def save(path: Path, number: int = 0, mode: str = "RGB", **options: Any) -> Path:
    """Write a picture where the name's ending says how."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {".jpe": "JPEG", ".jfif": "JPEG", ".dib": "DIB", ".pnm": "PPM"}.get(path.suffix.lower())
    picture(number).convert(mode).save(path, kind, **options)
    return path


def tree(root: Path, names: Iterable[str]) -> Path:
    """A folder with a picture of its own under each name."""
    for number, name in enumerate(names):
        save(root / name, number)
    return root


def two_classes(root: Path, per_class: int = 8, splits: Iterable[str] = ("train", "test")) -> Path:
    """<split>/{a,b}/<number>.png."""
    return tree(root, [f"{split}/{label}/{n:02d}.png" for split in splits for label in "ab" for n in range(per_class)])


def huge_png(path: Path, side: int) -> Path:
    """A file of a few bytes that announces side x side pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    return path


def huge_jpeg(path: Path, side: int) -> Path:
    """A small JPEG file whose header says side x side pixels."""
    save(path)
    content = bytearray(path.read_bytes())
    place = content.index(b"\xff\xc0")
    content[place + 5 : place + 9] = struct.pack(">HH", side, side)
    path.write_bytes(bytes(content))
    return path
