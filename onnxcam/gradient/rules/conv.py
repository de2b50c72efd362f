"""Convolutions, one to three spatial axes."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.kernel_gradient import framed, kernel_gradient, margins
from onnxcam.gradient.helpers.lengths import combine, length, vector
from onnxcam.gradient.helpers.strided import strided_input
from onnxcam.gradient.helpers.windows import Windows, spread, windows
from onnxcam.gradient.registry import rule


def _kernel(c: Call) -> list[int]:
    """Return the kernel's lengths; ``[]`` where they are only known at run time."""
    kernel: list[int | str | None] = c.attribute("kernel_shape", None) or c.dims(c.x(1))[2:]
    known = [k for k in kernel if isinstance(k, int)]
    return known if len(known) == len(kernel) else []


def _flipped(c: Call, weight: ir.Value, group: int, kernel: list[int]) -> ir.Value:
    """Swap input and output channels within each group and flip the kernel.

    Written as operators on the stored weight, which the runtime folds once per session.
    """
    space = len(kernel)
    outputs, inputs = length(c, weight, 0), length(c, weight, 1)
    if inputs == 1 and outputs == group:  # depthwise: nothing to swap
        swapped = weight
    elif group == 1:
        swapped = c.op("Transpose", weight, perm=[1, 0, *range(2, space + 2)])
    else:
        split = vector(c, group, -1, inputs, *kernel)
        parts = c.op("Reshape", weight, split)
        parts = c.op("Transpose", parts, perm=[0, 2, 1, *range(3, space + 3)])
        swapped = c.op("Reshape", parts, vector(c, combine(c, "Mul", inputs, group), -1, *kernel))
    flipped = [i for i, k in enumerate(kernel) if k > 1]
    if not flipped:
        return swapped
    ints = c.builder.ints
    least = -(2**62)
    return c.op(
        "Slice",
        swapped,
        ints(*[-1] * len(flipped)),
        ints(*[least] * len(flipped)),
        ints(*(i + 2 for i in flipped)),
        ints(*[-1] * len(flipped)),
    )


def _conv_input(c: Call, g: ir.Value) -> ir.Value:
    """Return dx: g, its elements ``stride`` apart, convolved with the flipped kernel."""
    kernel = _kernel(c)
    w = windows(c, kernel)
    group = int(c.attribute("group", 1))
    merged = c.merge_t(g, c.y)
    pads = _flipped_pads(w)
    if not kernel:
        dx = spread(c, merged, c.x(1), w, group)
    elif pads is None:
        strided = strided_input(c, merged, lambda: _flipped(c, c.x(1), group, kernel), w, group)
        dx = spread(c, merged, c.x(1), w, group) if strided is None else strided
    else:
        dx = c.op(
            "Conv",
            merged,
            _flipped(c, c.x(1), group, kernel),
            pads=pads,
            dilations=w.dilations,
            group=group,
            kernel_shape=kernel,
        )
    return c.split_t(dx, c.x(0), merged=True)


def _flipped_pads(w: Windows) -> list[int] | None:
    """Return the pads of that convolution; ``None`` where it is strided or a pad is negative."""
    if not w.kernel or any(s != 1 for s in w.strides) or w.begin is None or w.end is None:
        return None
    begin = [e - 1 - b for e, b in zip(w.extent, w.begin, strict=True)]
    end = [e - 1 - a for e, a in zip(w.extent, w.end, strict=True)]
    return [*begin, *end] if min([*begin, *end]) >= 0 else None


def _conv_weight(c: Call, g: ir.Value) -> ir.Value:
    """Return dw, the correlation of the input with g."""
    w = windows(c, _kernel(c))
    return kernel_gradient(c, w, c.x(1), (c.x(0), c.x(0)), (g, c.y), g)


def _bias(c: Call, g: ir.Value) -> ir.Value:
    """Return db, the sum of g over batch and space."""
    return c.builder.sum(g, [1, *range(3, c.rank(c.y) + 1)])


rule("Conv", _conv_input, _conv_weight, _bias)


_DISAGREE = (
    "runtimes disagree on auto_pad with a stride beyond the kernel",
    "runtimes disagree on auto_pad with output_padding",
)


def _transposed_windows(c: Call) -> Windows:
    """Return the windows of ConvTranspose over its output; automatic pads are ``None``."""
    kernel, auto = _kernel(c), c.attribute("auto_pad", "NOTSET")
    if c.attribute("output_shape", None) is None and auto in ("", "NOTSET", "VALID"):
        return windows(c, kernel)
    w = replace(windows(c, kernel), begin=None, end=None)
    if c.attribute("output_shape", None) is None:
        if any(c.attribute("output_padding", [])):
            raise c.refuse(_DISAGREE[1])
        if kernel and any(e < s for e, s in zip(w.extent, w.strides, strict=True)):
            raise c.refuse(_DISAGREE[0])
    return w


def _conv_transpose_input(c: Call, g: ir.Value) -> ir.Value:
    """Return dx, the convolution of g with the weight."""
    w = _transposed_windows(c)
    around = margins(c, w, c.y, c.x(0), c.x(1))
    signal, pads = framed(c, c.merge_t(g, c.y), around)
    known = {"kernel_shape": w.kernel, "pads": pads}
    dx = c.op(
        "Conv",
        signal,
        c.x(1),
        strides=w.strides,
        dilations=w.dilations,
        group=int(c.attribute("group", 1)),
        **{name: value for name, value in known.items() if value},
    )
    return c.split_t(dx, c.x(0), merged=True)


def _conv_transpose_weight(c: Call, g: ir.Value) -> ir.Value:
    """Return dw, the correlation of g with the input."""
    return kernel_gradient(c, _transposed_windows(c), c.x(1), (g, c.y), (c.x(0), c.x(0)), g)


rule("ConvTranspose", _conv_transpose_input, _conv_transpose_weight, _bias, refuses=_DISAGREE)
