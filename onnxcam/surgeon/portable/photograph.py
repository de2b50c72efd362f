"""A photograph as the input: resized, cropped and normalised inside the graph.

Pillow's antialiased resize is a weighted sum along rows, rounded to 8 bits, and then one along
columns (Pillow 13 takes columns first where that is less work). Here it is the same: two products
with matrices of weights that the graph makes of the photograph's size. ONNX's Resize would need
opset 18 to antialias, has no Lanczos and box filters, does not round between the axes, and not
every runtime implements its antialiasing.

Numbers that say where pixels lie are fractions of whole numbers below 2^24, which float32 holds:
positions are exact. So the input differs from Pillow's by single levels of 255, of the filters
"nearest" and "box" by more where a pixel lies on the edge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import onnx_ir as ir

from onnxcam.graph.builder import Builder
from onnxcam.surgeon.plan import ImageInput

_FLOAT, _INT = ir.DataType.FLOAT, ir.DataType.INT64
_LUMA = np.array([19595, 38470, 7471], np.float32) / 65536  # Pillow's, ITU-R 601-2


class Recipe(Protocol):
    """How a photograph is prepared, see :class:`onnxcam.imaging.preprocess.Preprocess`."""

    @property
    def color(self) -> str: ...  # noqa: D102
    @property
    def resize(self) -> str: ...  # noqa: D102
    @property
    def size(self) -> tuple[int, int] | None: ...  # noqa: D102
    @property
    def shorter(self) -> int | None: ...  # noqa: D102
    @property
    def interpolation(self) -> str: ...  # noqa: D102
    @property
    def divide(self) -> float: ...  # noqa: D102
    @property
    def mean(self) -> tuple[float, ...]: ...  # noqa: D102
    @property
    def std(self) -> tuple[float, ...]: ...  # noqa: D102
    @property
    def pad(self) -> tuple[int, ...]: ...  # noqa: D102


@dataclass(frozen=True)
class Line:
    """One axis: a photograph of ``full`` pixels is resized to ``new``, which start at ``first``.

    All are float32 scalars in the graph, whole numbers.

    Attributes:
        full: the photograph's length.
        new: its length after resizing.
        first: where the resized one starts in the input; below 0 it is cropped.
        length: the input's.
    """

    full: ir.Value
    new: ir.Value
    first: ir.Value
    length: int


class Photograph:
    """A photograph ``[H, W, 3]`` uint8 as the input of a graph."""

    def __init__(self, b: Builder, photo: ir.Value, recipe: Recipe) -> None:
        self.b, self.photo, self.recipe = b, photo, recipe
        assert recipe.size is not None
        self.size = recipe.size

    def _number(self, value: float) -> ir.Value:
        return self.b.constant(value, _FLOAT)

    @cached_property
    def lines(self) -> tuple[Line, Line]:
        """Rows and columns, as ``Preprocess`` fits them."""
        b, (height, width) = self.b, self.size
        shape = b.op("Shape", self.photo)
        full = [b.op("Gather", shape, b.constant(np.int64(a)), axis=0) for a in (0, 1)]
        if self.recipe.resize == "squash":
            grown = (self.recipe.shorter or min(self.size)) / min(self.size)
            new = [b.constant(np.int64(round(n * grown))) for n in self.size]
        elif self.recipe.resize == "letterbox":
            over, under = self._least([(height, full[0]), (width, full[1])])
            new = [self._rounded(f, over, under, n) for f, n in zip(full, self.size, strict=True)]
        else:
            shorter = self.recipe.shorter or min(self.size)
            pairs = [(shorter, b.op("Min", *full)), (height, full[0]), (width, full[1])]
            over, under = self._least(pairs, most=True)
            new = [
                b.op("Max", b.op("Div", b.op("Mul", f, over), under), b.constant(np.int64(n)))
                for f, n in zip(full, self.size, strict=True)
            ]
        found = []
        for f, n, length in zip(full, new, self.size, strict=True):
            f, n = b.op("Cast", f, to=_FLOAT), b.op("Cast", n, to=_FLOAT)
            half = b.op("Mul", b.op("Sub", self._number(length), n), self._number(0.5))
            found.append(Line(f, n, b.op("Round", half), length))
        return found[0], found[1]

    def _least(
        self, pairs: Sequence[tuple[int, ir.Value]], most: bool = False
    ) -> tuple[ir.Value, ir.Value]:
        """Return the least, or the largest, of fractions, over and under the line."""
        b = self.b
        over, under = b.constant(np.int64(pairs[0][0])), pairs[0][1]
        for number, value in pairs[1:]:
            other = b.constant(np.int64(number))
            sides = [b.op("Mul", over, value), b.op("Mul", other, under)]
            kept = b.op("Less", *(sides[::-1] if most else sides))
            over, under = b.op("Where", kept, over, other), b.op("Where", kept, under, value)
        return over, under

    def _rounded(self, full: ir.Value, over: ir.Value, under: ir.Value, most: int) -> ir.Value:
        """Return a length times a fraction, rounded, from 1 to ``most``."""
        b = self.b
        product = b.op("Cast", b.op("Mul", full, over), to=_FLOAT)
        found = b.op("Round", b.op("Div", product, b.op("Cast", under, to=_FLOAT)))
        found = b.op("Cast", found, to=_INT)
        return b.op("Min", b.op("Max", found, b.ints(1)), b.ints(most))

    def tensor(self, takes: ImageInput) -> ir.Value:
        """Return the model's input, ``[1, ...]``."""
        b, recipe, (rows, columns) = self.b, self.recipe, self.lines
        planes = b.op("Transpose", b.op("Cast", self.photo, to=_FLOAT), perm=[2, 0, 1])
        across = b.op("Transpose", self._weights(columns), perm=[1, 0])
        pixels = self._level(b.op("MatMul", planes, across))
        pixels = self._level(b.op("MatMul", self._weights(rows), pixels))  # [3, h, w]
        small = recipe.resize == "squash" and (recipe.shorter or 2**62) < min(self.size)
        if recipe.resize == "letterbox" or small:
            inside = b.op(
                "Mul", self._inside(rows), b.op("Transpose", self._inside(columns), perm=[1, 0])
            )
            pad = recipe.pad if len(recipe.pad) == 3 else recipe.pad * 3
            border = b.constant(np.array(pad, np.float32).reshape(3, 1, 1))
            outside = b.op("Mul", border, b.op("Sub", self._number(1), inside))
            pixels = b.op("Add", b.op("Mul", pixels, inside), outside)
        if recipe.color == "grey":
            grey = b.sum(
                b.op("Mul", pixels, b.constant(_LUMA.reshape(3, 1, 1))), [0], keepdims=True
            )
            pixels = self._level(grey)
        elif recipe.color == "BGR":
            pixels = b.op("Gather", pixels, b.ints(2, 1, 0), axis=0)
        return self._taken(self._scaled(pixels, takes.dtype), takes)

    def _scaled(self, pixels: ir.Value, dtype: str) -> ir.Value:
        recipe, b = self.recipe, self.b
        std = np.array(recipe.std, np.float32)
        scale = np.float32(1) / (np.float32(recipe.divide) * std)
        shift = np.array(recipe.mean, np.float32) / std
        if (scale != 1).any():
            pixels = b.op("Mul", pixels, b.constant(scale.reshape(-1, 1, 1)))
        if shift.any():
            pixels = b.op("Sub", pixels, b.constant(shift.reshape(-1, 1, 1)))
        kind = np.dtype(dtype)
        if kind.kind in "ui":
            limits = np.iinfo(kind)
            ends = [self._number(float(v)) for v in (limits.min, limits.max)]
            pixels = b.op("Clip", b.op("Round", pixels), *ends)
        return (
            pixels if kind == np.float32 else b.op("Cast", pixels, to=ir.DataType.from_numpy(kind))
        )

    def _taken(self, pixels: ir.Value, takes: ImageInput) -> ir.Value:
        """Return ``[C, h, w]`` as the model takes it."""
        b = self.b
        if takes.layout == "NF":
            return b.op("Reshape", pixels, b.ints(1, -1))
        if "C" not in takes.layout:  # its one channel stands for the batch
            return pixels
        if takes.layout.endswith("C"):
            pixels = b.op("Transpose", pixels, perm=[1, 2, 0])
        return b.op("Unsqueeze", pixels, b.ints(0))

    def _level(self, value: ir.Value) -> ir.Value:
        """Return levels 0 to 255, halves rounded up as Pillow does."""
        b = self.b
        # A half is often exact in Pillow's whole numbers, and less by rounding here.
        whole = b.op("Floor", b.op("Add", value, self._number(0.5 + 1e-4)))
        return b.op("Clip", whole, self._number(0), self._number(255))

    def _counted(self, count: int, first: ir.Value | None = None) -> ir.Value:
        """Return ``[count, 1]``, 0 to count - 1, less ``first``."""
        line = self.b.constant(np.arange(count, dtype=np.float32)[:, None])
        return line if first is None else self.b.op("Sub", line, first)

    def _places(self, full: ir.Value) -> ir.Value:
        """Return twice the centre of every pixel, ``[1, full]``: 1, 3, 5, ..."""
        b = self.b
        counted = b.op("Range", self._number(0), full, self._number(1))
        twice = b.op("Add", b.op("Mul", counted, self._number(2)), self._number(1))
        return b.op("Unsqueeze", twice, b.ints(0))

    def _weights(self, line: Line) -> ir.Value:
        """Return the weights of a line's pixels in the input's, ``[length, full]``."""
        b, two = self.b, self._number(2)
        own = self._counted(line.length, line.first)
        centre = b.op("Mul", b.op("Add", b.op("Mul", own, two), self._number(1)), line.full)
        if self.recipe.interpolation == "nearest":
            at = b.op("Floor", b.op("Div", centre, b.op("Mul", line.new, two)))
            pixel = b.op("Floor", b.op("Mul", self._places(line.full), self._number(0.5)))
            return b.op("Cast", b.op("Equal", at, pixel), to=_FLOAT)
        away = b.op("Sub", b.op("Mul", self._places(line.full), line.new), centre)
        x = b.op("Div", away, b.op("Mul", b.op("Max", line.full, line.new), two))
        weights = self._filter(x)
        total = b.sum(weights, [1], keepdims=True)
        none = b.op("Equal", total, self._number(0))  # rows of the border
        return b.op("Div", weights, b.op("Where", none, self._number(1), total))

    def _filter(self, x: ir.Value) -> ir.Value:
        """Return Pillow's filter of distances, in pixels of the coarser side."""
        b, kind, number = self.b, self.recipe.interpolation, self._number
        if kind == "box":
            low, high = b.op("Greater", x, number(-0.5)), b.op("Greater", x, number(0.5))
            return b.op("Cast", b.op("And", low, b.op("Not", high)), to=_FLOAT)
        d = b.op("Abs", x)
        if kind == "bilinear":
            return b.op("Relu", b.op("Sub", number(1), d))
        if kind == "lanczos":
            third = b.op("Mul", d, number(1 / 3))
            inside = b.op("Cast", b.op("Less", d, number(3)), to=_FLOAT)
            return b.op("Mul", b.op("Mul", self._sinc(d), self._sinc(third)), inside)
        near = self._polynomial(d, [1.5, -2.5, 0, 1])
        far = self._polynomial(d, [-0.5, 2.5, -4, 2])
        far = b.op("Where", b.op("Less", d, number(2)), far, number(0))
        return b.op("Where", b.op("Less", d, number(1)), near, far)

    def _polynomial(self, x: ir.Value, factors: Sequence[float]) -> ir.Value:
        found = self._number(factors[0])
        for factor in factors[1:]:
            found = self.b.op("Add", self.b.op("Mul", found, x), self._number(factor))
        return found

    def _sinc(self, x: ir.Value) -> ir.Value:
        b = self.b
        zero = b.op("Less", x, self._number(1e-6))
        angle = b.op("Mul", b.op("Where", zero, self._number(1), x), self._number(math.pi))
        return b.op("Where", zero, self._number(1), b.op("Div", b.op("Sin", angle), angle))

    def _inside(self, line: Line) -> ir.Value:
        """Return 1 where the input holds a pixel of the photograph, ``[length, 1]``."""
        b, own = self.b, self._counted(line.length, line.first)
        low, high = b.op("Less", own, self._number(0)), b.op("Less", own, line.new)
        return b.op("Cast", b.op("And", b.op("Not", low), high), to=_FLOAT)

    def at(self, x: float, y: float) -> tuple[ir.Value, ir.Value]:
        """Return where a point of the photograph lies in the input: its column and row."""
        b, (rows, columns) = self.b, self.lines
        column, row = (
            b.op("Add", b.op("Div", b.op("Mul", self._number(n), k.new), k.full), k.first)
            for n, k in ((x, columns), (y, rows))
        )
        return column, row

    def has(self, x: int, y: int) -> ir.Value:
        """Return 1 where the photograph is large enough to have a pixel, else 0."""
        b, (rows, columns) = self.b, self.lines
        wide, high = (b.op("Less", self._number(n), k.full) for n, k in ((x, columns), (y, rows)))
        return b.op("Cast", b.op("And", wide, high), to=_FLOAT)

    def spot(self, x: int, y: int, height: int, width: int) -> ir.Value:
        """Return 1 in the element ``[height, width]`` that a pixel's centre lies in.

        It is 0 everywhere where the photograph has no such pixel, or the input does not hold it.
        """
        b, ends = self.b, []
        for at, line, count in zip(
            self.at(x + 0.5, y + 0.5), self.lines[::-1], (width, height), strict=True
        ):
            outside = b.op("Less", at, self._number(0))
            beyond = b.op("Not", b.op("Less", at, self._number(line.length)))
            inside = b.op("Not", b.op("Or", outside, beyond))
            along = b.op("Mul", at, self._number(count / line.length))
            element = b.op("Min", b.op("Floor", along), self._number(count - 1))
            hit = b.op("Equal", b.constant(np.arange(count, dtype=np.float32)), element)
            ends.append(b.op("Cast", b.op("And", hit, inside), to=_FLOAT))
        across, down = ends
        spot = b.op("Mul", b.op("Unsqueeze", down, b.ints(1)), across)
        return b.op("Mul", spot, self.has(x, y))

    def heat(self, maps: ir.Value, elements: tuple[ir.Value, ir.Value]) -> ir.Value:
        """Return maps ``[1, T, h, w]`` over the whole input resized onto the photograph."""
        b, (rows, columns) = self.b, self.lines
        across = b.op("Transpose", self._bilinear(columns, elements[1]), perm=[1, 0])
        return b.op("MatMul", self._bilinear(rows, elements[0]), b.op("MatMul", maps, across))

    def _bilinear(self, line: Line, count: ir.Value) -> ir.Value:
        """Return the weights of ``count`` elements in the photograph's pixels, ``[full, count]``.

        See :class:`onnxcam.kernels.view.Axis`; pixels that the network did not see have none.
        """
        b, number = self.b, self._number
        u = b.op("Mul", self._centres(line), b.op("Div", count, number(line.length)))
        u = b.op("Sub", u, number(0.5))
        u = b.op("Min", b.op("Max", u, number(0)), b.op("Sub", count, number(1)))
        elements = b.op("Unsqueeze", b.op("Range", number(0), count, number(1)), b.ints(0))
        weights = b.op("Relu", b.op("Sub", number(1), b.op("Abs", b.op("Sub", u, elements))))
        return b.op("Mul", weights, self.seen(line))

    def _centres(self, line: Line) -> ir.Value:
        """Return where the centres of the photograph's pixels lie in the input, ``[full, 1]``."""
        b = self.b
        twice = b.op("Transpose", self._places(line.full), perm=[1, 0])
        along = b.op("Div", b.op("Mul", twice, line.new), b.op("Mul", line.full, self._number(2)))
        return b.op("Add", along, line.first)

    def seen(self, line: Line) -> ir.Value:
        """Return 1 where the network saw a line of the photograph, ``[full, 1]``."""
        b, centre = self.b, self._centres(line)
        low = b.op("Less", centre, self._number(0))
        high = b.op("Greater", centre, self._number(line.length))
        return b.op("Cast", b.op("Not", b.op("Or", low, high)), to=_FLOAT)

    def painted(self, heat: ir.Value, colours: np.ndarray, alpha: float, shade: float) -> ir.Value:
        """Return heatmaps ``[1, T, H, W]`` over the photograph, ``[T, H, W, 3]`` uint8.

        As :func:`onnxcam.kernels.reference.paint` does.
        """
        b, number, (rows, columns) = self.b, self._number, self.lines
        heat = b.op("Squeeze", heat, b.ints(0))  # [T, H, W]
        levels = b.op("Clip", b.op("Round", b.op("Mul", heat, number(255))), number(0), number(255))
        table = b.constant(colours.astype(np.float32))
        colour = b.op("Gather", table, b.op("Cast", levels, to=_INT), axis=0)
        weight = b.op("Min", b.op("Mul", levels, number(2 / 255)), number(1))
        weight = b.op("Unsqueeze", b.op("Mul", weight, number(alpha)), b.ints(3))
        photo = b.op("Cast", self.photo, to=_FLOAT)
        blended = b.op("Add", photo, b.op("Mul", weight, b.op("Sub", colour, photo)))
        seen = b.op("Mul", self.seen(rows), b.op("Transpose", self.seen(columns), perm=[1, 0]))
        seen = b.op("Unsqueeze", b.op("Greater", seen, number(0)), b.ints(2))
        found = b.op("Where", seen, blended, b.op("Mul", photo, number(shade)))
        return b.op("Cast", b.op("Round", found), to=ir.DataType.UINT8)
