"""Pooling windows: their geometry, what they read, and the transpose of reading."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.kernel_gradient import framed, margins
from onnxcam.gradient.helpers.windows import Windows, overhang, spread, windows

LAST_WINDOW = "runtimes disagree on a last window that lies in the padding alone"
REFUSES = (
    LAST_WINDOW,
    "runtimes disagree on auto_pad with a stride beyond the kernel",
    "runtimes disagree on auto_pad with dilations",
)


def pool_windows(c: Call) -> Windows:
    """Return the geometry of a pooling node."""
    w = windows(c, [int(k) for k in c.attribute("kernel_shape", [])])
    if w.auto_pad.startswith("SAME"):
        if any(d > 1 and k > 1 for d, k in zip(w.dilations, w.kernel, strict=True)):
            raise c.refuse(REFUSES[2])
        if any(k < s for k, s in zip(w.kernel, w.strides, strict=True)):
            raise c.refuse(REFUSES[1])
    check_last_window(c, w)
    return w


def check_last_window(c: Call, w: Windows) -> None:
    """Refuse a last window that lies wholly beyond the input's end."""
    over = overhang(c, w) if w.ceil_mode else None
    if over is not None and any(o >= e for o, e in zip(over, w.extent, strict=True)):
        raise c.refuse(LAST_WINDOW)


def spread_windows(c: Call, g: ir.Value, w: Windows) -> ir.Value:
    """Return, for each input element, the sum of ``g`` over the windows that read it.

    ``g`` is ``[T, N, K, *output space]``.
    """
    merged = c.merge_t(g, c.y, keep=2)  # [T*N*K, *S]
    merged = c.op("Unsqueeze", merged, c.builder.ints(1))  # one channel each
    ones = c.builder.constant(np.ones([1, 1, *w.kernel]), c.x(0).dtype)
    return c.split_t(spread(c, merged, ones, w, 1), c.x(0))


def ones_like_space(c: Call) -> ir.Value:
    """Return one image of ones, ``[1, 1, *input space]``."""
    shape = c.op("Concat", c.builder.ints(1, 1), c.builder.space(c.x(0)), axis=0)
    return c.op("Expand", c.like(1.0), shape)


def count_real(c: Call, ones: ir.Value, w: Windows) -> ir.Value:
    """Return how many elements each window reads besides padding, ``[1, 1, *output space]``."""
    signal, pads = framed(c, ones, margins(c, w, c.x(0), c.y))
    return c.op(
        "Conv",
        signal,
        c.builder.constant(np.ones([1, 1, *w.kernel]), c.x(0).dtype),
        strides=w.strides,
        dilations=w.dilations,
        kernel_shape=w.kernel,
        **({"pads": pads} if pads else {}),
    )
