"""Inputs of other than four axes: volumes, signals, images without channels or in one row.

Their lengths alone do not tell what they are, so what first reads them is looked at.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from onnxcam.graph.operators import Trait, has
from onnxcam.graph.values import dims
from onnxcam.surgeon.plan import ImageInput

_LINEAR = ("Gemm", "MatMul")
_MOST_BANDS = 16  # channels of a volume
_LEAST = 64  # numbers in a row that are taken for an image
_LEAST_SIDE = 8
_FAR = 32  # nodes that are looked through


def laid_out(value: ir.Value, layout: str) -> ImageInput:
    """Describe an input whose layout is known; 3 channels where their number is not."""
    assert value.dtype is not None
    sizes = [d if isinstance(d, int) else None for d in dims(value) or []]
    at = dict(zip(layout, sizes, strict=True))
    return ImageInput(
        name=value.name or "",
        dtype=str(value.dtype.numpy()),
        layout=layout,
        channels=(at["C"] or 3) if "C" in at else 1,
        height=at.get("H"),
        width=at["W"],
        batch=at["N"],
        depth=at.get("D"),
    )


def as_volume(value: ir.Value) -> ImageInput | None:
    """Return an input of volumes or clips, ``[N, C, D, H, W]`` or ``[N, D, H, W, C]``."""
    shape = dims(value)
    if shape is None or len(shape) != 5:
        return None
    few = [isinstance(shape[axis], int) and shape[axis] <= _MOST_BANDS for axis in (1, 4)]  # type: ignore[operator]
    if few[0]:
        return laid_out(value, "NCDHW")
    return laid_out(value, "NDHWC") if few[1] else None


def as_bare(value: ir.Value) -> ImageInput | None:
    """Return an input of signals, of images without an axis of channels, or with one axis alone."""
    shape = dims(value)
    if shape is None or len(shape) not in (2, 3):
        return None
    found = _first_reader(value)
    if found is None:
        return None
    reader, turned = found
    read = dims(reader.inputs[0]) if reader.inputs[0] is not None else None
    if reader.op_type == "STFT":
        return laid_out(value, "NW") if len(shape) == 2 else None
    if has(reader, Trait.CONVOLUTION) and read is not None and len(read) in (3, 4):
        if len(read) == 3:
            signal = "NW" if len(shape) == 2 else "NWC" if turned else "NCW"
            return laid_out(value, signal)
        if len(shape) == 3:
            return laid_out(value, "NHW") if 1 in read[1:] else None
        return _in_one_row(value, read[1:])
    if reader.op_type not in _LINEAR:
        return None
    if len(shape) == 3:
        sides = [d for d in shape[1:] if isinstance(d, int) and d >= _LEAST_SIDE]
        flattened = read is not None and len(read) == 2
        return laid_out(value, "NHW") if flattened and len(sides) == 2 else None
    side = math.isqrt(shape[1]) if isinstance(shape[1], int) else 0
    square = side * side == shape[1] and side * side >= _LEAST
    return _in_one_row(value, [1, side, side]) if square else None


def _in_one_row(value: ir.Value, sizes: list[int | str | None]) -> ImageInput | None:
    """Describe images whose numbers come in one row, channel by channel, then row by row."""
    shape, known = dims(value) or [], [d for d in sizes if isinstance(d, int)]
    if len(known) != 3 or math.prod(known) != shape[1]:
        return None
    assert value.dtype is not None
    batch = shape[0] if isinstance(shape[0], int) else None
    dtype = str(value.dtype.numpy())
    channels, height, width = known
    return ImageInput(value.name or "", dtype, "NF", channels, height, width, batch)


def _first_reader(value: ir.Value) -> tuple[ir.Node, bool] | None:
    """Return the first convolution, linear layer or STFT after an input.

    And whether its last two axes change places on the way there.
    """
    turned, waiting, seen = False, [value], 0
    while waiting and seen < _FAR:
        for node in waiting.pop(0).consumers():
            seen += 1
            if has(node, Trait.CONVOLUTION) or node.op_type in ("STFT", *_LINEAR):
                return node, turned
            perm = list(node.attributes.get_ints("perm") or ())
            turned ^= node.op_type == "Transpose" and perm[-2:] == [len(perm) - 1, len(perm) - 2]
            if node.outputs and node.op_type != "Shape":
                waiting.append(node.outputs[0])
    return None
