"""One picture of explanations of an image at several layers."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from onnxcam.errors import PictureError
from onnxcam.explanation import Explanation
from onnxcam.imaging.sheets import sheet

TILE = 320  # pixels of a tile's longer side
COLUMNS = 4


def contact_sheet(explanations: Sequence[Explanation]) -> Image.Image:
    """Return overlays side by side, in their order, as Selvaraju et al. 2017 do in their appendix.

    Below each stand its layer and that layer's shape, channels x rows x columns.

    Args:
        explanations: of one image, for one target and by one method, at several layers.

    Raises:
        PictureError: there are none, or a ready array was explained.
    """
    if not explanations:
        raise PictureError("a contact sheet of no explanations: the list is empty.")
    panels = []
    for one in explanations:
        picture = one.overlay()
        scale = TILE / max(picture.size)
        size = [max(1, round(length * scale)) for length in picture.size]
        small = picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)
        shape = [*([one.channels] if one.channels else []), *one.signed.shape[-2:]]
        panels.append((f"{one.layer}\n{'x'.join(map(str, shape))}", small))
    return sheet([panels[i : i + COLUMNS] for i in range(0, len(panels), COLUMNS)])
