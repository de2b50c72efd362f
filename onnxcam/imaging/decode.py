"""Decode photographs safely into 8-bit RGB, whatever the file holds."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from onnxcam.errors import ImageError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
SUFFIXES |= {".jfif", ".avif", ".jp2"}


def decode(source: str | Path | Image.Image) -> NDArray[np.uint8]:
    """Return a photograph as ``[H, W, 3]`` uint8 RGB, rotated by its EXIF orientation.

    Transparent images are composited on white; 16-bit images keep their upper eight bits; CMYK,
    palette and grey images become RGB.

    Raises:
        ImageError: the file is missing, empty, no image, cut short, or a decompression bomb.
    """
    if isinstance(source, Image.Image):
        try:
            return _to_rgb(source, "the given image")
        except ImageError:
            raise
        except Exception as error:
            raise ImageError(f"the given image cannot be decoded ({error}).") from error
    if not isinstance(source, (str, Path)):
        raise ImageError(
            f"{type(source).__name__} is no image: give a path, a PIL image or an array."
        )
    path = Path(source)
    if path.is_dir():
        raise ImageError(f"{path}: is a directory, not an image.")
    if not path.exists():
        raise ImageError(f"{path}: no such file.")
    if path.stat().st_size == 0:
        raise ImageError(f"{path}: the file is empty.")
    try:
        with warnings.catch_warnings():
            # Pillow warns above its limit and raises only above twice that: refuse both.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return _to_rgb(image, str(path))
    except UnidentifiedImageError as error:
        raise ImageError(f"{path}: not an image that Pillow can read.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = Image.MAX_IMAGE_PIXELS or 0
        raise ImageError(
            f"{path}: more than {limit:,} pixels, a decompression bomb? If you trust it, make "
            "it smaller first, or pass an opened PIL image."
        ) from error
    except ImageError:
        raise
    except Exception as error:  # decoders raise many kinds, RuntimeError for AVIF among them
        raise ImageError(f"{path}: cannot be decoded ({error}). Is it cut short?") from error


def _to_rgb(image: Image.Image, name: str) -> NDArray[np.uint8]:
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I;16", "I;16B", "I;16L", "I;16N"):
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        image = Image.fromarray(_eight_bits(np.asarray(image, np.float64), name))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    rgb = np.asarray(image.convert("RGB"))
    if rgb.size == 0:
        raise ImageError(f"{name}: has no pixels.")
    return rgb


def _eight_bits(values: NDArray[np.float64], name: str) -> NDArray[np.uint8]:
    """Scale 32-bit greys to 8 bits: 16-bit content by its upper bits, floats of 0..1 by 255."""
    if not np.isfinite(values).all():
        raise ImageError(f"{name}: its pixels are not finite numbers.")
    top = values.max(initial=0.0)
    factor = 255.0 if top <= 1.0 else (1.0 if top <= 255.0 else 255.0 / max(top, 65535.0))
    return np.clip(np.rint(values * factor), 0, 255).astype(np.uint8)
