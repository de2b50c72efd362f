"""Pictures of maps at the input, which have a value for every pixel; captions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
_SPREAD = 0.1  # the grey levels, of 1, that one standard deviation takes
_FAR = 99.0  # percent of the pixels lie below full colour


def centred(maps: NDArray[Any]) -> Pixels:
    """Return maps ``[3, H, W]`` in colour, 0 being grey.

    The standard deviation takes a tenth of the brightness, whatever the gradient's scale is.
    """
    values = maps.astype(np.float64)
    deviation = values.std()
    levels = 0.5 + (values / deviation * _SPREAD if deviation > 0 else values * 0)
    picture: Pixels = np.rint(np.moveaxis(np.clip(levels, 0, 1), 0, -1) * 255).astype(np.uint8)
    return picture


def intensity(size: NDArray[Any]) -> Pixels:
    """Return the size of a map ``[H, W]`` in grey levels, 0 being black."""
    level = np.clip(size / _full(size), 0, 1)
    return np.repeat(np.rint(level * 255).astype(np.uint8)[..., None], 3, axis=-1)


def diverging(signed: NDArray[Any], photo: Pixels, alpha: float) -> Pixels:
    """Return a map ``[H, W]`` over the photograph in grey: red speaks for, blue against.

    The weight is ``alpha * size``: it alone tells how strong evidence is, so it must not saturate.
    """
    colour, size = evidence(signed)
    grey = photo.mean(axis=-1, keepdims=True) * np.ones(3)
    blended = grey + (colour - grey) * (alpha * size)
    picture: Pixels = np.rint(np.clip(blended, 0, 255)).astype(np.uint8)
    return picture


def evidence(signed: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return red for what speaks for the target, blue against, and how much, 0 to 1.

    Both have the map's axes and one of colours more.
    """
    level = np.clip(signed / _full(np.abs(signed)), -1, 1)[..., None]
    return np.where(level > 0, (178, 24, 43), (33, 102, 172)), np.abs(level)


def captioned(picture: Pixels, text: str) -> Image.Image:
    """Return a picture with a line of text over its lower edge, if it is large enough."""
    from PIL import ImageDraw, ImageFont  # few pictures need them, and they take time to import

    image = Image.fromarray(picture)
    size = min(max(image.width // 30, 10), 40)
    font = ImageFont.load_default(size)
    band = Image.new("RGB", (image.width, size * 3 // 2))
    if font.getlength(text) + size <= image.width and 4 * band.height <= image.height:
        ImageDraw.Draw(band).text((size // 2, size // 8), text, "white", font)
        image.paste(band, (0, image.height - band.height))
    return image


def _full(size: NDArray[Any]) -> float:
    peak = float(np.percentile(size, _FAR)) if size.size else 0.0
    return peak or float(size.max(initial=0.0)) or 1.0
