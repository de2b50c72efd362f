"""Find scores of steps, and which of their axes are images, steps and classes."""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.errors import ScoreError
from onnxcam.graph.builder import Builder, shaped
from onnxcam.graph.operators import Trait, has
from onnxcam.graph.values import constant, dims, is_float
from onnxcam.surgeon.find.endings import probabilities_of
from onnxcam.surgeon.find.heads import has_images_first
from onnxcam.surgeon.find.options import element_option, score_option
from onnxcam.surgeon.find.score import Batch, named

Axes = tuple[int, int, int]  # those of the images, the steps and the classes
STEPS = ":steps"  # suffix of the name of a tensor [N, steps, classes]
_KEEP_AXES = ("Add", "Sub", "Mul", "Div", "Concat", "Slice", "Split", "Pad", "Dropout")
_DROP_AXES = ("ReduceMean", "ReduceSum", "ReduceMax", "Reshape", "Squeeze", "Unsqueeze", "Flatten")


def find_sequence(graph: ir.Graph, batch: Batch, requested: str = "auto") -> tuple[ir.Value, Axes]:
    """Return the scores of every step, of three axes in any order, and what each axis is.

    The classes' axis is that of Softmax or ArgMax, or where the last linear layer has its
    features; that of the images has the length of the image input's first.

    Args:
        graph: a prepared graph.
        batch: the length of the image input's first axis.
        requested: ``"auto"`` or the name of a tensor.

    Raises:
        ScoreError: no tensor is such, it is not certain which axis is which, or several are.
    """
    outputs = list(graph.outputs) if requested == "auto" else [named(graph, requested)]
    values = dict.fromkeys(v for o in outputs if (v := _scores(o)) is not None)
    found = [(v, axes) for v in values if (axes := _axes(v, batch)) is not None]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", or ".join(score_option(v) for v, _ in found)
        raise ScoreError(f"several outputs have scores of steps. Choose one: {listed}.")
    if values:
        value = next(iter(values))
        element = element_option(value, has_images_first(value, batch))
        raise ScoreError(
            f"which axes of '{value.name}' {dims(value)} are the images, the steps and the classes "
            f"is not certain. For one of its numbers: {element}."
        )
    raise ScoreError(
        "no output has scores of steps, three axes of images, steps and classes in any order. "
        "Name their tensor with --score, or choose another kind of target."
    )


def steps_first(graph: ir.Graph, value: ir.Value, axes: Axes, name: str, opset: int) -> ir.Value:
    """Return the scores as ``[N, steps, classes]``; ``name`` is what they are called after."""
    shape = dims(value) or []
    b = Builder(graph, opset)
    if axes == (0, 1, 2):
        made = shaped(b.op("Identity", value), value)
    else:
        made = b.op("Transpose", value, perm=list(axes))
        made.shape, made.type = ir.Shape([shape[a] for a in axes]), value.type
    made.name = f"{name}{STEPS}"
    return made


def _scores(output: ir.Value) -> ir.Value | None:
    """Return an output that may be scores of steps, or what its best are picked from."""
    node = output.producer()
    if not is_float(output) and node is not None:
        while node is not None and node.op_type != "ArgMax" and has(node, _MOVED):
            output = node.inputs[0] or output
            node = output.producer()
        if node is None or node.op_type != "ArgMax" or node.inputs[0] is None:
            return None
        output = node.inputs[0]
    return output if is_float(output) and len(dims(output) or []) == 3 else None


_MOVED = Trait.PASSES | Trait.RESHAPES


def _axes(value: ir.Value, batch: Batch) -> Axes | None:
    """Return which axis of a tensor is which, ``None`` where that is not certain."""
    shape, classes = dims(value) or [], _class_axis(value)
    if classes is None:
        return None
    others = [axis for axis in range(3) if axis != classes]
    sure = [a for a in others if batch is not None and shape[a] == batch]
    images = sure or [a for a in others if not isinstance(shape[a], int)]
    if len(images) == 2 and shape[images[0]] == shape[images[1]] == 1:
        images = images[:1]
    if len(images) != 1:
        return None
    [steps] = [a for a in others if a != images[0]]
    return images[0], steps, classes


def _class_axis(value: ir.Value) -> int | None:
    """Return the axis of the classes, as the operators before a tensor tell it."""
    node, shape = value.producer(), dims(value)
    readers = [use.node for use in value.uses() if use.node.op_type == "ArgMax"]
    if shape is None:
        return None
    if readers:
        return int(readers[0].attributes.get_int("axis", 0)) % len(shape)
    if node is None:
        return None
    squashed = probabilities_of(value)
    if squashed is not None:
        if node.op_type in ("Softmax", "LogSoftmax"):
            return int(node.attributes.get_int("axis", -1)) % len(shape)
        return _class_axis(squashed.source)
    if has(node, Trait.CONVOLUTION):
        return 1
    if has(node, Trait.LINEAR):
        return _features(node, len(shape))
    return _carried(node, shape)


def _features(node: ir.Node, rank: int) -> int | None:
    """Return the axis of a linear layer's features: its constant operand is the weights."""
    if node.op_type == "Einsum":
        return None
    fixed = [v is not None and constant(v) is not None for v in node.inputs[:2]]
    if fixed == [True, False] and node.op_type in ("MatMul", "FusedMatMul"):
        return rank - 2 if rank > 1 else None
    return rank - 1 if fixed != [False, False] else None


def _carried(node: ir.Node, shape: list[int | str | None]) -> int | None:
    """Return the classes' axis behind an operator that keeps or moves axes."""
    computed = [v for v in node.inputs if v is not None and constant(v) is None]
    source = computed[0] if computed else None
    before = None if source is None else _class_axis(source)
    sizes = None if source is None else dims(source)
    if before is None or sizes is None:
        return None
    if node.op_type == "Transpose":
        order = node.attributes.get_ints("perm") or range(len(shape))[::-1]
        return list(order).index(before)
    if node.op_type in _DROP_AXES:
        length = sizes[before]
        same = [a for a, d in enumerate(shape) if d == length and isinstance(d, int)]
        end = before == len(sizes) - 1
        last = end and (len(shape) - 1 in same or (len(sizes) == 2 and _takes_the_rest(node)))
        return len(shape) - 1 if last else (same[0] if len(same) == 1 else None)
    keeps = node.op_type in _KEEP_AXES or has(node, Trait.PASSES | Trait.QUANTIZES | Trait.FINISHES)
    return before if keeps and len(sizes) == len(shape) else None


def _takes_the_rest(node: ir.Node) -> bool:
    """Whether a Reshape takes rows apart, ``[T * N, C]`` to ``[T, N, -1]``, by run-time lengths."""
    shape = node.inputs[1] if node.op_type == "Reshape" else None
    parts = None if shape is None else shape.producer()
    last = constant(parts.inputs[-1]) if parts is not None and parts.op_type == "Concat" else None
    return last is not None and last.tolist() == [-1]
