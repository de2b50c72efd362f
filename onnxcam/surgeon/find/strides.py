"""Which maps of a network have one size, also where only the run knows the sizes."""

from __future__ import annotations

from fractions import Fraction
from typing import TypeAlias

import onnx_ir as ir

from onnxcam.graph.operators import Trait, has
from onnxcam.graph.values import constant, dims

Size: TypeAlias = tuple[int | Fraction, ...]


def sizes(graph: ir.Graph, image: ir.Value) -> dict[ir.Value, Size]:
    """Return the rows and columns of every map ``[N, K, H, W]`` that is computed from an image.

    Where the graph does not tell them, for files of dynamic size, how many of the image's rows and
    columns one of the map's stands for: maps of one such stride have one size. Maps of which
    neither is known are left out.
    """
    strides: dict[ir.Value, tuple[Fraction, Fraction]] = {image: (Fraction(1), Fraction(1))}
    found = dict[ir.Value, Size]()
    for node in graph:
        stride = _stride(node, strides)
        for value in node.outputs:
            shape = dims(value) or []
            if len(shape) != 4:
                continue
            if stride is not None:
                strides[value] = stride
            known = [d for d in shape[2:] if isinstance(d, int)]
            if len(known) == 2:
                found[value] = tuple(known)
            elif stride is not None:
                found[value] = stride
    return found


def _stride(
    node: ir.Node, strides: dict[ir.Value, tuple[Fraction, Fraction]]
) -> tuple[Fraction, Fraction] | None:
    """Return the stride of what a node computes, ``None`` where it is unknown."""
    before = next((strides[v] for v in node.inputs if v in strides), None)
    if before is None or has(node, Trait.RESHAPES) or node.op_type.startswith("Global"):
        return None
    if node.op_type in ("Resize", "Upsample"):
        scales = next((a for v in node.inputs[1:] if (a := _four(v)) is not None), None)
        if scales is None:
            return None
        steps = [1 / Fraction(float(s)).limit_denominator(1024) for s in scales[2:]]
    elif node.op_type in ("SpaceToDepth", "DepthToSpace"):
        block = Fraction(node.attributes.get_int("blocksize", 1))
        steps = [block if node.op_type == "SpaceToDepth" else 1 / block] * 2
    else:
        windows = has(node, Trait.CONVOLUTION | Trait.POOLS) or node.op_type == "LpPool"
        given = node.attributes.get_ints("strides", [1, 1]) if windows else [1, 1]
        if len(given) != 2:
            return None
        turned = node.op_type == "ConvTranspose"
        steps = [Fraction(1, s) if turned else Fraction(s) for s in given]
    return before[0] * steps[0], before[1] * steps[1]


def _four(value: ir.Value | None) -> list[float] | None:
    """Return four stored positive scales, of images, channels, rows and columns."""
    array = constant(value)
    if array is None or array.size != 4 or array.dtype.kind != "f" or not (array > 0).all():
        return None
    return [float(s) for s in array]
