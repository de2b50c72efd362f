"""The gradient of a convolution with respect to its kernel.

A convolution and its transpose both pair a long signal with a short one: through kernel element
``k``, element ``o`` of the short one meets element ``s*o - p + d*k`` of the long one. The long
signal is the input of Conv and the output of ConvTranspose.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.gradient.backward import length_of_t
from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.lengths import Length, combine, length, vector
from onnxcam.gradient.helpers.windows import Windows

Margins = tuple[list[int], list[int]] | tuple[ir.Value, ir.Value]


def margins(
    c: Call, w: Windows, long: ir.Value, short: ir.Value, weight: ir.Value | None = None
) -> Margins:
    """Return the pads before and after ``long`` with which its windows fill it exactly.

    Its length is then ``s * (short - 1) + extent``; negative pads crop. Automatic pads are
    halved, the odd one after (SAME_UPPER) or before; they make up for output_padding too.
    """
    space = range(2, len(w.strides) + 2)
    longs, shorts = [c.static(long, i) for i in space], [c.static(short, i) for i in space]
    added = c.attribute("output_padding", [0] * len(space))
    odd = 0 if w.auto_pad == "SAME_UPPER" else 1
    if w.kernel and None not in longs + shorts:
        total = [
            s * (o - 1) + e - n
            for s, o, e, n in zip(w.strides, shorts, w.extent, longs, strict=True)
            if o is not None and n is not None
        ]
        begin = w.begin
        if begin is None:
            begin = [(max(t + a, 0) + odd) // 2 for t, a in zip(total, added, strict=True)]
        return begin, [t - b for t, b in zip(total, begin, strict=True)]
    op, ints = c.op, c.builder.ints
    steps = op("Mul", op("Sub", c.builder.space(short), ints(1)), ints(*w.strides))
    reach = op("Add", steps, _extent(c, w, weight))
    missing = op("Sub", reach, c.builder.space(long))
    if w.begin is not None:
        before = ints(*w.begin)
    else:
        pads = op("Max", op("Add", missing, ints(*added)), ints(0))
        before = op("Div", op("Add", pads, ints(odd)), ints(2))
    return before, op("Sub", missing, before)


def _extent(c: Call, w: Windows, weight: ir.Value | None) -> ir.Value:
    if w.kernel:
        return c.builder.ints(*w.extent)
    assert weight is not None
    gaps = c.op("Sub", c.builder.space(weight), c.builder.ints(1))
    return c.op("Add", c.op("Mul", gaps, c.builder.ints(*w.dilations)), c.builder.ints(1))


def framed(c: Call, long: ir.Value, around: Margins) -> tuple[ir.Value, list[int]]:
    """Return ``long``, ``[B, C, *S]``, and the pads that the Conv reading it has to add.

    Conv adds neither negative pads nor computed ones, so these are added here.
    """
    begin, end = around
    if isinstance(begin, ir.Value):
        assert isinstance(end, ir.Value)
        none = c.builder.ints(0, 0)
        return c.op("Pad", long, c.op("Concat", none, begin, none, end, axis=0)), []
    assert not isinstance(end, ir.Value)
    if min([*begin, *end]) >= 0:
        return long, [*begin, *end]
    return c.op("Pad", long, c.builder.ints(0, 0, *begin, 0, 0, *end)), []


def kernel_gradient(
    c: Call,
    w: Windows,
    weight: ir.Value,
    long: tuple[ir.Value, ir.Value],
    short: tuple[ir.Value, ir.Value],
    g: ir.Value,
) -> ir.Value:
    """Return ``dw[m, c, k] = sum over n, o of long[n, c, s*o - p + d*k] short[n, m, o]``.

    It is a convolution of the long side with the short one as its kernel: stride and dilation
    swap roles, and so do batch and channels. Groups stay groups.

    Args:
        c: the call.
        w: the geometry of the node's windows.
        weight: the node's weight, ``[G * M, C, *K]``.
        long: the tensor, and the value whose shape it has (after ``T`` where it is ``g``).
        short: likewise.
        g: which of the two tensors has the leading axis ``T``.
    """
    group, op = int(c.attribute("group", 1)), c.op
    rank = c.rank(weight)
    rest = list(range(4, rank + 2))
    T = length_of_t(c.builder, g)

    def split(side: tuple[ir.Value, ir.Value], *order: int) -> ir.Value:
        """Reshape to ``[T or 1, N, G, C, *S]`` and put the axes in this order."""
        tensor, like = side
        first: Length = T if tensor is g else 1
        sizes = [length(c, like, 0), group, -1, *(length(c, like, i) for i in range(2, rank))]
        parts = op("Reshape", tensor, vector(c, first, *sizes))
        return op("Transpose", parts, perm=[*order, *rest])

    def joined(tensor: ir.Value, side: tuple[ir.Value, ir.Value], groups: int) -> ir.Value:
        like = side[1]
        channels = combine(c, "Mul", length(c, like, 0), groups)
        return op(
            "Reshape",
            tensor,
            vector(c, -1, channels, *(length(c, like, i) for i in range(2, rank))),
        )

    signal = joined(split(long, 0, 3, 2, 1), long, group)  # [T C, G N, *long]
    kernel = joined(split(short, 2, 0, 3, 1), short, 1)  # [G T M, N, *short]
    signal, pads = framed(c, signal, margins(c, w, long[1], short[1], weight))
    found = op(
        "Conv",
        signal,
        kernel,
        strides=w.dilations,
        dilations=w.strides,
        group=group,
        **({"pads": pads} if pads else {}),
    )
    leading = [T if side[0] is g else 1 for side in (long, short)]
    sizes = [length(c, weight, i) for i in range(1, rank)]
    parts = vector(c, leading[0], sizes[0], group, leading[1], -1, *sizes[1:])
    spread = op("Reshape", found, parts)
    moved = op("Transpose", spread, perm=[0, 3, 2, 4, 1, *range(5, rank + 3)])
    return c.split_t(moved, weight)
