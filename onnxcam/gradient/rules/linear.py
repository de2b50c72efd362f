"""Matrix products and reductions."""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.gradient.registry import Call, rule
from onnxcam.gradient.walker import unbroadcast


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
    grown = []
    for i, size in enumerate(sizes):
        j = i - own + len(theirs)
        against = theirs[j] if j >= 0 else 1
        if size == 1 and against != 1:
            grown.append(i + 1)
        elif not isinstance(size, int) and against != 1 and (size is None or size != against):
            raise c.refuse("whether its batch is broadcast is only known at run time")
    return c.builder.sum(g, grown, keepdims=True)


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

# --- reductions


def _reduced_axes(c: Call) -> list[int]:
    """Return the reduced axes counted from the end."""
    rank = c.rank(c.x(0))
    axes = c.attribute("axes", None)
    if axes is None and c.operand(1) is not None:
        axes = c.known(1, "axes").tolist()
    if not axes:
        return [] if c.attribute("noop_with_empty_axes", 0) else list(range(-rank, 0))
    return sorted(a % rank - rank for a in axes)


def _spread(c: Call, value: ir.Value) -> ir.Value:
    """Give a reduced value, or its cotangent, its reduced axes back with length 1."""
    axes = _reduced_axes(c)
    if c.attribute("keepdims", 1) or not axes:
        return value
    return c.op("Unsqueeze", value, c.builder.ints(*axes))


def _expand(c: Call, g: ir.Value) -> ir.Value:
    """Repeat ``[T, *reduced]`` to ``[T, *shape of the input]``."""
    shape = c.op("Concat", c.builder.ints(1), c.builder.shape(c.x(0)), axis=0)
    if all(c.static(c.x(0), i) is not None for i in range(c.rank(c.x(0)))):
        shape = c.builder.ints(1, *(int(d) for d in c.dims(c.x(0)) if isinstance(d, int)))
    return c.op("Expand", g, shape)


def _count(c: Call) -> ir.Value:
    """Return how many elements each result sums, as a float scalar."""
    axes, x = _reduced_axes(c), c.x(0)
    lengths = [c.static(x, a) for a in axes]
    product = 1
    for length in lengths:
        if length is None:
            break
        product *= length
    else:
        return c.like(float(product))
    places = c.builder.ints(*(a % c.rank(x) for a in axes))
    sizes = c.op("Gather", c.op("Shape", x), places, axis=0)
    count = c.op("ReduceProd", sizes, keepdims=0)
    return c.op("Cast", count, to=x.dtype or ir.DataType.FLOAT)


def _reduce_extreme(c: Call, g: ir.Value) -> ir.Value:
    """Max and Min: equal elements share the gradient, as in PyTorch's amax."""
    hit = c.op("Equal", c.x(0), _spread(c, c.y))
    ones = c.op("Cast", hit, to=c.x(0).dtype or ir.DataType.FLOAT)
    share = c.op("Div", ones, c.builder.sum(ones, _reduced_axes(c), keepdims=True))
    return c.op("Mul", _spread(c, g), share)


def _reduce_l2(c: Call, g: ir.Value) -> ir.Value:
    """The direction x / |x|; 0 at the origin, as in PyTorch."""
    length = _spread(c, c.y)
    direction = c.op("Div", c.x(0), length)
    zero = c.op("Equal", length, c.like(0.0))
    return c.op("Mul", _spread(c, g), c.op("Where", zero, c.like(0.0), direction))


def _reduce_sum_square(c: Call, g: ir.Value) -> ir.Value:
    return c.op("Mul", _spread(c, g), c.op("Mul", c.x(0), c.like(2.0)))


rule("ReduceSum", lambda c, g: _expand(c, _spread(c, g)), None)
rule("ReduceMean", lambda c, g: _expand(c, c.op("Div", _spread(c, g), _count(c))), None)
rule("ReduceMax ReduceMin", _reduce_extreme, None)
rule("ReduceL2", _reduce_l2, None)
rule("ReduceSumSquare", _reduce_sum_square, None)

# --- softmax


def _softmax(c: Call, g: ir.Value) -> ir.Value:
    """Return dx = y (g - sum(g y))."""
    axis = c.axis(c.x(0), -1)
    inner = c.builder.sum(c.op("Mul", g, c.y), [axis], keepdims=True)
    return c.op("Mul", c.y, c.op("Sub", g, inner))


def _log_softmax(c: Call, g: ir.Value) -> ir.Value:
    axis = c.axis(c.x(0), -1)
    total = c.builder.sum(g, [axis], keepdims=True)
    return c.op("Sub", g, c.op("Mul", c.op("Exp", c.y), total))


rule("Softmax", _softmax)
rule("LogSoftmax", _log_softmax)
