"""Decode photographs safely into 8-bit RGB, whatever the file holds."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from onnxcam.errors import ImageError
from onnxcam.imaging.dicom import read_dicom

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
SUFFIXES |= {".jfif", ".avif", ".jp2", ".dcm"}

Source = str | Path | Image.Image | bytes | BinaryIO
Limits = tuple[float, float]
_DARK = 1 / 4  # 16-bit greys below this part of their range are said to be dark
_HEAD = 1 << 16  # bytes in which a PNG's chunks before the pixels are looked for


def decode(source: Source, limits: Limits | None = None) -> NDArray[np.uint8]:
    """Return a photograph as ``[H, W, 3]`` uint8 RGB, rotated by its EXIF orientation.

    Transparent images are composited on white; CMYK, palette and grey images become RGB. Greys of
    more than 8 bits are scaled by ``limits``, else by what the file says (the PNG chunk ``sBIT``),
    else by the range of their type (16-bit images keep their upper eight bits); that of floats is
    guessed, with a warning. Of DICOM pictures (.dcm) see :mod:`onnxcam.imaging.dicom`.

    Args:
        source: a path, a PIL image, the bytes of a file, or a file that is open for reading bytes.
        limits: what becomes black and what white, in the file's own numbers.

    Raises:
        ImageError: the file is missing, empty, no image, cut short, or a decompression bomb.
    """
    if isinstance(source, Image.Image):
        try:
            return _to_rgb(source, "the given image", limits)
        except ImageError:
            raise
        except Exception as error:
            raise ImageError(f"the given image cannot be decoded ({error}).") from error
    if isinstance(source, (bytes, bytearray)) or hasattr(source, "read"):
        data = source if isinstance(source, (bytes, bytearray)) else source.read()
        if not isinstance(data, (bytes, bytearray)) or not data:
            raise ImageError("the given file is empty, or is not open for reading bytes.")
        return _opened(io.BytesIO(data), "the given image", limits)
    if not isinstance(source, (str, Path)):
        raise ImageError(
            f"{type(source).__name__} is no image: give a path, a PIL image, bytes or an array."
        )
    path = Path(source)
    if path.is_dir():
        raise ImageError(f"{path}: is a directory, not an image.")
    if not path.exists():
        raise ImageError(f"{path}: no such file.")
    if path.stat().st_size == 0:
        raise ImageError(f"{path}: the file is empty.")
    if path.suffix.lower() == ".dcm":
        return _medical(path, limits)
    return _opened(path, str(path), limits)


def _medical(path: Path, limits: Limits | None) -> NDArray[np.uint8]:
    try:
        values, limits = read_dicom(path, limits)
    except ImageError:
        raise
    except Exception as error:  # pydicom raises many kinds
        raise ImageError(f"{path}: cannot be decoded ({error}).") from error
    pixels = values if limits is None else _eight_bits(values, limits)
    return np.asarray(Image.fromarray(pixels).convert("RGB"))


def _opened(file: Path | io.BytesIO, name: str, limits: Limits | None) -> NDArray[np.uint8]:
    try:
        with warnings.catch_warnings():
            # Pillow warns above its limit and raises only above twice that: refuse both.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                if limits is None and image.format == "PNG" and image.mode.startswith("I"):
                    limits = _significant(file)
                return _to_rgb(image, name, limits)
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: not an image that Pillow can read.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = Image.MAX_IMAGE_PIXELS or 0
        raise ImageError(
            f"{name}: more than {limit:,} pixels, a decompression bomb? If you trust it, make "
            "it smaller first, or pass an opened PIL image."
        ) from error
    except ImageError:
        raise
    except Exception as error:  # decoders raise many kinds, RuntimeError for AVIF among them
        raise ImageError(f"{name}: cannot be decoded ({error}). Is it cut short?") from error


def _to_rgb(image: Image.Image, name: str, limits: Limits | None) -> NDArray[np.uint8]:
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I;16", "I;16B", "I;16L", "I;16N"):
        deep = np.asarray(image).astype(np.uint16)
        if limits is None and 0 < deep.max(initial=0) < _DARK * 65535:
            reach = f"its 16-bit pixels reach only {deep.max()} of 65535"
            _say_guess(name, reach, (0.0, 65535.0))
        upper = (deep >> 8).astype(np.uint8)
        image = Image.fromarray(upper if limits is None else _eight_bits(deep, limits))
    elif image.mode in ("I", "F"):
        values = np.asarray(image, np.float64)
        if not np.isfinite(values).all():
            raise ImageError(f"{name}: its pixels are not finite numbers.")
        image = Image.fromarray(_eight_bits(values, limits or _guessed(values, name)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    rgb = np.asarray(image.convert("RGB"))
    if rgb.size == 0:
        raise ImageError(f"{name}: has no pixels.")
    return rgb


def _eight_bits(values: NDArray[Any], limits: Limits) -> NDArray[np.uint8]:
    low, high = limits
    scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _guessed(values: NDArray[np.float64], name: str) -> Limits:
    """Return the range of 32-bit greys, which their type does not tell; 0 to 1 is the usual one."""
    low, top = float(values.min(initial=0.0)), float(values.max(initial=0.0))
    limits = (0.0, next((t for t in (1.0, 255.0, 65535.0) if top <= t), top))
    if low < 0 or (top > 1 and limits[1] != 255.0):
        _say_guess(name, f"its pixels are numbers from {low:g} to {top:g}", limits)
    return limits


def _say_guess(name: str, what: str, limits: Limits) -> None:
    warnings.warn(
        f"{name}: {what}; guessed that {limits[0]:g} is black and {limits[1]:g} white. Say it with "
        "--range LOW:HIGH.",
        stacklevel=2,
    )


def _significant(file: Path | io.BytesIO) -> Limits | None:
    """Return the range that a grey PNG's chunk sBIT declares, the number of significant bits.

    PNG specification, 11.3.2.7; the chunk comes before the pixels.
    """
    if isinstance(file, Path):
        with file.open("rb") as opened:
            data = opened.read(_HEAD)
    else:
        data = file.getvalue()[:_HEAD]
    place = 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        kind, content = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        if kind == b"sBIT" and content and 0 < content[0] < 16:
            return 0.0, float((1 << content[0]) - 1)
        if kind in (b"IDAT", b"IEND"):
            break
        place += 12 + length
    return None
