"""Standard operators that stand in for others, for shape inference alone.

``onnx`` infers shapes of standard operators only. Operators of ONNX Runtime's optimizer and
quantizer (``com.microsoft``, and a few in the default domain) are replaced here by standard
operators whose outputs have the same type and shape, whatever they compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
import onnx.helper
import onnx.numpy_helper

from onnxcam.graph.operators import RUNTIME_DOMAINS
from onnxcam.graph.protos import subgraphs

Shapes = Mapping[str, Sequence[int]]


@dataclass
class _Writer:
    """Writes the stand-ins of one node.

    Attributes:
        node: the node they stand in for.
        shapes: static shapes of stored tensors and inputs, by name.
        stored: the stored tensors by name.
        opset: the default domain's opset.
        nodes: the stand-ins written so far.
    """

    node: onnx.NodeProto
    shapes: Shapes
    stored: Mapping[str, onnx.TensorProto]
    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)

    def name(self, index: int) -> str:
        """Return the name of an operand, empty when it was left out."""
        return self.node.input[index] if index < len(self.node.input) else ""

    def attribute(self, name: str, default: Any) -> Any:
        """Return an attribute's value."""
        found = next((a for a in self.node.attribute if a.name == name), None)
        return default if found is None else onnx.helper.get_attribute_value(found)

    def output(self, index: int = 0) -> str:
        """Return the name of an output, a new one when it was left out."""
        own = self.node.output[index] if index < len(self.node.output) else ""
        return own or self._fresh()

    def rank(self, index: int) -> int | None:
        """Return the rank of a stored operand."""
        shape = self.shapes.get(self.name(index))
        return None if shape is None else len(shape)

    def numbers(self, index: int) -> list[int] | None:
        """Return the integers of a stored operand."""
        found = self.stored.get(self.name(index))
        return None if found is None else onnx.numpy_helper.to_array(found).ravel().tolist()

    def op(self, op_type: str, *inputs: str, into: str | None = None, **attributes: Any) -> str:
        """Write a node with the output ``into``, or a new one; return the output's name."""
        name = into or self._fresh()
        self.nodes.append(onnx.helper.make_node(op_type, inputs, [name], **attributes))
        return name

    def ints(self, *values: int) -> str:
        """Write a constant int64 vector."""
        return self.op("Constant", value_ints=list(values))

    def kept(self, *names: str) -> dict[str, Any]:
        """Return the attributes of these names that the node has."""
        have = {a.name: a for a in self.node.attribute}
        return {n: onnx.helper.get_attribute_value(have[n]) for n in names if n in have}

    def _fresh(self) -> str:
        return f"{self.node.output[0]}:stand-in.{len(self.nodes)}"


Writing = Callable[[_Writer], object]


def _stand_in(
    node: onnx.NodeProto, shapes: Shapes, stored: Mapping[str, onnx.TensorProto], opset: int
) -> list[onnx.NodeProto] | None:
    """Return the stand-ins for ``node``; ``None`` to keep it."""
    write = _TABLE.get(node.op_type)
    if write is None or node.domain not in RUNTIME_DOMAINS:
        return None
    if node.domain == "" and node.op_type not in _NOT_INFERRED:
        return None
    writer = _Writer(node, shapes, stored, opset)
    write(writer)
    return writer.nodes or None


def _like(*outputs: int) -> Writing:
    """Outputs have the type and shape of the first operand."""

    def write(w: _Writer) -> None:
        for index in outputs:
            w.op("Identity", w.name(0), into=w.output(index))

    return write


def _as(op_type: str, *operands: int, drop: Sequence[str] = ()) -> Writing:
    """A standard operator on some of the operands, with the node's attributes."""

    def write(w: _Writer) -> None:
        names = [w.name(i) for i in operands]
        while names and not names[-1]:
            names.pop()
        kept = w.kept(*(a.name for a in w.node.attribute if a.name not in drop))
        w.op(op_type, *names, into=w.output(), **kept)

    return write


_ACTIVATION = ["activation", "activation_params"]
_ACTIVATION += [f"activation_{letter}" for letter in ("alpha", "beta", "gamma")]


def _channels_last(op_type: str, weight: int | None = None, *operands: int) -> Writing:
    """An operator whose channels may be last; operand ``weight`` tells the rank."""

    def write(w: _Writer) -> None:
        kernel = w.attribute("kernel_shape", None)
        rank = w.rank(weight) if weight is not None else None
        rank = len(kernel) + 2 if kernel else rank or 4
        last = w.attribute("channels_last", int(w.node.op_type.startswith("Nhwc")))
        kept = w.kept(*(a.name for a in w.node.attribute if a.name not in _DROPPED))
        names = [w.name(0), *(w.name(i) for i in operands)]
        if not last:
            w.op(op_type, *names, into=w.output(), **kept)
            return
        names[0] = w.op("Transpose", names[0], perm=[0, rank - 1, *range(1, rank - 1)])
        y = w.op(op_type, *names, **kept)
        w.op("Transpose", y, into=w.output(), perm=[0, *range(2, rank), 1])

    return write


_DROPPED = {*_ACTIVATION, "channels_last"}


def _concat(w: _Writer) -> None:
    w.op("Concat", *w.node.input[2::3], into=w.output(), **w.kept("axis"))


def _reduce_mean(w: _Writer) -> None:
    axes, keep = w.attribute("axes", []), w.attribute("keepdims", 1)
    w.op("ReduceSum", w.name(0), w.ints(*axes), into=w.output(), keepdims=keep)


def _fused_matmul(w: _Writer) -> None:
    """Write an Einsum, which can transpose operands of any rank."""
    swap_a, swap_b = w.attribute("transA", 0), w.attribute("transB", 0)
    batch_a, batch_b = w.attribute("transBatchA", 0), w.attribute("transBatchB", 0)
    if not (swap_a or swap_b or batch_a or batch_b):
        w.op("MatMul", w.name(0), w.name(1), into=w.output())
        return
    b = "" if w.rank(1) == 2 else "..."
    # transBatch: the first axis belongs to the matrix, and the batch follows.
    left = {(0, 0): "...ij", (1, 0): "...ji", (0, 1): "i...j", (1, 1): "j...i"}
    right = {(0, 0): f"{b}jk", (1, 0): f"{b}kj", (0, 1): f"j{b}k", (1, 1): f"k{b}j"}
    equation = f"{left[swap_a, batch_a]},{right[swap_b, batch_b]}->...ik"
    w.op("Einsum", w.name(0), w.name(1), into=w.output(), equation=equation)


def _dense(w: _Writer, rows: int, columns: int) -> str:
    """Write a product, in floats, of the first operand and a weight ``[rows, columns]``."""
    weight, x = w.op("ConstantOfShape", w.ints(rows, columns)), w.name(0)
    if w.node.op_type.startswith("Q"):
        x = w.op("Cast", x, to=onnx.TensorProto.FLOAT)
    return w.op("MatMul", x, weight, into=w.output())


def _integer_product(w: _Writer) -> None:
    product = w.op("MatMulInteger", w.name(0), w.name(1))
    w.op("Cast", product, into=w.output(), to=onnx.TensorProto.FLOAT)


def _qgemm(w: _Writer) -> None:
    product = w.op("Gemm", w.name(0), w.name(3), **w.kept("transA", "transB"))
    if w.name(7):
        w.op("CastLike", product, w.name(8) or w.name(0), into=w.output())
    else:
        w.op("Cast", product, into=w.output(), to=onnx.TensorProto.FLOAT)


def _attention(w: _Writer) -> None:
    """The input is ``[B, S, H]``, the weights ``[H, queries + keys + values]``."""
    weight = w.shapes.get(w.name(1))
    if weight is None or len(weight) != 2:
        return
    sizes = w.attribute("qkv_hidden_sizes", None)
    _dense(w, weight[0], sizes[2] if sizes else weight[1] // 3)


def _multi_head_attention(w: _Writer) -> None:
    """The output is ``[B, S, H]``, with the width of the values where that differs."""
    if w.name(1) and w.name(2):
        w.op("Einsum", w.name(0), w.name(2), into=w.output(), equation="bsh,blv->bsv")
    else:
        w.op("Identity", w.name(0), into=w.output())


def _dynamic_pads(w: _Writer) -> None:
    pads = w.numbers(2)
    if pads is not None or not w.name(2):
        kept = w.kept(*(a.name for a in w.node.attribute))
        names = [w.name(0), w.name(1), *([w.name(3)] if w.name(3) else [])]
        w.op("ConvTranspose", *names, into=w.output(), **kept, **({"pads": pads} if pads else {}))


def _expand_dims(w: _Writer) -> None:
    axis = w.numbers(1)
    if axis is not None:
        w.op("Unsqueeze", w.name(0), w.ints(*axis), into=w.output())


def _embedding(w: _Writer) -> None:
    for index in (0, 2):
        w.op("Gather", w.name(2), w.name(0), into=w.output(index))


def _quantized_lstm(w: _Writer) -> None:
    """Its weights are those of LSTM transposed: ``[directions, input, 4 hidden]``."""
    shapes = [w.shapes.get(w.name(i)) for i in (1, 2)]
    if any(shape is None or len(shape) != 3 for shape in shapes):
        return
    weights = [w.op("ConstantOfShape", w.ints(s[0], s[2], s[1])) for s in shapes if s]
    kept = w.kept("direction", "hidden_size")
    outputs = [w.output(index) for index in range(len(w.node.output))]
    w.nodes.append(onnx.helper.make_node("LSTM", [w.name(0), *weights], outputs, **kept))


def _halves(w: _Writer) -> None:
    more = {"num_outputs": 2} if w.opset >= 18 else {}
    other = f"{w.output()}:other-half"
    w.nodes.append(
        onnx.helper.make_node("Split", [w.name(0)], [w.output(), other], axis=-1, **more)
    )


def _stft(w: _Writer) -> None:
    """Frames of a real signal ``[N, L]`` or ``[N, L, 1]``, counted as a convolution counts them.

    ``onnx`` infers neither other than static lengths nor a signal without its last axis. A
    two-sided transform, which complex signals need, is left to it.
    """
    step, length = w.numbers(1), w.numbers(3) or list(w.shapes.get(w.name(2), ()))
    if not step or not length or not w.attribute("onesided", 1):
        return
    [size] = length
    signal = w.op("Reshape", w.name(0), w.ints(0, 1, -1))
    kernel = w.op("ConstantOfShape", w.ints(size // 2 + 1, 1, size))
    frames = w.op("Conv", signal, kernel, strides=[step[0]])
    turned = w.op("Unsqueeze", w.op("Transpose", frames, perm=[0, 2, 1]), w.ints(3))
    w.op("Concat", turned, turned, into=w.output(), axis=3)


_TABLE: dict[str, Writing] = {
    "STFT": _stft,
    # the optimizer's
    "FusedConv": _as("Conv", 0, 1, 2, drop=_ACTIVATION),
    "FusedGemm": _as("Gemm", 0, 1, 2, drop=_ACTIVATION),
    "FusedMatMul": _fused_matmul,
    "TransposeMatMul": _fused_matmul,
    "NhwcMaxPool": _channels_last("MaxPool"),
    "ConvTransposeWithDynamicPads": _dynamic_pads,
    "ExpandDims": _expand_dims,
    "GatherND": _as("GatherND", 0, 1),
    "GridSample": _as("GridSample", 0, 1, drop=["mode"]),
    "Pad": _as("Pad", 0, 1, 2),
    "Attention": _attention,
    "MultiHeadAttention": _multi_head_attention,
    "EmbedLayerNormalization": _embedding,
    "SkipLayerNormalization": _like(0, 3),
    "SkipSimplifiedLayerNormalization": _like(0, 3),
    "SkipGroupNorm": _like(0, 1),
    "BiasSplitGelu": _halves,
    # the quantizer's
    "QuantizeLinear": _as("QuantizeLinear", 0, 1, 2),
    "DequantizeLinear": _as("DequantizeLinear", 0, 1, 2),
    "QLinearConv": _channels_last("QLinearConv", 3, 1, 2, 3, 4, 5, 6, 7, 8),
    "QLinearAdd": _as("Add", 0, 3),
    "QLinearMul": _as("Mul", 0, 3),
    "QLinearWhere": _as("Where", 0, 1, 4),
    "QLinearConcat": _concat,
    "QLinearAveragePool": _channels_last("AveragePool"),
    "QLinearGlobalAveragePool": _channels_last("GlobalAveragePool"),
    "QLinearReduceMean": _reduce_mean,
    "QGemm": _qgemm,
    "QAttention": _attention,
    "DynamicQuantizeLSTM": _quantized_lstm,
    "DynamicQuantizeMatMul": _as("MatMul", 0, 1),
    "MatMulIntegerToFloat": _integer_product,
    "MatMulNBits": lambda w: _dense(w, w.attribute("K", 0), w.attribute("N", 0)),
}
# fmt: off
_TABLE |= dict.fromkeys([
    "GroupNormalization", "Gelu", "FastGelu", "QuickGelu", "BiasGelu", "GroupNorm", "BiasAdd",
    "SimplifiedLayerNormalization", "BiasSoftmax", "BiasDropout", "RotaryEmbedding", "Trilu",
    "Inverse", "QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax",
], _like(0))
# fmt: on

# Only these are replaced in the default domain: some versions of onnx do not infer them.
_NOT_INFERRED = {"GroupNormalization", "SimplifiedLayerNormalization", "STFT"}


def put_stand_ins(graph: onnx.GraphProto, opset: int) -> None:
    """Replace the operators that ``onnx`` does not know, in place."""
    for node in graph.node:
        for inner in subgraphs(node):
            put_stand_ins(inner, opset)
    if not any(n.op_type in _TABLE and n.domain in RUNTIME_DOMAINS for n in graph.node):
        return
    stored = {t.name: t for t in graph.initializer}
    shapes = {name: list(t.dims) for name, t in stored.items()}
    shapes |= dict(_static(graph.input))
    nodes = []
    for node in graph.node:
        found = _stand_in(node, shapes, stored, opset)
        nodes += [node] if found is None else found
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _static(values: Sequence[onnx.ValueInfoProto]) -> Iterator[tuple[str, list[int]]]:
    for value in values:
        sizes = value.type.tensor_type.shape.dim
        if all(d.HasField("dim_value") for d in sizes):
            yield value.name, [d.dim_value for d in sizes]
