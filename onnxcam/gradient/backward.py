"""The state of one walk back through a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Protocol

import onnx_ir as ir

from onnxcam.graph.builder import Builder, shaped
from onnxcam.graph.values import dims

Cotangents = Sequence[ir.Value | None]  # one for each output, None where it has none


def length_of_t(builder: Builder, g: ir.Value) -> ir.Value:
    """Return ``T``, the number of cotangents in ``g``, as a vector of one int64."""
    return builder.op("Slice", builder.op("Shape", g), builder.ints(0), builder.ints(1))


@dataclass(frozen=True)
class Where:
    """Where on the path a node lies.

    Attributes:
        first: no linear operator lies between it and what is differentiated by.
        last: no linear operator lies between it and what is differentiated.
        depth: the share of the path's linear operators that come before it, 0 to 1.
    """

    first: bool = False
    last: bool = False
    depth: float = 0.0


class WalkRule(Protocol):
    """What the walk asks of a rule; :mod:`onnxcam.gradient.kinds` has its kinds."""

    @property
    def gates(self) -> bool:
        """Whether no cotangent passes where the operator's derivative is 0."""

    def needed(self, node: ir.Node) -> int:
        """Return the opset that the rule's operators need."""

    def back(
        self, walk: Backward, node: ir.Node, gs: Cotangents, carrying: set[ir.Value]
    ) -> Iterable[tuple[ir.Value, ir.Value]]:
        """Append a node's backward pass; yield values that it reads, with a cotangent each."""

    def why_none(self, node: ir.Node, carrying: set[ir.Value]) -> str | None:
        """Return why no gradient passes from the node to the values that carry one."""


FindRule = Callable[[ir.Node, Where], WalkRule | None]


@dataclass(eq=False)
class Backward:
    """One walk back: what it is to do, and how far it has come.

    Attributes:
        builder: where operators are appended.
        find: returns a node's rule: the table's, with overrides laid over it.
        changes: whether an override has a node's rule return something else than the derivative.
        fixed_t: ``T``, where the graph is written for one number of cotangents.
        unclipped: quantizers that are read as if they had no range.
        changed: names of nodes whose rule an override changed.
        findings: what only the run can tell of a node, by the node's name: true or false.
        places: where the nodes of the path lie, as far as overrides ask.
        ends: tensors that a gradient is wanted of, or given to.
        masked: rectifiers whose mask has been applied to a cotangent before.
        finite: no operator passed so far has an infinite slope anywhere.
        length: ``T`` as an int64 vector, where it has been computed.
        merged: ``[T, *S]`` -> the same as ``[T * N, ...]``.
        shapes: value -> ``[T, *its shape]`` as an int64 vector.
    """

    builder: Builder
    find: FindRule
    changes: Callable[[ir.Node, Where], bool]
    fixed_t: int | None = None
    unclipped: frozenset[ir.Node] = frozenset()
    changed: list[str] = field(default_factory=list)
    findings: dict[str, ir.Value] = field(default_factory=dict)
    places: Mapping[ir.Node, Where] = field(default_factory=dict)
    around: Where = Where()
    ends: frozenset[ir.Value] = frozenset()
    masked: set[ir.Node] = field(default_factory=set)
    finite: bool = True
    length: ir.Value | None = None
    merged: dict[ir.Value, ir.Value] = field(default_factory=dict)
    shapes: dict[ir.Value, ir.Value] = field(default_factory=dict)

    def within(self, builder: Builder) -> Backward:
        """Return the walk through a subgraph, which may read what was made outside of it."""
        inside = copy(self)
        inside.builder = builder
        inside.merged, inside.shapes = dict(self.merged), dict(self.shapes)
        return inside

    def where(self, node: ir.Node) -> Where:
        """Return where a node lies; one of an expansion lies where the expanded node does."""
        return self.places.get(node, self.around)

    def rule_for(self, node: ir.Node) -> WalkRule | None:
        """Return the rule of a node, ``None`` where there is none."""
        return self.find(node, self.where(node))

    def overridden(self, node: ir.Node) -> bool:
        """Whether an override has the node's rule return something else than the derivative."""
        return self.changes(node, self.where(node))

    def merge_t(self, g: ir.Value, like: ir.Value, keep: int = 1) -> ir.Value:
        """Reshape ``[T, *like]`` so that T and all axes before ``keep`` become the first axis."""
        builder = self.builder
        if keep == 1 and g in self.merged:
            return self.merged[g]
        if keep == 1 and self.fixed_t == 1:
            return shaped(builder.op("Squeeze", g, builder.ints(0)), like)
        rest = (dims(like) or [])[keep:]
        known = [d for d in rest if isinstance(d, int)]
        if len(known) == len(rest):
            target = builder.ints(-1, *known)
        else:
            shape = builder.shape(like)
            tail = builder.op("Slice", shape, builder.ints(keep), builder.ints(len(rest) + keep))
            target = builder.op("Concat", builder.ints(-1), tail, axis=0)
        return builder.op("Reshape", g, target)

    def split_t(self, g: ir.Value, like: ir.Value, merged: bool = False) -> ir.Value:
        """Reshape to ``[T, *like]``; ``merged`` says that ``g`` is what :meth:`merge_t` returns."""
        builder = self.builder
        if merged and self.fixed_t == 1:
            result = builder.op("Unsqueeze", shaped(g, like), builder.ints(0))
            self.merged[result] = g
            return result
        known = [d for d in dims(like) or [None] if isinstance(d, int)]
        settings: dict[str, int] = {}
        if like.shape is not None and len(known) == len(like.shape) and 0 not in known:
            target = builder.ints(-1, *known)
        else:  # -1 beside a length that turns out to be 0 is no shape
            if like not in self.shapes:
                T = builder.ints(-1) if self.length is None else self.length
                self.shapes[like] = builder.op("Concat", T, builder.op("Shape", like), axis=0)
            target = self.shapes[like]
            if self.length is not None and builder.opset >= 14:
                settings["allowzero"] = 1  # without it, 0 stands for the length before
        result = builder.op("Reshape", g, target, **settings)
        if merged:  # the runtime keeps its own layout between two convolutions without Reshape
            self.merged[result] = g
        return result
