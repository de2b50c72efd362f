"""A picture with what it shows written below it, and beside the photograph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxcam.imaging.drawn import blended, enlarged
from onnxcam.imaging.pixels import evidence
from onnxcam.kernels.reference import opacity

LEAST = 240  # the strip's least width, in pixels
GAP = 8


class Bar(NamedTuple):
    """A bar of colours.

    Attributes:
        colours: from left to right, ``[n, 3]`` uint8; none of them, no bar.
        ends: what its ends mean.
    """

    colours: NDArray[np.uint8]
    ends: tuple[str, str]


NO_BAR = Bar(np.zeros((0, 3), np.uint8), ("", ""))


def heat_bar(table: NDArray[np.uint8], alpha: float) -> Bar:
    """Return a colour table ``[256, 3]`` as it is painted on white, with its transparency."""
    weight = opacity(np.linspace(0, 1, len(table))[:, None], alpha)
    return Bar(blended(np.full(table.shape, 255, np.uint8), table, weight), ("0", "max"))


def evidence_bar(alpha: float) -> Bar:
    """Return the colours of evidence against and for a target, as they are painted on white."""
    colours, size = evidence(np.linspace(-1, 1, 256))
    white = np.full(colours.shape, 255, np.uint8)
    return Bar(blended(white, colours, alpha * size), ("against", "for"))


def with_strip(
    picture: Image.Image,
    lines: Sequence[str],
    bar: Bar = NO_BAR,
) -> Image.Image:
    """Return a picture on white with lines of text below it, and a bar of colours at their right.

    Args:
        picture: smaller than :data:`LEAST` it is enlarged; narrower it lies in the middle.
        lines: what is too wide of one is left out in its middle.
        bar: what its colours mean.
    """
    from PIL import ImageDraw, ImageFont  # few pictures need them, and they take time to import

    if max(picture.size) < LEAST:
        picture = enlarged(np.asarray(picture), LEAST)
    width = max(picture.width, LEAST)
    size = min(max(width // 40, 12), 36)
    font, small = ImageFont.load_default(size), ImageFont.load_default(max(size * 3 // 4, 10))
    line, margin = size * 4 // 3, size // 2
    below = line * max(len(lines), 2) + margin
    made = Image.new("RGB", (width, picture.height + below), "white")
    made.paste(picture, ((width - picture.width) // 2, 0))
    draw, top = ImageDraw.Draw(made), picture.height + margin // 2
    room = width - 2 * margin
    if len(bar.colours):
        long = width // 4
        room -= long + margin
        left = width - margin - long
        high, above = line * 2 // 3, top + line // 6
        made.paste(Image.fromarray(bar.colours[None]).resize((long, high)), (left, above))
        draw.rectangle((left, above, left + long - 1, above + high - 1), outline="grey")
        draw.text((left, top + line), bar.ends[0], "black", small)
        right = left + long - small.getlength(bar.ends[1])
        draw.text((right, top + line), bar.ends[1], "black", small)
    for n, text in enumerate(lines):
        shown = text
        while len(shown) > 3 and font.getlength(shown) > room:
            middle = len(shown) // 2
            shown = f"{shown[: middle - 1].rstrip('…')}…{shown[middle + 1 :].lstrip('…')}"
        draw.text((margin, top + n * line), shown, "black", font)
    return made


def beside(left: Image.Image, right: Image.Image) -> Image.Image:
    """Return two pictures side by side on white, a gap between them."""
    size = (left.width + GAP + right.width, max(left.height, right.height))
    made = Image.new("RGB", size, "white")
    made.paste(left, (0, 0))
    made.paste(right, (left.width + GAP, 0))
    return made
