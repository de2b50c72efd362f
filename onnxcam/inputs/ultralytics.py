"""What Ultralytics' exporter writes into a model's metadata: task, names, size."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from onnxcam.imaging.preprocess import Preprocess

_BOXED = ("detect", "segment", "pose", "obb")


def preprocessing(metadata: Mapping[str, str]) -> Preprocess | None:
    """Return how images are prepared for a model of theirs, ``None`` for others.

    Detectors take RGB in 0..1, fitted into the size and padded with grey 114; classifiers the
    centre of the image with its shorter side resized.
    """
    task = metadata.get("task", "")
    if "stride" not in metadata or "names" not in metadata:
        return None
    size = _size(metadata.get("imgsz", ""))
    if task in _BOXED:
        return Preprocess(resize="letterbox", divide=255.0, size=size)
    if task == "classify":
        return Preprocess(resize="shorter", divide=255.0, size=size)
    return None


def _size(text: str) -> tuple[int, int] | None:
    """Return height and width, written ``[640, 640]`` or ``640``."""
    try:
        found = ast.literal_eval(text)
        height, width = (found, found) if isinstance(found, int) else found
        return (int(height), int(width)) if height > 0 and width > 0 else None
    except (ValueError, SyntaxError, TypeError):
        return None
