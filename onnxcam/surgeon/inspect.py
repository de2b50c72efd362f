"""Look at a model without running it: what would be explained, and what stands in the way."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxcam.errors import OnnxcamError, ScoreError
from onnxcam.gradient.add import missing_rules
from onnxcam.graph.values import dims, names, operator
from onnxcam.model.describe import model_facts, origin_of, tensor_facts
from onnxcam.model.facts import ModelFacts, TensorFacts
from onnxcam.model.prepare import Prepared, sound
from onnxcam.model.read import read_model
from onnxcam.surgeon.find.detectors import find_head, head_layers
from onnxcam.surgeon.find.image import find_image_input, first_floating
from onnxcam.surgeon.find.layer import candidates, find_layer
from onnxcam.surgeon.find.layouts import Layouts
from onnxcam.surgeon.find.score import find_score
from onnxcam.surgeon.plan import ImageInput, of_images


@dataclass(frozen=True)
class Candidate:
    """A layer that can be explained.

    Attributes:
        tensor: its name, dtype and shape ``[N, K, *S]``.
        place: 0 for the default, -1 for the one before it, ...
        stride: pixels of the input for one position of the maps, where both sizes are known.
        node: name of the node that computes it.
    """

    tensor: TensorFacts
    place: int
    stride: tuple[int, ...] | None
    node: str


@dataclass(frozen=True)
class Inspection:
    """What is known of a model before running it.

    Attributes:
        facts: inputs, outputs, opset, exporter.
        image: the image input, if there is one.
        score: the score tensor; ``passed`` lists the operators between it and ``output``.
        layers: candidates in graph order.
        default: name of the default layer.
        missing: operators without a gradient rule between image and score, with how many nodes
            have them and whether they lie between the default layer and the score.
        problems: what keeps the model from being explained as it is.
        detector: the tensors of a detector's boxes and scores, where there are no class scores.
        scales: the layers that its head reads, one a scale.
    """

    facts: ModelFacts
    image: ImageInput | None
    score: TensorFacts | None
    output: str | None
    passed: tuple[str, ...]
    layers: tuple[Candidate, ...]
    default: str | None
    missing: dict[str, dict[str, Any]]
    problems: tuple[str, ...]
    detector: tuple[str, ...] = ()
    scales: tuple[TensorFacts, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the inspection as JSON-ready data."""
        return dataclasses.asdict(self)


def inspect(path: str | Path, score: str = "auto") -> Inspection:
    """Inspect a model file.

    Args:
        path: the model file.
        score: as :func:`onnxcam.surgeon.find.score.find_score`.

    Raises:
        ModelError, ExternalDataError: the file cannot be read.
    """
    path = Path(path)
    proto = read_model(path)
    origin = origin_of(proto, path)
    model = Prepared(proto, path).model
    graph = model.graph
    facts = model_facts(model, path.name, origin)
    problems: list[str] = []
    image = found = default = None
    layers: tuple[Candidate, ...] = ()
    missing: dict[str, dict[str, Any]] = {}
    detector: tuple[str, ...] = ()
    scales: tuple[TensorFacts, ...] = ()
    try:
        with sound(path):
            image = find_image_input(graph, path.name)
            source = names(graph)[image.name]
            found = find_score(graph, score, (dims(source) or [None])[0])
            layers = _candidates(graph, source, found.value, image)
            layouts = Layouts(graph, source, len(image.axes))
            default = find_layer(graph, source, found.value, layouts=layouts)
    except ScoreError as error:
        head = find_head(graph, facts.metadata) if score == "auto" else None
        if head is None or image is None:
            problems.append(str(error))
        else:
            detector = head.tensors
            scales = tuple(tensor_facts(v) for v in head_layers(graph, source, head))
    except OnnxcamError as error:
        problems.append(str(error))
    if image is not None and found is not None:
        missing = _missing(graph, found.value, names(graph)[image.name], default)
        blocking = [name for name, entry in missing.items() if entry["after_layer"]]
        if blocking:
            problems.append(
                f"no gradient rule between the default layer and the score for: "
                f"{', '.join(blocking)}."
            )
    others = [
        t.name
        for t in facts.inputs
        if image is not None and t.name != image.name and not of_images(t)
    ]
    if others:
        problems.append(f"it takes more than the image: {', '.join(others)}.")
    return Inspection(
        facts=facts,
        image=image,
        score=tensor_facts(found.value) if found else None,
        output=found.output if found else None,
        passed=found.passed if found else (),
        layers=layers,
        default=default.name if default is not None else None,
        missing=missing,
        problems=tuple(problems),
        detector=detector,
        scales=scales,
    )


def usual_ends(path: Path, score: str = "auto") -> tuple[str | None, str | None, str]:
    """Return what is differentiated where nothing is named, and with respect to what.

    Args:
        path: the model file.
        score: as :func:`onnxcam.surgeon.find.score.find_score`.

    Returns:
        The names of the score and of the image input, or of the first floating tensor where that
        takes integers; ``None`` for what is not found, and why.

    Raises:
        ModelError, ExternalDataError: the file cannot be read.
    """
    graph = Prepared(read_model(path), path).model.graph
    of = to = batch = None
    why = ""
    try:
        source = names(graph)[find_image_input(graph, path.name).name]
        batch = (dims(source) or [None])[0]
        to = first_floating(source).name
    except OnnxcamError as error:
        why = str(error)
    try:
        of = find_score(graph, score, batch).value.name
    except OnnxcamError as error:
        why = why or str(error)
    return of, to, why


def tensors(path: str | Path) -> list[tuple[TensorFacts, str]]:
    """Return every computed tensor in graph order, and the operator that computes it.

    Raises:
        ModelError, ExternalDataError: the file cannot be read.
    """
    path = Path(path)
    graph = Prepared(read_model(path), path).model.graph
    return [(tensor_facts(v), operator(n)) for n in graph for v in n.outputs if v.name]


def _candidates(
    graph: ir.Graph, source: ir.Value, score: ir.Value, image: ImageInput
) -> tuple[Candidate, ...]:
    sizes = (image.height, image.width)
    found = []
    for layer in candidates(graph, source, score):
        space = (dims(layer.value) or [])[2:]
        stride = None
        if len(space) == 2 and all(isinstance(s, int) and s for s in space) and all(sizes):
            stride = tuple(
                round(full / part)
                for full, part in zip(sizes, space, strict=True)
                if full is not None and isinstance(part, int)
            )
        node = layer.value.producer()
        found.append(
            Candidate(
                tensor_facts(layer.value), layer.place, stride, (node.name or "") if node else ""
            )
        )
    return tuple(found)


def _missing(
    graph: ir.Graph, score: ir.Value, image: ir.Value, default: ir.Value | None
) -> dict[str, dict[str, Any]]:
    after = set(missing_rules(graph, score, [default])) if default is not None else set()
    found: dict[str, dict[str, Any]] = {}
    for node in missing_rules(graph, score, [image]):
        entry = found.setdefault(operator(node), {"nodes": 0, "after_layer": False})
        entry["nodes"] += 1
        entry["after_layer"] |= node in after
    return found
