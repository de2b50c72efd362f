"""Fourier transforms: linear, so that the gradient is the transform with the opposite sign."""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.gradient.call import Call, must_be_known
from onnxcam.gradient.helpers.element_ids import ADDING_OPSET
from onnxcam.gradient.helpers.lengths import Length, combine, given, length, scalar, vector
from onnxcam.gradient.registry import expansion, rule, stop
from onnxcam.graph.values import constant

_LENGTH = "its length is not known to be that of the spectrum"


def _axis(c: Call) -> int:
    """Return the transformed axis, which became an operand in opset 20."""
    if c.builder.opset < 20:
        axis = int(c.attribute("axis", 1))
    else:
        axis = -2 if c.operand(2) is None else int(c.known(2, "axes").item())
    return axis % c.rank(c.x(0))


def _transform(c: Call, x: ir.Value, axis: int, **settings: int) -> ir.Value:
    """Append a DFT along ``axis``."""
    if c.builder.opset < 20:
        return c.op("DFT", x, axis=axis, **settings)
    return c.op("DFT", x, None, scalar(c, axis), **settings)


def _dft(c: Call, g: ir.Value) -> ir.Value:
    """For y = F x: dx = F^H g, n times the inverse transform; for y = F^H x / n: dx = F g / n.

    A one-sided spectrum drops its other half, whose cotangent is 0. The inverse of a one-sided
    spectrum reads each bin twice, except those that are their own mirror image.
    """
    x, axis = c.x(0), _axis(c)
    inverse, onesided = bool(c.attribute("inverse", 0)), bool(c.attribute("onesided", 0))
    n = length(c, c.y, axis)
    if inverse and onesided:
        _check_half(c, axis)
        half = _transform(c, g, axis + 1, onesided=1)
        return c.op("Div", c.op("Mul", half, _readings(c, n, axis)), _number(c, n))
    if onesided:
        n = length(c, x, axis) if c.operand(1) is None else given(c, 1)
        g = _fitted(c, g, axis, length(c, c.y, axis), n)
    if inverse:
        full = c.op("Div", _transform(c, g, axis + 1), _number(c, n))
    else:
        full = c.op("Mul", _transform(c, g, axis + 1, inverse=1), _number(c, n))
    if (parts := length(c, x, -1)) != 2:  # the input is real
        full = c.op("Slice", full, c.builder.ints(0), vector(c, parts), c.builder.ints(-1))
    if c.operand(1) is None:
        return full
    return _fitted(c, full, axis, n, length(c, x, axis))


def _check_half(c: Call, axis: int) -> None:
    """Refuse other lengths: they mean cropping or padding, which ONNX Runtime does its own way."""
    size, bins = constant(c.operand(1)), c.static(c.x(0), axis)
    if c.operand(1) is None or (size is not None and bins == size.item() // 2 + 1):
        return
    raise c.refuse(_LENGTH)


def _number(c: Call, n: Length) -> ir.Value:
    if isinstance(n, int):
        return c.like(float(n))
    return c.op("Cast", n, to=c.kind)


def _readings(c: Call, n: Length, axis: int) -> ir.Value:
    """How often each bin of a one-sided spectrum is read: once at 0 and n / 2, else twice."""
    bins = c.op("Range", scalar(c, 0), scalar(c, length(c, c.x(0), axis)), scalar(c, 1))
    twice = c.op("Mod", c.op("Mul", bins, c.builder.ints(2)), vector(c, n))
    mirrored = c.op("Equal", twice, c.builder.ints(0))
    times = c.op("Where", mirrored, c.like(1.0), c.like(2.0))
    return c.op("Reshape", times, c.builder.ints(-1, *[1] * (c.rank(c.x(0)) - axis - 1)))


def _fitted(c: Call, g: ir.Value, axis: int, had: Length, wanted: Length) -> ir.Value:
    """Pad an axis with zeros at its end, or crop it there."""
    rank = c.rank(c.x(0)) + 1
    pads: list[Length] = [0] * (2 * rank)
    pads[rank + axis + 1] = combine(c, "Sub", wanted, had)
    return c.op("Pad", g, vector(c, *pads)) if any(pads) else g


rule("DFT", _dft, None, None, opset=17, refuses=[_LENGTH, must_be_known("axes")])


def _stft(c: Call) -> list[ir.Value]:
    """Gather the frames, multiply them by the window, and transform each."""
    signal, op, ints = c.x(0), c.op, c.builder.ints
    if c.rank(signal) == 2:  # ONNX Runtime takes what has no axis of real and imaginary parts
        signal = op("Unsqueeze", signal, ints(2))
    step, window = given(c, 1), c.operand(2)
    if c.operand(3) is not None:
        size = given(c, 3)
    else:
        size = length(c, signal if window is None else window, 1 if window is None else 0)
    one, zero = scalar(c, 1), scalar(c, 0)
    frame = op("Range", zero, scalar(c, length(c, c.y, 1)), one)
    starts = op("Unsqueeze", op("Mul", frame, vector(c, step)), ints(1))
    indices = op("Add", starts, op("Range", zero, scalar(c, size), one))
    frames = op("Gather", signal, indices, axis=1)
    if window is not None:
        frames = op("Mul", frames, op("Unsqueeze", window, ints(1)))
    return [_transform(c, frames, 2, onesided=int(c.attribute("onesided", 1)))]


expansion("STFT", _stft, opset=max(17, ADDING_OPSET))
stop("BlackmanWindow HannWindow HammingWindow", "its result depends on the length alone")
stop("MelWeightMatrix", "its filters are rounded to whole bins")
