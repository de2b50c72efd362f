"""Colour maps."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import PictureError

DEFAULT_COLOURS = "turbo"


@cache
def colour_table(name: str = DEFAULT_COLOURS) -> NDArray[np.uint8]:
    """Return a colour map of the ``cmap`` package as ``[256, 3]`` uint8."""
    if name == DEFAULT_COLOURS:  # stored, since importing cmap takes longer than painting
        stored = (files("onnxcam.imaging") / "turbo.bin").read_bytes()
        return np.frombuffer(stored, np.uint8).reshape(256, 3)
    from cmap import Colormap

    try:
        colours = Colormap(name)
    except ValueError as error:
        raise PictureError(
            f"colour map '{name}': the package cmap knows none of that name. Take turbo, viridis, "
            "magma or another of https://cmap-docs.readthedocs.io/en/latest/catalog/."
        ) from error
    table = np.asarray(colours.lut(256))[:, :3]
    levels: NDArray[np.uint8] = np.rint(table * 255).astype(np.uint8)
    return levels
