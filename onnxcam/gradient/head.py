"""Start the backward walk before the last linear layer instead of after it.

The gradient of one class score does not need the other classes: of the last layer's weights it
takes one row. For a head that is a convolution with a map per class (SqueezeNet), this leaves
one channel where there would be a thousand.

Between the last linear layer and the score, every operator must keep the classes apart.
Anything else starts at the score, from one-hot cotangents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.builder import Builder
from onnxcam.gradient.registry import dequantized
from onnxcam.gradient.walker import add_gradient
from onnxcam.surgeon.graph import depends_on, dims
from onnxcam.surgeon.score import class_axis, class_count

# Adding a constant or moving axes of length 1: the derivative is 1.
_TRANSPARENT = {"Identity", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Add"}
# One channel in, the same channel out.
_CHANNELWISE = {"Relu", "LeakyRelu", "Clip", "Sigmoid", "Tanh"}
_CHANNELWISE |= {"GlobalAveragePool", "AveragePool", "GlobalMaxPool", "MaxPool"}


@dataclass(frozen=True)
class Cotangent:
    """The cotangent of one tensor, written into the graph when asked for.

    Attributes:
        value: the tensor, ``[N, K, *S]``.
        full: returns ``[T, N, K, *S]``.
        summed: returns it summed over space, ``[T, N, K]``; often much cheaper.
    """

    value: ir.Value
    full: Callable[[], ir.Value]
    summed: Callable[[], ir.Value]


def class_cotangent(b: Builder, score: ir.Value, classes: ir.Value, layer: ir.Value) -> Cotangent:
    """Return where to start the walk from, and its cotangent.

    Args:
        b: the builder of the score's graph.
        score: the class scores ``[N, C]``, up to axes of length 1.
        classes: int64 ``[T, N]``.
        layer: where the walk will end; the start depends on it.
    """
    tail: list[ir.Node] = []
    value = score
    varying = depends_on(b.graph, set(b.graph.inputs))
    after = depends_on(b.graph, {layer})
    while (node := value.producer()) is not None and not node.domain:
        source = _weighted(node, varying)
        if source is not None and source in after:
            return _before(b, node, source, tail[::-1], classes)
        following = _kept_apart(node, value, varying, class_count(score))
        if following is None:
            break
        tail.append(node)
        value = following
    return _at_score(b, score, classes)


def _at_score(b: Builder, score: ir.Value, classes: ir.Value) -> Cotangent:
    """One-hot cotangents of the score itself."""

    def full() -> ir.Value:
        axis, count, shape = class_axis(score) or 0, class_count(score), dims(score) or []
        if count is not None:
            depth = b.constant(np.int64(count))
        else:
            depth = b.op("Gather", b.op("Shape", score), b.constant(np.int64(axis)), axis=0)
        pair = b.constant(np.array([0, 1]), score.dtype)
        hot = b.op("OneHot", classes, depth, pair, axis=-1)
        if len(shape) == 2 and axis == 1:
            return hot
        return b.op("Reshape", hot, b.op("Concat", b.ints(-1), b.op("Shape", score), axis=0))

    space = list(range(3, len(dims(score) or []) + 1))
    return Cotangent(score, full, lambda: b.sum(full(), space))


def _kept_apart(
    node: ir.Node, value: ir.Value, varying: set[ir.Value], classes: int | None
) -> ir.Value | None:
    """Return the operand to go on with when ``node`` keeps the classes on axis 1."""
    if node.op_type not in _TRANSPARENT | _CHANNELWISE or value is not node.outputs[0]:
        return None
    moving = [v for v in node.inputs if v is not None and v in varying]
    source = moving[0] if len(moving) == 1 else None
    if source is None or classes is None:
        return None
    if node.op_type == "Dropout" and len(node.inputs) > 2 and node.inputs[2] is not None:
        return None
    before, after = dims(source) or [], dims(value) or []
    if node.op_type == "Add" and before != after:
        return None
    if len(before) < 2 or before[1] != classes or len(after) < 2 or after[1] != classes:
        return None
    if not all(isinstance(d, int) for d in before[2:]):
        return None
    if node.op_type in _TRANSPARENT:
        # Only the axes of length 1 may differ, and nothing may be broadcast.
        same = before[0] == after[0] and all(d == 1 for d in [*before[2:], *after[2:]])
        return source if same or node.op_type in ("Identity", "Dropout") else None
    return source


def _weighted(node: ir.Node, varying: set[ir.Value]) -> ir.Value | None:
    """Return the data operand of a linear layer whose weights are stored, one row a class."""
    if node.op_type not in ("Gemm", "MatMul", "Conv"):
        return None
    x, weight = node.inputs[0], node.inputs[1]
    if x is None or weight is None or weight in varying or x not in varying:
        return None
    shape, sizes = dims(x), dims(weight)
    if shape is None or sizes is None or not all(isinstance(d, int) for d in sizes):
        return None
    if node.op_type == "Conv":
        ints = node.attributes.get_ints
        plain = (
            all(d == 1 for d in sizes[2:])
            and all(s == 1 for s in ints("strides") or ())
            and node.attributes.get_int("group", 1) == 1
            and node.attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID", "")
        )
        return x if plain else None
    if len(shape) != 2 or len(sizes) != 2 or node.attributes.get_int("transA", False):
        return None
    return x


def _before(
    b: Builder,
    node: ir.Node,
    x: ir.Value,
    tail: list[ir.Node],
    classes: ir.Value,
) -> Cotangent:
    """The cotangent of the last linear layer's input, from one row of its weights."""
    slopes = _tail_slopes(b, node.outputs[0], tail, classes)
    space = len(dims(x) or []) - 2

    def rows() -> ir.Value:
        weight = node.inputs[1]
        assert weight is not None
        stored = dequantized(b, weight)
        by_row = node.op_type == "Conv" or bool(node.attributes.get_int("transB", 0))
        if node.op_type == "Conv":
            stored = b.op("Reshape", stored, b.ints(0, -1))
        picked = b.op("Gather", stored, classes, axis=0 if by_row else 1)
        if not by_row:  # [K, T, N]
            picked = b.op("Transpose", picked, perm=[1, 2, 0])
        alpha = node.attributes.get_float("alpha", 1.0) if node.op_type == "Gemm" else 1.0
        return picked if alpha == 1.0 else b.op("Mul", picked, b.constant(alpha, x.dtype))

    if node.op_type != "Conv":

        def dense() -> ir.Value:
            if slopes is None:
                return rows()
            return b.op("Mul", rows(), b.op("Reshape", slopes, b.ints(0, 0, 1)))

        return Cotangent(x, dense, dense)

    def maps() -> ir.Value:
        """Slopes ``[T, N, 1, *S]`` of the class's map, cut to the input where it was padded."""
        assert slopes is not None
        pads = node.attributes.get_ints("pads") or [0] * (2 * space)
        if not any(pads):
            return slopes
        ends = [-p if p else 2**62 for p in pads[space:]]
        axes = b.ints(*range(3, 3 + space))
        return b.op("Slice", slopes, b.ints(*pads[:space]), b.ints(*ends), axes)

    def full() -> ir.Value:
        column = b.op("Reshape", rows(), b.ints(0, 0, -1, *[1] * space))
        return b.op("Mul", column, maps())

    def summed() -> ir.Value:
        return b.op("Mul", rows(), b.sum(maps(), list(range(3, 3 + space))))

    if slopes is None:  # nothing but places of length 1 after the convolution
        return Cotangent(x, lambda: b.op("Reshape", rows(), b.ints(0, 0, -1, *[1] * space)), rows)
    return Cotangent(x, full, summed)


def _tail_slopes(
    b: Builder, z: ir.Value, tail: list[ir.Node], classes: ir.Value
) -> ir.Value | None:
    """Differentiate the score with respect to its own class's channel of ``z``.

    Returns ``[T, N, 1, *S]``, or ``None`` where the derivative is 1 throughout. The operators
    after the linear layer are copied for the picked channels, ``N * T`` images of one channel.
    """
    if all(n.op_type in _TRANSPARENT for n in tail):
        return None
    space = (dims(z) or [])[2:]
    places = b.op("Unsqueeze", b.op("Transpose", classes, perm=[1, 0]), b.ints(-1))
    picked = b.op("GatherND", z, places, batch_dims=1)  # [N, T, *S]
    sizes = [d for d in space if isinstance(d, int)]
    channel = b.op("Reshape", picked, b.ints(-1, 1, *sizes))
    _describe(channel, z, space)
    copies = {z: channel}
    value, original = channel, z
    for node in tail:
        source = next(v for v in node.inputs if v is original)
        original = node.outputs[0]
        if node.op_type in _TRANSPARENT:
            # The remaining places have length 1, so only the shape may change.
            copies[original] = copies[source]
            continue
        value = b.copy(node, [copies.get(v, v) if v is not None else None for v in node.inputs])
        _describe(value, original, (dims(original) or [])[2:])
        copies[original] = value
    ones = b.op("ConstantOfShape", b.op("Shape", value), value=_one(z))
    (g,) = add_gradient(b, value, b.op("Unsqueeze", ones, b.ints(0)), [channel])
    apart = b.op("Reshape", g, b.op("Shape", picked))  # [N, T, *S]
    order = [1, 0, *range(2, 2 + len(space))]
    return b.op("Unsqueeze", b.op("Transpose", apart, perm=order), b.ints(2))


def _describe(value: ir.Value, like: ir.Value, space: list[int | str | None]) -> None:
    value.shape, value.type = ir.Shape([None, 1, *space]), like.type


def _one(like: ir.Value) -> ir.TensorProtocol:
    return ir.tensor(np.ones(1, (like.dtype or ir.DataType.FLOAT).numpy()))
