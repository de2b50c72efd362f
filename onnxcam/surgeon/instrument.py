"""Write the explanation into the graph: targets in, maps out.

The instrumented model has the original inputs and outputs, and

* two more inputs that may be left out: :data:`TARGETS`, int64 ``[T, N]`` (or ``[T, 1]``), class
  indices, where -1 takes the class of the row's rank; :data:`RANKS`, int64 ``[T]``, the rows'
  ranks in the prediction, 0 the predicted class. Without them it is the predicted class;
* outputs: the scores ``[N, C]`` (named in the plan), :data:`CLASSES` int64 ``[T, N]`` (the
  targets with ranks resolved), and either :data:`SIGNED` ``[N, T, *S]``, the map before its
  ReLU, or the layer's activations ``[N, K, *S]`` and :data:`GRADIENTS` ``[T, N, K, *S]``.

Where ONNX Runtime's gradient builder is the engine, ``T`` is 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnxcam.errors import EngineError, LayerError, NoGradientError, ScoreError, naming
from onnxcam.gradient.add import needed_opset
from onnxcam.gradient.interface import Engine
from onnxcam.graph.builder import PREFIX, Builder
from onnxcam.graph.values import dims, drop_unneeded, names
from onnxcam.model.describe import Origin, model_facts, origin_of, tensor_facts
from onnxcam.model.facts import ModelFacts
from onnxcam.model.prepare import Prepared
from onnxcam.model.read import read_model
from onnxcam.model.write import to_bytes
from onnxcam.surgeon.find.image import find_image_input
from onnxcam.surgeon.find.layer import find_layer
from onnxcam.surgeon.find.quantized import as_numbers
from onnxcam.surgeon.find.score import Score, find_score, is_probability
from onnxcam.surgeon.plan import (
    CLASSES,
    GRADIENTS,
    RANKS,
    SCORES,
    SIGNED,
    TARGETS,
    ImageInput,
    Plan,
)
from onnxcam.surgeon.seeds.head import Cotangent, class_cotangent, score_cotangent
from onnxcam.surgeon.seeds.pooled import summed_gradient

if TYPE_CHECKING:
    from onnxcam.gradient.ort.engine import Built


def instrument(
    path: str | Path,
    layer: str | int = "auto",
    score: str = "auto",
    *,
    gradients: bool = False,
    engine: Engine = "rules",
) -> tuple[bytes, Plan]:
    """Return the instrumented model of ``path``, serialised, and the plan it follows.

    External weights stay where they are: the result refers to the same files.

    Args:
        path: the model file.
        layer: see :func:`onnxcam.surgeon.find.layer.find_layer`.
        score: see :func:`onnxcam.surgeon.find.score.find_score`.
        gradients: give activations and gradients in place of the map.
        engine: the gradient engine, see :mod:`onnxcam.gradient.ort.engine`.

    Raises:
        OnnxcamError: the model cannot be read, has no image input, score or layer, an
            operator between layer and score has no gradient rule, or the engine is missing.
    """
    path = Path(path)
    proto = read_model(path)
    origin = origin_of(proto, path)
    prepared = Prepared(proto, path)
    advice = "Choose a layer after that operator (--layer)."
    with (
        naming(path, LayerError, ScoreError, EngineError),
        naming(path, NoGradientError, advice=advice),
    ):
        return _instrument(prepared, origin, layer, score, gradients, engine)


def _instrument(
    prepared: Prepared,
    origin: Origin,
    layer: str | int,
    score: str,
    gradients: bool,
    engine: Engine,
) -> tuple[bytes, Plan]:
    chosen = _choose(prepared.model.graph, prepared.path, layer, score)
    built = None
    if engine == "rules":
        needed = needed_opset(prepared.model.graph, chosen.score.value, [chosen.layer])
        model = prepared.lifted(needed)
        chosen = chosen.in_graph(model.graph)
    else:
        model = prepared.model
    chosen = chosen.read_as_numbers(model.graph)
    plan = _plan(model_facts(model, prepared.path.name, origin), chosen, origin.outer)
    if engine != "rules":
        built, chosen = _build(prepared, chosen)
        model = built.model
    _write(model, chosen, gradients, built)
    model.metadata_props["onnxcam.layer"] = plan.layer.name
    model.metadata_props["onnxcam.score"] = plan.score
    return to_bytes(ir.serde.serialize_model(model), prepared.path), plan


@dataclass(frozen=True)
class _Chosen:
    image: ImageInput
    score: Score
    layer: ir.Value

    def in_graph(self, graph: ir.Graph) -> _Chosen:
        """Return the same choice in a graph whose tensors have the same names."""
        known = names(graph)
        score = replace(self.score, value=known[self.score.value.name or ""])
        return replace(self, score=score, layer=known[self.layer.name or ""])

    def read_as_numbers(self, graph: ir.Graph) -> _Chosen:
        """Return the choice with quantized tensors read as the numbers that they stand for."""
        opset = graph.opset_imports[""]
        score = replace(self.score, value=as_numbers(graph, self.score.value, opset))
        return replace(self, score=score, layer=as_numbers(graph, self.layer, opset))


def _choose(graph: ir.Graph, path: Path, layer: str | int, score: str) -> _Chosen:
    image = find_image_input(graph, path.name)
    found = find_score(graph, score)
    value = find_layer(graph, names(graph)[image.name], found.value, layer)
    _check_layout(image, value)
    if dims(found.value) is None:
        raise LayerError(f"the shape of the score '{found.value.name}' is unknown.")
    return _Chosen(image, found, value)


def _check_layout(image: ImageInput, layer: ir.Value) -> None:
    """Refuse maps whose channels come last: their rows would be taken for channels."""
    shape, sizes = dims(layer) or [], (image.height, image.width)
    if len(shape) != 4 or not all(isinstance(d, int) and d for d in [*shape[1:], *sizes]):
        return
    first, second, third = (int(d) for d in shape[1:] if isinstance(d, int))
    height, width = (int(s) for s in sizes if s is not None)

    def alike(a: int, b: int) -> bool:
        """Whether one stride leads from the image to maps of a by b places."""
        return abs(height / a - width / b) <= 0.15 * max(height / a, width / b)

    if alike(first, second) and not alike(second, third):
        raise LayerError(
            f"layer '{layer.name}' of shape {list(shape)} seems to have its channels last; it must "
            "be [N, K, H, W]. Name the tensor before it was transposed."
        )


def _plan(facts: ModelFacts, chosen: _Chosen, outer: dict[str, int]) -> Plan:
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
        scores=(score.value.name or "") if len(dims(score.value) or []) == 2 else SCORES,
        layer=tensor_facts(chosen.layer),
        warnings=tuple(warnings),
        outer=outer,
    )


def _build(prepared: Prepared, chosen: _Chosen) -> tuple[Built, _Chosen]:
    """Have ONNX Runtime differentiate; return what was chosen as it is in the new graph."""
    from onnxcam.gradient.ort import engine

    score, layer = chosen.score.value.name or "", chosen.layer.name or ""
    built = engine.build(prepared, score, [layer])
    return built, chosen.in_graph(built.model.graph)


def _write(model: ir.Model, chosen: _Chosen, gradients: bool, built: Built | None) -> None:
    """Append targets and the map, or activations and gradients, to the graph."""
    graph, layer = model.graph, chosen.layer
    builder = Builder(graph, model.opset_imports[""])
    T = "T" if built is None else 1
    targets = _optional_input(graph, TARGETS, [T, "targets_N"], [[-1]])
    ranks = _optional_input(graph, RANKS, [T], [0])
    scores = _flat_scores(builder, chosen.score.value)
    classes = _resolve(builder, scores, targets, ranks, chosen.score.classes)
    if built is None:
        start = class_cotangent(builder, chosen.score.value, classes, layer)
    else:
        start = _built_cotangent(builder, built, chosen, classes)
    sizes = dims(layer) or []
    if scores is chosen.score.value:
        if scores not in graph.outputs:
            graph.outputs.append(scores)
    else:
        shape = ["scores_N", chosen.score.classes]
        _add_output(builder, SCORES, scores, chosen.score.value.dtype, shape)
    outputs: list[tuple[str, ir.Value, ir.DataType | None, list[Any]]] = [
        (CLASSES, classes, ir.DataType.INT64, ["T", "scores_N"]),
    ]
    if gradients:
        g = start.gradient(builder, layer)
        outputs.append((GRADIENTS, g, layer.dtype, ["T", *sizes]))
        if layer not in graph.outputs:
            graph.outputs.append(layer)
    else:
        maps = _signed_map(builder, layer, summed_gradient(builder, start, layer))
        outputs.append((SIGNED, maps, layer.dtype, [sizes[0], "T", *sizes[2:]]))
    for name, value, dtype, shape in outputs:
        _add_output(builder, name, value, dtype, shape)
    drop_unneeded(graph, PREFIX)


def _built_cotangent(b: Builder, built: Built, chosen: _Chosen, classes: ir.Value) -> Cotangent:
    """The layer's cotangent as ONNX Runtime's builder wrote it, seeded with the classes."""
    hot = score_cotangent(b, chosen.score.value, classes).full()
    for use in tuple(built.seed.uses()):
        use.node.replace_input_with(use.idx, hot)
    b.graph.inputs.remove(built.seed)
    b.graph.sort()
    [g] = built.gradients
    space = list(range(3, len(dims(chosen.layer) or []) + 1))
    return Cotangent(chosen.layer, lambda: g, lambda: b.sum(g, space))


def _add_output(
    b: Builder, name: str, value: ir.Value, dtype: ir.DataType | None, shape: list[Any]
) -> None:
    """Name a value as an output; a tensor of the original model keeps its own name too."""
    node = value.producer()
    if node is None or not (node.name or "").startswith(PREFIX):
        value = b.op("Identity", value)
    value.name, value.shape = name, ir.Shape(shape)
    value.type = None if dtype is None else ir.TensorType(dtype)
    b.graph.outputs.append(value)


def _signed_map(b: Builder, layer: ir.Value, summed: ir.Value) -> ir.Value:
    """Return ``sum_k mean_S(G_k) A_k``, ``[N, T, *S]`` (Selvaraju et al. 2017, eq. 1 and 2)."""
    space = (dims(layer) or [])[2:]
    known = [d for d in space if isinstance(d, int)]
    weights = b.op("Transpose", summed, perm=[1, 0, 2])  # [N, T, K]
    maps = b.op("Reshape", layer, b.ints(0, 0, -1))
    signed = b.op("MatMul", b.op("Div", weights, b.positions(layer)), maps)
    if len(known) == len(space):
        return b.op("Reshape", signed, b.ints(0, 0, *known))
    return b.op("Reshape", signed, b.op("Concat", b.ints(0, 0), b.space(layer), axis=0))


def _optional_input(
    graph: ir.Graph, name: str, shape: list[str | int], default: list[Any]
) -> ir.Value:
    """An input with a default: an initializer of the same name (IR 4 and up)."""
    value = ir.Value(
        name=name,
        shape=ir.Shape(shape),
        type=ir.TensorType(ir.DataType.INT64),
        const_value=ir.tensor(np.array(default, np.int64), name=name),
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


def _resolve(
    b: Builder, scores: ir.Value, targets: ir.Value, ranks: ir.Value, count: int | None
) -> ir.Value:
    """Return class indices ``[T, N]``: ranks looked up, the rest as they came."""
    depth = b.op("Add", b.op("ReduceMax", ranks, keepdims=1), b.ints(1))
    if count is None:  # the caller could not check the ranks
        depth = b.op("Min", depth, b.op("Slice", b.op("Shape", scores), b.ints(1), b.ints(2)))
    _, order = b.op_many("TopK", [scores, depth], 2, axis=1)
    ranked = b.op("Gather", b.op("Transpose", order, perm=[1, 0]), ranks, axis=0)
    return b.op("Where", b.op("Less", targets, b.ints(0)), ranked, targets)
