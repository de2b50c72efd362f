"""Start the backward walk before the last linear layer instead of after it.

The gradient of one class score needs one row of the last layer's weights. For a head that is a
convolution with a map for each class (SqueezeNet), that is one channel instead of a thousand.

This works if every operator between the last linear layer and the score keeps the classes apart.
Otherwise the walk starts at the score, from one-hot cotangents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.add import add_gradient, new_walk, walk_back
from onnxcam.gradient.backward import Backward
from onnxcam.gradient.blocked.rules import Blocked
from onnxcam.gradient.call import dequantized
from onnxcam.gradient.overrides.base import Override
from onnxcam.graph.builder import Builder
from onnxcam.graph.operators import Trait, has
from onnxcam.graph.values import depends_on, dims
from onnxcam.surgeon.find.axes import class_axis, class_count
from onnxcam.surgeon.find.quantized import last_quantizers

_KEEPS_CLASSES = Trait.UNIT_SLOPE | Trait.CHANNELWISE | Trait.POOLS


@dataclass(frozen=True)
class Cotangent:
    """The cotangent of one tensor, written into the graph when asked for.

    Attributes:
        value: the tensor, ``[N, K, *S]``.
        full: returns ``[T, N, K, *S]``.
        summed: returns it summed over space, ``[T, N, K]``; often much cheaper.
        unclipped: quantizers that the walk treats as if they did not clip.
        linear: the score is a linear layer's, and ``summed`` returns its weights.
    """

    value: ir.Value
    full: Callable[[], ir.Value]
    summed: Callable[[], ir.Value]
    unclipped: frozenset[ir.Node] = frozenset()
    linear: bool = False

    def gradient(self, b: Builder, to: ir.Value) -> ir.Value:
        """Return the cotangent of ``to``, which the tensor is or is computed from."""
        return self.walk(b, to)[0]

    def gradients(self, b: Builder, to: Sequence[ir.Value]) -> list[ir.Value]:
        """Return the cotangents of several tensors, of one walk."""
        walk = new_walk(b, unclipped=self.unclipped)
        return walk_back(walk, self.value, self.full(), list(to)) if to else []

    def walk(
        self,
        b: Builder,
        to: ir.Value,
        overrides: Sequence[Override] = (),
        *,
        single: bool = False,
    ) -> tuple[ir.Value, Backward]:
        """Return the same, and the walk that went there, which knows what overrides did.

        ``single``: ``T`` is 1, and the walk is written for ONNX Runtime on CPU.
        """
        layers, fixed = ((Blocked(), *overrides), 1) if single else (overrides, None)
        walk = new_walk(b, layers, fixed_t=fixed, unclipped=self.unclipped)
        if to is self.value:
            return self.full(), walk
        return walk_back(walk, self.value, self.full(), [to])[0], walk


def class_cotangent(b: Builder, score: ir.Value, classes: ir.Value, layer: ir.Value) -> Cotangent:
    """Return where to start the walk from, and its cotangent.

    Args:
        b: the builder of the score's graph.
        score: the class scores ``[N, C]``, up to axes of length 1.
        classes: int64 ``[T, N]``.
        layer: where the walk will end; the start depends on it.
    """
    unclipped = frozenset(last_quantizers(score))
    tail: list[ir.Node] = []
    value = score
    varying = depends_on(b.graph, set(b.graph.inputs))
    after = depends_on(b.graph, {layer})
    classes_first = class_axis(score) == 1
    while classes_first and (node := value.producer()) is not None and not node.domain:
        source = _weighted(node, varying, class_count(score))
        if source is not None and source in after:
            return replace(_before(b, node, source, tail[::-1], classes), unclipped=unclipped)
        following = _kept_apart(node, value, varying, class_count(score))
        if node.op_type == "Add" and not all(has(n, Trait.UNIT_SLOPE) for n in tail):
            break  # what follows is not linear, so the constant matters to its derivative
        if following is None:
            break
        tail.append(node)
        value = following
    return replace(score_cotangent(b, score, classes), unclipped=unclipped)


def score_cotangent(b: Builder, score: ir.Value, classes: ir.Value) -> Cotangent:
    """Return the cotangent of the score itself, which is one-hot."""

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


def index_of(b: Builder, classes: ir.Value) -> ir.Value:
    """Return classes ``[T, N]`` as GatherND takes them, ``[N, T, 1]``."""
    return b.once("index", classes, lambda: b.op("Unsqueeze", b.turned(classes), b.ints(2)))


def _kept_apart(
    node: ir.Node, value: ir.Value, varying: set[ir.Value], classes: int | None
) -> ir.Value | None:
    """Return the operand to continue from if ``node`` keeps the classes apart on axis 1."""
    if not has(node, _KEEPS_CLASSES) or value is not node.outputs[0]:
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
    if has(node, Trait.UNIT_SLOPE):
        # Only the axes of length 1 may differ, and nothing may be broadcast.
        same = before[0] == after[0] and all(d == 1 for d in [*before[2:], *after[2:]])
        return source if same or node.op_type in ("Identity", "Dropout") else None
    return source


def _weighted(node: ir.Node, varying: set[ir.Value], classes: int | None) -> ir.Value | None:
    """Return the data operand of a linear layer with stored weights, one row for each class."""
    outputs = dims(node.outputs[0]) or []
    if node.op_type not in ("Gemm", "MatMul", "Conv") or len(outputs) < 2:
        return None
    if classes is None or outputs[1] != classes:
        return None
    x, weight = node.inputs[0], node.inputs[1]
    if x is None or weight is None or x not in varying:
        return None
    if any(v in varying for v in node.inputs[1:] if v is not None):
        return None  # weights or bias are computed, perhaps from the layer too
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
    """Return the cotangent of the last linear layer's input, from one row of its weights."""
    space = len(dims(x) or []) - 2

    @cache
    def rows() -> ir.Value:
        """Return the class's row of the weights, ``[T, N, K]``."""
        weight = node.inputs[1]
        assert weight is not None
        stored = dequantized(b, weight)
        by_row = node.op_type == "Conv" or bool(node.attributes.get_int("transB", 0))
        if node.op_type == "Conv":
            stored = b.op("Reshape", stored, b.ints(0, -1))
        # ONNX Runtime's quantizer fails on a Gather of weights that it quantizes per channel.
        index = index_of(b, classes)
        if by_row:
            picked = b.op("GatherND", stored, index)  # [N, T, K]
            picked = b.op("Transpose", picked, perm=[1, 0, 2])
        else:
            every = b.ints(int((dims(weight) or [0])[0] or 0), 1, 1, 1)
            index = b.op("Expand", b.op("Unsqueeze", index, b.ints(0)), every)
            picked = b.op("GatherND", stored, index, batch_dims=1)  # [K, N, T]
            picked = b.op("Transpose", picked, perm=[2, 1, 0])
        alpha = node.attributes.get_float("alpha", 1.0) if node.op_type == "Gemm" else 1.0
        return picked if alpha == 1.0 else b.op("Mul", picked, b.constant(alpha, x.dtype))

    def column() -> ir.Value:
        return b.op("Reshape", rows(), b.ints(0, 0, -1, *[1] * space)) if space > 0 else rows()

    if all(has(n, Trait.UNIT_SLOPE) for n in tail):  # the derivative is 1 throughout
        return Cotangent(x, column, rows, linear=True)
    slopes = _Slopes(b, node, x, tail, classes, rows)
    return Cotangent(
        x,
        lambda: b.op("Mul", column(), slopes.full()),
        lambda: b.op("Mul", rows(), slopes.summed()),
    )


class _Slopes:
    """The derivative of the score with respect to its own class's channel of a linear layer.

    The operators after the layer are copied for the picked channels: ``T * N`` images of one
    channel each.
    """

    def __init__(
        self,
        b: Builder,
        node: ir.Node,
        x: ir.Value,
        tail: list[ir.Node],
        classes: ir.Value,
        rows: Callable[[], ir.Value],
    ) -> None:
        self.b, self.node, self.x, self.classes, self.rows = b, node, x, classes, rows
        self.z, self.tail = node.outputs[0], tail
        self.space = [d for d in (dims(self.z) or [])[2:] if isinstance(d, int)]
        pads = node.attributes.get_ints("pads") or () if node.op_type == "Conv" else ()
        self.pads = list(pads) if any(pads) else []

    def full(self) -> ir.Value:
        """Return ``[T, N, 1, *space of the layer's input]``."""
        b, axes = self.b, range(3, 3 + len(self.space))
        flat = b.op("Shape", b.op("Unsqueeze", self.classes, b.ints(2)))
        shape = b.op("Concat", flat, b.ints(*self.space), axis=0) if self.space else flat
        return self._cut(b.op("Reshape", self._gradient(), shape), list(axes))

    def summed(self) -> ir.Value:
        """Return the same summed over space, ``[T, N, 1]``."""
        b = self.b
        axes = list(range(3, 3 + len(self.space)))
        total = b.sum(self._cut(self._gradient(), axes), axes)
        return b.op("Reshape", total, b.op("Shape", b.op("Unsqueeze", self.classes, b.ints(2))))

    def _cut(self, g: ir.Value, axes: list[int]) -> ir.Value:
        """Drop what lies over the padding of the layer's input."""
        if not self.pads:
            return g
        half = len(self.pads) // 2
        ends = [-p if p else 2**62 for p in self.pads[half:]]
        ints = self.b.ints
        return self.b.op("Slice", g, ints(*self.pads[:half]), ints(*ends), ints(*axes))

    def _gradient(self) -> ir.Value:
        """Return ``[1, T * N, 1, *space of the layer]``."""
        b = self.b
        channel = b.op("Reshape", self._picked(), b.ints(-1, 1, *self.space))
        _describe(channel, self.z, self.space)
        value, original = channel, self.z
        for node in self.tail:
            previous, original = original, node.outputs[0]
            if has(node, Trait.UNIT_SLOPE):
                continue  # spatial axes have length 1, so that only the shape changes
            value = b.copy(node, [value if v is previous else v for v in node.inputs])
            _describe(value, original, (dims(original) or [])[2:])
        return add_gradient(b, value, self._ones(value), [channel])[0]

    def _ones(self, value: ir.Value) -> ir.Value:
        """Return cotangents of 1: a single number, which folds away, if no rule needs more."""
        pools = {n.op_type for n in self.tail if has(n, Trait.POOLS)}
        if any(has(n, Trait.FULL_SHAPE) for n in self.tail) and pools <= {"GlobalAveragePool"}:
            return self.b.constant(np.ones([1] * (1 + len(dims(value) or []))), self.z.dtype)
        one = ir.tensor(np.ones(1, (self.z.dtype or ir.DataType.FLOAT).numpy()))
        ones = self.b.op("ConstantOfShape", self.b.op("Shape", value), value=one)
        return self.b.op("Unsqueeze", ones, self.b.ints(0))

    def _picked(self) -> ir.Value:
        """Return the class's channel of the layer's output, ``[T, N, *S]`` in this order.

        A convolution is computed again for that channel alone: reading one of its thousand channels
        would keep the runtime from fusing it and from its blocked layout.
        """
        b = self.b
        if self.node.op_type != "Conv" or self.pads:
            index = index_of(b, self.classes)
            picked = b.op("GatherND", self.z, index, batch_dims=1)  # [N, T, *S]
            return b.op("Transpose", picked, perm=[1, 0, *range(2, 2 + len(self.space))])
        row = b.op("Unsqueeze", self.rows(), b.ints(2))
        z = b.op("MatMul", row, b.op("Reshape", self.x, b.ints(0, 0, -1)))  # [T, N, 1, positions]
        bias = self.node.inputs[2] if len(self.node.inputs) > 2 else None
        if bias is None:
            return z
        shift = b.op("Gather", bias, self.classes, axis=0)
        return b.op("Add", z, b.op("Unsqueeze", shift, b.ints(2, 3)))


def _describe(value: ir.Value, like: ir.Value, space: Sequence[int | str | None]) -> None:
    value.shape, value.type = ir.Shape([None, 1, *space]), like.type
