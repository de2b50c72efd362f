"""One HTML file of a comparison: pictures inside, no external address."""

from __future__ import annotations

import base64
import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxcam._version import __version__
from onnxcam.compare.facts import About
from onnxcam.compare.junit import told
from onnxcam.compare.measures import ALIKE
from onnxcam.compare.policy import Policy, Verdict, other_reason
from onnxcam.compare.results import FAILED, Answer, Results, Row, meaning
from onnxcam.compare.totals import totals
from onnxcam.errors import ImageError, RuntimeMissingError
from onnxcam.files import write_atomically
from onnxcam.imaging.boxes import framed
from onnxcam.imaging.colour import colour_table
from onnxcam.imaging.decode import decode
from onnxcam.imaging.preprocess import Geometry
from onnxcam.imaging.style import USUAL
from onnxcam.kernels import kernels
from onnxcam.notes import CAPTIONS, Note

TEMPLATE = Path(__file__).with_name("page.html")
SIDE = 320  # pixels
MOST = 24  # images with pictures
_OF_CLASSES = ("agreement", "top5", "score_drift")
_OF_BOXES = ("agreement", "found", "extra", "box_iou", "confidence_drift")
_OF_MAPS = ("correlation", "iou", "peak_shift", "mass_moved")


def check_jinja() -> None:
    """Refuse before anything is run.

    Raises:
        RuntimeMissingError: Jinja2 is not installed.
    """
    if importlib.util.find_spec("jinja2") is None:
        raise RuntimeMissingError(
            "the report needs Jinja2. Install it with 'pip install onnxcam[report]', or leave out "
            "--report."
        )


def save_page(path: Path, results: Results, policy: Policy, verdict: Verdict) -> Path:
    """Write the page.

    Args:
        path: the file.
        results: what is shown; the worst images with pictures, if their files are still there.
        policy: the thresholds.
        verdict: what they say.

    Raises:
        RuntimeMissingError: Jinja2 is not installed.
        OutputError: the file cannot be written.
    """
    check_jinja()
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(TEMPLATE.read_text("utf-8"))
    ordered = results.worst_first()
    text = page.render(
        version=__version__,
        results=results,
        verdict=verdict,
        policy=policy.to_toml(),
        counts=results.counts(),
        different=sum(other_reason(r, policy) for r in results.rows),
        boxes=results.boxes(),
        meaning=meaning,
        totals=totals(results.rows),
        cards=[_card(results, row, policy) for row in ordered[:MOST]],
        columns=_columns(results),
        rows=[_line(results, row, policy) for row in ordered],
    )
    return write_atomically(path, lambda file: file.write(text.encode()))


def _columns(results: Results) -> tuple[str, ...]:
    return (*(_OF_BOXES if results.reference.boxes else _OF_CLASSES), *_OF_MAPS)


def _line(results: Results, row: Row, policy: Policy) -> dict[str, Any]:
    kind = "same answer" if row.measures.get("agreement", 1) else "different answer"
    reason = other_reason(row, policy)
    return {
        "name": Path(row.image).name,
        "reference": row.reference.name if row.reference else "",
        "candidate": row.candidate.name if row.candidate else "",
        "state": row.error or (row.status if row.status != ALIKE else ""),
        "kind": FAILED if row.status == FAILED else kind,
        "reason": reason,
        "values": [row.measures.get(name) for name in _columns(results)],
    }


def _card(results: Results, row: Row, policy: Policy) -> dict[str, Any]:
    photo, geometry = photograph(results.reference, row)
    sides = [
        {
            "title": title,
            "answer": "" if side is None else _said(side, results.reference.boxes),
            "picture": None if side is None else _picture(photo, geometry, side),
        }
        for title, side in (("Reference", row.reference), ("Candidate", row.candidate))
    ]
    plain = None if photo is None else _packed(photo)
    return {**_line(results, row, policy), "told": told(row), "plain": plain, "sides": sides}


def _said(side: Answer, boxes: bool) -> str:
    number = f"score {side.score:.3g}" if side.probability is None else f"{side.probability:.1%}"
    note: Note = side.note  # type: ignore[assignment]
    empty = f"; {CAPTIONS[note]}" if note else ""
    if boxes:
        return f"{side.name}, {number}{empty}"
    return f"predicts {side.name}; the explained class has {number}{empty}"


def photograph(about: About, row: Row) -> tuple[NDArray[np.uint8] | None, Geometry | None]:
    """Return the photograph and where it lies in the input; nothing where its file is gone."""
    path = Path(row.image)
    if about.preprocess is None or not path.is_file():
        return None, None
    try:
        photo = decode(str(path))
    except ImageError:
        return None, None
    _, geometry = about.preprocess.apply(photo, "NHWC", "float32")
    return photo, geometry


def _picture(
    photo: NDArray[np.uint8] | None, geometry: Geometry | None, side: Answer
) -> str | None:
    """Return the map over the photograph, or alone."""
    if side.heat.ndim != 2:
        return None
    if photo is None or geometry is None:
        small = Image.fromarray(colour_table(USUAL.colours)[side.heat])
        return _packed(np.asarray(small.resize((SIDE, SIDE), Image.Resampling.NEAREST)))
    return _packed(painted(photo, geometry, side))


def painted(photo: NDArray[np.uint8], geometry: Geometry, side: Answer) -> NDArray[np.uint8]:
    """Return a side's map over the photograph, ``[H, W, 3]``."""
    view, heat = geometry.view(*side.heat.shape), side.heat.astype(np.float32)
    table = colour_table(USUAL.colours)
    picture = kernels().paint(photo, heat, view, table, USUAL.alpha, USUAL.shade)
    if side.box is None:
        return picture
    left, top, right, bottom = side.box
    text = f"{side.name} {side.probability:.2f}"
    return np.asarray(framed(Image.fromarray(picture), (left, top, right, bottom), text))


def _packed(picture: NDArray[np.uint8]) -> str:
    """Return a small JPEG as an address that holds it."""
    image = Image.fromarray(picture)
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
