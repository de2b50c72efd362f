"""The gradient of a MaxPool whose windows tile the image, without indices.

The runtime's MaxPool is an order of magnitude slower when it returns indices. Where windows do
not overlap, each output can be repeated over its window and compared with the input instead.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.windows import Windows

_MOST = 9  # positions in a window; their powers of two must be exact in half precision too
_RESIZED = {ir.DataType.FLOAT, ir.DataType.FLOAT16}  # what the runtime can resize


def tiled_max(c: Call, g: ir.Value, w: Windows) -> ir.Value | None:
    """Return ``[T, *input]`` from ``g``, ``[T, *output]``; ``None`` where windows do not tile.

    Position ``p`` of a window has the weight ``2^(P-1-p)``. Summed over the positions that attain
    the maximum, the weights are at least that of the first and less than twice it. So the highest
    power of two in the sum is the weight of the first maximum.
    """
    x, y, op = c.x(0), c.y, c.op
    static = [c.static(v, i) for v in (x, y) for i in range(1, c.rank(v))]
    sizes = [n for n in static if n is not None]
    if len(sizes) < len(static) or len(w.kernel) != 2 or not c.walk.finite:
        return None
    channels, lengths, counts = sizes[0], sizes[1:3], sizes[4:]
    plain = not w.padded and w.strides == w.kernel and w.dilations == [1, 1]
    if not plain or c.kind not in _RESIZED or not 1 < np.prod(w.kernel) <= _MOST:
        return None
    covered = [k * n for k, n in zip(w.kernel, counts, strict=True)]
    if any(m > n for m, n in zip(covered, lengths, strict=True)):
        return None  # an image smaller than a window
    if covered != lengths:
        ints = c.builder.ints
        sizes_of_x, kind = c.dims(x), x.type
        x = op("Slice", x, ints(0, 0), ints(*covered), ints(2, 3))
        x.shape, x.type = ir.Shape([*sizes_of_x[:2], *covered]), kind
    powers = 2.0 ** np.arange(np.prod(w.kernel))[::-1].reshape(w.kernel)
    weights = c.builder.constant(np.tile(powers, (channels, 1, 1, 1)), c.kind)
    hits = op("Cast", op("Equal", x, c.builder.repeat(y, w.kernel)), to=c.kind)
    total = op("Conv", hits, weights, strides=w.kernel, group=channels, kernel_shape=w.kernel)
    first = _highest_power(c, total, int(powers.max()))
    own = c.builder.constant(np.tile(powers, counts)[None, None], c.kind)
    mask = op("Cast", op("Equal", c.builder.repeat(first, w.kernel), own), to=c.kind)
    spread = c.split_t(c.builder.repeat(c.merge_t(g, y), w.kernel), x)
    dx = op("Mul", spread, mask)
    missing = [n - m for n, m in zip(lengths, covered, strict=True)]
    return op("Pad", dx, c.builder.ints(*[0] * 8, *missing)) if any(missing) else dx


def _highest_power(c: Call, total: ir.Value, most: int) -> ir.Value:
    """Return the highest power of two that is not above ``total``, 1 at least."""
    found = c.like(1.0)
    power = 2
    while power <= most:
        step = c.op("Cast", c.op("GreaterOrEqual", total, c.like(power)), to=c.kind)
        found = c.op("Add", found, c.op("Mul", step, c.like(power - power // 2)))
        power *= 2
    return found
