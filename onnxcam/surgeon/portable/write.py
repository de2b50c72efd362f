"""From a model's file to a portable model: explanations finished in the graph, by any runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from onnxcam.errors import (
    ContradictionError,
    LayerError,
    MethodError,
    NoGradientError,
    PreprocessError,
    ScoreError,
    TargetError,
    naming,
)
from onnxcam.gradient.appended import appended, infer_appended, last_node
from onnxcam.graph.builder import PREFIX, Builder
from onnxcam.graph.values import dims, drop_unneeded, names
from onnxcam.model.batch import fix_batch
from onnxcam.model.describe import origin_of
from onnxcam.model.fixed import fix_inputs
from onnxcam.model.prepare import Prepared, sound
from onnxcam.model.read import read_model
from onnxcam.surgeon.choose import Chosen
from onnxcam.surgeon.instrument import chosen_in, plan_of, write_parts
from onnxcam.surgeon.plan import ImageInput, Plan, part_name
from onnxcam.surgeon.portable.aim import Aim, PortableClasses, seeds_of
from onnxcam.surgeon.portable.boxes import BOXES, CLASSES, CONFIDENCES
from onnxcam.surgeon.portable.finish import Finisher, Map
from onnxcam.surgeon.portable.named import NUMBERS, PHOTO, TARGET, TARGETS
from onnxcam.surgeon.portable.parted import part_from_quantizer
from onnxcam.surgeon.portable.photograph import Photograph, Recipe
from onnxcam.surgeon.request import Request
from onnxcam.surgeon.seeds.classes import add_output

HEATMAP, OVERLAY = "heatmap", "overlay"
OUTPUTS = (TARGETS, NUMBERS, CLASSES, CONFIDENCES, BOXES)


@dataclass(frozen=True)
class Paint:
    """How a heatmap is painted: colours ``[256, 3]``, see :class:`onnxcam.imaging.style.Style`."""

    colours: NDArray[np.uint8]
    alpha: float
    shade: float


@dataclass(frozen=True)
class Asked:
    """What a portable model is to give.

    Attributes:
        aim: returns what is explained, given what was chosen in the model, and the photograph.
        proportional: the parts whose rounding noise is told by their size.
        raw: whether maps stay at the layer's size, rectified but not scaled.
        recipe: how a photograph is prepared, where the input is to be one.
        photo: the photograph's height and width, where it has to be of one size.
        paint: how it is painted, where it is to be.
        batch: the image input, and how many images a run takes, where that is to be fixed.
        inputs: other inputs that are to be constants, and the image input.
    """

    aim: Callable[[Plan, Photograph | None], Aim]
    proportional: frozenset[str] = frozenset()
    raw: bool = False
    recipe: Recipe | None = None
    photo: tuple[int, int] | None = None
    paint: Paint | None = None
    batch: tuple[str, int] | None = None
    inputs: tuple[Mapping[str, NDArray[Any]], str] | None = None


@dataclass(frozen=True)
class Portable:
    """A portable model.

    Attributes:
        model: with the original inputs and outputs, and more.
        plan: what was chosen in the original.
        names: what the input ``target`` and the outputs ``targets``, ``scores``, ``classes``,
            ``confidences`` and ``boxes`` are called; those that there are.
        heatmaps: the output that holds each method's maps.
        overlays: the output that holds each method's pictures, where they were asked for.
        operators: how many nodes the original has, and how many were added.
        finishing: names of the nodes that finish maps, which need float32.
    """

    model: onnx.ModelProto
    plan: Plan
    names: dict[str, str]
    heatmaps: dict[str, str]
    overlays: dict[str, str]
    operators: tuple[int, int]
    finishing: tuple[str, ...]


def portable(path: str | Path, request: Request, asked: Asked) -> Portable:
    """Return the portable model of ``path``; external weights stay in their files.

    Args:
        path: the model's file.
        request: methods, layer and score.
        asked: targets, and how maps are finished.

    Raises:
        OnnxcamError: as :func:`onnxcam.surgeon.instrument.instrument`.
    """
    path = Path(path)
    proto = read_model(path)
    if asked.batch is not None:
        fix_batch(proto, *asked.batch, path)
    if asked.inputs is not None and asked.inputs[0]:
        fix_inputs(proto, *asked.inputs)
    known = {v.name for v in proto.graph.value_info}
    origin = origin_of(proto, path)
    prepared = Prepared(proto, path)
    advice = "Choose a layer after that operator (--layer), or a score before it (--score)."
    with (
        sound(path),
        naming(path, LayerError, ScoreError, TargetError, MethodError),
        naming(path, ContradictionError, PreprocessError),
        naming(path, NoGradientError, advice=advice),
    ):
        model, chosen, facts, request = chosen_in(prepared, origin, request)
        plan = plan_of(facts, chosen, origin.outer)
        _check(plan, chosen, asked)
        _check_photograph(plan, asked)
        made = _written(model, chosen, request, asked, plan)
    kept = [v for v in made.model.graph.value_info if v.name in known]
    del made.model.graph.value_info[:]  # what was inferred, any runtime infers again
    made.model.graph.value_info.extend(kept)
    return made


def _check_photograph(plan: Plan, asked: Asked) -> None:
    """Refuse a photograph as the input of a model that does not take one at a time."""
    if asked.recipe is None:
        return
    image = plan.image
    if image.axes != "HW":
        raise PreprocessError(f"the input '{image.name}' takes no photographs.")
    if image.batch not in (None, 1):
        raise PreprocessError(
            f"the input '{image.name}' takes {image.batch} images at a time, and a photograph is "
            "one. Leave out --with-preprocessing."
        )


def _check(plan: Plan, chosen: Chosen, asked: Asked) -> None:
    """Refuse what only a run could confirm, or what a heatmap cannot be made of."""
    for check in plan.checks:
        raise LayerError(
            f"only the lengths of a run tell how the layer '{check.layer}' is read, and nothing in "
            f"a portable model could check them. Say it: --layer '{check.layer}:first' where its "
            "channels come first, ':last' where they come last, or --grid ROWSxCOLUMNS of tokens."
        )
    several = len(chosen.layers) > 1
    if several and (asked.raw or plan.detector is None):
        why = "gives maps at the size of one layer" if plan.detector else "explains one layer"
        raise LayerError(f"a portable model {why}: --layer '{plan.layers[0].name}' for one.")


def _written(
    model: ir.Model, chosen: Chosen, request: Request, asked: Asked, plan: Plan
) -> Portable:
    graph = model.graph
    taken = {*names(graph), *graph.initializers}
    outputs, operators = list(graph.outputs), len(graph)
    b, first = Builder(graph, model.opset_imports[""]), last_node(graph)
    photograph = None if asked.recipe is None else _photograph(b, asked.recipe, asked.photo)
    seeds = seeds_of(b, chosen, asked.aim(plan, photograph), photograph)
    graph.inputs.extend([photograph.photo] if photograph else [])
    choosing = appended(graph, first)  # places and ranks need float32
    parts, _ = write_parts(model, chosen, request, seeds)
    plan = replace(plan, parts=parts)
    found = {v.name: v for v in graph.outputs}
    if any(v.shape is None for v in found.values()):
        infer_appended(b, appended(graph, first))
    written = set(graph)
    scores = seeds.scores if isinstance(seeds, PortableClasses) else found[NUMBERS]
    image = names(graph)[chosen.image.name]
    finisher = Finisher(b, image, chosen.image, scores, photograph)
    made, painted = {}, {}
    for name, part in request.parts.items():
        at = [parts[part_name(name, n)] for n in range(max(1, len(chosen.layers)))]
        maps = [
            Map(
                _images_first(b, found[facts.outputs["map"]], "map" in facts.images_first),
                part.space,
                name in asked.proportional,
            )
            for facts in at
        ]
        heat = None if asked.raw and asked.paint is None else finisher.heatmap(maps)
        made[name] = finisher.raw(maps[0]) if asked.raw or heat is None else heat
        if asked.paint is not None and photograph is not None and heat is not None:
            paint = asked.paint
            painted[name] = photograph.painted(heat, paint.colours, paint.alpha, paint.shade)
    graph.outputs.clear()
    graph.outputs.extend(outputs)
    heatmaps, overlays = (
        {n: _called(k, n, of, taken) for n in of} for k, of in ((HEATMAP, made), (OVERLAY, painted))
    )
    for name, value in made.items():
        shape = [(dims(image) or [None])[0], seeds.T, *(dims(value) or [])[2:]]
        add_output(b, heatmaps[name], value, ir.DataType.FLOAT, shape)
    for name, value in painted.items():
        sides = (dims(photograph.photo) or []) if photograph else []
        add_output(b, overlays[name], value, ir.DataType.UINT8, [seeds.T, *sides])
    graph.outputs.extend(found[n] for n in OUTPUTS if n in found)
    if photograph is not None:
        _replace(graph, image, photograph, chosen.image)
    drop_unneeded(graph, PREFIX)
    _part_squares(b)
    written |= part_from_quantizer(b)
    called = _name(graph, taken)
    return Portable(
        model=ir.serde.serialize_model(model),
        plan=plan,
        names=called,
        heatmaps=heatmaps,
        overlays=overlays,
        operators=(operators, len(graph) - operators),
        finishing=tuple(n.name or "" for n in graph if n not in written or n in choosing),
    )


def _images_first(b: Builder, value: ir.Value, already: bool) -> ir.Value:
    """Return a map with axes ``[N, T, ...]``."""
    if already:
        return value
    sizes = dims(value)
    assert sizes is not None, f"the shape of '{value.name}' is unknown"
    made = b.op("Transpose", value, perm=[1, 0, *range(2, len(sizes))])
    made.shape, made.type = ir.Shape([sizes[1], sizes[0], *sizes[2:]]), value.type
    return made


def _photograph(b: Builder, recipe: Recipe, size: tuple[int, int] | None) -> Photograph:
    """Return a photograph, which becomes an input, of any size or of a height and width."""
    kind, sides = ir.TensorType(ir.DataType.UINT8), size or ("photo_H", "photo_W")
    photo = ir.Value(name=PHOTO, shape=ir.Shape([*sides, 3]), type=kind)
    return Photograph(b, photo, recipe)


def _replace(graph: ir.Graph, image: ir.Value, photograph: Photograph, facts: ImageInput) -> None:
    """Put a photograph in the place of the image input."""
    tensor = photograph.tensor(facts)
    tensor.shape, tensor.type = ir.Shape([1, *(dims(image) or [])[1:]]), image.type
    for use in tuple(image.uses()):
        use.node.replace_input_with(use.idx, tensor)
    graph.inputs.remove(image)
    tensor.name = image.name
    graph.sort()


def _name(graph: ir.Graph, taken: set[str]) -> dict[str, str]:
    """Drop the prefix of inputs and outputs where the name is free; return what each is called."""
    called = {}
    for value in [*graph.inputs, *graph.outputs]:
        if value.name in (TARGET, PHOTO, *OUTPUTS):
            name = value.name.removeprefix(PREFIX)
            called[name] = _free(name, taken)
            _rename(graph, value, called[name])
    return called


def _part_squares(b: Builder) -> None:
    """Give transposed square weights a name of their own.

    OpenVINO 2026.4 multiplies with the wrong one of two matrices where a square weight is read both
    as it is and transposed. Weights in other files are named twice, not stored twice.
    """
    for node in list(b.graph):
        value = node.inputs[0] if node.op_type == "Transpose" and b.is_own(node) else None
        tensor = None if value is None else value.const_value
        if value is None or tensor is None or value.name not in b.graph.initializers:
            continue
        sizes = dims(value) or []
        if len(sizes) != 2 or sizes[0] != sizes[1] or len(value.uses()) < 2:
            continue
        own = copy(tensor)
        own.name = b.name("square")
        twin = ir.Value(name=own.name, shape=value.shape, type=value.type, const_value=own)
        b.graph.register_initializer(twin)
        node.replace_input_with(0, twin)


def _called(kind: str, name: str, methods: Mapping[str, object], taken: set[str]) -> str:
    """Return what the output of a method is called; that of the first has the kind alone."""
    return _free(kind if name == next(iter(methods)) else f"{kind}:{name}", taken)


def _free(name: str, taken: set[str]) -> str:
    """Return a name, with the prefix where the model has it already."""
    return f"{PREFIX}{name}" if name in taken else name


def _rename(graph: ir.Graph, value: ir.Value, name: str) -> None:
    """Rename an input or output, and the default that an input has."""
    default = graph.initializers.pop(value.name or "", None)
    value.name = name
    if default is not None:
        graph.register_initializer(value)
