"""Convolutions, one to three spatial axes."""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.gradient.registry import Call, rule
from onnxcam.gradient.windows import Windows, spread, windows


def _kernel(c: Call) -> list[int]:
    kernel: list[int | str | None] = c.attribute("kernel_shape", None) or c.dims(c.x(1))[2:]
    known = [k for k in kernel if isinstance(k, int)]
    if len(known) < len(kernel):
        raise c.refuse("the kernel's shape is only known at run time")
    return known


def _flipped(c: Call, weight: ir.Value, group: int, kernel: list[int]) -> ir.Value:
    """Swap input and output channels within each group and turn the kernel around.

    Written as operators on the stored weight, which the runtime folds once per session.
    """
    space = len(kernel)
    outputs, inputs = c.static(weight, 0), c.static(weight, 1)
    if outputs is None or inputs is None:
        raise c.refuse("the weight's shape is only known at run time")
    if inputs == 1 and outputs == group:  # depthwise: nothing to swap
        swapped = weight
    elif group == 1:
        swapped = c.op("Transpose", weight, perm=[1, 0, *range(2, space + 2)])
    else:
        split = c.builder.ints(group, outputs // group, inputs, *kernel)
        parts = c.op("Reshape", weight, split)
        parts = c.op("Transpose", parts, perm=[0, 2, 1, *range(3, space + 3)])
        swapped = c.op("Reshape", parts, c.builder.ints(group * inputs, -1, *kernel))
    turned = [i for i, k in enumerate(kernel) if k > 1]
    if not turned:
        return swapped
    ints = c.builder.ints
    least = -(2**62)
    return c.op(
        "Slice",
        swapped,
        ints(*[-1] * len(turned)),
        ints(*[least] * len(turned)),
        ints(*(i + 2 for i in turned)),
        ints(*[-1] * len(turned)),
    )


def _conv_input(c: Call, g: ir.Value) -> ir.Value:
    """The gradient dx is the convolution of g with the turned kernel, spread out by the stride."""
    kernel = _kernel(c)
    w = windows(c, kernel)
    group = int(c.attribute("group", 1))
    folded = c.fold(g, c.y)
    pads = _turned_pads(w)
    if pads is None:
        dx = spread(c, folded, c.x(1), w, group)
    else:
        dx = c.op(
            "Conv",
            folded,
            _flipped(c, c.x(1), group, kernel),
            pads=pads,
            dilations=w.dilations,
            group=group,
            kernel_shape=kernel,
        )
    return c.unfold(dx, c.x(0))


def _turned_pads(w: Windows) -> list[int] | None:
    """Pads of the turned convolution; ``None`` where there is a stride, or none would fit."""
    if any(s != 1 for s in w.strides) or w.begin is None or w.end is None:
        return None
    begin = [e - 1 - b for e, b in zip(w.extent, w.begin, strict=True)]
    end = [e - 1 - a for e, a in zip(w.extent, w.end, strict=True)]
    return [*begin, *end] if min([*begin, *end]) >= 0 else None


def _weight(c: Call, g: ir.Value) -> ir.Value:
    raise c.refuse("its weight is computed from the layer")


rule("Conv", _conv_input, _weight, _weight)


def _conv_transpose_input(c: Call, g: ir.Value) -> ir.Value:
    """The transpose of a transposed convolution is the convolution itself."""
    kernel = _kernel(c)
    if c.attribute("auto_pad", "NOTSET") not in ("", "NOTSET", "VALID"):
        raise c.refuse("auto_pad has no rule yet")
    if c.attribute("output_shape", None) is not None:
        raise c.refuse("output_shape has no rule yet")
    w = windows(c, kernel)
    assert w.begin is not None and w.end is not None
    dx = c.op(
        "Conv",
        c.fold(g, c.y),
        c.x(1),
        pads=[*w.begin, *w.end],
        strides=w.strides,
        dilations=w.dilations,
        group=int(c.attribute("group", 1)),
        kernel_shape=kernel,
    )
    return c.unfold(dx, c.x(0))


rule("ConvTranspose", _conv_transpose_input, _weight, _weight)
