"""Find the feature layer: the maps whose weighted sum becomes the heatmap.

Grad-CAM explains "the rectified convolutional feature maps" (Selvaraju et al. 2017): the last
convolution's maps after its normalization, activation, residual addition or concatenation,
before pooling, padding and dropout, and not the maps of class scores themselves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import onnx_ir as ir

from onnxcam.errors import LayerError, nearest
from onnxcam.graph.operators import Trait, has
from onnxcam.graph.values import (
    LAYOUT,
    NCHWC,
    depends_on,
    dims,
    is_float,
    leads_to,
    names,
    operator,
)
from onnxcam.surgeon.find.attention import attended, attention
from onnxcam.surgeon.find.layouts import MAPS, Layouts
from onnxcam.surgeon.find.quantized import DEQUANTIZED, scale_and_zero_point


@dataclass(frozen=True)
class Layer:
    """A candidate: its tensor ``[N, K, *S]`` and its place relative to the default."""

    value: ir.Value
    place: int  # 0: the default; -1: the one before it; 1: the one after it; ...


def candidates(graph: ir.Graph, image: ir.Value, score: ir.Value) -> list[Layer]:
    """Return the finished maps of every convolution between image and score, in order.

    Class-score maps, which only pooling separates from the score, have places after the default.
    """
    path = depends_on(graph, {image}) & leads_to(score)
    maps = _maps(graph, path)
    found = [v for v in maps if _is_finished(v, maps, path)]
    before_linear: set[ir.Value] = set()
    for node in graph:
        if has(node, Trait.LINEAR) and any(o in path for o in node.outputs):
            for source in node.inputs:
                if source is not None and source in path:
                    before_linear |= leads_to(source)
    eligible = [i for i, v in enumerate(found) if v in before_linear]
    # A single map is a mask or attention logits rather than features.
    last = max([i for i in eligible if (dims(found[i]) or [])[1] != 1] or eligible, default=-1)
    return [Layer(value, place - last) for place, value in enumerate(found)]


def find_layer(
    graph: ir.Graph,
    image: ir.Value,
    score: ir.Value,
    requested: str | int = "auto",
    layouts: Layouts | None = None,
) -> ir.Value:
    """Return the tensor to explain.

    Args:
        graph: a prepared graph.
        image: the image input.
        score: the score tensor.
        requested: ``"auto"``; a tensor's or node's name; or -1, -2, ... counting back from the
            default.
        layouts: those of the graph, if they are known already.

    Raises:
        LayerError: nothing fits; the message lists what there is.
    """
    requested = str(requested)
    if requested == "auto":
        return _default(graph, image, score, layouts)
    if re.fullmatch(r"[-+]?[0-9]+", requested) and requested not in names(graph):
        return _counted(candidates(graph, image, score), int(requested))
    return _named(graph, image, score, requested)


def _default(
    graph: ir.Graph, image: ir.Value, score: ir.Value, layouts: Layouts | None
) -> ir.Value:
    found = candidates(graph, image, score)
    default = next((c.value for c in found if c.place == 0), None)
    producer = None if default is None else default.producer()
    own_layout = producer is not None and _has_own_layout(producer)
    mixing = [] if own_layout else attention(graph, image if default is None else default, score)
    layouts = layouts or Layouts(graph, image)
    if mixing and (tokens := attended(mixing[-1], layouts)) is not None:
        if len(dims(tokens) or []) == 3:
            layouts.tokens(tokens)
        return tokens
    if default is None or own_layout:
        reason = "its only maps are the class scores themselves" if found else "it has no maps"
        if any(_has_own_layout(n) for n in graph):
            reason = f"ONNX Runtime has optimized the file for one processor. {LAYOUT}"
        raise LayerError(
            f"no spatial layer before the score '{score.name}': {reason}. Grad-CAM needs the "
            "maps of a convolution. To explain it at the input: --method saliency; 'onnxcam "
            "inspect MODEL --tensors' lists the tensors, and --layer names one."
        )
    if mixing:
        raise LayerError(
            f"after the last convolution's maps '{default.name}', attention mixes all positions "
            f"({operator(mixing[0])}, node '{mixing[0].name}'), so they do not tell where the "
            f"score comes from. To explain them all the same: --layer '{default.name}'."
        )
    return default


def _has_own_layout(node: ir.Node) -> bool:
    """Whether the memory layout of the node's maps is not ``[N, K, *S]``."""
    last = node.attributes.get("channels_last")
    return node.domain == NCHWC or (last is not None and bool(last.value))


def _is_number(value: ir.Value) -> bool:
    """Whether the value is floating point, or quantized with a known scale and zero point."""
    return value.dtype is None or is_float(value) or scale_and_zero_point(value) is not None


def _counted(found: list[Layer], place: int) -> ir.Value:
    for candidate in found:
        if candidate.place == place:
            return candidate.value
    places = [c.place for c in found]
    range_ = (
        f"Layers are numbered from {min(places)} to {max(places)}; 0 is the default."
        if places
        else "There are none."
    )
    raise LayerError(f"layer {place}: there is no such layer. {range_}")


def _named(graph: ir.Graph, image: ir.Value, score: ir.Value, name: str) -> ir.Value:
    known = names(graph)
    for suffix in (MAPS, DEQUANTIZED):
        name = name if name in known else name.removesuffix(suffix)
    if name not in known:
        nodes = {n.name: n.outputs[0] for n in graph if n.name and n.outputs}
        if name not in nodes:
            raise LayerError(
                f"layer '{name}': no such tensor or node.{nearest(name, [*known, *nodes])} "
                "'onnxcam inspect' lists the candidates."
            )
        known = nodes
    value = known[name]
    if value not in depends_on(graph, {image}):
        raise LayerError(f"layer '{name}' does not depend on the image.")
    if value not in leads_to(score) or value is score:
        raise LayerError(f"layer '{name}' does not lie before the score '{score.name}'.")
    shape = dims(value)
    if shape is None or len(shape) < 3 or all(d == 1 for d in shape[2:]):
        shown = "unknown" if shape is None else [d or "?" for d in shape]
        raise LayerError(
            f"layer '{name}' has shape {shown}, without spatial axes; it must be [N, K, *S]."
        )
    if not _is_number(value):
        raise LayerError(f"layer '{name}' is {value.dtype}, not floating point.")
    return value


def _spatial(value: ir.Value) -> bool:
    shape = dims(value)
    return shape is not None and 3 <= len(shape) <= 5 and any(d != 1 for d in shape[2:])


def _maps(graph: ir.Graph, path: set[ir.Value]) -> dict[ir.Value, None]:
    """Return the maps of convolutions and of what finishes them, in graph order."""
    found: dict[ir.Value, None] = {}
    for node in graph:
        output = node.outputs[0] if node.outputs else None
        if output is None or output not in path or not _spatial(output):
            continue
        finishes = has(node, Trait.FINISHES) and any(
            v in found and _same_space(v, output) for v in node.inputs if v is not None
        )
        if has(node, Trait.CONVOLUTION) or finishes or _restored(node, found) is not None:
            found[output] = None
    return found


def _restored(node: ir.Node, maps: dict[ir.Value, None]) -> ir.Value | None:
    """Return the maps whose shape a Reshape restores, if it ends a known rearrangement.

    Group normalization is exported as a reshape, an instance normalization and the reshape
    back; a channel shuffle as two reshapes around a transpose.
    """
    if node.op_type != "Reshape":
        return None
    value, steps = node.inputs[0], 0
    while value is not None and steps < 4:
        if value in maps:
            return value if steps and dims(value) == dims(node.outputs[0]) else None
        producer = value.producer()
        if producer is None or not has(producer, Trait.REARRANGES):
            return None
        value, steps = producer.inputs[0], steps + 1
    return None


def _same_space(one: ir.Value, other: ir.Value) -> bool:
    a, b = dims(one), dims(other)
    if a is None or b is None or len(a) != len(b):
        return False
    return all(
        x == y or not (isinstance(x, int) and isinstance(y, int))
        for x, y in zip(a[2:], b[2:], strict=True)
    )


def _is_finished(value: ir.Value, maps: dict[ir.Value, None], path: set[ir.Value]) -> bool:
    """Whether a convolution reads the maps, or no reader finishes them further.

    Maps that a gate pools and then multiplies (squeeze-and-excitation) are not finished.
    """
    node = value.producer()
    if node is not None and node.op_type == "Dropout":
        return False  # the maps before it are the candidate
    readers = _readers(value, path)
    if not _is_number(value):
        return False
    if not is_float(value) and any(n.op_type == "DequantizeLinear" for n in readers):
        return False  # its output is the candidate
    if any(has(n, Trait.CONVOLUTION) for n in readers):
        return True
    finishing = any(has(n, Trait.FINISHES) and n.outputs[0] in maps for n in readers)
    return bool(readers) and not finishing and not _is_rearranged(readers, value, maps)


def _readers(value: ir.Value, path: set[ir.Value]) -> list[ir.Node]:
    """Return the nodes on the path that read a value, looking through Dropout."""
    found = []
    for node in value.consumers():
        if not any(o in path for o in node.outputs):
            continue
        found += _readers(node.outputs[0], path) if node.op_type == "Dropout" else [node]
    return found


def _is_rearranged(readers: list[ir.Node], value: ir.Value, maps: dict[ir.Value, None]) -> bool:
    """Whether a reader starts a rearrangement that ends in maps of the same shape."""
    for node in readers:
        steps = 0
        while has(node, Trait.REARRANGES) and steps < 4:
            output = node.outputs[0]
            if output in maps and _restored(node, maps) is value:
                return True
            following = list(output.consumers())
            if not following:
                break
            node, steps = following[0], steps + 1
    return False
