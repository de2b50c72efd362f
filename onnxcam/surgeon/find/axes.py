"""Which axis of a tensor the classes lie along."""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.graph.values import dims


def class_axis(value: ir.Value) -> int | None:
    """Return the axis of the classes: the only one after the batch that may be longer than 1.

    For one number an image, ``[N, 1]``, the first after the batch; ``None`` where there is none.
    """
    shape = dims(value)
    if not shape:
        return None
    if len(shape) == 1:
        return 0 if _several(shape[0]) else None
    wide = [axis for axis in range(1, len(shape)) if shape[axis] != 1]
    return (wide or [1])[0] if len(wide) < 2 else None


def class_count(value: ir.Value) -> int | None:
    """Return the number of classes where the shape tells it; 1 for one number an image."""
    axis, shape = class_axis(value), dims(value)
    if axis is None:
        return 1 if shape is not None and len(shape) == 1 else None
    length = (shape or [])[axis]
    return length if isinstance(length, int) else None


def _several(length: int | str | None) -> bool:
    return isinstance(length, int) and length > 1
