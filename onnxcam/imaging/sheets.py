"""Several pictures on one, each with a caption below it."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

GAP, LINE = 8, 18
Panel = tuple[str, Image.Image]


def sheet(rows: Sequence[Sequence[Panel]]) -> Image.Image:
    """Lay panels out in rows; what is too wide of a caption's line is left out at its start."""
    from PIL import ImageDraw, ImageFont  # few pictures need them, and they take time to import

    font = ImageFont.load_default(14)
    width = max(sum(p.width + GAP for _, p in row) for row in rows) - GAP
    lines = max(caption.count("\n") + 1 for row in rows for caption, _ in row)
    below = lines * LINE + 4
    heights = [max(p.height for _, p in row) + below for row in rows]
    made = Image.new("RGB", (width, sum(heights)), "white")
    draw, top = ImageDraw.Draw(made), 0
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for caption, panel in row:
            made.paste(panel, (left, top))
            for n, line in enumerate(caption.split("\n")):
                shown = line
                while len(shown) > 2 and font.getlength(shown) > panel.width - 4:
                    shown = f"…{shown[2:]}"
                place = (left + 4, top + panel.height + 3 + n * LINE)
                draw.text(place, shown, "black", font)
            left += panel.width + GAP
        top += height
    return made
