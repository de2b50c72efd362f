"""Quantization, straight through.

``QuantizeLinear`` rounds, so its derivative is 0 almost everywhere. The rules differentiate what it
rounds: ``q = x / s + z`` inside the representable range, constant outside (the
"straight-through estimator", Bengio et al. 2013). The cotangent of a quantized tensor ``q`` is
``dy/dq``, in float32.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.backward import Cotangents
from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.quantization import (
    MISFIT,
    as_float,
    convert,
    divided,
    for_broadcasting,
)
from onnxcam.gradient.registry import joint, rule
from onnxcam.graph.quantized import LIMITS
from onnxcam.graph.values import constant

_FLOAT = ir.DataType.FLOAT


def _dequantize(c: Call, g: ir.Value) -> ir.Value:
    """For x = (q - z) s: dq = g s."""
    scale = for_broadcasting(c, as_float(c, c.x(1)), c.y)  # few operators take the narrowest types
    return c.op("Mul", convert(c, g, c.y.dtype, _FLOAT), scale)


_NO_RULE = "quantized tensors of type {} have no rule"


def _quantize(c: Call, g: ir.Value) -> ir.Value:
    """For q = x / s + z where it fits: dx = g / s there.

    Values fit if rounding alone, without clipping, makes them representable. But where the range
    begins at 0 (``z`` is the lowest value), a quantizer or optimizer has dropped a ReLU before it,
    so negative values pass nothing.
    """
    x, stored = c.x(0), c.y.dtype
    if stored not in LIMITS:
        raise c.refuse(_NO_RULE, stored)
    low, high = LIMITS[stored]
    scale = for_broadcasting(c, as_float(c, c.x(1)), x)
    dx = divided(c, g, scale)
    if c.node in c.walk.unclipped:
        return dx
    values = convert(c, x, x.dtype, _FLOAT)
    centre, half = _range(c, scale, low, high)
    centred = values if centre is None else c.op("Sub", values, centre)
    fits = c.op("LessOrEqual", c.op("Abs", centred), half)
    return c.mask(fits, dx)


def _range(c: Call, scale: ir.Value, low: float, high: float) -> tuple[ir.Value | None, ir.Value]:
    """Return the middle and half the length of the range of values that fit.

    It reaches half a step beyond the representable values, but not below 0 where they begin at 0.
    """
    number = partial(c.builder.constant, dtype=_FLOAT)
    if "INT" not in (c.y.dtype or ir.DataType.UINT8).name:  # narrow floats, around 0
        return None, c.op("Mul", scale, number(high))
    zero, step = c.operand(2), constant(c.operand(1))
    stored = np.zeros(()) if zero is None else constant(zero)
    if step is not None and stored is not None and step.size == 1:
        shift, size = float(stored.item()), float(step.item())
        ends = low - shift - 0.5 * (shift > low), high - shift + 0.5
        return number(sum(ends) / 2 * size), number((ends[1] - ends[0]) / 2 * size)
    return _computed_range(c, scale, low, high)


def _computed_range(c: Call, scale: ir.Value, low: float, high: float) -> tuple[ir.Value, ir.Value]:
    """Return the same, computed in the graph; the runtime folds what depends on stored scales."""
    number, zero = partial(c.builder.constant, dtype=_FLOAT), c.operand(2)
    shift = number(0) if zero is None else for_broadcasting(c, as_float(c, zero), c.x(0))
    below = c.op("Sub", number(low), shift)
    margin = c.op("Cast", c.op("Cast", below, to=ir.DataType.BOOL), to=_FLOAT)
    least = c.op("Sub", below, c.op("Mul", margin, number(0.5)))
    most = c.op("Sub", number(high + 0.5), shift)
    scaled = c.op("Mul", scale, number(0.5))
    middle = c.op("Mul", c.op("Add", most, least), scaled)
    return middle, c.op("Mul", c.op("Sub", most, least), scaled)


for _domain in ("", "com.microsoft"):
    rule("DequantizeLinear", _dequantize, None, None, refuses=[MISFIT], domain=_domain)
    rule("QuantizeLinear", _quantize, None, None, refuses=[_NO_RULE, MISFIT], domain=_domain)


def _dynamic(c: Call, gs: Cotangents) -> ir.Value | None:
    """The range is computed to hold all values, so dx = g / s.

    Scale and zero point depend on x too, but the dequantized values do not depend on them.
    """
    g = gs[0]
    return None if g is None else c.op("Div", g, c.node.outputs[1])


joint("DynamicQuantizeLinear", _dynamic)
