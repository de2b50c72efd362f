"""Matrix products and the determinant."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.registry import rule
from onnxcam.gradient.walker import unbroadcast, unbroadcast_at_run_time


def _swap(c: Call, value: ir.Value) -> ir.Value:
    """Transpose the last two axes."""
    rank = c.rank(value)
    return c.op("Transpose", value, perm=[*range(rank - 2), rank - 1, rank - 2])


def _at_end(c: Call, value: ir.Value) -> ir.Value:
    return c.op("Unsqueeze", value, c.builder.ints(-1))


def _matmul_left(c: Call, g: ir.Value) -> ir.Value:
    """For y = a b: da = g b^T."""
    a, b = c.x(0), c.x(1)
    if c.rank(b) == 1:  # y[..., m] = a[..., m, k] b[k], or a[k] b[k]
        return c.op("Mul", _at_end(c, g), b)
    if c.rank(a) == 1:
        g = c.op("Unsqueeze", g, c.builder.ints(-2))
    da = c.op("MatMul", g, _swap(c, b))
    return _sum_batch(c, c.op("Squeeze", da, c.builder.ints(-2)) if c.rank(a) == 1 else da, a)


def _matmul_right(c: Call, g: ir.Value) -> ir.Value:
    """For y = a b: db = a^T g."""
    a, b = c.x(0), c.x(1)
    if c.rank(a) == 1 and c.rank(b) == 1:
        return c.op("Mul", _at_end(c, g), a)
    if c.rank(a) == 1:  # y[..., n] = a[k] b[..., k, n]
        return c.op("Mul", c.op("Unsqueeze", g, c.builder.ints(-2)), _at_end(c, a))
    if c.rank(b) == 1:
        db = c.op("MatMul", _swap(c, a), _at_end(c, g))
        return _sum_batch(c, c.op("Squeeze", db, c.builder.ints(-1)), b)
    return _sum_batch(c, c.op("MatMul", _swap(c, a), g), b)


def _sum_batch(c: Call, g: ir.Value, operand: ir.Value) -> ir.Value:
    """Sum ``[T, *batch of the output, ...]`` over the batch axes that broadcasting added."""
    core = min(c.rank(operand), 2)
    out = max(c.rank(c.x(0)), c.rank(c.x(1)), 2) - 2
    own = c.rank(operand) - core
    g = c.builder.sum(g, [i + 1 for i in range(out - own)])
    if own == 0:
        return g
    other = c.x(1) if operand is c.x(0) else c.x(0)
    theirs = c.dims(other)[:-2] if c.rank(other) > 2 else []
    sizes = c.dims(operand)[:own]
    broadcast = []
    for i, size in enumerate(sizes):
        j = i - own + len(theirs)
        against = theirs[j] if j >= 0 else 1
        if size == 1 and against != 1:
            broadcast.append(i + 1)
        elif not isinstance(size, int) and against != 1 and (size is None or size != against):
            return unbroadcast_at_run_time(c, g, operand)
    return c.builder.sum(g, broadcast, keepdims=True)


rule("MatMul", _matmul_left, _matmul_right)


def _scaled(c: Call, value: ir.Value, name: str) -> ir.Value:
    factor = float(c.attribute(name, 1.0))
    return value if factor == 1.0 else c.op("Mul", value, c.like(factor))


def _gemm_left(c: Call, g: ir.Value) -> ir.Value:
    """Y = alpha A' B' + beta C: dA' = alpha g B'^T."""
    b = c.x(1) if c.attribute("transB", 0) else _swap(c, c.x(1))
    da = _scaled(c, c.op("MatMul", g, b), "alpha")
    return c.op("Transpose", da, perm=[0, 2, 1]) if c.attribute("transA", 0) else da


def _gemm_right(c: Call, g: ir.Value) -> ir.Value:
    a = c.x(0) if c.attribute("transA", 0) else _swap(c, c.x(0))
    db = _scaled(c, c.op("MatMul", a, g), "alpha")
    return c.op("Transpose", db, perm=[0, 2, 1]) if c.attribute("transB", 0) else db


def _gemm_bias(c: Call, g: ir.Value) -> ir.Value:
    return unbroadcast(c, _scaled(c, g, "beta"), c.x(2))


rule("Gemm", _gemm_left, _gemm_right, _gemm_bias)


_SIZE = "the size of its matrices is only known at run time"


def _det(c: Call, g: ir.Value) -> ir.Value:
    """Return dx_ij = g (-1)^(i+j) det(x without row i and column j).

    Unlike g y inv(x)^T, this is right for singular matrices too.
    """
    x = c.x(0)
    n = c.static(x, -1) or c.static(x, -2)
    if n is None:
        raise c.refuse(_SIZE)
    expanded = c.op("Unsqueeze", g, c.builder.ints(-1, -2))
    if n == 1:
        return expanded
    others = np.array([[k for k in range(n) if k != i] for i in range(n)])
    minors = others[:, None, :, None] * n + others[None, :, None, :]  # [i, j, row, column]
    flat = c.op("Reshape", x, c.builder.ints(*[0] * (c.rank(x) - 2), n * n))
    cofactors = c.op("Det", c.op("Gather", flat, c.builder.constant(minors), axis=-1))
    signs = c.builder.constant((-1.0) ** np.add.outer(range(n), range(n)), c.kind)
    return c.op("Mul", expanded, c.op("Mul", cofactors, signs))


rule("Det", _det, refuses=[_SIZE])
