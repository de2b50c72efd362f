"""Operators that move blocks of space into depth and back."""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.lengths import length, vector
from onnxcam.gradient.registry import rule


def _depth_to_space(c: Call, g: ir.Value) -> ir.Value:
    """Undo mode DCR, whose outer channel axes hold the block, by SpaceToDepth.

    Undo mode CRD, whose inner channel axes hold it, by Reshape and Transpose.
    """
    block, x = int(c.attribute("blocksize", 1)), c.x(0)
    merged = c.merge_t(g, c.y)
    if c.attribute("mode", "DCR") == "DCR":
        return c.split_t(c.op("SpaceToDepth", merged, blocksize=block), x)
    channels, height, width = length(c, c.y, 1), length(c, x, 2), length(c, x, 3)
    pieces = c.op("Reshape", merged, vector(c, -1, channels, height, block, width, block))
    return c.split_t(c.op("Transpose", pieces, perm=[0, 1, 3, 5, 2, 4]), x)


def _space_to_depth(c: Call, g: ir.Value) -> ir.Value:
    """Undo it by DepthToSpace of the same mode (an attribute from opset 28 on)."""
    block, mode = int(c.attribute("blocksize", 1)), c.attribute("mode", "DCR")
    return c.split_t(c.op("DepthToSpace", c.merge_t(g, c.y), blocksize=block, mode=mode), c.x(0))


rule("DepthToSpace", _depth_to_space)
rule("SpaceToDepth", _space_to_depth)
