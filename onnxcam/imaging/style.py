"""How pictures of heatmaps look."""

from __future__ import annotations

from dataclasses import dataclass

from onnxcam.errors import PictureError
from onnxcam.imaging.colour import DEFAULT_COLOURS, colour_table


@dataclass(frozen=True)
class Style:
    """The options of a picture. None of them changes a map, a heatmap or a record.

    Attributes:
        alpha: weight of the colours where the heat is half of the peak or more, 0 to 1; below it
            falls with the heat to 0, see :func:`onnxcam.kernels.reference.opacity`.
        colours: a colour map of the ``cmap`` package.
        shade: brightness of the photograph where the network did not look, 0 to 1.
        smooth: whether a layer's map is resized bicubically; bilinear is the heatmap's definition.
        caption: whether a strip below says what is explained, how well it scores, by which method
            and at which layer, with a colour bar.
        side_by_side: whether what was explained stands to the left, as it is.
        map_box: whether the map's box is drawn, around the largest connected part of at least 15 %
            of its maximum.

    Raises:
        PictureError: a weight out of range, or an unknown colour map.
    """

    alpha: float = 0.6
    colours: str = DEFAULT_COLOURS
    shade: float = 0.5
    smooth: bool = False
    caption: bool = False
    side_by_side: bool = False
    map_box: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn, before anything is explained."""
        if not (0 <= self.alpha <= 1 and 0 <= self.shade <= 1):
            raise PictureError(
                f"alpha = {self.alpha} and shade = {self.shade} must be between 0 and 1."
            )
        if self.colours != DEFAULT_COLOURS:
            colour_table(self.colours)


USUAL = Style()
