"""Write explanations into the graph: targets in, maps out.

The instrumented model has the original inputs and outputs. Its targets are inputs more, and what
the record of a target needs are outputs more (:mod:`onnxcam.surgeon.seeds`). Every *part*, what a
method writes, adds outputs named ``onnxcam:PART`` or ``onnxcam:PART:VALUE``; the plan lists them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxcam.errors import (
    ContradictionError,
    EngineError,
    LayerError,
    MethodError,
    NoGradientError,
    ScoreError,
    TargetError,
    naming,
    quoted,
)
from onnxcam.gradient.add import needed_opset
from onnxcam.gradient.appended import appended, infer_appended, last_node
from onnxcam.gradient.blocked.write import write_blocked
from onnxcam.graph.builder import PREFIX, Builder
from onnxcam.graph.terms import Term
from onnxcam.graph.values import dims, drop_unneeded, names
from onnxcam.model.describe import Origin, model_facts, origin_of, tensor_facts
from onnxcam.model.facts import ModelFacts, TensorFacts
from onnxcam.model.prepare import Prepared, sound
from onnxcam.model.read import read_model
from onnxcam.model.write import to_bytes
from onnxcam.surgeon.choose import Chosen, choose
from onnxcam.surgeon.find.axes import class_axis
from onnxcam.surgeon.find.endings import probability, squashed_before, walk_back
from onnxcam.surgeon.find.image import first_floating
from onnxcam.surgeon.find.layouts import Layout
from onnxcam.surgeon.find.options import element_option, score_option
from onnxcam.surgeon.lengths import Check
from onnxcam.surgeon.plan import SCORES, PartFacts, Plan, part_name
from onnxcam.surgeon.request import Part, Request
from onnxcam.surgeon.seeds.built import BuiltSeeds
from onnxcam.surgeon.seeds.classes import ClassSeeds, add_output
from onnxcam.surgeon.seeds.elements import ElementSeeds
from onnxcam.surgeon.seeds.weights import WeightSeeds
from onnxcam.surgeon.site import Seeds, Site, Weighted, combined, images_first
from onnxcam.surgeon.tail import cut
from onnxcam.surgeon.words import STAGES

if TYPE_CHECKING:
    from onnxcam.gradient.ort.engine import Built


_MOVE = {"", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast"}
_OF_KERNELS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


def instrument(path: str | Path, request: Request) -> tuple[bytes, Plan]:
    """Return the instrumented model of ``path``, serialised, and the plan it follows.

    External weights stay where they are: the result refers to the same files.

    Raises:
        OnnxcamError: the model cannot be read, has no image input, score or layer, an operator
            between layer and score has no gradient rule, a part does not fit the model, or the
            engine is missing.
    """
    path = Path(path)
    proto = read_model(path)
    origin = origin_of(proto, path)
    prepared = Prepared(proto, path)
    advice = "Choose a layer after that operator (--layer), or a score before it (--score)."
    with (
        sound(path),
        naming(path, LayerError, ScoreError, EngineError, TargetError, MethodError),
        naming(path, ContradictionError),
        naming(path, NoGradientError, advice=advice),
    ):
        return _instrument(prepared, origin, request)


def _instrument(prepared: Prepared, origin: Origin, request: Request) -> tuple[bytes, Plan]:
    model, chosen, facts, request = chosen_in(prepared, origin, request)
    built = None
    if request.engine != "rules":
        built, chosen = _build(prepared, chosen, request)
        model = built.model
    plan = plan_of(facts, chosen, origin.outer)  # before a layer that was added becomes an output
    T = 1 if request.single else "T"
    parts, feeds = write_parts(model, chosen, request, _seeds(model, chosen, built, T))
    plan = replace(plan, parts=parts, feeds=feeds)
    if plan.layer is not None:
        model.metadata_props["onnxcam.layer"] = ", ".join(layer.name for layer in plan.layers)
    model.metadata_props["onnxcam.score"] = plan.score
    return to_bytes(ir.serde.serialize_model(model), prepared.path), plan


def chosen_in(
    prepared: Prepared, origin: Origin, request: Request
) -> tuple[ir.Model, Chosen, ModelFacts, Request]:
    """Return the model at the opset that its gradient needs, what is explained, its facts.

    The request comes back with the parts that are for boxes where the model is a detector.
    """
    graph, model = prepared.model.graph, prepared.model
    facts = model_facts(model, prepared.path.name, origin)
    chosen = choose(
        graph,
        prepared.path,
        request.layers,
        request.score,
        request.element,
        grid=request.grid,
        metadata=facts.metadata,
        stand_in=request.engine == "rules",
    )
    if chosen.head is not None and request.of_boxes is not None:
        request = replace(request, parts=request.of_boxes)
    if request.engine == "rules":
        spaces = {part.space for part in request.parts.values()}
        to = [p.value for p in chosen.layers] if "layer" in spaces else []
        to += [first_floating(names(graph)[chosen.image.name])] if "input" in spaces else []
        model = prepared.lifted(needed_opset(graph, chosen.end, to) if to else 0)
        chosen = chosen.in_graph(model.graph)
    return model, chosen.as_numbers(model.graph), facts, request


def _build(prepared: Prepared, chosen: Chosen, request: Request) -> tuple[Built, Chosen]:
    """Have ONNX Runtime differentiate; return what was chosen as it is in the new graph."""
    from onnxcam.gradient.ort import engine

    if chosen.element is not None or any(p.space != "layer" for p in request.parts.values()):
        raise EngineError(
            "engine 'ort' differentiates class scores with respect to a layer only; engine 'rules' "
            "does the rest."
        )
    if not chosen.layers:
        raise chosen.why or LayerError("there is no layer.")
    if len(chosen.layers) > 1:
        raise EngineError("engine 'ort' takes one layer; engine 'rules' takes several.")
    score, layer = chosen.score.value.name or "", chosen.layers[0].value.name or ""
    built = engine.build(prepared, score, [layer])
    return built, chosen.in_graph(built.model.graph)


def _seeds(model: ir.Model, chosen: Chosen, built: Built | None, T: str | int) -> Seeds:
    """Return where walks start, the targets being inputs."""
    builder = Builder(model.graph, model.opset_imports[""])
    if built is not None:
        return BuiltSeeds(builder, chosen.score, built, chosen.layers[0].value)
    if chosen.element is None:
        return ClassSeeds(builder, chosen.score, T)
    tensor = element_tensor(builder, chosen)
    return (WeightSeeds if chosen.weighted else ElementSeeds)(builder, tensor, T)


def element_tensor(builder: Builder, chosen: Chosen) -> ir.Value:
    """Return the tensor of elements with an axis of images."""
    tensor = chosen.element
    assert tensor is not None
    if chosen.whole:
        kind, sizes = tensor.type, [1, *(dims(tensor) or [])]
        tensor = builder.op("Unsqueeze", tensor, builder.ints(0))
        tensor.shape, tensor.type = ir.Shape(sizes), kind
    return tensor


def write_parts(
    model: ir.Model, chosen: Chosen, request: Request, seeds: Seeds
) -> tuple[dict[str, PartFacts], dict[str, str]]:
    """Append targets and parts to the graph; return what they give, and what is fed."""
    graph, builder = model.graph, seeds.b
    seeds.add_outputs()
    image = names(graph)[chosen.image.name]
    places: list[tuple[ir.Value | None, Layout | None]]
    places = [(p.value, p.layout) for p in chosen.layers] or [(None, None)]
    sites = [
        Site(builder, seeds, value, image, chosen.why, layout, single=request.single)
        for value, layout in places
    ]
    last = last_node(graph)
    parts = {}
    for n, site in enumerate(sites):
        for name, part in request.parts.items():
            if n and request.layers == (STAGES,) and not part.joins:
                continue
            at = part_name(name, n)
            parts[at] = _part(builder, site, at, part, request.on_device)
    for check, value in _checks(chosen):
        lengths = builder.op("Shape", value)
        add_output(builder, check.output, lengths, ir.DataType.INT64, [len(dims(value) or [])])
    if request.single:
        write_blocked(builder, last)
    if any(o.shape is None for o in graph.outputs):
        infer_appended(builder, appended(graph, last))
    feeds = {}
    if request.cut:
        feeds = cut(builder, sites[0].layer if request.cut == "layer" else sites[0].input.value)
    drop_unneeded(graph, "" if request.cut else PREFIX)
    return parts, feeds


def _part(builder: Builder, site: Site, name: str, part: Part, on_device: bool) -> PartFacts:
    """Write one part and name its outputs."""
    site.walks.clear()
    last = last_node(builder.graph)
    with naming(f"method '{name}'", MethodError):
        made = part.graph(site)
        _check_parts(made)
    values: dict[str, ir.Value] = {}
    first: list[str] = []  # with axes [N, T, ...]
    shapes: dict[str, list[int | str | None]] = {}
    weighted: dict[str, bool] = {}
    listed = {"map": made} if isinstance(made, Term | Weighted) else made
    sums = [key for key, one in listed.items() if isinstance(one, Weighted)]
    for key, one in listed.items():
        if isinstance(one, Term):
            values[key] = one.value
        elif on_device and site.kind in _OF_KERNELS:
            rank = len(dims(site.layer) or []) + 1
            given = images_first(builder, one.weights.value, rank if one.pixels else 3)
            values[f"{key}:weights"], values[f"{key}:activations"] = given, one.activations.value
            first += [f"{key}:weights", f"{key}:activations"]
            weighted[key] = one.relu
        else:
            values[key], is_first = combined(builder, one)
            first += [key] if is_first else []
            shapes[key] = [None, None, *(dims(site.layer) or [])[2:]]
    if on_device and len(first) < len(values):
        infer_appended(builder, appended(builder.graph, last))
    outputs = {}
    for key, value in values.items():
        shape = dims(value)
        if on_device and key not in first and shape is not None:
            value = images_first(builder, value, len(shape))
            first.append(key)
        outputs[key] = f"{PREFIX}{name}" if key == "map" else f"{PREFIX}{name}:{key}"
        add_output(builder, outputs[key], value, site.kind, shapes.get(key))
    negative = {n: v for walk in site.walks for n, v in walk.findings.items()}
    if negative:
        flags = [builder.op("Reshape", v, builder.ints(1)) for v in negative.values()]
        outputs["negative"] = f"{PREFIX}{name}:negative"
        found = builder.op("Concat", *flags, axis=0)
        add_output(builder, outputs["negative"], found, ir.DataType.BOOL, [len(flags)])
    changed = dict.fromkeys(n for walk in site.walks for n in walk.changed)
    return PartFacts(outputs, tuple(first), weighted, tuple(sums), tuple(changed), tuple(negative))


def _check_parts(made: object) -> None:
    """Refuse what a method returned, if no map can come of it."""
    values = made.values() if isinstance(made, Mapping) else [made]
    for value in values:
        if not isinstance(value, Term | Weighted):
            raise MethodError(
                f"it returned {type(value).__name__}; a method returns a term, a weighted sum "
                "(s.weighted, s.weighted_pixels) or a dict of these."
            )


def _checks(chosen: Chosen) -> Iterator[tuple[Check, ir.Value]]:
    """Yield what a run is to confirm of layers, and the tensors whose lengths do."""
    for place in chosen.layers:
        if place.checked and place.source is not None:
            name = place.source.name or ""
            grid = None if place.layout is None else place.layout.grid
            yield Check(f"{PREFIX}lengths:{name}", name, grid), place.source


def _element_facts(chosen: Chosen) -> TensorFacts | None:
    """Describe the tensor of elements, with an axis of images."""
    if chosen.element is None:
        return None
    facts = tensor_facts(chosen.element)
    facts = facts if chosen.weighted else replace(facts, name=chosen.asked)
    return replace(facts, shape=(1, *(facts.shape or ()))) if chosen.whole else facts


def _after_squashing(score: ir.Value) -> list[str]:
    """Return a warning where a score is made of probabilities that the walk back did not pass."""
    node = squashed_before(score)
    source = None if node is None else node.inputs[0]
    if node is None or source is None:
        return []
    way_out = element_option if class_axis(source) is None else score_option
    return [
        f"The score '{score.name}' is made of what {node.op_type} gives. For the numbers before "
        f"it: {way_out(source)}.\n"
        f"After {node.op_type} gradients may vanish, and classes compete."
    ]


def _shares(passed: Sequence[str]) -> str:
    """Return what makes probabilities of scores, if all that lies after them only moves numbers."""
    kinds = {text.split(" ")[0].removeprefix("Log") for text in passed} - _MOVE
    return next(iter(kinds)) if len(kinds) == 1 and kinds <= {"Softmax", "Sigmoid"} else ""


def plan_of(facts: ModelFacts, chosen: Chosen, outer: dict[str, int]) -> Plan:
    """Return the plan of a graph to which nothing was added yet."""
    score, warnings = chosen.score, []
    if chosen.element is not None:
        note = "weighted sums of a tensor" if chosen.weighted else "single elements of a tensor"
    elif score.output is None:
        note = "as requested"
        squashed = probability(score.value)
        if squashed is not None:
            before = walk_back(score.value).value.name
            warnings.append(
                f"The score '{score.value.name}' lies after {squashed.op_type}, where gradients "
                f"vanish for sure predictions. --score '{before}' takes the tensor before it."
            )
    elif score.passed:
        kinds = dict.fromkeys(text.split(" ")[0] for text in reversed(score.passed))
        note = f"before {', '.join(kinds)} of the output '{score.output}'"
    elif score.value.name == score.output:
        note = "the model's output"
    else:
        note = f"what the output '{score.output}' is picked from"
    if chosen.element is None and not warnings:
        warnings += _after_squashing(score.value)
    if score.others:
        listed = ", ".join(f"--score {quoted(name)}" for name in score.others)
        warnings.append(
            f"Several outputs are class scores; '{score.output}' is explained. For the others: "
            f"{listed}."
        )
    if chosen.reading is not None and chosen.reading.guess:
        warnings.append(chosen.reading.guess)
    if mixed := [f"'{place.value.name}'" for place in chosen.layers if place.mixed]:
        warnings.append(
            f"Attention mixes the places of the layer {', '.join(mixed)}: its map is coarse.\n"
            "They are mixed before the score is made of them, so a place's gradient is weaker "
            "evidence than behind a convolution."
        )
    flat = len(dims(score.value) or []) == 2
    unsquashed = f"{chosen.asked} before any {chosen.squashed}" if chosen.squashed else ""
    return Plan(
        facts=facts,
        image=chosen.image,
        score=unsquashed or score.value.name or "",
        score_note=note,
        output=score.output,
        shares=_shares(score.passed),
        classes=score.classes,
        scores=(score.value.name or "") if flat and chosen.element is None else SCORES,
        layers=tuple(tensor_facts(place.value) for place in chosen.layers),
        element=_element_facts(chosen),
        single=chosen.whole,
        refusal=chosen.refusal,
        detector=chosen.reading,
        scales=chosen.scales,
        checks=tuple(check for check, _ in _checks(chosen)),
        parts={},
        feeds={},
        warnings=tuple(warnings),
        outer=outer,
    )
