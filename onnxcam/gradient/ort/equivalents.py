"""Operators rewritten as others for ONNX Runtime's gradient builder.

They give the same values, up to rounding, by operators whose gradient the builder knows. Where
the standard's definition overflows (``log(exp(x) + 1)``), another formula is used.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.call import Call, must_be_known
from onnxcam.gradient.helpers.windows import windows
from onnxcam.gradient.kinds import Expander, Expansion
from onnxcam.gradient.rules.elementwise import TRAINING
from onnxcam.graph.values import constant

Values = list[ir.Value | None]

_PADDED = (
    "windows of three axes, or with dilations",
    "the size of its kernel is unknown",
    "auto_pad depends on lengths that are only known at run time",
)
_PARTS = "the length of its parts is unknown"


def _batch_normalization(c: Call) -> Values:
    """``x * f + (b - mean * f)`` with ``f = scale / sqrt(var + epsilon)``, for inference."""
    if c.attribute("training_mode", 0):
        raise c.refuse(TRAINING)
    x, scale, bias, mean, var = (c.x(i) for i in range(5))
    spread = c.op("Sqrt", c.op("Add", var, c.like(c.attribute("epsilon", 1e-5))))
    factor = c.op("Div", scale, spread)
    shift = c.op("Sub", bias, c.op("Mul", mean, factor))
    return [c.op("Add", c.op("Mul", x, _column(c, factor)), _column(c, shift))]


def _instance_normalization(c: Call) -> Values:
    """``(x - mean) / sqrt(var + epsilon) * scale + bias``, with statistics over each map."""
    x, axes = c.x(0), list(range(2, c.rank(c.x(0))))
    centred = c.op("Sub", x, c.builder.mean(x, axes, keepdims=True))
    var = c.builder.mean(c.op("Mul", centred, centred), axes, keepdims=True)
    spread = c.op("Sqrt", c.op("Add", var, c.like(c.attribute("epsilon", 1e-5))))
    scaled = c.op("Mul", c.op("Div", centred, spread), _column(c, c.x(1)))
    return [c.op("Add", scaled, _column(c, c.x(2)))]


def _column(c: Call, value: ir.Value) -> ir.Value:
    """Reshape one number for each channel so that it broadcasts along space."""
    return c.op("Reshape", value, c.builder.ints(-1, *[1] * (c.rank(c.x(0)) - 2)))


def _lrn(c: Call) -> Values:
    """``x / (bias + alpha / size * (squares summed over size channels)) ** beta``.

    The sum over neighbouring channels is a convolution along them.
    """
    x, ints, size = c.x(0), c.builder.ints, int(c.attribute("size", 1))
    before = (size - 1) // 2
    weights = np.full((1, 1, size, 1), c.attribute("alpha", 1e-4) / size)
    squares = c.op("Unsqueeze", c.op("Reshape", c.op("Mul", x, x), ints(0, 0, -1)), ints(1))
    near = c.op(
        "Conv",
        squares,
        c.builder.constant(weights, x.dtype),
        pads=[before, 0, size - 1 - before, 0],
    )
    near = c.op("Reshape", c.op("Squeeze", near, ints(1)), c.builder.shape(x))
    base = c.op("Add", near, c.like(c.attribute("bias", 1.0)))
    return [c.op("Mul", x, c.op("Pow", base, c.like(-c.attribute("beta", 0.75))))]


def _dropout(c: Call) -> Values:
    training = c.operand(2)
    if training is not None and (constant(training) is None or c.known(2, "mode").any()):
        raise c.refuse(TRAINING)
    return [c.op("Identity", c.x(0))]


def _padded(c: Call) -> Values:
    """The same convolution or pooling with its pads written out."""
    node, space = c.node, c.rank(c.x(0)) - 2
    if node.op_type == "AveragePool" and (
        space > 2 or any(d != 1 for d in c.attribute("dilations", [1]))
    ):
        raise c.refuse(_PADDED[0])
    sizes = c.attribute("kernel_shape", None) or c.dims(c.x(1))[2:]
    kernel = [d for d in sizes if isinstance(d, int)]
    if len(kernel) < space:
        raise c.refuse(_PADDED[1])
    w = windows(c, kernel)
    if w.begin is None or w.end is None:
        raise c.refuse(_PADDED[2])
    kept = {name: a.value for name, a in node.attributes.items() if name != "auto_pad"}
    return [c.op(node.op_type, *node.inputs, **{**kept, "pads": [*w.begin, *w.end]})]


def _split(c: Call) -> Values:
    """One Slice for each part."""
    x, axis, count = c.x(0), c.axis(c.x(0)), len(c.node.outputs)
    sizes = c.optional(1, "sizes")
    if sizes is None:
        length = c.static(x, axis)
        if length is None:
            raise c.refuse(_PARTS)
        chunk = -(-length // count)
        sizes = np.array([chunk] * (count - 1) + [length - chunk * (count - 1)])
    ends = [0, *np.cumsum(sizes).tolist()]
    ints = c.builder.ints
    return [c.op("Slice", x, ints(a), ints(b), ints(axis)) for a, b in pairwise(ends)]


def _sum(c: Call) -> Values:
    total, *others = (c.x(i) for i in range(len(c.node.inputs)))
    for other in others:
        total = c.op("Add", total, other)
    return [total]


def _mean(c: Call) -> Values:
    return [c.op("Div", _sum(c)[0], c.like(len(c.node.inputs)))]


def _reduce_max(c: Call) -> Values:
    """The first of the sorted values (TopK), so that ties go to the first index."""
    x, ints, rank = c.x(0), c.builder.ints, c.rank(c.x(0))
    if c.node.op_type == "GlobalMaxPool":
        axes, keep = list(range(2, rank)), True
    else:
        stored = c.optional(1, "axes")
        given = c.attribute("axes", None) if stored is None else stored.tolist()
        axes, keep = (
            sorted(a % rank for a in given or range(rank)),
            bool(c.attribute("keepdims", 1)),
        )
    others = [a for a in range(rank) if a not in axes]
    least = c.node.op_type == "ReduceMin"
    last = c.op("Transpose", c.op("Neg", x) if least else x, perm=[*others, *axes])
    flat = c.op("Reshape", last, ints(*[0] * len(others), -1))
    best, _ = c.builder.op_many("TopK", [flat, ints(1)], 2, axis=-1)
    best = c.op("Squeeze", c.op("Neg", best) if least else best, ints(-1))
    return [c.op("Unsqueeze", best, ints(*axes)) if keep else best]


def _softplus(c: Call) -> Values:
    """``(x + |x|) / 2 + log(1 + exp(-|x|))``, which does not overflow and is smooth at 0."""
    x = c.x(0)
    size = c.op("Abs", x)
    rest = c.op("Log", c.op("Add", c.op("Exp", c.op("Neg", size)), c.like(1.0)))
    return [c.op("Add", c.op("Mul", c.op("Add", x, size), c.like(0.5)), rest)]


def _exponential(c: Call) -> Values:
    """``gamma * (max(x, 0) + alpha * (exp(min(x, 0) / beta) - 1))``: Elu, Selu, Celu."""
    kind, alpha = c.node.op_type, c.attribute("alpha", 1.0)
    gamma, beta = 1.0, 1.0
    if kind == "Selu":
        alpha = c.attribute("alpha", 1.67326319217681884765625)
        gamma = c.attribute("gamma", 1.05070102214813232421875)
    elif kind == "Celu":
        beta = alpha
    below = c.op("Mul", c.op("Relu", c.op("Neg", c.x(0))), c.like(-1.0 / beta))
    curve = c.op("Mul", c.op("Sub", c.op("Exp", below), c.like(1.0)), c.like(alpha))
    return [c.op("Mul", c.op("Add", c.op("Relu", c.x(0)), curve), c.like(gamma))]


def _leaky(c: Call) -> Values:
    """``max(x, 0) - slope * max(-x, 0)``: LeakyRelu, PRelu."""
    slope = c.like(c.attribute("alpha", 0.01)) if c.node.op_type == "LeakyRelu" else c.x(1)
    below = c.op("Mul", slope, c.op("Relu", c.op("Neg", c.x(0))))
    return [c.op("Sub", c.op("Relu", c.x(0)), below)]


def _hard_sigmoid(c: Call) -> Values:
    alpha, beta = c.attribute("alpha", 0.2), c.attribute("beta", 0.5)
    line = c.op("Add", c.op("Mul", c.x(0), c.like(alpha)), c.like(beta))
    return [c.op("Clip", line, c.like(0.0), c.like(1.0))]


def _hard_swish(c: Call) -> Values:
    line = c.op("Add", c.op("Div", c.x(0), c.like(6.0)), c.like(0.5))
    return [c.op("Mul", c.x(0), c.op("Clip", line, c.like(0.0), c.like(1.0)))]


_REFUSES: dict[Expander, tuple[str, ...]] = {
    _batch_normalization: (TRAINING,),
    _dropout: (TRAINING, must_be_known("mode")),
    _padded: _PADDED,
    _split: (_PARTS, must_be_known("sizes")),
    _reduce_max: (must_be_known("axes"),),
}

_EXPANDERS: dict[str, Expander] = {
    "AveragePool": _padded,
    "BatchNormalization": _batch_normalization,
    "Celu": _exponential,
    "Conv": _padded,
    "Dropout": _dropout,
    "Elu": _exponential,
    "GlobalMaxPool": _reduce_max,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "InstanceNormalization": _instance_normalization,
    "LRN": _lrn,
    "LeakyRelu": _leaky,
    "Mean": _mean,
    "PRelu": _leaky,
    "ReduceMax": _reduce_max,
    "ReduceMin": _reduce_max,
    "Selu": _exponential,
    "Softplus": _softplus,
    "Split": _split,
    "Sum": _sum,
}

EQUIVALENTS = {
    name: Expansion(expand=expand, refuses=_REFUSES.get(expand, ()))
    for name, expand in _EXPANDERS.items()
}
