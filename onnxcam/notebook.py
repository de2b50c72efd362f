"""Explanations as a notebook shows them: pictures, HTML, figures of matplotlib.

The HTML sets no colour of its own, so that it is read in light and in dark notebooks.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from PIL import Image

from onnxcam.errors import PictureError
from onnxcam.imaging.colour import colour_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST = 800  # pixels of the longer side in a notebook; .save() keeps them all
COLUMNS = 4
_STYLE = "display:inline-block;vertical-align:top;margin:0 1em 1em 0;max-width:100%"


class Shown:
    """What a notebook displays of one explanation; :class:`onnxcam.Explanation` derives from it."""

    def _repr_png_(self: Pictured) -> bytes:
        """Return the overlay as PNG, at most 800 pixels a side."""
        picture = self.overlay().convert("RGB")
        picture.thumbnail((LONGEST, LONGEST))
        file = io.BytesIO()
        picture.save(file, "PNG")
        return file.getvalue()

    def _repr_html_(self: Pictured) -> str:
        """Return the overlay, and below it label, score, method and layer."""
        import base64  # these take time to import, and the command line needs none of them
        from html import escape

        record = self.to_dict()
        lines = [escape(f"{record['method']} at {_place(record)}")]
        if record["image"]:
            lines.append(escape(record["image"]))
        if record["note"]:
            lines.append(escape(f"note: {record['note']}"))
        details = "".join(f'<br><span style="opacity:.75">{line}</span>' for line in lines)
        data = base64.b64encode(self._repr_png_()).decode()
        title = escape(_title(record))
        return (
            f'<figure style="{_STYLE}">'
            f'<img src="data:image/png;base64,{data}" alt="{title}" '
            'style="max-width:100%;min-width:10em">'
            f"<figcaption><b>{title}</b>{details}</figcaption></figure>"
        )

    def show(self: Pictured) -> None:
        """Show the explanation: in a notebook there, elsewhere in a window.

        Raises:
            PictureError: there is no program that shows pictures.
        """
        if not _displayed(self):
            _window(self.overlay())

    def figure(self: Pictured) -> Figure:
        """Return a figure of matplotlib: the overlay, titled, with a colour bar where it has one.

        ``figure().savefig("overlay.pdf")`` writes it; a notebook shows it.

        Raises:
            PictureError: matplotlib is not installed.
        """
        return _figure([self])


class Pictured(Protocol):
    """What is shown: its picture and its record."""

    def overlay(self) -> Image.Image:
        """Return the picture."""

    def to_dict(self) -> dict[str, Any]:
        """Return the record."""

    def _repr_png_(self) -> bytes: ...

    def _repr_html_(self) -> str: ...


Kind = TypeVar("Kind", bound=Pictured)


class Explanations(list[Kind]):
    """A list of explanations that a notebook shows side by side; else an ordinary list."""

    def _repr_html_(self) -> str:
        """Return the explanations side by side."""
        return f"<div>{''.join(e._repr_html_() for e in self)}</div>" if self else "<div>none</div>"

    def show(self) -> None:
        """Show the explanations: in a notebook there, elsewhere each in a window.

        Raises:
            PictureError: there is no program that shows pictures.
        """
        if not _displayed(self):
            for explanation in self:
                _window(explanation.overlay())

    def figure(self) -> Figure:
        """Return one figure of matplotlib with all explanations, four in a row.

        Raises:
            PictureError: matplotlib is not installed, or the list is empty.
        """
        if not self:
            raise PictureError("a figure of no explanations: the list is empty.")
        return _figure(self)


def _title(record: Mapping[str, Any]) -> str:
    """Return ``tabby 9.1250``, as the command line names a target and its score."""
    named = isinstance(record["target"], int)
    target = f"class {record['target']}" if named else record["target"]
    return f"{record['label'] or target} {record['score']:.4f}"


def _place(record: Mapping[str, Any]) -> str:
    return "the input" if record["space"] == "input" else str(record["layer"])


def _displayed(shown: object) -> bool:
    """Display something in the notebook that runs this code; return whether there is one."""
    if "IPython" not in sys.modules:
        return False
    from IPython import display, get_ipython

    if not hasattr(get_ipython(), "kernel"):  # IPython in a terminal shows no pictures
        return False
    display.display(shown)
    return True


def _window(picture: Image.Image) -> None:
    from PIL import ImageShow  # which looks for programs, and imports IPython

    if not ImageShow.show(picture):
        raise PictureError(
            "no program that shows pictures is installed. Write it: .save('overlay.png')."
        )


def _figure(explanations: Sequence[Pictured]) -> Figure:
    try:
        from matplotlib import pyplot  # its import has notebooks show figures
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import ListedColormap
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PictureError("a figure needs matplotlib: pip install matplotlib.") from error
    del pyplot
    columns = min(COLUMNS, len(explanations))
    rows = -(-len(explanations) // columns)
    figure = Figure(figsize=(5 * columns, 4 * rows), layout="constrained")
    every = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in every:
        axes.set_axis_off()
    for axes, explanation in zip(every, explanations, strict=False):
        record = explanation.to_dict()
        axes.imshow(explanation.overlay())
        axes.set_title(f"{_title(record)}\n{record['method']} at {_place(record)}", fontsize=9)
        if record["space"] == "layer" and not record["note"]:
            colours = ListedColormap(colour_table() / 255)
            figure.colorbar(ScalarMappable(cmap=colours), ax=axes, shrink=0.8)
    return figure
