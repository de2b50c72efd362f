"""Find several layers: those that are named, or a sweep from deep to shallow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxcam.errors import LayerError
from onnxcam.graph.values import dims, names
from onnxcam.surgeon.find.attention import attended, attention
from onnxcam.surgeon.find.layer import candidates, find_layer
from onnxcam.surgeon.find.layouts import Kind, Layouts
from onnxcam.surgeon.words import STAGES, SWEEP

MOST = 8  # layers of a sweep
SIZES = 4  # of maps in stages: those of ResNet, without its first convolution
_SIDES = {"first": Kind.MAPS, "last": Kind.LAST}


def find_layers(
    graph: ir.Graph, image: ir.Value, score: ir.Value, requested: Sequence[str], layouts: Layouts
) -> list[tuple[ir.Value, Kind | None]]:
    """Return the tensors to explain, and how each is read where that is said.

    Args:
        graph: a prepared graph.
        image: the image input.
        score: the score tensor.
        requested: each as :func:`onnxcam.surgeon.find.layer.find_layer` takes it, and after a name
            perhaps ``":first"`` or ``":last"``, where its channels are; or ``"sweep"`` alone,
            candidates from the default back to the first, evenly picked; or ``STAGES`` of
            :mod:`onnxcam.surgeon.words`, the last of each size, the default first.
        layouts: those of the graph.

    Raises:
        LayerError: one does not fit, or two are the same.
    """
    if list(requested) == [SWEEP]:
        every = _from_first(graph, image, score, layouts)
        count = min(MOST, len(every))
        return [(every[round(i)], None) for i in np.linspace(len(every) - 1, 0, count)]
    if list(requested) == [STAGES]:
        every = _from_first(graph, image, score, layouts)
        last = {tuple((dims(value) or [])[2:]): value for value in every}
        return [(v, None) for v in sorted(last.values(), key=every.index)[: -SIZES - 1 : -1]]
    known = {*names(graph), *(n.name for n in graph)}
    found: dict[ir.Value, str] = {}
    kinds = []
    for one in requested:
        name, colon, side = one.rpartition(":")
        said = colon and one not in known and side in _SIDES
        value = find_layer(graph, image, score, name if said else one, layouts)
        if value in found:
            raise LayerError(
                f"the layers '{found[value]}' and '{one}' are one tensor, '{value.name}': name it "
                "once."
            )
        found[value] = one
        kinds.append(_SIDES[side] if said else None)
    return list(zip(found, kinds, strict=True))


def _from_first(
    graph: ir.Graph, image: ir.Value, score: ir.Value, layouts: Layouts
) -> list[ir.Value]:
    """Return the maps of convolutions, and what attention reads, the default last."""
    default = find_layer(graph, image, score, layouts=layouts)
    maps = [c.value for c in candidates(graph, image, score) if c.place <= 0]
    tokens = [attended(n, layouts) for n in attention(graph, (maps or [image])[-1], score)]
    tokens = [t for t in tokens if t is not None and layouts.of(t) is not None]
    found, most = list[ir.Value](), 0
    for value in maps:
        shape = dims(value) or []
        channels = shape[1] if len(shape) == 4 and isinstance(shape[1], int) else 0
        if channels >= most:  # fewer: inside a bottleneck
            found, most = [*found, value], channels
    return list(dict.fromkeys([*found, *(t for t in tokens if t is not None), default]))
