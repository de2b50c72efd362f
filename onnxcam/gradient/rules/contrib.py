"""Fused operators of ONNX Runtime's optimizer (domain ``com.microsoft``).

They are expanded into the standard operators that they were fused from.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import onnx_ir as ir

from onnxcam.gradient.call import Call, must_be_known
from onnxcam.gradient.registry import RULES, expansion, rule
from onnxcam.gradient.rules.elementwise import TRAINING
from onnxcam.gradient.rules.quantized_linear import MICROSOFT, kept

_contrib = partial(expansion, domain=MICROSOFT)


def _opset_of(op_type: str, least: int = 13) -> Callable[[ir.Node], int]:
    """Return the opset that a standard operator's rule needs, looked up once all rules exist."""

    def needed(node: ir.Node) -> int:
        found = RULES.get(("", op_type))
        return least if found is None else max(least, found.needed(node))

    return needed


# --- fused activations

UNKNOWN_ACTIVATION = "its activation '{}' is unknown"
_PLAIN = {"Relu", "Sigmoid", "Tanh", "Softplus", "Softsign"}
_PARAMETERS = {
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Elu": ("alpha",),
    "Selu": ("alpha", "gamma"),
    "ThresholdedRelu": ("alpha",),
}


def activated(c: Call, x: ir.Value) -> ir.Value:
    """Append the activation that the node's attributes name, if any."""
    name = c.attribute("activation", "")
    listed = c.attribute("activation_params", [])
    if not name:
        return x
    if name in _PLAIN:
        return c.op(name, x)
    if name == "Clip" and len(listed) == 2:
        return c.op("Clip", x, c.like(listed[0]), c.like(listed[1]))
    if name not in _PARAMETERS:
        raise c.refuse(UNKNOWN_ACTIVATION, name)
    named = {p: c.attribute(f"activation_{p}", None) for p in _PARAMETERS[name]}
    named |= dict(zip(_PARAMETERS[name], listed, strict=False))
    return c.op(name, x, **{p: v for p, v in named.items() if v is not None})


_WINDOW = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


def _fused_conv(c: Call) -> list[ir.Value]:
    """Return act(conv(x, w) + b + z)."""
    y = c.op("Conv", c.x(0), c.x(1), c.operand(2), **kept(c, *_WINDOW))
    z = c.operand(3)
    return [activated(c, y if z is None else c.op("Add", y, z))]


def _fused_gemm(c: Call) -> list[ir.Value]:
    settings = kept(c, "alpha", "beta", "transA", "transB")
    return [activated(c, c.op("Gemm", c.x(0), c.x(1), c.operand(2), **settings))]


def _moved(c: Call, index: int) -> ir.Value:
    """Return an operand of FusedMatMul transposed to ``[*batch, rows, columns]``.

    ``transBatch``: the first axis belongs to the matrix and the batch follows, ``[m, *batch, k]``.
    """
    letter, value = "AB"[index], c.x(index)
    rank = c.rank(value)
    order = list(range(rank))
    if rank >= 2 and c.attribute(f"transBatch{letter}", 0):
        order = [*order[1:-1], 0, order[-1]]
    if rank >= 2 and c.attribute(f"trans{letter}", 0):
        order = [*order[:-2], order[-1], order[-2]]
    return value if order == sorted(order) else c.op("Transpose", value, perm=order)


def _fused_matmul(c: Call) -> list[ir.Value]:
    """Return alpha A' B', where A' and B' are A and B, perhaps transposed."""
    y = c.op("MatMul", _moved(c, 0), _moved(c, 1))
    alpha = float(c.attribute("alpha", 1.0))
    return [y if alpha == 1.0 else c.op("Mul", y, c.like(alpha))]


_contrib("FusedConv", _fused_conv, refuses=[UNKNOWN_ACTIVATION])
_contrib("FusedGemm", _fused_gemm, refuses=[UNKNOWN_ACTIVATION])
_contrib("FusedMatMul TransposeMatMul", _fused_matmul)


def _dynamic_pads(c: Call) -> list[ir.Value]:
    """Return ConvTranspose with the pads, which are an operand, as its attribute."""
    pads = c.optional(2, "pads")
    settings = kept(c, *_WINDOW, "output_padding")
    if pads is not None:
        settings["pads"] = pads.tolist()
    return [c.op("ConvTranspose", c.x(0), c.x(1), c.operand(3), **settings)]


_contrib("ConvTransposeWithDynamicPads", _dynamic_pads, refuses=[must_be_known("pads")])


def _nhwc_max_pool(c: Call) -> list[ir.Value]:
    rank = c.rank(c.x(0))
    x = c.op("Transpose", c.x(0), perm=[0, rank - 1, *range(1, rank - 1)])
    names = ("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides")
    y = c.op("MaxPool", x, **kept(c, *names))
    return [c.op("Transpose", y, perm=[0, *range(2, rank), 1])]


_contrib("NhwcMaxPool", _nhwc_max_pool, opset=_opset_of("MaxPool"))

# --- activations


def gelu(c: Call, x: ir.Value) -> ir.Value:
    """Return x F(x), with F the standard normal distribution function."""
    erf = c.op("Erf", c.op("Mul", x, c.like(math.sqrt(0.5))))
    return c.op("Mul", x, c.op("Mul", c.op("Add", erf, c.like(1.0)), c.like(0.5)))


def _fast_gelu(c: Call, x: ir.Value) -> ir.Value:
    """Return x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2."""
    root, cubic = math.sqrt(2.0 / math.pi), 0.044715
    square = c.op("Mul", x, x)
    inner = c.op("Mul", x, c.op("Add", c.op("Mul", square, c.like(root * cubic)), c.like(root)))
    gate = c.op("Add", c.op("Tanh", inner), c.like(1.0))
    return c.op("Mul", x, c.op("Mul", gate, c.like(0.5)))


def _biased(c: Call) -> ir.Value:
    bias = c.operand(1)
    return c.x(0) if bias is None else c.op("Add", c.x(0), bias)


def _quick_gelu(c: Call) -> list[ir.Value]:
    """Return x sigmoid(alpha x)."""
    gate = c.op("Sigmoid", c.op("Mul", c.x(0), c.like(c.attribute("alpha", 1.702))))
    return [c.op("Mul", c.x(0), gate)]


_LENGTH = "the length of its last axis is only known at run time"


def _bias_split_gelu(c: Call) -> list[ir.Value]:
    """Return a gelu(b), with a and b the halves of x + bias."""
    length = c.static(c.x(0), -1)
    if length is None:
        raise c.refuse(_LENGTH)
    x, ints, half = _biased(c), c.builder.ints, length // 2
    a, b = (c.op("Slice", x, ints(i), ints(i + half), ints(-1)) for i in (0, half))
    return [c.op("Mul", a, gelu(c, b))]


_contrib("Gelu BiasGelu", lambda c: [gelu(c, _biased(c))])
_contrib("FastGelu", lambda c: [_fast_gelu(c, _biased(c))])
_contrib("QuickGelu", _quick_gelu)
_contrib("BiasSplitGelu", _bias_split_gelu, refuses=[_LENGTH])


_NOT_LAST = "its axis is not the last one"


def _bias_softmax(c: Call) -> list[ir.Value]:
    rank = c.rank(c.x(0))
    axis = int(c.attribute("axis", 1)) % rank
    if axis != rank - 1:
        raise c.refuse(_NOT_LAST)
    return [c.op("Softmax", _biased(c), axis=-1)]


def _bias_dropout(c: Call) -> list[ir.Value]:
    training = c.operand(4)
    if training is not None and c.known(4, "training mode").any():
        raise c.refuse(TRAINING)
    y, residual = _biased(c), c.operand(2)
    return [y if residual is None else c.op("Add", y, residual)]


_contrib("BiasSoftmax", _bias_softmax, refuses=[_NOT_LAST])
_contrib("BiasDropout", _bias_dropout, refuses=[TRAINING, must_be_known("training mode")])
_contrib("BiasAdd", lambda c: [c.op("Add", _biased(c), c.x(2))])

# --- operators that the standard has too, perhaps under another name


def _standard(op_type: str, c: Call, **changed: Any) -> list[ir.Value]:
    """Append the standard operator with the same operands and attributes."""
    settings = {name: c.attribute(name, None) for name in c.node.attributes}
    return [c.op(op_type, *c.node.inputs, **{**settings, **changed})]


def _grid_sample(c: Call) -> list[ir.Value]:
    mode = c.attribute("mode", "bilinear")
    if c.builder.opset >= 20:
        mode = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    return _standard("GridSample", c, mode=mode)


for _op_type in ("Trilu", "GatherND", "Pad"):
    _contrib(_op_type, partial(_standard, _op_type), opset=_opset_of(_op_type, 14))
_contrib("GridSample", _grid_sample, opset=_opset_of("GridSample", 16))
rule("ExpandDims", lambda c, g: c.split_t(g, c.x(0)), None, domain=MICROSOFT)


def _inverse(c: Call, g: ir.Value) -> ir.Value:
    """For Y = X^-1: dX = -Y^T g Y^T."""
    rank = c.rank(c.y)
    transposed = c.op("Transpose", c.y, perm=[*range(rank - 2), rank - 1, rank - 2])
    return c.op("Neg", c.op("MatMul", c.op("MatMul", transposed, g), transposed))


rule("Inverse", _inverse, domain=MICROSOFT)
