"""Choose what is explained: image input, score, layer, or the tensor of single elements."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from onnxcam.errors import LayerError, OnnxcamError, ScoreError, TargetError, nearest
from onnxcam.graph.values import depends_on, dims, is_float, leads_to, names
from onnxcam.surgeon.find.attention import attention
from onnxcam.surgeon.find.heads import has_images_first
from onnxcam.surgeon.find.image import find_image_input
from onnxcam.surgeon.find.layer import find_layer
from onnxcam.surgeon.find.layouts import Kind, Layout, Layouts, as_maps
from onnxcam.surgeon.find.logits import unsquashed
from onnxcam.surgeon.find.quantized import as_numbers
from onnxcam.surgeon.find.score import Batch, Score, find_score, numbers
from onnxcam.surgeon.find.sequences import Axes, find_sequence, steps_first
from onnxcam.surgeon.find.tensors import find_dense, find_embedding
from onnxcam.surgeon.plan import ImageInput
from onnxcam.surgeon.request import DENSE, EMBEDDING, SCORES, SEQUENCE, WEIGHTED


@dataclass(frozen=True)
class Chosen:
    """What is explained.

    Attributes:
        image: the image input.
        score: the class scores, or what elements are taken of.
        layer: the layer's tensor ``[N, K, *S]``; ``None`` where there is none, and ``why`` then
            says so.
        element: the tensor whose elements are explained, in place of class scores.
        weighted: whether weighted sums of it are explained, not single elements.
        whole: whether the element's tensor belongs to one image as a whole: its first axis is not
            the images.
        layout: how the layer is read, where that is known.
        mixed: whether attention mixes the layer's places before the score is made of them.
        refusal: why there are no class scores, where they were wanted and ``element`` stands in.
        squashed: the operators before which elements are taken, ``"Sigmoid"``, and ``asked`` the
            tensor that they were asked of.
        steps: the axes of images, steps and classes, where scores of steps are weighed.
    """

    image: ImageInput
    score: Score
    layer: ir.Value | None
    why: OnnxcamError | None
    element: ir.Value | None
    weighted: bool = False
    whole: bool = False
    layout: Layout | None = None
    mixed: bool = False
    refusal: str = ""
    squashed: str = ""
    asked: str = ""
    steps: Axes | None = None

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
        return replace(self, score=score, layer=twin(self.layer), element=twin(self.element))

    def as_numbers(self, graph: ir.Graph) -> Chosen:
        """Return the choice with the layer as maps, and quantized tensors as their numbers.

        Elements of an output are taken before Sigmoid or Softmax, as class scores are.
        """
        opset = graph.opset_imports[""]
        score, squashed = replace(self.score, value=as_numbers(graph, self.score.value, opset)), ""
        asked = "" if self.element is None else self.element.name or ""
        single = not self.weighted and self.element in graph.outputs
        if self.element is not None and (single or self.steps is not None):
            before = unsquashed(graph, score.value, opset)
            if self.layer is None or self.layer in leads_to(before.value):  # not after Sigmoid
                score, squashed = replace(score, value=before.value), " or ".join(before.kinds)
        layer = None if self.layer is None else as_numbers(graph, self.layer, opset)
        layer = None if layer is None else as_maps(graph, layer, self.layout, opset)
        element = None if self.element is None else score.value
        if element is not None and self.steps is not None:
            element = steps_first(graph, element, self.steps, asked, opset)
        found = replace(self, score=score, layer=layer, element=element)
        return replace(found, squashed=squashed, asked=asked)


def choose(
    graph: ir.Graph,
    path: Path,
    layer: str | int,
    score: str,
    element: str | None,
    *,
    stand_in: bool = False,
) -> Chosen:
    """Return what is explained.

    Args:
        graph: a prepared graph.
        path: the model's file, for messages.
        layer: see :func:`onnxcam.surgeon.find.layer.find_layer`.
        score: see :func:`onnxcam.surgeon.find.score.find_score`.
        element: the tensor whose elements are explained, ``None`` for class scores.
        stand_in: where no class scores are found, take an output whose elements can be explained.

    Raises:
        NoImageInputError, ScoreError, LayerError, TargetError: something is not there, or does
            not fit. A layer that was not asked for by name may be missing.
    """
    image = find_image_input(graph, path.name)
    tensor, refusal, steps = None, "", None
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
    elif element == f"{WEIGHTED}{SEQUENCE}":
        tensor, steps = find_sequence(graph, batch, score)
    elif weighted:
        tensor = _weighted(graph, element.removeprefix(WEIGHTED), score, batch)
    else:
        tensor = _tensor(graph, element)
    whole = False
    if tensor is not None:
        found = Score(tensor, None, (), None)
        whole = steps is None and not has_images_first(tensor, batch)
    if whole and image.batch not in (None, 1):
        if refusal:
            raise ScoreError(refusal)
        raise TargetError(
            f"target '{found.value.name}[...]': the tensor does not say which of the "
            f"{image.batch} images of a run its numbers belong to."
        )
    value, layout, mixed = None, None, False
    why: OnnxcamError | None = None
    source = names(graph)[image.name]
    try:
        layouts = Layouts(graph, source)
        value = find_layer(graph, source, found.value, layer, layouts)
        layout = _layout(layouts, image, value)
        turned = layout is not None and layout.kind is not Kind.MAPS
        mixed = turned and bool(attention(graph, value, found.value))
    except LayerError as error:
        if layer != "auto":
            raise
        value, why = None, ScoreError(refusal) if refusal else error
    if tensor is None and dims(found.value) is None:
        raise LayerError(f"the shape of the score '{found.value.name}' is unknown.")
    return Chosen(
        image, found, value, why, tensor, weighted, whole, layout, mixed, refusal, steps=steps
    )


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


def _layout(layouts: Layouts, image: ImageInput, layer: ir.Value) -> Layout | None:
    """Return how a layer is read.

    Raises:
        LayerError: its places cannot be told from its channels.
    """
    shape = dims(layer) or []
    layout = layouts.of(layer) if len(shape) in (3, 4) else None
    if layout is None and _seems_last(image, shape):
        layout = Layout(Kind.LAST)
    if layout is None and len(shape) == 3:
        raise LayerError(
            f"layer '{layer.name}' of shape {shape} has one axis after its channels, or holds "
            "tokens whose grid is not known; a heatmap on an image needs rows and columns."
        )
    return layout


def _seems_last(image: ImageInput, shape: list[int | str | None]) -> bool:
    """Whether lengths alone tell that channels come last."""
    sizes = (image.height, image.width)
    if len(shape) != 4 or not all(isinstance(d, int) and d for d in [*shape[1:], *sizes]):
        return False
    first, second, third = (int(d) for d in shape[1:] if isinstance(d, int))
    height, width = (int(s) for s in sizes if s is not None)

    def alike(a: int, b: int) -> bool:
        """Whether one stride leads from the image to maps of a by b positions."""
        return abs(height / a - width / b) <= 0.15 * max(height / a, width / b)

    return alike(first, second) and not alike(second, third)
