"""Pictures of what is no photograph: signals as lines, volumes as slices, arrays in grey levels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
_LINES = 12  # channels of a signal that are drawn
_WIDTH, _HEIGHT = 1000, 160  # of one channel's line, in pixels
_SLICES = 16
_TILE = 128  # the least side of a slice, in pixels
_GAP = 2
_MIDDLE = (1.0, 99.0)  # percent: what lies beyond is black or white
_PLAIN = 320  # the least side of a map alone


def grey(given: NDArray[Any]) -> Pixels:
    """Return an array ``[C, *S]`` in grey levels ``[*S, 3]``; in colour where it has 3 channels."""
    values = np.nan_to_num(np.asarray(given, np.float32))
    values = values if len(values) == 3 else np.repeat(values.mean(axis=0, keepdims=True), 3, 0)
    low, high = np.percentile(values, _MIDDLE)
    levels = (values - low) * (255 / (high - low)) if high > low else values * 0 + 127
    picture: Pixels = np.rint(np.moveaxis(np.clip(levels, 0, 255), 0, -1)).astype(np.uint8)
    return picture


def blended(picture: Pixels, colours: NDArray[Any], weight: Any) -> Pixels:
    """Return ``(1 - weight) * picture + weight * colours``."""
    mixed: Pixels = np.rint(picture * (1.0 - weight) + colours * weight).astype(np.uint8)
    return mixed


def enlarged(picture: Pixels, least: int = _PLAIN) -> Image.Image:
    """Return a picture a whole number of times larger, its larger side ``least`` at least."""
    image = Image.fromarray(picture)
    times = math.ceil(least / max(image.size))
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


def lines(given: NDArray[Any], colours: Pixels) -> Image.Image:
    """Return a signal's channels as lines, one below the other, before coloured places.

    Args:
        given: ``[C, L]``; the first twelve channels are drawn.
        colours: ``[C, L, 3]``, or ``[1, L, 3]`` for all channels.
    """
    from PIL import ImageDraw  # few pictures need it, and it takes time to import

    values = np.nan_to_num(np.asarray(given[:_LINES], np.float64))
    length = values.shape[1]
    picture = Image.new("RGB", (_WIDTH, _HEIGHT * len(values)), "white")
    draw = ImageDraw.Draw(picture)
    for n, line in enumerate(values):
        band = Image.fromarray(colours[min(n, len(colours) - 1)][None])
        band = band.resize((_WIDTH, _HEIGHT), Image.Resampling.NEAREST)
        picture.paste(band, (0, n * _HEIGHT))
        low, high = line.min(), line.max()
        level = (line - low) / (high - low) if high > low else line * 0 + 0.5
        x = (np.arange(length) + 0.5) / length * _WIDTH
        y = n * _HEIGHT + _HEIGHT - 8 - level * (_HEIGHT - 16)
        draw.line(_thinned(x, y), fill="black", width=2)
        if n:
            draw.line([(0, n * _HEIGHT), (_WIDTH, n * _HEIGHT)], fill="grey")
    return picture


def _thinned(x: NDArray[Any], y: NDArray[Any]) -> list[tuple[float, float]]:
    """Return the points of a line, of many on one pixel only the first, extreme and last ones."""
    if len(x) <= 4 * _WIDTH:
        return list(zip(x.tolist(), y.tolist(), strict=True))
    points = []
    for part in np.array_split(np.arange(len(x)), _WIDTH):
        kept = {int(part[0]), int(part[y[part].argmin()]), int(part[y[part].argmax()])}
        points += [(float(x[i]), float(y[i])) for i in sorted(kept)]
    return points


def montage(slices: Pixels, place: int | None) -> Image.Image:
    """Return slices of a volume beside each other, each with its number.

    Args:
        slices: ``[D, H, W, 3]``; of more than sixteen as many, evenly picked.
        place: a slice that must be among them.
    """
    from PIL import ImageDraw, ImageFont

    depth = len(slices)
    picked = sorted({round(n) for n in np.linspace(0, depth - 1, min(depth, _SLICES))})
    if place is not None and place not in picked:
        picked[int(np.argmin([abs(p - place) for p in picked]))] = place
        picked = sorted(picked)
    tiles = [enlarged(slices[p], _TILE) for p in picked]
    columns = math.ceil(math.sqrt(len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    width, height = tiles[0].width + _GAP, tiles[0].height + _GAP
    picture = Image.new("RGB", (columns * width - _GAP, rows * height - _GAP), "white")
    font, draw = ImageFont.load_default(12), ImageDraw.Draw(picture)
    for n, (number, tile) in enumerate(zip(picked, tiles, strict=True)):
        x, y = n % columns * width, n // columns * height
        picture.paste(tile, (x, y))
        draw.text((x + 4, y + 2), str(number), "white", font, stroke_width=1, stroke_fill="black")
    return picture
