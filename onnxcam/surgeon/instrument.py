"""Write the explanation into the graph: targets in, activations and gradients out.

The instrumented model has the original inputs and outputs, and

* one more input, :data:`TARGETS`, int64 ``[T, N]`` (or ``[T, 1]``): class indices; a negative
  number ``-r`` is the class of rank ``r`` in the prediction. It may be left out: the default is
  ``-1``, the predicted class;
* outputs :data:`SCORES` ``[N, C]``, :data:`CLASSES` int64 ``[T, N]`` (the targets with ranks
  resolved), the layer's activations ``[N, K, *S]`` and :data:`GRADIENTS` ``[T, N, K, *S]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxcam.errors import LayerError, ModelError
from onnxcam.gradient import add_gradient, needed_opset
from onnxcam.gradient.builder import Builder
from onnxcam.surgeon.facts import model_facts, origin_of, tensor_facts
from onnxcam.surgeon.graph import dims, names
from onnxcam.surgeon.images import find_image_input
from onnxcam.surgeon.layer import find_layer
from onnxcam.surgeon.load import read_model
from onnxcam.surgeon.plan import (
    CLASSES,
    GRADIENTS,
    SCORES,
    TARGETS,
    ImageInput,
    ModelFacts,
    Plan,
)
from onnxcam.surgeon.prepare import BASE_OPSET, prepare
from onnxcam.surgeon.score import Score, class_axis, find_score, is_probability


def instrument(
    path: str | Path, layer: str | int = "auto", score: str = "auto"
) -> tuple[bytes, Plan]:
    """Return the instrumented model of ``path``, serialised, and the plan it follows.

    External weights stay where they are: the result refers to the same files.

    Args:
        path: the model file.
        layer: see :func:`onnxcam.surgeon.layer.find_layer`.
        score: see :func:`onnxcam.surgeon.score.find_score`.

    Raises:
        OnnxcamError: the model cannot be read, has no image input, score or layer, or an
            operator between layer and score has no gradient rule.
    """
    path = Path(path)
    proto = read_model(path)
    origin = origin_of(proto)
    model = prepare(proto, path, BASE_OPSET)
    chosen = _choose(model.graph, path, layer, score)
    needed = needed_opset(model.graph, chosen.score.value, [chosen.layer])
    if needed > model.opset_imports[""]:
        model = prepare(read_model(path), path, needed)
        chosen = _choose(model.graph, path, layer, score)
    facts = model_facts(model, path.name, origin)
    plan = _plan(facts, chosen)
    _write(model, chosen)
    model.metadata_props["onnxcam.layer"] = plan.layer.name
    model.metadata_props["onnxcam.score"] = plan.score
    return _serialise(model, path), plan


@dataclass(frozen=True)
class _Chosen:
    image: ImageInput
    score: Score
    layer: ir.Value


def _choose(graph: ir.Graph, path: Path, layer: str | int, score: str) -> _Chosen:
    image = find_image_input(graph, path.name)
    found = find_score(graph, score)
    value = find_layer(graph, names(graph)[image.name], found.value, layer)
    if dims(found.value) is None:
        raise LayerError(f"the shape of the score '{found.value.name}' is unknown.")
    return _Chosen(image, found, value)


def _plan(facts: ModelFacts, chosen: _Chosen) -> Plan:
    score, warnings = chosen.score, []
    if score.output is None:
        note = "as requested"
        squashed = is_probability(score.value)
        if squashed is not None:
            warnings.append(
                f"The score '{score.value.name}' lies after {squashed.op_type}, where gradients "
                "vanish for sure predictions. --score auto takes the tensor before it."
            )
    elif score.passed:
        kinds = dict.fromkeys(text.split(" ")[0] for text in reversed(score.passed))
        note = f"before {', '.join(kinds)} of the output '{score.output}'"
    else:
        note = "the model's output"
    return Plan(
        facts=facts,
        image=chosen.image,
        score=score.value.name or "",
        score_note=note,
        classes=score.classes,
        layer=tensor_facts(chosen.layer),
        warnings=tuple(warnings),
    )


def _write(model: ir.Model, chosen: _Chosen) -> None:
    """Append targets, seeds and gradients to the graph."""
    graph = model.graph
    builder = Builder(graph, model.opset_imports[""])
    targets = _targets_input(graph)
    score = chosen.score.value
    scores = _flat_scores(builder, score)
    classes = _resolve(builder, scores, targets)
    seed = _seed(builder, score, scores, classes)
    (gradients,) = add_gradient(builder, score, seed, [chosen.layer])
    sizes = dims(chosen.layer) or []
    for name, value, dtype, shape in (
        (SCORES, scores, score.dtype, ["scores_N", chosen.score.classes]),
        (CLASSES, classes, ir.DataType.INT64, ["T", "scores_N"]),
        (GRADIENTS, gradients, chosen.layer.dtype, ["T", *sizes]),
    ):
        output = builder.op("Identity", value)
        output.name, output.shape = name, ir.Shape(shape)
        output.type = None if dtype is None else ir.TensorType(dtype)
        graph.outputs.append(output)
    if chosen.layer not in graph.outputs:
        graph.outputs.append(chosen.layer)


def _targets_input(graph: ir.Graph) -> ir.Value:
    """An input with a default: an initializer of the same name (IR 4 and up)."""
    value = ir.Value(
        name=TARGETS,
        shape=ir.Shape(["T", "targets_N"]),
        type=ir.TensorType(ir.DataType.INT64),
        const_value=ir.tensor(np.array([[-1]], np.int64), name=TARGETS),
    )
    graph.inputs.append(value)
    graph.register_initializer(value)
    return value


def _flat_scores(b: Builder, score: ir.Value) -> ir.Value:
    """Return the scores as ``[N, C]``."""
    shape = dims(score)
    assert shape is not None
    if len(shape) == 1:
        return b.op("Unsqueeze", score, b.ints(0))
    return score if len(shape) == 2 else b.op("Reshape", score, b.ints(0, -1))


def _resolve(b: Builder, scores: ir.Value, targets: ir.Value) -> ir.Value:
    """Return class indices ``[T, N]``: ranks looked up, the rest as they came."""
    size = b.op("Shape", scores)
    batch = b.op("Slice", size, b.ints(0), b.ints(1))
    count = b.op("Slice", size, b.ints(1), b.ints(2))
    wanted = b.op("Expand", targets, b.op("Concat", b.ints(1), batch, axis=0))
    rank = b.op("Max", b.op("Sub", b.ints(-1), wanted), b.ints(0))  # counted from 0
    deepest = b.op("Add", b.op("ReduceMax", rank, keepdims=0), b.ints(1))
    _, order = b.op_many("TopK", [scores, b.op("Min", deepest, count)], 2, axis=1)
    ranked = b.op("GatherElements", b.op("Transpose", order, perm=[1, 0]), rank, axis=0)
    return b.op("Where", b.op("Less", wanted, b.ints(0)), ranked, wanted)


def _seed(b: Builder, score: ir.Value, scores: ir.Value, classes: ir.Value) -> ir.Value:
    """Return one-hot cotangents ``[T, *shape of the score]``."""
    depth = b.op("Slice", b.op("Shape", scores), b.ints(1), b.ints(2))
    pair = b.constant(np.array([0, 1]), score.dtype)
    hot = b.op("OneHot", classes, b.op("Squeeze", depth, b.ints(0)), pair, axis=-1)
    axis = class_axis(score)
    shape = dims(score)
    assert shape is not None
    if len(shape) == 2 and axis == 1:
        return hot
    return b.op("Reshape", hot, b.op("Concat", b.ints(-1), b.op("Shape", score), axis=0))


def _serialise(model: ir.Model, path: Path) -> bytes:
    try:
        data: bytes = ir.serde.serialize_model(model).SerializeToString()
    except ValueError as error:
        raise ModelError(
            f"{path}: larger than 2 GB with its weights inside one file, which the format does "
            "not allow. Store the weights as external data (onnx.save, save_as_external_data)."
        ) from error
    return data
