"""Read masks from pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxcam.errors import ImageError
from onnxcam.imaging.decode import decode

_LOSSY = ("JPEG", "MPO")


def read_mask(path: str | Path) -> NDArray[np.bool_]:
    """Return a picture as a mask ``[H, W]``, bool: in is every pixel that is not black.

    Raises:
        ImageError: the file cannot be decoded, has transparent parts, or is a JPEG, where what
            should be black is not.
    """
    pixels = decode(path, (0, 1))  # greys of more than 8 bits: whatever is not 0 is white
    with Image.open(path) as image:
        if image.format in _LOSSY:
            raise ImageError(f"{path}: a mask must be without loss. Give a .png file.")
        if image.has_transparency_data:
            raise ImageError(
                f"{path}: a mask has no transparent parts. Save it black and white, without alpha."
            )
    inside: NDArray[np.bool_] = pixels.max(axis=2) > 0
    return inside
