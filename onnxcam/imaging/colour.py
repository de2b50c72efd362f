"""Colour maps."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

DEFAULT_COLOURS = "turbo"


@cache
def colour_table(name: str = DEFAULT_COLOURS) -> NDArray[np.uint8]:
    """Return a colour map of the ``cmap`` package as ``[256, 3]`` uint8."""
    from cmap import Colormap

    table = np.asarray(Colormap(name).lut(256))[:, :3]
    levels: NDArray[np.uint8] = np.rint(table * 255).astype(np.uint8)
    return levels
