"""A detector's numbers as corners of boxes, as :mod:`onnxcam.targets.corners` reads them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcam.graph.builder import Builder
from onnxcam.surgeon.plan import DetectorFacts
from onnxcam.surgeon.portable.cells import from_cells
from onnxcam.surgeon.portable.finish import largest

_NEARLY_ALL, _FEW = 0.95, 2.0  # see onnxcam.targets.corners
_FLOAT = ir.DataType.FLOAT


class Corners:
    """Left, top, right, bottom of every row in pixels of the input."""

    def __init__(
        self,
        b: Builder,
        values: ir.Value,
        kept: ir.Value,
        reading: DetectorFacts,
        count: int | None,
        size: tuple[int, int],
    ) -> None:
        """Take what boxes are read from.

        Args:
            b: the graph's builder.
            values: the detector's numbers, ``[N, A, 4 + S]`` float32.
            kept: 1 for detections, ``[N, A, 1]`` float32: of these the numbers decide.
            reading: how numbers are read.
            count: ``A``, where it is known.
            size: width and height of the input.
        """
        self.b, self.values, self.kept, self.reading = b, values, kept, reading
        self.count, self.extent = count, size
        self.size = b.constant(np.array(size * 2, np.float32))

    def found(self) -> ir.Value | None:
        """Return them, ``[N, A, 4]``, read in the first way that gives plausible boxes.

        All are 0 where none does; ``None`` where there is no way.
        """
        b, one = self.b, self.b.constant(1.0, _FLOAT)
        ways = [] if self.reading.offsets else [(self._written(), one)]
        ways += from_cells(b, self.values, self.count, self.extent)
        found, free = None, one
        for way, fits in ways:
            sure = b.op("Mul", b.op("Mul", self._plausible(way), free), fits)
            part, free = b.op("Mul", way, sure), b.op("Sub", free, sure)
            found = part if found is None else b.op("Add", found, part)
        return found

    def _columns(self, first: int, end: int) -> ir.Value:
        ints = self.b.ints
        return self.b.op("Slice", self.values, ints(first), ints(end), ints(2))

    def _written(self) -> ir.Value:
        """Return boxes that are corners, or centre and size, in pixels or in parts of the image."""
        b = self.b
        one, other = self._columns(0, 2), self._columns(2, 4)
        corners = [b.op("Min", one, other), b.op("Max", one, other)]
        half = b.op("Mul", other, b.constant(0.5, _FLOAT))
        centres = [b.op("Sub", one, half), b.op("Add", one, half)]
        if self.reading.corners is None:
            bad = b.op("Cast", b.op("Not", b.op("Greater", other, one)), to=_FLOAT)
            share = b.mean(largest(b, bad, [2]), [1], keepdims=True)
            ordered = b.op("Less", share, b.constant(1 - _NEARLY_ALL, _FLOAT))
            pairs = zip(corners, centres, strict=True)
            ends = [b.op("Where", ordered, ours, theirs) for ours, theirs in pairs]
        else:
            ends = corners if self.reading.corners else centres
        found = b.op("Concat", *ends, axis=2)
        reach = largest(b, b.op("Mul", b.op("Abs", self._columns(0, 4)), self.kept), [1, 2])
        small = b.op("Not", b.op("Greater", reach, b.constant(_FEW, _FLOAT)))
        parts = b.op("And", small, b.op("Greater", reach, b.constant(0.0, _FLOAT)))
        return b.op("Where", parts, b.op("Mul", found, self.size), found)

    def _plausible(self, boxes: ir.Value) -> ir.Value:
        """Return 1 where nearly all boxes have a size and lie in the image, else 0."""
        b = self.b
        one = b.op("Slice", boxes, b.ints(0), b.ints(2), b.ints(2))
        other = b.op("Slice", boxes, b.ints(2), b.ints(4), b.ints(2))
        ends = b.op("Slice", self.size, b.ints(0), b.ints(2))
        middle = b.op("Mul", b.op("Add", one, other), b.constant(0.5, _FLOAT))
        out = b.op(
            "Or", b.op("Less", middle, b.constant(0.0, _FLOAT)), b.op("Greater", middle, ends)
        )
        out = b.op("Or", out, b.op("Not", b.op("Greater", other, one)))
        bad = b.op("Mul", largest(b, b.op("Cast", out, to=_FLOAT), [2]), self.kept)
        total = b.sum(self.kept, [1, 2], keepdims=True)
        most = b.op("Mul", total, b.constant(1 - _NEARLY_ALL, _FLOAT))
        too_many = b.op("Greater", b.sum(bad, [1, 2], keepdims=True), most)
        return b.op("Cast", b.op("Not", too_many), to=_FLOAT)
