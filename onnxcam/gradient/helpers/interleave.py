"""Interleave images along one spatial axis."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxcam.gradient.call import Call


def interleaved(
    c: Call, phases: Sequence[ir.Value], axis: int, shape: Sequence[int | str | None]
) -> ir.Value:
    """Return ``y`` with ``y[s i + r] = phases[r][i]`` along ``axis``; all are ``[N, C, H, W]``.

    Args:
        c: the node whose gradient this belongs to.
        phases: ``s`` images of equal shape.
        axis: 2 or 3.
        shape: of the result, whose last two axes are known.
    """
    if len(phases) == 1:
        return phases[0]
    ints = c.builder.ints
    whole = [int(d) for d in shape[1:] if isinstance(d, int)]
    parts = [c.op("Unsqueeze", phase, ints(axis + 1)) for phase in phases]
    joined = c.op("Concat", *parts, axis=axis + 1)
    return c.op("Reshape", joined, ints(0, *whole))
