"""Attention as ONNX Runtime's optimizer fuses it: heads, masks and products in one operator.

Each head is ``softmax(scale q k^T + bias + mask) v`` (Vaswani et al. 2017), with ``S`` queries and
``L`` keys. A cache of the past and device-specific masks are refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.quantization import dequantize
from onnxcam.gradient.registry import expansion
from onnxcam.gradient.rules.quantized_linear import MICROSOFT

_MASK = "its mask has a form that is not supported"
_ROTATES = "it rotates queries and keys by their positions"
_WEIGHTS = "the shape of its weights is only known at run time"
_PAST = "it reads a cache of the past"
_PACKED = "its queries, keys and values are packed"
_WIDTH = "the width of its queries is only known at run time"
_BIAS = "its bias does not fit its keys and values"
_ROTARY = (
    "its batch is packed",
    "its angles are only known at run time",
    "the size of its heads is only known at run time",
)


def _heads(c: Call, x: ir.Value, heads: int) -> ir.Value:
    """Split ``[B, S, N * h]`` into heads, ``[B, N, S, h]``."""
    split = c.op("Reshape", x, c.builder.ints(0, 0, heads, -1))
    return c.op("Transpose", split, perm=[0, 2, 1, 3])


@dataclass
class _Masks:
    """What is added to the scores ``[B, N, S, L]``.

    Attributes:
        bias: added as it is, broadcast.
        mask: integers, in one of these forms: ``[B, L]`` or ``[B, S, L]``, 1 for the keys to attend
            to; ``[B]``, how many keys to attend to; ``[2 B]``, where these end, then start.
    """

    bias: ir.Value | None
    mask: ir.Value | None

    def added(self, c: Call, scores: ir.Value) -> ir.Value:
        """Append the scores with everything added to them."""
        if self.bias is not None:
            scores = c.op("Add", scores, self.bias)
        allowed = None if self.mask is None else _allowed(c, self.mask, scores)
        if allowed is not None:
            filtered = c.like(c.attribute("mask_filter_value", -10000.0))
            scores = c.op("Add", scores, c.op("Where", allowed, c.like(0.0), filtered))
        if c.attribute("unidirectional", 0):
            lowest = c.like(float(ml_dtypes.finfo(c.kind.numpy()).min))  # type: ignore[no-untyped-call]
            scores = c.op("Where", _causal(c, scores), scores, lowest)
        return scores


def _length(c: Call, scores: ir.Value, axis: int) -> ir.Value:
    return c.op("Gather", c.op("Shape", scores), c.builder.constant(axis), axis=0)


def _positions(c: Call, scores: ir.Value, axis: int) -> ir.Value:
    zero, one = c.builder.constant(0), c.builder.constant(1)
    return c.op("Range", zero, _length(c, scores, axis), one)


def _causal(c: Call, scores: ir.Value) -> ir.Value:
    """Whether a key is not after its query, ``[S, L]``."""
    queries = c.op("Unsqueeze", _positions(c, scores, 2), c.builder.ints(1))
    return c.op("LessOrEqual", _positions(c, scores, 3), queries)


def _allowed(c: Call, mask: ir.Value, scores: ir.Value) -> ir.Value:
    """Return a mask of the keys to attend to, shaped for broadcasting against the scores."""
    ints, rank = c.builder.ints, c.rank(mask)
    if rank in (2, 3):
        kept = c.op("Cast", mask, to=ir.DataType.BOOL)
        return c.op("Unsqueeze", kept, ints(1, 2) if rank == 2 else ints(1))
    length, batch = c.static(mask, 0), c.static(c.x(0), 0)
    if rank != 1 or length is None or batch is None or length not in (batch, 2 * batch):
        raise c.refuse(_MASK)
    bounds = c.op("Cast", mask, to=ir.DataType.INT64)
    ends = c.op("Slice", bounds, ints(0), ints(batch))
    positions = _positions(c, scores, 3)
    allowed = c.op("Less", positions, c.op("Reshape", ends, ints(-1, 1, 1, 1)))
    if length == 2 * batch:
        starts = c.op("Slice", bounds, ints(batch), ints(length))
        started = c.op("GreaterOrEqual", positions, c.op("Reshape", starts, ints(-1, 1, 1, 1)))
        allowed = c.op("And", allowed, started)
    return allowed


def _attend(c: Call, qkv: Sequence[ir.Value], size: int, masks: _Masks) -> ir.Value:
    """Return the results of all heads side by side, ``[B, S, N * h]``.

    ``qkv`` are queries, keys and values, ``[B, N, S or L, h]``; ``size`` is the queries' ``h``.
    """
    q, k, v = qkv
    scale = float(c.attribute("scale", 0.0)) or 1.0 / math.sqrt(size)
    scores = c.op("MatMul", c.op("Mul", q, c.like(scale)), c.op("Transpose", k, perm=[0, 1, 3, 2]))
    weights = c.op("Softmax", masks.added(c, scores), axis=-1)
    joined = c.op("Transpose", c.op("MatMul", weights, v), perm=[0, 2, 1, 3])
    return c.op("Reshape", joined, c.builder.ints(0, 0, -1))


def _self_attention(
    c: Call, x: ir.Value, weight: ir.Value, bias: ir.Value | None, masks: _Masks
) -> list[ir.Value | None]:
    """Compute queries, keys and values as one product of ``x``, ``[B, S, H]``, and attend."""
    if c.attribute("do_rotary", 0):
        raise c.refuse(_ROTATES)
    width, heads = c.static(c.x(1), 1), int(c.attribute("num_heads", 1))
    if width is None:
        raise c.refuse(_WEIGHTS)
    sizes = c.attribute("qkv_hidden_sizes", None) or [width // 3] * 3
    y = c.op("MatMul", x, weight)
    y = y if bias is None else c.op("Add", y, bias)
    starts = np.cumsum([0, *sizes]).tolist()
    ints = c.builder.ints
    parts = [
        c.op("Slice", y, ints(start), ints(start + size), ints(2))
        for start, size in zip(starts, sizes, strict=False)
    ]
    qkv = [_heads(c, part, heads) for part in parts]
    return [_attend(c, qkv, sizes[0] // heads, masks), None]


def _no_past(c: Call, *indices: int) -> None:
    if any(c.operand(index) is not None for index in indices):
        raise c.refuse(_PAST)


def _attention(c: Call) -> list[ir.Value | None]:
    _no_past(c, 4, 6)
    return _self_attention(c, c.x(0), c.x(1), c.operand(2), _Masks(c.operand(5), c.operand(3)))


def _quantized_attention(c: Call) -> list[ir.Value | None]:
    _no_past(c, 8)
    x = dequantize(c, c.x(0), c.x(3), c.operand(6))
    weight = dequantize(c, c.x(1), c.x(4), c.operand(7))
    return _self_attention(c, x, weight, c.operand(2), _Masks(None, c.operand(5)))


def _multi_head_attention(c: Call) -> list[ir.Value | None]:
    """Queries are ``[B, S, N * h]``; keys and values ``[B, L, N * h]`` or ``[B, N, L, h]``."""
    _no_past(c, 6, 7, 8, 9)
    q, k, v = c.x(0), c.operand(1), c.operand(2)
    if k is None or v is None or c.rank(q) != 3:
        raise c.refuse(_PACKED)
    heads, width = int(c.attribute("num_heads", 1)), c.static(q, 2)
    if width is None:
        raise c.refuse(_WIDTH)
    parts = [q, k, v]
    bias = c.operand(3)
    if bias is not None:
        start, ints = 0, c.builder.ints
        for index, part in enumerate(parts):
            size = c.static(part, -1)
            if size is None or c.rank(part) != 3:
                raise c.refuse(_BIAS)
            own = c.op("Slice", bias, ints(start), ints(start + size), ints(0))
            parts[index] = c.op("Add", part, own)
            start += size
    qkv = [
        p if c.rank(o) == 4 else _heads(c, p, heads) for p, o in zip(parts, (q, k, v), strict=True)
    ]
    masks = _Masks(c.operand(5), c.operand(4))
    return [_attend(c, qkv, width // heads, masks), None, None, None]


_REFUSES = [_PAST, _ROTATES, _MASK, _WEIGHTS]
expansion("Attention", _attention, refuses=_REFUSES, domain=MICROSOFT)
expansion("QAttention", _quantized_attention, refuses=_REFUSES, domain=MICROSOFT)
expansion(
    "MultiHeadAttention",
    _multi_head_attention,
    refuses=[_PAST, _BIAS, _MASK, _PACKED, _WIDTH],
    domain=MICROSOFT,
)


def _rotary_embedding(c: Call) -> list[ir.Value]:
    """Rotate each pair of features by an angle that grows with the position (Su et al. 2021).

    The pair (a, b) becomes (a cos - b sin, a sin + b cos). ``interleaved`` pairs are neighbours;
    otherwise b is half the rotated features away from a.
    """
    x, ints, op = c.x(0), c.builder.ints, c.op
    if c.attribute("is_packed_batching", 0):
        raise c.refuse(_ROTARY[0])
    rank, number = c.rank(x), int(c.attribute("num_heads", 0))
    half = c.static(c.x(2), 1)
    if half is None or float(c.attribute("scale", 1.0)) != 1.0:
        raise c.refuse(_ROTARY[1])
    size = c.static(x, -1)
    if rank == 3 and size is not None:
        size = size // number if number else int(c.attribute("rotary_embedding_dim", 0)) or 2 * half
    if size is None:
        raise c.refuse(_ROTARY[2])
    heads = (
        x
        if rank == 4
        else op("Transpose", op("Reshape", x, ints(0, 0, -1, size)), perm=[0, 2, 1, 3])
    )
    positions = c.x(1)
    if c.rank(positions) == 1:  # it is the first position
        zero, one = c.builder.constant(0), c.builder.constant(1)
        length = op("Gather", op("Shape", heads), c.builder.constant(2), axis=0)
        positions = op("Unsqueeze", op("Add", op("Range", zero, length, one), positions), ints(0))
    cos, sin = (op("Unsqueeze", op("Gather", c.x(i), positions, axis=0), ints(1)) for i in (2, 3))
    if c.attribute("interleaved", 0):
        firsts, steps = (0, 1), ints(2)
        ends = (2 * half, 2 * half)
    else:
        firsts, steps = (0, half), ints(1)
        ends = (half, 2 * half)
    a, b = (
        op("Slice", heads, ints(f), ints(e), ints(3), steps)
        for f, e in zip(firsts, ends, strict=True)
    )
    rotated = [
        op("Sub", op("Mul", a, cos), op("Mul", b, sin)),
        op("Add", op("Mul", a, sin), op("Mul", b, cos)),
    ]
    if c.attribute("interleaved", 0):
        pairs = op("Concat", *(op("Unsqueeze", part, ints(4)) for part in rotated), axis=4)
        y = op("Reshape", pairs, ints(0, 0, 0, -1))
    else:
        y = op("Concat", *rotated, axis=3)
    if size > 2 * half:
        y = op("Concat", y, op("Slice", heads, ints(2 * half), ints(size), ints(3)), axis=3)
    if rank == 4:
        return [y]
    return [op("Reshape", op("Transpose", y, perm=[0, 2, 1, 3]), ints(0, 0, -1))]


expansion("RotaryEmbedding", _rotary_embedding, refuses=_ROTARY, domain=MICROSOFT)
