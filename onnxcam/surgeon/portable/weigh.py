"""Weights of a tensor's numbers, written into the graph: what the host makes for other models.

Every function returns what makes them: given the builder and the tensor ``[N, *P]`` it appends
weights ``[1, N or 1, *P]`` and, where the explained number is not the weighted sum, that number,
``[1, N]``. What the values choose, the best class for one, is taken as fixed, as in
:mod:`onnxcam.targets.weighted`, which has the formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike, NDArray

from onnxcam.graph.builder import Builder
from onnxcam.graph.values import dims

Made = tuple[ir.Value, ir.Value | None]
Weigh = Callable[[Builder, ir.Value], Made]


def fixed(weights: NDArray[Any]) -> Weigh:
    """Weights ``[*P]`` that no image changes."""

    def make(b: Builder, tensor: ir.Value) -> Made:
        return b.constant(weights[None, None], tensor.dtype), None

    return make


def largest(among: NDArray[np.bool_]) -> Weigh:
    """1 for the largest number among those that a mask ``[*P]`` holds."""

    def make(b: Builder, tensor: ir.Value) -> Made:
        lowest = b.constant(np.finfo(np.float32).min, ir.DataType.FLOAT)
        values = b.op("Cast", tensor, to=ir.DataType.FLOAT)
        kept = b.op("Where", b.constant(among[None]), values, lowest)
        flat = b.op("Reshape", kept, b.ints(0, -1))
        return _hot(b, tensor, b.op("ArgMax", flat, axis=1, keepdims=0)), None

    return make


def best(classes: Sequence[int]) -> Weigh:
    """1 for the best of several classes, of scores ``[N, C]`` up to axes of length 1."""

    def make(b: Builder, tensor: ir.Value) -> Made:
        listed = b.ints(*classes)
        scores = b.op("Gather", b.op("Reshape", tensor, b.ints(0, -1)), listed, axis=1)
        first = b.op("ArgMax", scores, axis=1, keepdims=0)
        return _hot(b, tensor, b.op("Gather", listed, first, axis=0)), None

    return make


def region(index: int, classes: int) -> Weigh:
    """1 for a class's scores in the pixels that are given to it, of scores ``[N, C, *S]``."""

    def make(b: Builder, tensor: ir.Value) -> Made:
        if classes > 1:
            predicted = b.op("ArgMax", tensor, axis=1, keepdims=1)
            inside = b.op("Equal", predicted, b.ints(index))
        else:
            inside = b.op("Greater", tensor, b.constant(0.0, tensor.dtype))
        row = np.zeros([1, classes, *[1] * (len(dims(tensor) or []) - 2)])
        row[:, index] = 1
        weights = b.op("Mul", _number(b, inside, tensor), b.constant(row, tensor.dtype))
        return b.op("Unsqueeze", weights, b.ints(0)), None

    return make


def at(place: ArrayLike | Callable[[int, int], ir.Value], index: int | None) -> Weigh:
    """1 for a class's score at a place, of scores ``[N, C, H, W]``; without one, the best there.

    Args:
        place: 1 at the place, ``[H, W]``, or what appends that, given height and width.
        index: the class.
    """

    def make(b: Builder, tensor: ir.Value) -> Made:
        classes, *space = (int(d or 0) for d in (dims(tensor) or [])[1:])
        spot = place(*space) if callable(place) else b.constant(np.asarray(place))
        spot = b.op("Cast", spot, to=tensor.dtype)
        if index is not None:
            chosen = b.constant(np.arange(classes).reshape(1, -1) == index, tensor.dtype)
        else:
            scores = b.sum(b.op("Mul", tensor, spot), [2, 3])
            depth, pair = b.constant(np.int64(classes)), b.constant([0, 1], tensor.dtype)
            chosen = b.op("OneHot", b.op("ArgMax", scores, axis=1, keepdims=0), depth, pair)
        weights = b.op("Mul", b.op("Unsqueeze", chosen, b.ints(2, 3)), spot)
        return b.op("Unsqueeze", weights, b.ints(0)), None

    return make


def similarity(vector: NDArray[Any]) -> Weigh:
    """The cosine similarity with a vector: r / (|e| |r|) - e cos / |e|^2, and cos."""

    def make(b: Builder, tensor: ir.Value) -> Made:
        e = b.op("Reshape", tensor, b.ints(0, -1))
        unit = vector.reshape(1, -1) / np.linalg.norm(vector.astype(np.float64))
        r = b.constant(unit, tensor.dtype)
        square = b.sum(b.op("Mul", e, e), [1], keepdims=True)
        length = b.op("Sqrt", square)
        number = b.op("Div", b.sum(b.op("Mul", e, r), [1], keepdims=True), length)  # [N, 1]
        along = b.op("Div", b.op("Mul", e, number), square)
        weights = b.op("Sub", b.op("Div", r, length), along)
        weights = b.op("Reshape", weights, b.op("Shape", tensor))
        return b.op("Unsqueeze", weights, b.ints(0)), b.op("Transpose", number, perm=[1, 0])

    return make


def likelihood(tokens: Sequence[int], steps: int, classes: int) -> Weigh:
    """One-hot less softmax at the first steps, of ``[N, steps, classes]``, and log p."""

    def make(b: Builder, tensor: ir.Value) -> Made:
        hot = np.zeros((1, steps, classes))
        hot[0, range(len(tokens)), list(tokens)] = 1
        used = np.zeros((1, steps, 1))
        used[:, : len(tokens)] = 1
        chosen = b.constant(hot, tensor.dtype)
        shares = b.op("Softmax", tensor, axis=2)
        weights = b.op("Sub", chosen, b.op("Mul", shares, b.constant(used, tensor.dtype)))
        log_p = b.op("Mul", b.op("LogSoftmax", tensor, axis=2), chosen)
        return b.op("Unsqueeze", weights, b.ints(0)), b.op(
            "Unsqueeze", b.sum(log_p, [1, 2]), b.ints(0)
        )

    return make


def _hot(b: Builder, tensor: ir.Value, flat: ir.Value) -> ir.Value:
    """Return weights ``[1, N, *P]`` that are 1 at a place of each image, counted flat, ``[N]``."""
    size = b.op("Reshape", tensor, b.ints(0, -1))
    depth = b.op("Squeeze", b.op("Slice", b.op("Shape", size), b.ints(1), b.ints(2)), b.ints(0))
    hot = b.op("OneHot", flat, depth, b.constant(np.array([0, 1]), tensor.dtype), axis=-1)
    return b.op("Unsqueeze", b.op("Reshape", hot, b.op("Shape", tensor)), b.ints(0))


def _number(b: Builder, condition: ir.Value, like: ir.Value) -> ir.Value:
    return b.op("Cast", condition, to=like.dtype)
