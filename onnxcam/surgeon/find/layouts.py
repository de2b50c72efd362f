"""How a layer's places and channels lie: maps, channels last, or tokens.

Convolutions give maps ``[N, K, H, W]``; ConvNeXt and Swin keep channels last, ``[N, H, W, K]``;
vision transformers keep tokens, ``[N, L, K]``, which patches of the image, row by row, and a few
others (class, distillation, registers) make up. The layout is followed through the graph, since
lengths alone do not tell it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import onnx_ir as ir

from onnxcam.errors import LayerError
from onnxcam.gradient.appended import appended, last_node
from onnxcam.graph.builder import Builder
from onnxcam.graph.operators import Trait, has
from onnxcam.graph.values import constant, depends_on, dims
from onnxcam.surgeon.lengths import MOST_OTHERS, Grid, fits, grid_option, ill_fitting

MAPS = ":maps"  # suffix of the name of a layer that is read as maps
NORMS = ("LayerNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization")
_KEEPING = Trait.ELEMENTWISE | Trait.PASSES | Trait.FINISHES


class Kind(Enum):
    """Which axes are places."""

    MAPS = auto()  # [N, K, H, W]
    LAST = auto()  # [N, H, W, K]
    TOKENS = auto()  # [N, L, K]


@dataclass(frozen=True)
class Layout:
    """How a layer is read.

    Attributes:
        kind: which axes are places.
        grid: rows and columns of patches; ``None`` for other kinds.
        before: how many tokens come before the patches; ``None`` where only the run knows.
        after: how many come after them.
    """

    kind: Kind
    grid: tuple[int, ...] | None = None
    before: int | None = 0
    after: int = 0


class Layouts:
    """The layouts of a graph's tensors that are computed from the image."""

    def __init__(
        self, graph: ir.Graph, image: ir.Value, axes: int = 2, grid: Grid | None = None
    ) -> None:
        """Follow layouts from an input.

        Args:
            graph: the graph.
            image: the input.
            axes: how many spatial axes it has.
            grid: that of every layer of tokens, where the user says it.
        """
        self.graph, self._least, self.given = graph, axes + 2, grid
        self._image = dims(image) or []
        self.kinds: dict[ir.Value, Kind] = {}
        self._grid: list[int | str | None] = []  # rows and columns of what was made tokens
        self._moving = depends_on(graph, {image})
        for node in graph:
            if node.outputs and node.outputs[0] in self._moving:
                kind = self._kind(node)
                if kind is not None:
                    self.kinds[node.outputs[0]] = kind

    def of(self, value: ir.Value) -> Layout | None:
        """Return how a tensor is read; ``None`` where that is not known."""
        kind = self.kinds.get(value)
        if self._in_pieces(value):
            return None
        if kind is not Kind.TOKENS:
            return None if kind is None else Layout(kind)
        return self._tokens(value) if self.given is None else self._as_given(value)

    def tokens(self, value: ir.Value) -> Layout:
        """Return how a layer of three axes is read.

        Raises:
            LayerError: its grid is not known, or the one that is given does not fit.
        """
        shape, size = dims(value) or [], self._size()
        if self._in_pieces(value):
            raise LayerError(
                f"layer '{value.name}' of shape {shape}: its first axis is not the images; windows "
                "or heads of an image are no map of it. --layer names one before or after them."
            )
        found = self.of(value) if self.given is None else self._as_given(value)
        if found is not None:
            return found
        if self.given is not None:
            raise LayerError(ill_fitting(value.name or "", shape, self.given, size))
        raise LayerError(
            f"layer '{value.name}' of shape {shape} has one axis after its channels, or holds "
            "tokens whose grid is not known; a heatmap on an image needs rows and columns. "
            f"{grid_option(shape[1], size)}"
        )

    def _as_given(self, value: ir.Value) -> Layout | None:
        """Return the layout of tokens with the grid that the user says, if it fits."""
        assert self.given is not None
        length = (dims(value) or [None, None])[1]
        if not isinstance(length, int):
            return Layout(Kind.TOKENS, self.given, before=None)
        others = length - math.prod(self.given)
        return Layout(Kind.TOKENS, self.given, others) if fits(self.given, length) else None

    def _in_pieces(self, value: ir.Value) -> bool:
        """Whether the first axis is known not to be the images."""
        lengths = self._image[:1] + (dims(value) or [])[:1]
        return all(isinstance(d, int) for d in lengths) and len(set(lengths)) > 1

    def _size(self) -> tuple[int, int] | None:
        """Return height and width of the image, if they are known."""
        lengths = [d for d in self._image[1:] if isinstance(d, int)]
        if len(lengths) != 3:
            return None
        last = lengths[2] < lengths[0]
        return (lengths[0], lengths[1]) if last else (lengths[1], lengths[2])

    def _kind(self, node: ir.Node) -> Kind | None:
        output = node.outputs[0]
        rank = len(dims(output) or [])
        known = [self.kinds.get(v) for v in node.inputs if v is not None]
        first = known[0] if known else None
        if has(node, Trait.CONVOLUTION):
            return Kind.MAPS if rank >= self._least else None
        if node.op_type in NORMS:
            return {3: Kind.TOKENS, 4: Kind.LAST}.get(rank)
        if node.op_type == "Transpose":
            return self._transposed(node, first, rank)
        if node.op_type in ("MatMul", "Gemm", "Concat"):
            keeps = node.op_type == "Concat" or constant(node.inputs[1]) is not None
            found = next((k for k in known if k is not None), None)
            return found if keeps and self._fits(found, rank) else None
        if node.op_type == "Reshape":
            return self._reshaped(node, first, rank)
        if has(node, _KEEPING):
            return next((k for k in known if self._fits(k, rank)), None)
        return None

    def _transposed(self, node: ir.Node, kind: Kind | None, rank: int) -> Kind | None:
        perm = list(node.attributes.get_ints("perm") or ())
        source = node.inputs[0]
        if perm == [0, 2, 3, 1] and kind is Kind.MAPS:
            return Kind.LAST
        if perm == [0, 3, 1, 2] and kind is Kind.LAST:
            return Kind.MAPS
        if perm != [0, 2, 1] or rank != 3 or source is None:
            return None
        if kind is Kind.TOKENS and self._least == 3:
            return Kind.MAPS
        if kind is Kind.MAPS:  # maps of a signal
            self._grid = (dims(source) or [])[2:]
            return Kind.TOKENS
        reshaped = source.producer()  # maps [N, K, H, W] as [N, K, L], then tokens
        if reshaped is None or not has(reshaped, Trait.RESHAPES):
            return None
        maps = reshaped.inputs[0]
        if maps is None or self.kinds.get(maps) is not Kind.MAPS:
            return None
        self._grid = (dims(maps) or [])[2:]
        return Kind.TOKENS

    def _reshaped(self, node: ir.Node, kind: Kind | None, rank: int) -> Kind | None:
        """Return the layout where only rows and columns become one axis, or one becomes both."""
        source = node.inputs[0]
        before, after = (dims(source) or [] if source else []), dims(node.outputs[0]) or []
        ends = [before[:1] + before[-1:], after[:1] + after[-1:]]
        if not self._fits(kind, len(before)) or kind is Kind.MAPS or ends[0] != ends[1]:
            return None
        if (kind, rank) == (Kind.LAST, 3):
            self._grid = before[1:3]
            return Kind.TOKENS
        grid = [d for d in after[1:3] if isinstance(d, int)]
        if (kind, rank) == (Kind.TOKENS, 4) and len(grid) == 2 and before[1] == grid[0] * grid[1]:
            return Kind.LAST
        return kind if before == after else None

    def _tokens(self, value: ir.Value) -> Layout | None:
        """Return the grid of patches among tokens, if the patch embedding tells it."""
        length = (dims(value) or [None, None])[1]
        grid = tuple(d for d in self._grid if isinstance(d, int))
        if not grid or len(grid) != len(self._grid):
            return None
        if not isinstance(length, int):  # a run in which it holds no such grid fails
            return Layout(Kind.TOKENS, grid, 0 if self._patches_come_first() else None)
        while all(grid):
            others = length - math.prod(grid)
            if others >= 0:
                if others > MOST_OTHERS:
                    return None
                last = others > 0 and self._patches_come_first()
                before, after = (0, others) if last else (others, 0)
                return Layout(Kind.TOKENS, grid, before, after)
            if any(d % 2 for d in grid):  # stages merge two by two
                return None
            grid = tuple(d // 2 for d in grid)
        return None

    def _fits(self, kind: Kind | None, rank: int) -> bool:
        """Whether a tensor of this rank can have this layout."""
        if kind is Kind.MAPS:
            return rank >= self._least
        return kind is not None and rank == (3 if kind is Kind.TOKENS else 4)

    def _patches_come_first(self) -> bool:
        """Whether the patches were joined with other tokens that come after them."""
        joins = [
            n
            for n in self.graph
            if n.op_type == "Concat"
            and self.kinds.get(n.outputs[0]) is Kind.TOKENS
            and n.attributes.get_int("axis", 0) in (1, -2)
        ]
        return any(n.inputs[0] in self._moving and n.inputs[-1] not in self._moving for n in joins)


def as_maps(graph: ir.Graph, value: ir.Value, layout: Layout | None, opset: int) -> ir.Value:
    """Return a layer as maps ``[N, K, H, W]``; itself where it is that already.

    Every reader of the layer then reads the maps, laid out as the layer was, so that they lie on
    the way to the score.
    """
    producer = value.producer()
    if layout is None or layout.kind is Kind.MAPS or producer is None:
        return value
    readers = tuple(value.uses())
    last, b = last_node(graph), Builder(graph, opset)
    shape = dims(value) or []

    def op(
        name: str, *inputs: ir.Value, shape: list[int | str | None], **attributes: Any
    ) -> ir.Value:
        made = b.op(name, *inputs, **attributes)
        made.shape, made.type = ir.Shape(shape), value.type
        return made

    if layout.kind is Kind.LAST:
        n, *space, k = shape
        maps = op("Transpose", value, perm=[0, 3, 1, 2], shape=[n, k, *space])
        again = op("Transpose", maps, perm=[0, 2, 3, 1], shape=shape)
    else:
        assert layout.grid is not None
        (n, length, k), grid = shape, list(layout.grid)
        count = math.prod(grid)
        others = layout.before
        start, end = (-count, 2**62) if others is None else (others, others + count)

        def some(first: int, last: int, many: int | None) -> ir.Value:
            ends = b.ints(first), b.ints(last), b.ints(1)
            return op("Slice", value, *ends, shape=[n, many, k])

        several = others is None or others or layout.after
        patches = some(start, end, count) if several else value
        turned = op("Transpose", patches, perm=[0, 2, 1], shape=[n, k, count])
        maps = op("Reshape", turned, b.ints(0, 0, *grid), shape=[n, k, *grid])
        flat = op("Reshape", maps, b.ints(0, 0, count), shape=[n, k, count])
        again = op("Transpose", flat, perm=[0, 2, 1], shape=[n, count, k])
        if several:
            head = [] if others == 0 else [some(0, start, others)]
            tail = [some(end, 2**62, layout.after)] if layout.after else []
            again = op("Concat", *head, again, *tail, axis=1, shape=[n, length, k])
    maps.name, maps.type = f"{value.name}{MAPS}", value.type
    again.shape, again.type = value.shape, value.type
    for use in readers:
        use.node.replace_input_with(use.idx, again)
    added = list(appended(graph, last))
    graph.remove(added)
    graph.insert_after(producer, added)
    return maps
