"""Image files, changed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from random import Random

import numpy as np
from PIL import Image

from .files import BYTES

FORMATS = {
    "png": ("PNG", {}),
    "jpg": ("JPEG", {}),
    "webp": ("WEBP", {}),
    "tif": ("TIFF", {"compression": "tiff_lzw"}),
    "bmp": ("BMP", {}),
    "gif": ("GIF", {}),
}


def originals() -> dict[str, bytes]:
    """Return one photograph in each format, and a few special ones, by the names of files."""
    rng = np.random.default_rng(5)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8))
    photo = coarse.resize((40, 30), Image.Resampling.BICUBIC)
    found = {}
    for suffix, (name, options) in FORMATS.items():
        found[f"photo.{suffix}"] = _saved(photo, name, **options)
    deep = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
    found["deep.png"] = _saved(deep, "PNG")
    found["float.tif"] = _saved(photo.convert("F"), "TIFF")
    found["clear.png"] = _saved(photo.convert("RGBA"), "PNG")
    found["interlaced.jpg"] = _saved(photo, "JPEG", progressive=True, exif=_turned())
    found["cmyk.jpg"] = _saved(photo.convert("CMYK"), "JPEG")
    found["palette.png"] = _saved(photo.quantize(16), "PNG")
    return found


def mutations(count: int, seed: int) -> Iterator[tuple[str, str, bytes]]:
    """Yield what was done, a file's name, and its content."""
    rng = Random(seed)
    files = list(originals().items())
    for number in range(count):
        name, data = files[number % len(files)]
        change = rng.choice(BYTES)
        yield f"{change.__name__} in {name}", name, change(data, rng)


def _saved(image: Image.Image, name: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif
