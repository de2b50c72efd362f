"""Sliding windows: their geometry, and the transpose of reading them.

With kernel ``k``, stride ``s``, dilation ``d`` and ``p`` begin pads, output ``o`` reads the
inputs ``s*o - p + d*i``, ``i < k``; ``ConvTranspose`` is the transpose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnxcam.gradient.call import Call


@dataclass(frozen=True)
class Windows:
    """Geometry of a node's windows.

    Where they are only known at run time, the pads are ``None`` and the kernel is empty.
    """

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    begin: list[int] | None
    end: list[int] | None
    auto_pad: str
    ceil_mode: bool

    @property
    def extent(self) -> list[int]:
        """The length that each window covers, ``d (k - 1) + 1``."""
        return [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]

    @property
    def padded(self) -> bool:
        """Whether a window may reach over the input's edge."""
        return self.ceil_mode or self.begin is None or any(self.begin) or any(self.end or [])


def windows(c: Call, kernel: list[int]) -> Windows:
    """Read the geometry of a Conv or pooling node."""
    space = c.rank(c.x(0)) - 2
    strides = c.attribute("strides", [1] * space)
    dilations = c.attribute("dilations", [1] * space)
    auto = c.attribute("auto_pad", "NOTSET")
    begin: list[int] | None = [0] * space
    end: list[int] | None = [0] * space
    if auto in ("", "NOTSET"):
        pads = c.attribute("pads", [0] * (2 * space))
        begin, end = pads[:space], pads[space:]
    elif auto != "VALID":
        same = _same_pads(c, auto, kernel, strides, dilations) if kernel else (None, None)
        begin, end = same
    return Windows(kernel, strides, dilations, begin, end, auto, bool(c.attribute("ceil_mode", 0)))


def _same_pads(
    c: Call, auto: str, kernel: list[int], strides: list[int], dilations: list[int]
) -> tuple[list[int] | None, list[int] | None]:
    """SAME: ceil(n / s) outputs, the odd pad after (UPPER) or before (LOWER)."""
    begin, end = [], []
    for axis, (k, s, d) in enumerate(zip(kernel, strides, dilations, strict=True)):
        extent, length = d * (k - 1) + 1, c.static(c.x(0), axis + 2)
        if s == 1:
            total = extent - 1
        elif length is None:
            return None, None
        else:
            total = max((-(-length // s) - 1) * s + extent - length, 0)
        small, large = total // 2, total - total // 2
        begin.append(large if auto == "SAME_LOWER" else small)
        end.append(small if auto == "SAME_LOWER" else large)
    return begin, end


def overhang(c: Call, w: Windows) -> list[int] | None:
    """Return how far the last window reaches beyond the input's end; negative if it stops short.

    ``None`` if that is only known at run time.
    """
    space = range(len(w.strides))
    lengths = [n for i in space if (n := c.static(c.x(0), i + 2)) is not None]
    counts = [n for i in space if (n := c.static(c.y, i + 2)) is not None]
    if not w.kernel or w.begin is None or len(lengths) < len(space) or len(counts) < len(space):
        return None
    return [
        s * (o - 1) + e - b - n
        for s, o, e, b, n in zip(w.strides, counts, w.extent, w.begin, lengths, strict=True)
    ]


def spread(c: Call, g: ir.Value, weight: ir.Value, w: Windows, group: int) -> ir.Value:
    """Return ``[B, C, *input space]`` from ``g``, ``[B, M, *output space]``."""
    common: dict[str, Any] = {"strides": w.strides, "dilations": w.dilations, "group": group}
    if w.kernel:
        common["kernel_shape"] = w.kernel
    over = overhang(c, w)
    if w.begin is not None and over is not None:
        return c.op(
            "ConvTranspose",
            g,
            weight,
            pads=[*w.begin, *(max(o, 0) for o in over)],
            output_padding=[max(-o, 0) for o in over],
            **common,
        )
    return _crop(c, c.op("ConvTranspose", g, weight, **common), w)


def _crop(c: Call, full: ir.Value, w: Windows) -> ir.Value:
    """Crop what was spread without pads to the input's size, known only at run time."""
    space = len(w.strides)
    ints, op = c.builder.ints, c.op
    axes = ints(*range(2, space + 2))
    length = c.builder.space(c.x(0))
    reach = op("Slice", op("Shape", full), ints(2), ints(space + 2))
    if w.begin is not None:
        begin = ints(*w.begin)
    else:
        total = op("Max", op("Sub", reach, length), ints(0))
        half = op("Div", total, ints(2))
        begin = op("Sub", total, half) if w.auto_pad == "SAME_LOWER" else half
    end = op("Add", begin, length)
    missing = op("Max", op("Sub", end, reach), ints(0))
    pads = op("Concat", ints(*[0] * (space + 4)), missing, axis=0)
    return op("Slice", op("Pad", full, pads), begin, end, axes)
