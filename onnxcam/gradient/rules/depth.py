"""Operators that move blocks of space into depth and back."""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.lengths import length, vector
from onnxcam.gradient.registry import rule


def _depth_to_space(c: Call, g: ir.Value) -> ir.Value:
    """SpaceToDepth undoes mode DCR, which keeps the block's place in the outer channel axes.

    Mode CRD keeps it in the inner ones, and is undone by hand.
    """
    block, x = int(c.attribute("blocksize", 1)), c.x(0)
    folded = c.merge_t(g, c.y)
    if c.attribute("mode", "DCR") == "DCR":
        return c.split_t(c.op("SpaceToDepth", folded, blocksize=block), x)
    channels, height, width = length(c, c.y, 1), length(c, x, 2), length(c, x, 3)
    pieces = c.op("Reshape", folded, vector(c, -1, channels, height, block, width, block))
    return c.split_t(c.op("Transpose", pieces, perm=[0, 1, 3, 5, 2, 4]), x)


def _space_to_depth(c: Call, g: ir.Value) -> ir.Value:
    """DepthToSpace of the same mode, which opset 28 brought, undoes it."""
    block, mode = int(c.attribute("blocksize", 1)), c.attribute("mode", "DCR")
    return c.split_t(c.op("DepthToSpace", c.merge_t(g, c.y), blocksize=block, mode=mode), c.x(0))


rule("DepthToSpace", _depth_to_space)
rule("SpaceToDepth", _space_to_depth)
