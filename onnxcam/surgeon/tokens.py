"""The tokens of a vision transformer: how they attend to each other, and where patches lie."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property

import onnx_ir as ir

from onnxcam.errors import MethodError
from onnxcam.gradient.add import new_walk, walk_back
from onnxcam.graph.builder import Builder
from onnxcam.graph.terms import Term
from onnxcam.graph.values import constant, depends_on, dims, leads_to
from onnxcam.surgeon.find.attention import attention
from onnxcam.surgeon.find.layouts import Kind, Layout
from onnxcam.surgeon.reference import with_another
from onnxcam.surgeon.seeds.head import Cotangent

Make = Callable[[ir.Value], Term]


class Tokens:
    """Attention between the image and what is explained; ``L`` tokens, ``M`` heads.

    Attributes:
        attentions: what Softmax gives in each block, ``[N, M, L, L]``, the first block's first: how
            much each token, in rows, reads of each other one.
        read: which tokens the score is read from, ``[1, L]``: the first, where tokens come before
            the patches, else all of them alike.
    """

    def __init__(
        self, b: Builder, image: ir.Value, start: Cotangent, layout: Layout | None, make: Make
    ) -> None:
        """Find attention.

        Raises:
            MethodError: the layer is none of tokens, or no block has all of them attend to each
                other in a tensor of its own.
        """
        if layout is None or layout.kind is not Kind.TOKENS or layout.grid is None:
            raise MethodError(
                "it reads how patches attend to each other, so the explained layer is one of a "
                "transformer's tokens. attn-lrp and grad-cam take other networks too."
            )
        self._b, self._image, self._start, self._make = b, image, start, make
        self._layout, self._grid = layout, layout.grid
        found = attention(b.graph, image, start.value)
        self._values = [n.outputs[0] for n in found if self._among_all(n.outputs[0])]
        if not self._values:
            raise MethodError(
                "no tensor of the model says how all patches attend to each other (attention in "
                "windows, or fused into one operator). attn-lrp and grad-cam need none."
            )

    def _among_all(self, weights: ir.Value) -> bool:
        """Whether attention goes from every token to every one."""
        sizes = dims(weights) or []
        if len(sizes) != 4 or sizes[2] != sizes[3]:
            return False
        least = math.prod(self._grid) + (self._layout.before or 0) + self._layout.after
        if self._layout.before is None:
            return not isinstance(sizes[3], int) or sizes[3] >= least
        return not isinstance(sizes[3], int) or sizes[3] == least

    @cached_property
    def attentions(self) -> list[Term]:
        """Attention of each block."""
        return [self._make(v) for v in self._values]

    def gradients(self) -> list[Term]:
        """Return the targets' gradient at attention, ``[T, N, M, L, L]`` of each block."""
        return [self._make(g) for g in self._start.gradients(self._b, self._values)]

    def gradients_by_block(self) -> list[Term]:
        """Return the gradient at attention of the score read from each block's own tokens.

        What reads the score from the last block's tokens, a normalization and the head, is written
        again for those of each block.

        Raises:
            MethodError: the score is not read from the last block's tokens alone.
        """
        outputs, end = self._block_outputs(), self._start.value
        last, found = outputs[-1], []
        wanted = leads_to(end) & depends_on(self._b.graph, {last})
        varying = depends_on(self._b.graph, {self._image})
        nodes = [n for n in self._b.graph if not wanted.isdisjoint(n.outputs)]
        reading = [n for n in nodes if last not in n.outputs]
        if any(v in varying and v not in wanted for n in reading for v in n.inputs if v):
            raise MethodError(
                "it reads the score from every block, and that of this model is read from more "
                "than the last one's tokens. attention-gradient takes it."
            )
        for weights, output in zip(self._values, outputs, strict=True):
            copied = {last: last, end: end}
            if output is not last:
                copied = with_another(self._b, last, wanted, output)
            walk = new_walk(self._b, unclipped=self._start.unclipped)
            found += walk_back(walk, copied[end], self._start.full(), [weights])
        return [self._make(g) for g in found]

    def _block_outputs(self) -> list[ir.Value]:
        """Return the tokens that each block gives: the last residual sum before the next one."""
        graph = self._b.graph
        varying = depends_on(graph, {self._image})
        sums = [
            n.outputs[0]
            for n in graph
            if n.op_type == "Add"
            and len(dims(n.outputs[0]) or []) == 3
            and all(v in varying and constant(v) is None for v in n.inputs)
        ]
        ends, found = [*self._values[1:], self._start.value], []
        for weights, end in zip(self._values, ends, strict=True):
            between = depends_on(graph, {weights}) & leads_to(end)
            mine = [v for v in sums if v in between]
            if not mine:
                raise MethodError(
                    "a block of the model does not end in a sum of tokens, so the score cannot be "
                    "read from it. attention-gradient takes it."
                )
            found.append(mine[-1])
        return found

    @cached_property
    def read(self) -> Term:
        """Which tokens the score is read from, ``[1, L]``."""
        b, kind = self._b, self._values[-1].dtype or ir.DataType.FLOAT
        length = b.op("Slice", b.op("Shape", self._values[-1]), b.ints(3), b.ints(4))
        if self._layout.before == 0:
            one = b.op("Div", b.constant(1.0, kind), b.op("Cast", length, to=kind))
            row = b.op("Expand", one, length)
        else:
            scalar = b.op("Squeeze", length, b.ints(0))
            places = b.op("Range", b.constant(0), scalar, b.constant(1))
            row = b.op("Cast", b.op("Equal", places, b.constant(0)), to=kind)
        return self._make(b.op("Unsqueeze", row, b.ints(0)))

    def mean_heads(self, weights: Term) -> Term:
        """Average ``[..., M, L, L]`` over heads."""
        return self._make(self._b.mean(weights.value, [-3]))

    def mean_queries(self, weights: Term) -> Term:
        """Average ``[..., L, L]`` over what reads, ``[..., 1, L]``."""
        return self._make(self._b.mean(weights.value, [-2], keepdims=True))

    def maps(self, row: Term, axes: int) -> Term:
        """Return the patches of ``[..., 1, L]`` on their grid, ``[..., rows, columns]``.

        ``axes`` counts those before the last two.
        """
        b, count, before = self._b, math.prod(self._grid), self._layout.before
        start, end = (-count, 2**62) if before is None else (before, before + count)
        patches = b.op("Slice", row.value, b.ints(start), b.ints(end), b.ints(-1))
        shape: Sequence[int] = [*[0] * axes, *self._grid]
        return self._make(b.op("Reshape", patches, b.ints(*shape)))
