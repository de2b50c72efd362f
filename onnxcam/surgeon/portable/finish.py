"""A method's map becomes a heatmap inside the graph: rectified, resized, 0 to 1.

The same as :attr:`onnxcam.explanation.Explanation.heatmap`, in float32: linear along each axis with
half-pixel centres, divided by its maximum; rounding noise is taken for zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxcam.graph.builder import Builder, shaped
from onnxcam.graph.values import dims
from onnxcam.surgeon.plan import ImageInput
from onnxcam.surgeon.portable.photograph import Photograph

_NOISE = 10 * float(np.finfo(np.float32).eps)  # see onnxcam.notes.note_on
_LEAST = 1e-30  # a divisor where a map is zero
_FLOAT = ir.DataType.FLOAT


@dataclass(frozen=True)
class Map:
    """A method's map, signed.

    Attributes:
        value: ``[N, T, *S]`` at a layer; at the input as the image lies there, with T second.
        space: ``"layer"`` or ``"input"``.
        proportional: whether rounding noise is told by the map's size.
    """

    value: ir.Value
    space: str
    proportional: bool


class Finisher:
    """Finishes maps of one graph."""

    def __init__(
        self,
        b: Builder,
        image: ir.Value,
        facts: ImageInput,
        scores: ir.Value,
        photograph: Photograph | None = None,
    ) -> None:
        """Take the image input, and the numbers ``[N, C]`` whose rounding tells noise.

        With a photograph, heatmaps lie on that in place of the image input.
        """
        self.b, self.image, self.facts, self.scores = b, image, facts, scores
        self.photograph = photograph

    def raw(self, made: Map) -> ir.Value:
        """Return the map without its sign, ``[N, T, *S]`` float32."""
        b, value = self.b, as_float(self.b, made.value)
        if made.space == "layer":
            return shaped(b.op("Relu", value), value)
        size, layout, sizes = b.op("Abs", value), self.facts.layout, dims(value) or []
        if layout == "NF":
            lengths = [self.facts.channels, *(int(d or 0) for d in self.facts.space)]
            size, layout = b.op("Reshape", size, b.ints(0, 0, *lengths)), "NCHW"
            sizes = [*sizes[:2], *lengths]
        if "C" in layout and len(sizes) == len(layout) + 1:
            at = layout.index("C") + 1
            size = largest(b, size, [at], keepdims=False)
            sizes = [*sizes[:at], *sizes[at + 1 :]]
        size.shape, size.type = ir.Shape(sizes), value.type
        return size

    def heatmap(self, maps: Sequence[Map]) -> ir.Value:
        """Return a map resized to the input, and divided by its maximum.

        Of several, which are those of the scales that a detector's head reads, it is the last that
        the target depends on (:meth:`onnxcam.layers.Group.read`).
        """
        b, heats = self.b, []
        for made in maps:
            raw = self.raw(made)
            at_input = made.space == "input" and self.photograph is None
            heat = raw if at_input else self._resized(raw)
            heats.append(self._normalised(heat, self._noise(made)))
        heat = heats[0]
        for made, later in zip(maps[1:], heats[1:], strict=True):
            size = b.op("Abs", as_float(b, made.value))
            depends = b.op("Greater", largest(b, size, _space(made.value)), b.constant(0.0, _FLOAT))
            heat = shaped(b.op("Where", depends, later, heat), later)
        return heat

    def _normalised(self, heat: ir.Value, noise: ir.Value | None) -> ir.Value:
        """Return maps ``[N, T, *S]`` divided by their maxima, zero where they are noise."""
        b, peak = self.b, largest(self.b, heat, _space(heat))
        peak = b.op("Max", peak, b.constant(_LEAST, _FLOAT))
        if noise is not None:
            noise = b.op("Unsqueeze", noise, b.ints(*_space(heat)))
            peak = b.op("Where", noise, b.constant(np.inf, _FLOAT), peak)
        return shaped(b.op("Div", heat, peak), heat)

    def _noise(self, made: Map) -> ir.Value | None:
        """Return which maps are rounding noise, bool ``[N, T]``; ``None``: no size tells that."""
        if not made.proportional:
            return None
        b, signed = self.b, as_float(self.b, made.value)
        total = b.reduced("ReduceL1", signed, _space(signed))  # [N, T]
        if made.space == "input":
            image = as_float(b, self.image)
            axes = [*range(1, len(dims(image) or []))]
            reach = b.op("Reshape", largest(b, b.op("Abs", image), axes), b.ints(-1, 1))
            total = b.op("Mul", total, b.op("Max", reach, b.constant(1.0, _FLOAT)))
        score = largest(b, b.op("Abs", as_float(b, self.scores)), [1])  # [N, 1]
        least = b.op("Mul", score, b.constant(_NOISE, _FLOAT))
        return b.op("Less", total, least)

    def _resized(self, value: ir.Value) -> ir.Value:
        """Resize ``[N, T, *s]`` to the input; a spectrum, which does not lie on it, stays."""
        b, space, sizes = self.b, self.facts.space, dims(value) or []
        known = [d for d in space if isinstance(d, int)]
        if self.photograph is not None:
            return self._on_photograph(value, self.photograph)
        if len(sizes) - 2 != len(space) or sizes[2:] == known:
            return value
        if len(known) == len(space):
            size = b.ints(*known)
        else:
            first = self.facts.layout.index(self.facts.axes[0])
            shape = b.op("Shape", self.image)
            size = b.op("Slice", shape, b.ints(first), b.ints(first + len(space)))
        flat, given = len(space) == 1, value  # a signal is a row of pixels to Resize
        if flat:
            value = b.op("Unsqueeze", value, b.ints(2))
        # With constant sizes or scales OpenVINO 2026.4 rounds a quantized network elsewhere too
        # (r = 0.82 for 0.9985).
        ends = b.op("Slice", b.op("Shape", value), b.ints(0), b.ints(3 if flat else 2))
        heat = b.op(
            "Resize",
            value,
            None,
            None,
            b.op("Concat", ends, size, axis=0),
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )
        heat = b.op("Squeeze", heat, b.ints(2)) if flat else heat
        heat.shape, heat.type = ir.Shape([*sizes[:2], *space]), given.type
        return heat

    def _on_photograph(self, value: ir.Value, photograph: Photograph) -> ir.Value:
        b, shape = self.b, self.b.op("Shape", value)
        axes = [b.op("Gather", shape, b.constant(np.int64(a)), axis=0) for a in (2, 3)]
        rows, columns = (b.op("Cast", n, to=_FLOAT) for n in axes)
        heat = photograph.heat(value, (rows, columns))
        sides = (dims(photograph.photo) or [])[:2]
        heat.shape = ir.Shape([*(dims(value) or [])[:2], *sides])
        heat.type = value.type
        return heat


def as_float(b: Builder, value: ir.Value) -> ir.Value:
    """Return a value in float32."""
    if value.dtype == _FLOAT:
        return value
    made = b.op("Cast", value, to=_FLOAT)
    made.shape, made.type = value.shape, ir.TensorType(_FLOAT)
    return made


def largest(b: Builder, value: ir.Value, axes: Sequence[int], keepdims: bool = True) -> ir.Value:
    """Return the largest values over constant axes."""
    return b.reduced("ReduceMax", value, axes, keepdims)


def _space(value: ir.Value) -> list[int]:
    """Return the axes of ``[N, T, *S]`` that are space."""
    return list(range(2, len(dims(value) or [])))
