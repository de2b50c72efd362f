"""Choose what is explained: image input, score, layer, or the tensor of single elements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from onnxcam.errors import LayerError, OnnxcamError, ScoreError, TargetError, nearest
from onnxcam.graph.values import depends_on, dims, is_float, leads_to, names
from onnxcam.surgeon.find.attention import attention
from onnxcam.surgeon.find.detectors import find_head, head_layers, refused
from onnxcam.surgeon.find.heads import has_images_first
from onnxcam.surgeon.find.image import find_image_input
from onnxcam.surgeon.find.joined import Head, joined
from onnxcam.surgeon.find.layers import find_layers
from onnxcam.surgeon.find.layouts import Kind, Layout, Layouts, as_maps
from onnxcam.surgeon.find.logits import unsquashed
from onnxcam.surgeon.find.options import element_option
from onnxcam.surgeon.find.quantized import as_numbers
from onnxcam.surgeon.find.score import Batch, Score, find_score, numbers
from onnxcam.surgeon.find.sequences import Axes, find_sequence, steps_first
from onnxcam.surgeon.find.tensors import find_dense, find_embedding
from onnxcam.surgeon.lengths import Grid, seems_last
from onnxcam.surgeon.plan import DetectorFacts, ImageInput
from onnxcam.surgeon.words import DENSE, DETECTIONS, EMBEDDING, SCORES, SEQUENCE, WEIGHTED


@dataclass(frozen=True)
class Place:
    """A layer that is explained.

    Attributes:
        value: its tensor; after :meth:`Chosen.as_numbers` ``[N, K, *S]``.
        layout: how it is read, where that is known.
        mixed: whether attention mixes its positions before the score is made of them.
        checked: whether only the lengths of a run tell that it may be read so.
        source: the tensor as it is in the model, in numbers; after :meth:`Chosen.as_numbers`.
    """

    value: ir.Value
    layout: Layout | None = None
    mixed: bool = False
    checked: bool = False
    source: ir.Value | None = None


@dataclass(frozen=True)
class Chosen:
    """What is explained.

    Attributes:
        image: the image input.
        score: the class scores, or what elements are taken of.
        layers: the layers; none where there is none, and ``why`` then says so.
        element: the tensor whose elements are explained, in place of class scores.
        weighted: whether weighted sums of it are explained, not single elements.
        whole: whether the element's tensor belongs to one image as a whole: its first axis is not
            the images.
        refusal: why there are no class scores, where they were wanted and ``element`` stands in.
        squashed: the operators before which elements are taken, ``"Sigmoid"``, and ``asked`` the
            tensor that they were asked of.
        head: what a detector gives, where boxes are explained; ``reading`` says how to read it.
        scales: whether the layers are those that a detector's head reads, one a scale.
        steps: the axes of images, steps and classes, where scores of steps are weighed.
    """

    image: ImageInput
    score: Score
    layers: tuple[Place, ...]
    why: OnnxcamError | None
    element: ir.Value | None
    weighted: bool = False
    whole: bool = False
    refusal: str = ""
    squashed: str = ""
    asked: str = ""
    steps: Axes | None = None
    head: Head | None = None
    scales: bool = False
    reading: DetectorFacts | None = None

    @property
    def end(self) -> ir.Value:
        """The tensor that is differentiated."""
        return self.score.value if self.element is None else self.element

    def in_graph(self, graph: ir.Graph) -> Chosen:
        """Return the same choice in a graph whose tensors have the same names."""
        known = names(graph)

        def twin(value: ir.Value | None) -> ir.Value | None:
            return None if value is None else known[value.name or ""]

        score = replace(self.score, value=known[self.score.value.name or ""])
        layers = tuple(
            replace(p, value=known[p.value.name or ""], source=twin(p.source)) for p in self.layers
        )
        return replace(self, score=score, layers=layers, element=twin(self.element))

    def as_numbers(self, graph: ir.Graph) -> Chosen:
        """Return the choice with layers as maps, and quantized tensors as their numbers.

        Elements of an output are taken before Sigmoid or Softmax, as class scores are.
        """
        opset = graph.opset_imports[""]
        score, squashed = replace(self.score, value=as_numbers(graph, self.score.value, opset)), ""
        asked = "" if self.element is None else self.element.name or ""
        single = not self.weighted and self.element in graph.outputs and self.head is None
        if self.element is not None and (single or self.steps is not None):
            before = unsquashed(graph, score.value, opset)
            reached = leads_to(before.value)
            if all(p.value in reached for p in self.layers):  # not after Sigmoid
                score, squashed = replace(score, value=before.value), " or ".join(before.kinds)
        layers = []
        for place in self.layers:
            value = as_numbers(graph, place.value, opset)
            maps = as_maps(graph, value, place.layout, opset)
            layers.append(replace(place, value=maps, source=value))
        element, reading = None if self.element is None else score.value, None
        if element is not None and self.steps is not None:
            element = steps_first(graph, element, self.steps, asked, opset)
        if self.head is not None:
            element, reading = joined(graph, self.head, opset)
            score = replace(score, value=element)
        found = replace(self, score=score, layers=tuple(layers), element=element, reading=reading)
        return replace(found, squashed=squashed, asked=asked)


_DETECTOR = (
    "the model is a detector, whose scores are not of whole images. Its detections are explained: "
    "-t box:0, -t box:LABEL, or one of its numbers: {}."
)


def choose(
    graph: ir.Graph,
    path: Path,
    layers: Sequence[str],
    score: str,
    element: str | None,
    *,
    grid: Grid | None = None,
    metadata: Mapping[str, str] | None = None,
    stand_in: bool = False,
) -> Chosen:
    """Return what is explained.

    Args:
        graph: a prepared graph.
        path: the model's file, for messages.
        layers: see :func:`onnxcam.surgeon.find.layers.find_layers`.
        score: see :func:`onnxcam.surgeon.find.score.find_score`.
        element: the tensor whose elements are explained, ``None`` for class scores.
        grid: rows and columns of patches in layers of tokens.
        metadata: the model's, which may say that it is a detector, and of how many classes.
        stand_in: where no class scores are found, take an output whose elements can be explained.

    Raises:
        NoImageInputError, ScoreError, LayerError, TargetError: something is not there, or does
            not fit. A layer that was not asked for by name may be missing.
    """
    image = find_image_input(graph, path.name)
    tensor, refusal, steps, head = None, "", None, None
    weighted = element is not None and element.startswith(WEIGHTED)
    batch = (dims(names(graph)[image.name]) or [None])[0]
    if element is None:
        try:
            found = find_score(graph, score, batch)
        except ScoreError as error:
            tensor = numbers(graph) if score == "auto" else names(graph).get(score)
            if tensor is None or not dims(tensor) or not is_float(tensor) or not stand_in:
                raise
            refusal = str(error)
            if score == "auto" and (head := find_head(graph, metadata or {})) is not None:
                refusal = _DETECTOR.format(element_option(tensor))
                tensor = names(graph)[head.scores]
    elif element == f"{WEIGHTED}{DETECTIONS}":
        head = find_head(graph, metadata or {})
        if head is None:
            raise refused()
        tensor = names(graph)[head.scores]
    elif element == f"{WEIGHTED}{SEQUENCE}":
        tensor, steps = find_sequence(graph, batch, score)
    elif weighted:
        tensor = _weighted(graph, element.removeprefix(WEIGHTED), score, batch)
    else:
        tensor = _tensor(graph, element)
    whole = False
    if tensor is not None:
        found = Score(tensor, None, (), None)
        whole = steps is None and _is_whole(tensor, batch, head)
    if whole and image.batch not in (None, 1):
        raise ScoreError(refusal) if refusal else _of_no_image(found.value, image)
    rows = head or _head_of(graph, tensor, metadata or {})
    scales = [] if rows is None else _scales(graph, image, rows, layers, grid)
    places, why = tuple(scales), None
    try:
        ends = [found.value, *(names(graph)[s] for s, _ in (head.more if head else ()))]
        places = places or _places(graph, image, _end_after(graph, ends, layers), layers, grid)
    except LayerError as error:
        if list(layers) != ["auto"] or grid is not None:
            raise
        why = ScoreError(refusal) if refusal else error
    if tensor is None and dims(found.value) is None:
        raise LayerError(f"the shape of the score '{found.value.name}' is unknown.")
    weighted |= head is not None
    return Chosen(
        image,
        found,
        places,
        why,
        tensor,
        weighted,
        whole,
        refusal,
        steps=steps,
        head=head,
        scales=bool(scales),
    )


def _of_no_image(tensor: ir.Value, image: ImageInput) -> TargetError:
    """Return why the numbers of a tensor without an axis of images are not explained."""
    return TargetError(
        f"target '{tensor.name}[...]': the tensor does not say which of the {image.batch} images "
        "of a run its numbers belong to."
    )


def _scales(
    graph: ir.Graph, image: ImageInput, head: Head, layers: Sequence[str], grid: Grid | None
) -> list[Place]:
    """Return the layers that a detector's head reads, one a scale, where none are asked for."""
    if list(layers) != ["auto"] or grid is not None:
        return []
    return [Place(v) for v in head_layers(graph, names(graph)[image.name], head)]


def _is_whole(tensor: ir.Value, batch: Batch, head: Head | None) -> bool:
    """Whether a tensor belongs to one image as a whole: its first axis is not the images."""
    if head is not None and head.classes:
        return head.single
    return not has_images_first(tensor, batch)


def _head_of(graph: ir.Graph, tensor: ir.Value | None, metadata: Mapping[str, str]) -> Head | None:
    """Return the head of a detector that gives a tensor of numbers, if it is one's."""
    if tensor is None or not any(tensor is output for output in graph.outputs):
        return None
    head = find_head(graph, metadata)
    return head if head is not None and tensor.name in head.tensors else None


def _end_after(graph: ir.Graph, ends: Sequence[ir.Value], layers: Sequence[str]) -> ir.Value:
    """Return which of a detector's tensors the first layer lies before; else the first of them."""
    layer = names(graph).get(str(layers[0]))
    return next((e for e in ends if layer is not None and layer in leads_to(e)), ends[0])


def _places(
    graph: ir.Graph,
    image: ImageInput,
    score: ir.Value,
    layers: Sequence[str],
    grid: Grid | None,
) -> tuple[Place, ...]:
    """Return the layers, and how each is read."""
    source = names(graph)[image.name]
    if grid is not None and len(image.axes) != 2:
        raise LayerError(
            f"a grid of {grid[0]}x{grid[1]} is said for tokens of images, and '{image.name}' takes "
            f"{image.kind}s: leave out --grid."
        )
    layouts = Layouts(graph, source, len(image.axes), grid)
    found = find_layers(graph, source, score, layers, layouts)
    places = tuple(_place(layouts, image, value, kind, score) for value, kind in found)
    if grid is not None and all(p.layout is None or p.layout.grid is None for p in places):
        raise LayerError(
            f"a grid of {grid[0]}x{grid[1]} is said for tokens [N, L, K], and the layer "
            f"'{places[0].value.name}' has rows and columns: leave out --grid, or name another "
            "with --layer."
        )
    return places


def _weighted(graph: ir.Graph, name: str, score: str, batch: Batch) -> ir.Value:
    """Return the tensor whose weighted sums are explained."""
    if name == SCORES:
        return find_score(graph, score, batch).value
    if name == DENSE:
        return find_dense(graph, batch, score)
    if name == EMBEDDING:
        return find_embedding(graph, batch, score)
    return _tensor(graph, name)


def _tensor(graph: ir.Graph, name: str) -> ir.Value:
    """Return a tensor whose elements can be explained."""
    known = names(graph)
    if name not in known:
        raise TargetError(f"target '{name}[...]': no tensor '{name}'.{nearest(name, known)}")
    value = known[name]
    if value not in depends_on(graph, set(graph.inputs)):
        raise TargetError(f"target '{name}[...]': the tensor is not computed from the image.")
    sizes = dims(value)
    if not is_float(value):
        kind = "of unknown type" if value.dtype is None else value.dtype.name.lower()
        raise TargetError(f"target '{name}[...]': the tensor is {kind}, not floating point.")
    if not sizes:
        shown = "of unknown shape" if sizes is None else "a single number"
        raise TargetError(f"target '{name}[...]': the tensor is {shown}.")
    return value


def _place(
    layouts: Layouts, image: ImageInput, layer: ir.Value, kind: Kind | None, score: ir.Value
) -> Place:
    """Return how a layer is read; ``kind`` is what the user says of that.

    Raises:
        LayerError: its places cannot be told from its channels.
    """
    shape, checked = dims(layer) or [], False
    if kind is not None:
        if len(shape) != 4:
            raise LayerError(
                f"layer '{layer.name}' of shape {shape} has no four axes, of which channels could "
                "be the second or the last."
            )
        layout: Layout | None = Layout(kind)
    elif len(shape) == 3:
        layout = layouts.tokens(layer)
        checked = layout.before is None
    else:
        layout = layouts.of(layer) if len(shape) == 4 else None
        if layout is None and len(shape) == 4:
            lengths = [d for d in [*shape[1:], image.height, image.width] if isinstance(d, int)]
            checked = len(lengths) < 5
            if not checked and seems_last([0, *lengths[:3]], (lengths[3], lengths[4])):
                layout = Layout(Kind.LAST)
    turned = layout is not None and layout.kind is not Kind.MAPS
    mixed = turned and bool(attention(layouts.graph, layer, score))
    return Place(layer, layout, mixed, checked)
