"""Find the score: the class scores before Softmax or Sigmoid.

Gradients of a probability vanish as it nears 1, so the walk goes from the chosen output back
to the logits (Selvaraju et al. 2017: "the score for class c, y^c (before the softmax)").
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnxcam.errors import ScoreError, nearest
from onnxcam.graph.operators import RUNTIME_DOMAINS, Trait, has
from onnxcam.graph.values import describe, dims, is_float, names
from onnxcam.surgeon.find.quantized import DEQUANTIZED, scale_and_zero_point

_PASSED = Trait.PASSES | Trait.RESHAPES | Trait.QUANTIZES


@dataclass(frozen=True)
class Score:
    """The chosen score tensor.

    Attributes:
        value: the tensor, ``[N, C]`` or the same with axes of length 1.
        output: name of the graph output that the walk started from; ``None`` when the tensor
            was named by the user.
        passed: operators passed on the way back from the output, nearest the output first.
        classes: number of classes ``C`` when known.
    """

    value: ir.Value
    output: str | None
    passed: tuple[str, ...]
    classes: int | None


def find_score(graph: ir.Graph, requested: str = "auto") -> Score:
    """Return the score of ``graph``.

    Args:
        graph: a prepared graph.
        requested: ``"auto"``, or the name of any tensor, which is then taken as it is.

    Raises:
        ScoreError: no output looks like class scores, or the requested tensor is unknown or
            does not have exactly one class axis.
    """
    if requested != "auto":
        known = names(graph)
        if requested not in known:
            requested = requested.removesuffix(DEQUANTIZED)
        if requested not in known:
            raise ScoreError(f"score '{requested}': no such tensor.{nearest(requested, known)}")
        value = known[requested]
        if class_axis(value) is None:
            raise ScoreError(
                f"score '{requested}' has shape {_show(value)}; it must be [N, classes], up to "
                "axes of length 1."
            )
        if not is_float(value) and scale_and_zero_point(value) is None:
            raise ScoreError(f"score '{requested}' is {value.dtype}, not floating point.")
        return Score(value, None, (), class_count(value))
    output = next((o for o in graph.outputs if _like_scores(o)), None)
    if output is None:
        shown = ", ".join(f"'{o.name}' {_show(o)}" for o in graph.outputs)
        raise ScoreError(
            f"no output looks like class scores [N, classes]: {shown}. "
            "Name the tensor of the scores with --score."
        )
    value, passed = _walk_back(output)
    return Score(value, output.name, passed, class_count(value))


def class_axis(value: ir.Value) -> int | None:
    """Return the only axis after the batch that is not known to have length 1."""
    shape = dims(value)
    if not shape:
        return None
    if len(shape) == 1:
        return 0
    wide = [axis for axis in range(1, len(shape)) if shape[axis] != 1]
    return wide[0] if len(wide) == 1 else None


def class_count(value: ir.Value) -> int | None:
    """Return the static length of the class axis, if there is one."""
    axis, shape = class_axis(value), dims(value)
    if axis is None or shape is None:
        return None
    length = shape[axis]
    return length if isinstance(length, int) else None


def is_probability(value: ir.Value) -> ir.Node | None:
    """Return the Softmax or Sigmoid that a requested score has already passed."""
    node = value.producer()
    while node is not None and has(node, _PASSED) and not has(node, Trait.SQUASHES):
        source = node.inputs[0]
        node = source.producer() if source is not None else None
    return node if node is not None and has(node, Trait.SQUASHES) else None


def _like_scores(value: ir.Value) -> bool:
    if value.dtype is not None and not (
        is_float(value) or value.dtype in (ir.DataType.UINT8, ir.DataType.INT8)
    ):
        return False
    count, shape = class_count(value), dims(value)
    if shape is None or class_axis(value) is None:
        return False
    return count is not None and count > 1 if len(shape) == 1 else count is None or count > 1


def _walk_back(output: ir.Value) -> tuple[ir.Value, tuple[str, ...]]:
    """Walk back through what only squashes, reshapes or converts.

    The score is the last floating-point tensor there, or the quantized one before a quantized
    Softmax or Sigmoid.
    """
    best, passed, pending = output, [], []
    value = output
    while (node := value.producer()) is not None and node.domain in RUNTIME_DOMAINS:
        source = node.inputs[0] if has(node, _PASSED | Trait.SQUASHES) else None
        if source is None:
            break
        if source.shape is None and not has(node, Trait.RESHAPES):
            source.shape = value.shape  # the other operators keep the shape
        if class_axis(source) is None:
            break
        if has(node, Trait.RESHAPES) and not _same_classes(source, value):
            break
        pending.append(node)
        value = source
        squashed = any(has(n, Trait.SQUASHES) for n in pending)
        if is_float(value) or (squashed and scale_and_zero_point(value) is not None):
            best = value
            passed += [describe(n) for n in pending]
            pending = []
    if not is_float(best) and scale_and_zero_point(best) is None:
        raise ScoreError(
            f"the class scores '{output.name}' are {output.dtype}, and no floating-point tensor "
            "lies before them. Name one with --score."
        )
    return best, tuple(passed)


def _same_classes(before: ir.Value, after: ir.Value) -> bool:
    """Whether only axes of length 1 differ, so that classes stay classes."""
    count = class_count(before)
    return count is not None and count == class_count(after)


def _show(value: ir.Value) -> str:
    shape = dims(value)
    return (
        "of unknown shape" if shape is None else str([d if d is not None else "?" for d in shape])
    )
