"""The gradient summed over space, which is all that Grad-CAM takes of it.

``sum_S(dy/dA)`` needs less than ``dy/dA``. Pooling keeps the sum of its cotangent, so the sum
passes through it. The weights of a dense layer over flattened maps can be summed over positions
before the product, which for VGG reads 8 MB of weights instead of 400.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.gradient.call import dequantized
from onnxcam.gradient.walker import path_nodes
from onnxcam.graph.builder import Builder
from onnxcam.graph.operators import Trait, has
from onnxcam.graph.values import constant, depends_on, dims, reads
from onnxcam.surgeon.seeds.head import Cotangent


def summed_gradient(b: Builder, start: Cotangent, layer: ir.Value) -> ir.Value:
    """Append the gradient with respect to ``layer``, summed over space.

    Args:
        b: the builder of the graph.
        start: a tensor computed from the layer, and its cotangent.
        layer: ``[N, K, *S]``.

    Returns:
        ``[T, N, K]``.

    Raises:
        NoGradientError: as :func:`onnxcam.gradient.add.add_gradient`.
    """
    return _Sums(b, start, layer).of(layer)


class _Sums:
    def __init__(self, b: Builder, start: Cotangent, layer: ir.Value) -> None:
        self.b, self.start = b, start
        nodes = [] if layer is start.value else path_nodes(list(b.graph), [start.value], [layer])
        self.readers: dict[ir.Value, list[ir.Node]] = {}
        for node in nodes:
            for value in set(reads(node)):
                self.readers.setdefault(value, []).append(node)
        self.varying = depends_on(b.graph, set(b.graph.inputs))

    def of(self, value: ir.Value) -> ir.Value:
        """Return the cotangent of ``value`` summed over space, ``[T, N, K]``."""
        if value is self.start.value:
            return self.start.summed()
        readers = self.readers.get(value, [])
        if len(readers) == 1 and _reads_once(readers[0], value):
            node = readers[0]
            if _hands_on(node, value):
                return self.of(node.outputs[0])
            if _flattens(node, value):
                summed = self._through_flatten(node, value)
                if summed is not None:
                    return summed
        g = self.start.gradient(self.b, value)
        return self.b.sum(g, list(range(3, len(dims(value) or []) + 1)))

    def _through_flatten(self, node: ir.Node, value: ir.Value) -> ir.Value | None:
        """Return the sum where ``node`` flattens ``value``, ``[N, K, *S]``, to ``[N, K * S]``."""
        flat, b = node.outputs[0], self.b
        shape = dims(value) or []
        channels, positions = shape[1], 1
        for d in shape[2:]:
            if not isinstance(d, int) or not isinstance(channels, int):
                return None
            positions *= d
        assert isinstance(channels, int)
        if positions == 1:
            return self.start.gradient(self.b, flat)
        readers = self.readers.get(flat, [])
        if flat is not self.start.value and len(readers) == 1:
            weight = _dense_weight(readers[0], flat, self.varying)
            if weight is not None:
                output = self.start.gradient(self.b, readers[0].outputs[0])  # [T, N, M]
                return b.op("MatMul", output, self._pooled_weight(*weight, channels, positions))
        return b.sum(
            b.op("Reshape", self.start.gradient(self.b, flat), b.ints(0, 0, channels, positions)),
            [3],
        )

    def _pooled_weight(
        self, weight: ir.Value, by_row: bool, alpha: float, channels: int, positions: int
    ) -> ir.Value:
        """Return stored weights summed over positions, ``[M, K]``; the runtime folds this once."""
        b = self.b
        stored = dequantized(b, weight)
        if by_row:  # [M, K * S]
            pooled = b.sum(b.op("Reshape", stored, b.ints(-1, channels, positions)), [2])
        else:  # [K * S, M]
            pooled = b.sum(b.op("Reshape", stored, b.ints(channels, positions, -1)), [1])
            pooled = b.op("Transpose", pooled, perm=[1, 0])
        return pooled if alpha == 1.0 else b.op("Mul", pooled, b.constant(alpha, weight.dtype))


def _reads_once(node: ir.Node, value: ir.Value) -> bool:
    """Whether ``value`` is the node's first operand and no other."""
    return [v is value for v in node.inputs].count(True) == 1 and node.inputs[0] is value


def _hands_on(node: ir.Node, value: ir.Value) -> bool:
    """Whether the sum over space of the input's cotangent is that of the output's."""
    if node.domain:
        return False
    if node.op_type in ("Identity", "MaxPool", "GlobalAveragePool", "GlobalMaxPool"):
        return True
    if node.op_type == "Dropout":
        return len(node.inputs) < 3 or node.inputs[2] is None
    if node.op_type == "AveragePool":
        # A window that counts its padding loses a part of its share to it.
        counted = node.attributes.get_int("count_include_pad", 0)
        padded = any(node.attributes.get_ints("pads") or ()) or node.attributes.get_int(
            "ceil_mode", False
        )
        automatic = node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
        return not counted or not (padded or automatic)
    if node.op_type == "ReduceMean":
        return _reduces_space(node, value)
    return False


def _reduces_space(node: ir.Node, value: ir.Value) -> bool:
    rank = len(dims(value) or [])
    axes = node.attributes.get_ints("axes")
    if axes is None and len(node.inputs) > 1:
        stored = constant(node.inputs[1])
        axes = None if stored is None else stored.tolist()
    return axes is not None and sorted(a % rank for a in axes) == list(range(2, rank))


def _flattens(node: ir.Node, value: ir.Value) -> bool:
    before, after = dims(value), dims(node.outputs[0])
    if node.op_type not in ("Flatten", "Reshape", "Squeeze") or node.domain:
        return False
    if before is None or after is None or len(after) != 2 or len(before) < 3:
        return False
    size = 1
    for d in before[1:]:
        if not isinstance(d, int):
            return False
        size *= d
    return before[0] == after[0] and after[1] == size


def _dense_weight(
    node: ir.Node, flat: ir.Value, varying: set[ir.Value]
) -> tuple[ir.Value, bool, float] | None:
    """Return a dense layer's stored weight, whether its rows are the outputs, and its factor."""
    if node.op_type not in ("Gemm", "MatMul") or node.domain or not _reads_once(node, flat):
        return None
    weight = node.inputs[1]
    if weight is None or weight in varying or len(dims(weight) or []) != 2:
        return None
    if node.op_type == "MatMul":
        return weight, False, 1.0
    if node.attributes.get_int("transA", False):
        return None
    by_row = bool(node.attributes.get_int("transB", 0))
    return weight, by_row, node.attributes.get_float("alpha", 1.0)


def averages_space(node: ir.Node) -> bool:
    """Whether a node is part of averaging maps over all of space, or passes on what that gives."""
    x, y = node.inputs[0], node.outputs[0]
    before, after = dims(x) if x is not None else None, dims(y)
    if node.domain or x is None or before is None or after is None:
        return False
    if node.op_type == "GlobalAveragePool":
        return True
    if node.op_type == "ReduceMean":
        return _reduces_space(node, x)
    if node.op_type == "AveragePool":
        whole = list(node.attributes.get_ints("kernel_shape") or ()) == before[2:]
        return whole and all(d == 1 for d in after[2:])
    if has(node, Trait.RESHAPES) or node.op_type in ("Identity", "Dropout", "Cast"):
        return all(d == 1 for d in before[2:]) and before[1:2] == after[1:2]
    return False
