"""Operators that move elements: reshaping, slicing, joining, padding.

Their gradients move the elements back; where an element was read twice, both are added.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.registry import Call, rule


def _back_to_shape(c: Call, g: ir.Value) -> ir.Value:
    return c.unfold(g, c.x(0))


rule("Reshape", _back_to_shape, None)
rule("Squeeze", _back_to_shape, None)
rule("Unsqueeze", _back_to_shape, None)
rule("Flatten", _back_to_shape)


def _transpose(c: Call, g: ir.Value) -> ir.Value:
    rank = c.rank(c.x(0))
    order = c.attribute("perm", list(range(rank))[::-1])
    return c.op("Transpose", g, perm=[0, *(int(i) + 1 for i in np.argsort(order))])


rule("Transpose", _transpose)
rule("Expand", lambda c, g: g, None, broadcasts=True)


def _length(c: Call, value: ir.Value, axis: int) -> ir.Value:
    """Return the length of one axis as a vector of one int64."""
    known = c.static(value, axis)
    if known is not None:
        return c.builder.ints(known)
    return c.op("Gather", c.op("Shape", value), c.builder.ints(axis), axis=0)


def _concat(c: Call, g: ir.Value, index: int) -> ir.Value:
    axis = c.axis(c.y)
    start = c.builder.ints(0)
    lengths = [c.static(v, axis) for v in c.node.inputs[:index] if v is not None]
    if all(n is not None for n in lengths):
        start = c.builder.ints(sum(n for n in lengths if n is not None))
    else:
        for earlier in range(index):
            start = c.op("Add", start, _length(c, c.x(earlier), axis))
    end = c.op("Add", start, _length(c, c.x(index), axis))
    known = c.static(c.x(index), axis)
    if known is not None and all(n is not None for n in lengths):
        end = c.builder.ints(sum(n for n in lengths if n is not None) + known)
    return c.op("Slice", g, start, end, c.builder.ints(axis))


rule("Concat", variadic=_concat)


def _split(c: Call, gs: list[ir.Value | None]) -> ir.Value:
    axis = c.axis(c.x(0))
    like = next(g for g in gs if g is not None)
    leading = c.op("Slice", c.op("Shape", like), c.builder.ints(0), c.builder.ints(1))
    parts = []
    for g, output in zip(gs, c.node.outputs, strict=True):
        if g is None:  # nobody differentiable reads this part
            shape = c.op("Concat", leading, c.builder.shape(output), axis=0)
            g = c.op("Expand", c.like(0.0), shape)
        parts.append(g)
    return c.op("Concat", *parts, axis=axis)


rule("Split", _split, None, all_outputs=True)  # type: ignore[arg-type]


def _slice_bounds(c: Call) -> list[tuple[int, int, int, int]]:
    """Return (axis, start, end, step) with the axis not negative and bounds inside."""
    x = c.x(0)
    rank = c.rank(x)
    starts = c.known(1, "starts").tolist()
    ends = c.known(2, "ends").tolist()
    axes = c.optional(3, "axes")
    steps = c.optional(4, "steps")
    places = list(range(len(starts))) if axes is None else axes.tolist()
    strides = [1] * len(starts) if steps is None else steps.tolist()
    found = []
    for axis, start, end, step in zip(places, starts, ends, strides, strict=True):
        axis = axis % rank
        length = c.static(x, axis)
        if length is None:
            raise c.refuse(f"axis {axis} has a length that only the run knows")
        first, last, step = slice(start, end, step).indices(length)
        found.append((axis, first, last, step))
    return found


def _slice(c: Call, g: ir.Value) -> ir.Value:
    """Put the cotangent back between zeros; a strided slice is spread out by scattering."""
    x = c.x(0)
    rank = c.rank(x)
    pads = np.zeros((2, rank + 1), np.int64)
    for axis, start, end, step in _slice_bounds(c):
        length = c.static(x, axis)
        assert length is not None
        if step == 1:
            pads[:, axis + 1] = start, length - max(end, start)
            continue
        picked = np.array(range(start, end, step), np.int64)
        rows = np.full(length, len(picked), np.int64)  # one row of zeros follows the picked
        rows[picked] = np.arange(len(picked))
        padded = np.zeros((2, rank + 1), np.int64)
        padded[1, axis + 1] = 1
        g = c.op("Pad", g, c.builder.constant(padded.ravel()))
        g = c.op("Gather", g, c.builder.constant(rows), axis=axis + 1)
    return c.op("Pad", g, c.builder.constant(pads.ravel())) if pads.any() else g


rule("Slice", _slice, None, None, None, None)


def _gather(c: Call, g: ir.Value) -> ir.Value:
    """Sum the picked elements back: a product with the one-hot matrix of the indices."""
    x, indices = c.x(0), c.x(1)
    axis = int(c.attribute("axis", 0)) % c.rank(x)
    picked = c.rank(indices)
    length = c.builder.op("Squeeze", _length(c, x, axis), c.builder.ints(0))
    pair = c.builder.constant(np.array([0, 1]), x.dtype or ir.DataType.FLOAT)
    flat = c.op("Reshape", indices, c.builder.ints(-1))
    hot = c.op("OneHot", flat, length, pair, axis=-1)  # [indices, length]
    rank = c.rank(c.y) + 1
    where = [axis + 1 + i for i in range(picked)]
    others = [i for i in range(rank) if i not in where]
    moved = c.op("Transpose", g, perm=[*others, *where])
    keep = c.op("Slice", c.op("Shape", moved), c.builder.ints(0), c.builder.ints(len(others)))
    count = c.op("Shape", flat)
    rows = c.op("Reshape", moved, c.op("Concat", keep, count, axis=0))
    summed = c.op("MatMul", rows, hot)  # [others, length]
    last = len(others)
    back = [*range(axis + 1), last, *range(axis + 1, last)]
    return c.op("Transpose", summed, perm=back)


rule("Gather", _gather, None)


def _pad(c: Call, g: ir.Value) -> ir.Value:
    mode = c.attribute("mode", "constant")
    if mode != "constant":
        raise c.refuse(f"padding mode '{mode}' has no rule yet")
    pads = c.known(1, "pads").tolist()
    axes = c.optional(3, "axes")
    rank = c.rank(c.x(0))
    places = [a % rank for a in (range(rank) if axes is None else axes.tolist())]
    half = len(places)
    before, after = pads[:half], pads[half:]
    used = [i for i in range(half) if before[i] or after[i]]
    if any(before[i] < 0 or after[i] < 0 for i in used):
        negative = np.zeros((2, rank + 1), np.int64)
        for i in used:
            negative[:, places[i] + 1] = -before[i], -after[i]
        return c.op("Pad", g, c.builder.constant(negative.ravel()))
    if not used:
        return g
    far = np.iinfo(np.int64).max
    starts = [before[i] for i in used]
    ends = [-after[i] if after[i] else far for i in used]
    return c.op(
        "Slice",
        g,
        c.builder.ints(*starts),
        c.builder.ints(*ends),
        c.builder.ints(*(places[i] + 1 for i in used)),
    )


rule("Pad", _pad, None, None, None)


def _blocks_back(c: Call, g: ir.Value, order: list[int], split: list[int]) -> ir.Value:
    x = c.x(0)
    folded = c.fold(g, c.y)
    pieces = c.op("Reshape", folded, c.builder.ints(*split))
    return c.unfold(c.op("Transpose", pieces, perm=order), x)


def _depth_to_space(c: Call, g: ir.Value) -> ir.Value:
    block = int(c.attribute("blocksize", 1))
    depth, height, width = (c.static(c.x(0), i) for i in (1, 2, 3))
    if depth is None or height is None or width is None:
        raise c.refuse("its input's shape is only known at run time")
    split = [-1, depth // block**2, height, block, width, block]
    # DCR keeps the block's place in the outer channel axes, CRD in the inner ones.
    dcr = c.attribute("mode", "DCR") == "DCR"
    return _blocks_back(c, g, [0, 3, 5, 1, 2, 4] if dcr else [0, 1, 3, 5, 2, 4], split)


def _space_to_depth(c: Call, g: ir.Value) -> ir.Value:
    block = int(c.attribute("blocksize", 1))
    depth, height, width = (c.static(c.x(0), i) for i in (1, 2, 3))
    if depth is None or height is None or width is None:
        raise c.refuse("its input's shape is only known at run time")
    split = [-1, block, block, depth, height // block, width // block]
    return _blocks_back(c, g, [0, 3, 4, 1, 5, 2], split)


rule("DepthToSpace", _depth_to_space)
rule("SpaceToDepth", _space_to_depth)
