"""Find the score: the class scores before Softmax or Sigmoid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxcam.errors import PAGE, ScoreError, nearest
from onnxcam.graph.values import depends_on, describe, dims, is_float, names
from onnxcam.surgeon.find.axes import class_axis, class_count
from onnxcam.surgeon.find.endings import Ending, walk_back
from onnxcam.surgeon.find.heads import (
    CERTAIN,
    PLAUSIBLE,
    Head,
    has_images_first,
    has_unit_length,
    heads,
)
from onnxcam.surgeon.find.options import element_option, score_option
from onnxcam.surgeon.find.quantized import DEQUANTIZED, scale_and_zero_point

Batch = int | str | None  # the length of the image input's first axis


@dataclass(frozen=True)
class Score:
    """The chosen score tensor.

    Attributes:
        value: the tensor, ``[N, C]`` or the same with axes of length 1.
        output: name of the graph output that the walk started from; ``None`` when the user named
            an inner tensor.
        passed: operators passed on the way back from the output, nearest the output first.
        classes: number of classes ``C`` when known; 1 for one number an image.
        others: other outputs that are class scores as well.
    """

    value: ir.Value
    output: str | None
    passed: tuple[str, ...]
    classes: int | None
    others: tuple[str, ...] = ()


def find_score(graph: ir.Graph, requested: str = "auto", batch: Batch = None) -> Score:
    """Return the score of ``graph``.

    Args:
        graph: a prepared graph.
        requested: ``"auto"``; an output's name, from which the walk goes back to its logits; or the
            name of any other tensor, which is taken as it is.
        batch: the length of the image input's first axis.

    Raises:
        ScoreError: no output looks like class scores, several do and nothing tells them apart, or
            the requested tensor is unknown or has not exactly one class axis.
    """
    if requested != "auto":
        return _requested(graph, requested, batch)
    found = heads(graph, batch)
    if not found:
        raise ScoreError(
            f"no output looks like class scores [N, classes]: {_listed(graph.outputs)}. Name a "
            f"tensor of scores with --score{_element(graph, batch)}{_region(graph)}. {PAGE}"
        )
    most = max(h.evidence for h in found)
    if most < PLAUSIBLE:
        raise _unlikely(found, batch)
    best = [h for h in found if h.evidence > most - 2]
    if len(best) > 1 and most < CERTAIN:
        raise ScoreError(
            f"{len(best)} outputs may be the class scores: {_listed([h.output for h in best])}. "
            f"Choose one: {', or '.join(score_option(h.output) for h in best)}."
        )
    # Of several that are certain, the first computed: the order of outputs decides nothing.
    chosen = best[0]
    others = tuple(h.output.name or "" for h in best[1:])
    return _of_head(chosen.output, chosen.ending, batch, others)


def named(graph: ir.Graph, requested: str) -> ir.Value:
    """Return a tensor by the name that ``--score`` gives.

    Raises:
        ScoreError: there is none.
    """
    known = names(graph)
    if requested not in known:
        requested = requested.removesuffix(DEQUANTIZED)
    if requested not in known:
        raise ScoreError(f"score '{requested}': no such tensor.{nearest(requested, known)}")
    return known[requested]


def _requested(graph: ir.Graph, requested: str, batch: Batch) -> Score:
    value = named(graph, requested)
    if value in graph.outputs:
        return _of_head(value, walk_back(value), batch)
    if class_axis(value) is None:
        raise _shapeless(value, batch)
    if not is_float(value) and scale_and_zero_point(value) is None:
        raise ScoreError(f"score '{value.name}' is {value.dtype}, not floating point.")
    return Score(value, None, (), class_count(value))


def _of_head(output: ir.Value, ending: Ending, batch: Batch, others: tuple[str, ...] = ()) -> Score:
    value = ending.value
    if class_axis(value) is None:
        raise _shapeless(value, batch)
    if not is_float(value) and scale_and_zero_point(value) is None:
        raise ScoreError(
            f"the class scores '{output.name}' are {output.dtype}, and no floating-point tensor "
            "lies before them. Name one with --score."
        )
    passed = tuple(describe(n) for n in ending.passed)
    return Score(value, output.name, passed, class_count(value), others)


def _unlikely(found: list[Head], batch: Batch) -> ScoreError:
    shown = "; ".join(f"'{h.output.name}' {_shape(h.output)} ({h.reason})" for h in found)
    suppressed = next((n for h in found if (n := h.suppression) is not None), None)
    if suppressed is not None and suppressed.inputs[1] is not None:
        return ScoreError(
            f"no output looks like class scores: {shown}. To explain a score before suppression, "
            f"by class and box: {_indexed(suppressed.inputs[1], batch)}. {PAGE}"
        )
    first = found[0].output
    return ScoreError(
        f"no output looks like class scores: {shown}. To explain one of its numbers: "
        f"{_indexed(first, batch)}; to take them for class scores all the same: "
        f"{score_option(first)}.{_similar(found)} {PAGE}"
    )


def _similar(found: list[Head]) -> str:
    if not any(has_unit_length(h.output) for h in found):
        return ""
    return " To explain how similar it is to another image's: onnxcam explain --reference IMAGE."


def _region(graph: ir.Graph) -> str:
    """Return the option that explains a region, where an output has scores of pixels."""
    dense = any(len(dims(o) or []) == 4 for o in graph.outputs)
    return ", or a segmented region with -t region:CLASS" if dense else ""


def _shapeless(value: ir.Value, batch: Batch) -> ScoreError:
    rank = len(dims(value) or [])
    element = f" For one of its numbers: {_indexed(value, batch)}." if rank else ""
    return ScoreError(
        f"score '{value.name}' has shape {_shape(value)}; it must be [N, classes], up to axes of "
        f"length 1.{element}"
    )


def _element(graph: ir.Graph, batch: Batch) -> str:
    """Return the option that explains one number of an output, if there is one."""
    first = numbers(graph)
    return "" if first is None else f", or one number with {_indexed(first, batch)}"


def numbers(graph: ir.Graph) -> ir.Value | None:
    """Return a tensor whose numbers can be explained: an output, or what one is made of."""
    moving = depends_on(graph, set(graph.inputs))
    pending = [o for o in graph.outputs if o in moving]
    for value in pending:  # grows while it is walked
        if dims(value) and is_float(value):
            return value
        node = value.producer()
        pending += [] if node is None else [v for v in node.inputs if v in moving]
    return None


def _indexed(value: ir.Value, batch: Batch) -> str:
    return element_option(value, has_images_first(value, batch))


def _listed(outputs: Sequence[ir.Value]) -> str:
    return ", ".join(f"'{o.name}' {_shape(o)}" for o in outputs)


def _shape(value: ir.Value) -> str:
    shape = dims(value)
    return (
        "of unknown shape" if shape is None else str([d if d is not None else "?" for d in shape])
    )
