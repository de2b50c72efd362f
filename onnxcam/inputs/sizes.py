"""What a failed run is told of a size that the model's file leaves open."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onnxcam.errors import InferenceError, OnnxcamError
from onnxcam.imaging.preprocess import Preprocess
from onnxcam.surgeon.plan import ImageInput


@contextmanager
def size_told(takes: ImageInput, path: Path, preprocess: Preprocess | None) -> Iterator[None]:
    """Where a run on photographs fails and their size was not the file's, say how to give it.

    Exports with a dynamic height often hold a network that takes one height only: recognisers of
    text lines, detectors with their anchors in the graph.

    Args:
        takes: the model's image input.
        path: its file.
        preprocess: how photographs are prepared, with a size; ``None`` where none are.

    Raises:
        OnnxcamError: of the same class, with the size and a card that gives another.
    """
    try:
        yield
    except OnnxcamError as error:
        failed = isinstance(error, InferenceError) or isinstance(error.__cause__, InferenceError)
        if not failed or preprocess is None or preprocess.size is None:
            raise
        own = (("height", takes.height), ("width", takes.width))
        if not (free := [what for what, known in own if known is None]):
            raise
        height, width = preprocess.size
        verb = "is" if len(free) == 1 else "are"
        raise type(error)(
            f"{path}: the run failed. {' and '.join(free).capitalize()} of the images {verb} "
            f"left open by the file, and {height}x{width} was tried. If the network takes "
            f"another size, write it in place of {' and '.join(free).upper()} into a card "
            f"'{path.with_suffix('.toml').name}' beside the model, or into any file for "
            f"--preprocess FILE: {_card(preprocess, takes)} ({error})"
        ) from error


def _card(preprocess: Preprocess, takes: ImageInput) -> str:
    """Return a card of one line that prepares images likewise, in a size to be filled in."""
    told = [
        f"{field.name} = {json.dumps(value)}"
        for field in dataclasses.fields(preprocess)
        if field.name != "size" and (value := getattr(preprocess, field.name)) != field.default
    ]
    size = f"size = [{takes.height or 'HEIGHT'}, {takes.width or 'WIDTH'}]"
    return f"preprocess = {{{', '.join([*told, size])}}}"
