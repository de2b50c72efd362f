"""One picture of an image's explanations: over layers, methods and targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from onnxcam.errors import PictureError
from onnxcam.explanation import Explanation
from onnxcam.imaging.sheets import Panel, sheet
from onnxcam.imaging.style import USUAL, Style

TILE = 320  # pixels of a tile's longer side
COLUMNS = 4


def contact_sheet(
    explanations: Sequence[Explanation], style: Style = USUAL, **options: Any
) -> Image.Image:
    """Return overlays side by side, in their order, as Selvaraju et al. 2017 do in their appendix.

    Below each stands in what it differs from the others: its target, its method, its layer and that
    layer's shape, channels x rows x columns. Several targets by several methods or at several
    layers have a row each.

    Args:
        explanations: of one image.
        style: how the overlays look; they have neither captions of their own nor a
            photograph beside them.
        options: of :class:`onnxcam.Style`, in place of the style's.

    Raises:
        PictureError: there are none, or a ready array was explained.
    """
    if not explanations:
        raise PictureError("a contact sheet of no explanations: the list is empty.")
    style = replace(style, **{**options, "caption": False, "side_by_side": False})
    targets = {(e.target, e.element) for e in explanations}
    methods, layers = ({getattr(e, key) for e in explanations} for key in ("method", "layer"))
    rows: dict[Any, list[Panel]] = {}
    for one in explanations:
        picture = one.overlay(style)
        scale = TILE / max(picture.size)
        size = [max(1, round(length * scale)) for length in picture.size]
        small = picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)
        lines = [_target(one)] if len(targets) > 1 else []
        lines += [one.method] if len(methods) > 1 or len(layers) == len(targets) == 1 else []
        if len(layers) > 1:
            shape = [*([one.channels] if one.channels else []), *one.signed.shape[-2:]]
            lines += [one.layer, "x".join(map(str, shape))]
        of = (one.target, one.element) if len(explanations) > len(targets) else None
        rows.setdefault(of, []).append(("\n".join(lines), small))
    cut = [row[i : i + COLUMNS] for row in rows.values() for i in range(0, len(row), COLUMNS)]
    return sheet(cut)


def _target(one: Explanation) -> str:
    """Name what is explained."""
    if one.detected is not None and one.detected.one is not None:
        return f"{one.element} {one.detected.one.name}"
    return one.label or (f"class {one.target}" if one.target is not None else one.element or "")
