"""Scan: back through the iterations, the last one first.

With states ``s``, elements ``x`` of the scan inputs and captured values ``w``, iteration ``i``
computes ``s[i+1], y[i] = body(s[i], x[i], w)``. Given the cotangents of the final states and of
the stacked ``y``, the backward body recomputes the values of iteration ``i`` and returns the
vector-Jacobian product of the body::

    gs[i], gx[i], gw[i] = pull_back(gs[i+1], gy[i])

Another Scan does this in the opposite direction: ``gs`` are its states, ``gx`` is stacked, ``gw``
summed. Where it needs the states ``s[i]``, a copy of the first Scan stacks them. Cotangents have
the axis ``T`` in front, so the axes along which they are sliced move by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnxcam.gradient.backward import Cotangents
from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.subgraphs import (
    close,
    copy_body,
    copy_inputs,
    opset_inside,
    some_length_of_t,
    zeros,
)
from onnxcam.gradient.infinite_slopes import has_infinite_slope
from onnxcam.gradient.registry import whole
from onnxcam.gradient.walker import add_cotangents, pull_back
from onnxcam.graph.builder import Builder
from onnxcam.graph.values import depends_on, is_float, reads


@dataclass(frozen=True)
class Slices:
    """How a tensor is read or written slice by slice; direction 1 starts at the last slice."""

    axis: int = 0
    direction: int = 0

    def back(self) -> Slices:
        """Return the same slices in the opposite order."""
        return Slices(self.axis, 1 - self.direction)

    def cotangents(self) -> Slices:
        """Return the slices of cotangents, in the opposite order."""
        return Slices(self.axis + 1 if self.axis >= 0 else self.axis, 1 - self.direction)


def scan_node(
    builder: Builder,
    body: ir.Graph,
    initial: Sequence[ir.Value],
    inputs: Sequence[tuple[ir.Value, Slices]],
    outputs: Sequence[Slices],
) -> Sequence[ir.Value]:
    """Append a Scan; return its final states and its stacked outputs."""
    settings: dict[str, Any] = {"body": body, "num_scan_inputs": len(inputs)}
    for side, slices in (("input", [s for _, s in inputs]), ("output", outputs)):
        if any(s.axis for s in slices):
            settings[f"scan_{side}_axes"] = [s.axis for s in slices]
        if any(s.direction for s in slices):
            settings[f"scan_{side}_directions"] = [s.direction for s in slices]
    operands = [*initial, *(value for value, _ in inputs)]
    return builder.op_many("Scan", operands, len(initial) + len(outputs), **settings)


class _Scan:
    """The parts of a Scan node: its operands, and the inputs and outputs of its body."""

    def __init__(self, c: Call) -> None:
        body = self.body = c.node.attributes["body"].as_graph()
        operands = [v for v in c.node.inputs if v is not None]
        n = self.states = len(operands) - int(c.attribute("num_scan_inputs", 0))
        self.initial, stacked = operands[:n], operands[n:]
        self.before, self.elements = list(body.inputs[:n]), list(body.inputs[n:])
        self.after, self.results = list(body.outputs[:n]), list(body.outputs[n:])
        self.inputs = list(zip(stacked, _slices(c, "input", len(stacked)), strict=True))
        self.outputs = _slices(c, "output", len(self.results))

    def copy(self, builder: Builder) -> tuple[list[ir.Value], dict[ir.Value, ir.Value]]:
        """Append copies of the body's nodes; return new inputs, and the copy of each value."""
        inputs = copy_inputs(builder, self.body)
        known = dict(zip(self.body.inputs, inputs, strict=True))
        return inputs, copy_body(builder, self.body, known)

    def history(self, builder: Builder, kept: Sequence[int]) -> Sequence[ir.Value]:
        """Append a copy of the Scan that stacks these states at the start of each iteration."""
        if not kept:
            return []
        again = builder.subgraph("again", [])
        inputs, known = self.copy(again)
        again.graph.inputs.extend(inputs)
        close(again, [*(known.get(v, v) for v in self.after), *(inputs[i] for i in kept)])
        outputs = scan_node(builder, again.graph, self.initial, self.inputs, [Slices()] * len(kept))
        return outputs[self.states :]

    def active(self, gs: Cotangents, wanted: set[ir.Value]) -> list[int]:
        """Return the states through which a cotangent reaches what is wanted.

        They depend on wanted values (``forward``), and given cotangents depend on them (``back``).
        """
        read = [x for x, (v, _) in zip(self.elements, self.inputs, strict=True) if v in wanted]
        floats = [i for i in range(self.states) if is_float(self.before[i])]
        forward = {i for i in floats if self.initial[i] in wanted}
        while True:
            sources = {*wanted, *read, *(self.before[i] for i in forward)}
            reached = depends_on(self.body, sources)
            grown = forward | {i for i in floats if self.after[i] in reached}
            if grown == forward:
                break
            forward = grown
        ends = [y for y, g in zip(self.results, gs[self.states :], strict=True) if g is not None]
        back = {i for i in forward if gs[i] is not None}
        while True:
            needed = _needed(self.body, [*ends, *(self.after[i] for i in back)])
            grown = back | {i for i in forward if self.before[i] in needed}
            if grown == back:
                return sorted(back)
            back = grown


def _slices(c: Call, side: str, count: int) -> list[Slices]:
    axes = c.attribute(f"scan_{side}_axes", [0] * count)
    directions = c.attribute(f"scan_{side}_directions", [0] * count)
    return [Slices(int(a), int(d)) for a, d in zip(axes, directions, strict=True)]


def _needed(body: ir.Graph, ends: Iterable[ir.Value]) -> set[ir.Value]:
    """Return the values that ``ends`` are computed from, themselves included."""
    needed = set(ends)
    for node in reversed(body):
        if not needed.isdisjoint(node.outputs):
            needed.update(reads(node))
    return needed


class _Back:
    """The backward body, without its list of inputs.

    Attributes:
        active: the states that have cotangents, ``states`` in the body.
        given: the stacked outputs that have cotangents, ``slices`` in the body.
        sums: for each captured value that is wanted and reached, its cotangent so far.
        read: the scan inputs that are wanted and reached.
    """

    def __init__(self, c: Call, scan: _Scan, gs: Cotangents, wanted: Sequence[ir.Value]) -> None:
        self.builder = back = c.builder.subgraph("back", [])
        walk = c.walk.within(back)
        walk.finite = c.walk.finite and not any(has_infinite_slope(node) for node in scan.body)
        inputs, known = scan.copy(back)
        self.before, self.elements = inputs[: scan.states], inputs[scan.states :]
        self.active = scan.active(gs, set(wanted))
        self.given = [k for k, g in enumerate(gs[scan.states :]) if g is not None]
        self.states = [_cotangent(back, scan.after[i]) for i in self.active]
        self.slices = [_cotangent(back, scan.results[k]) for k in self.given]
        ends = [*(scan.after[i] for i in self.active), *(scan.results[k] for k in self.given)]
        pairs = zip([known.get(v, v) for v in ends], [*self.states, *self.slices], strict=True)

        inside = {v for node in scan.body for v in reads(node)}
        captured = [v for v in wanted if v in inside]
        read = [j for j, (v, _) in enumerate(scan.inputs) if v in set(wanted)]
        to = [*(self.before[i] for i in self.active), *(self.elements[j] for j in read), *captured]
        gradients = pull_back(walk, list(back.graph), add_cotangents(back, pairs), to)
        found = {v: g for v, g in zip(to, gradients, strict=True) if g is not None}
        self.sums = {v: _cotangent(back, v) for v in captured if v in found}
        self.read = [j for j in read if self.elements[j] in found]
        self.reaches = bool(self.active or self.sums or self.read)
        if not self.reaches:
            return
        T = some_length_of_t(back, [*self.states, *self.slices])
        before = [self.before[i] for i in self.active]
        outputs = [found[v] if v in found else zeros(back, T, v) for v in before]
        outputs += [back.op("Add", total, found[v]) for v, total in self.sums.items()]
        outputs += [found[self.elements[j]] for j in self.read]
        likes = [*before, *self.sums, *(self.elements[j] for j in self.read)]
        for value, like in zip(outputs, likes, strict=True):
            lengths = [d if isinstance(d, int) else None for d in c.dims(like)]
            value.type, value.shape = like.type, ir.Shape([None, *lengths])  # runtimes need it
        close(back, outputs)


def _cotangent(builder: Builder, like: ir.Value) -> ir.Value:
    value = builder.value("cotangent")
    value.type = like.type
    return value


def _scan(c: Call, gs: Cotangents, wanted: Sequence[ir.Value]) -> list[ir.Value | None]:
    b, scan = c.builder, _Scan(c)
    back = _Back(c, scan, gs, wanted)
    if not back.reaches:
        return [None] * len(wanted)
    graph = back.builder.graph
    used = {v for node in graph for v in reads(node)}
    kept = [i for i in range(scan.states) if back.before[i] in used]
    inputs = [(v, Slices(direction=1)) for v in scan.history(b, kept)]
    slices = [back.before[i] for i in kept]
    for k, value in zip(back.given, back.slices, strict=True):
        g = gs[scan.states + k]
        assert g is not None
        inputs.append((g, scan.outputs[k].cotangents()))
        slices.append(value)
    for element, (operand, sliced) in zip(back.elements, scan.inputs, strict=True):
        if (
            element in used or not inputs
        ):  # a Scan needs an input that tells the number of iterations
            inputs.append((operand, sliced.back()))
            slices.append(element)
    graph.inputs.extend([*back.states, *back.sums.values(), *slices])

    T = some_length_of_t(b, gs)
    initial = [gs[i] or zeros(b, T, scan.initial[i]) for i in back.active]
    initial += [zeros(b, T, v) for v in back.sums]
    stacked = [scan.inputs[j][1].cotangents() for j in back.read]
    outputs = scan_node(b, graph, initial, inputs, stacked)
    of = [*(scan.initial[i] for i in back.active), *back.sums]
    of += [scan.inputs[j][0] for j in back.read]
    total = add_cotangents(b, zip(of, outputs, strict=True))
    return [total.get(v) for v in wanted]


whole("Scan", _scan, opset=opset_inside)
