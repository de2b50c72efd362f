"""RNN, GRU and LSTM: rewritten as a Scan of their cell over time, one for each direction.

The input is projected for all times at once, so the Scan holds only the recurrence. At times
beyond a sequence's length its states stay as they are and its outputs are 0. The reverse
direction passes these times first, so it begins with the sequence's own last element.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers import recurrent_cells
from onnxcam.gradient.helpers.quantization import dequantize
from onnxcam.gradient.helpers.recurrent_cells import Activation, Cell
from onnxcam.gradient.helpers.subgraphs import close
from onnxcam.gradient.registry import expansion
from onnxcam.gradient.rules.quantized_linear import MICROSOFT
from onnxcam.gradient.rules.scan import Slices, scan_node
from onnxcam.graph.builder import Builder

_Step = Callable[[Builder, Cell, ir.Value, Sequence[ir.Value]], list[ir.Value]]


@dataclass(frozen=True)
class _Kind:
    step: _Step
    gates: int
    states: int
    activations: tuple[str, ...]


_REFUSES = (
    "its hidden size is only known at run time",
    "its activations cannot be read: {}",
)
_ZERO_POINTS = "its zero points do not fit its scales"
_KINDS = {
    "RNN": _Kind(recurrent_cells.rnn, 1, 1, ("Tanh",)),
    "GRU": _Kind(recurrent_cells.gru, 3, 1, ("Sigmoid", "Tanh")),
    "LSTM": _Kind(recurrent_cells.lstm, 4, 2, ("Sigmoid", "Tanh", "Tanh")),
}
_WAYS = {"forward": [0], "reverse": [1], "bidirectional": [0, 1]}
_INITIAL = (5, 6)  # the operands with the states to begin with


class _Operator:
    """Expands one node."""

    def __init__(
        self, c: Call, kind: _Kind | None = None, weights: Sequence[ir.Value] | None = None
    ) -> None:
        self.c, self.kind = c, kind or _KINDS[c.node.op_type]
        self.weights = weights or [c.x(1), c.x(2)]
        self.ways = _WAYS[c.attribute("direction", "forward")]
        self.batch_first = bool(c.attribute("layout", 0))
        hidden = int(c.attribute("hidden_size", 0)) or c.static(c.x(2), -1)
        if hidden is None:
            raise c.refuse(_REFUSES[0])
        self.hidden = hidden
        self.x = self.oriented(c.x(0), [1, 0, 2])  # [time, batch, input]
        self.lengths = c.operand(4)
        self.valid = None if self.lengths is None else self.has_element(self.lengths)

    def oriented(self, value: ir.Value, perm: Sequence[int]) -> ir.Value:
        """Transpose where the node has the batch axis first."""
        return self.c.op("Transpose", value, perm=perm) if self.batch_first else value

    def has_element(self, lengths: ir.Value) -> ir.Value:
        """Return at which times each sequence has an element, ``[time, batch, 1]``."""
        c, b = self.c, self.c.builder
        count = c.op("Gather", b.shape(self.x), b.constant(0), axis=0)
        times = c.op("Unsqueeze", c.op("Range", b.constant(0), count, b.constant(1)), b.ints(1))
        inside = c.op("Less", times, c.op("Cast", lengths, to=ir.DataType.INT64))
        return c.op("Unsqueeze", inside, b.ints(2))

    def outputs(self) -> list[ir.Value]:
        """Append all directions; return the node's outputs."""
        c, kind = self.c, self.kind
        initial = [c.operand(i) for i in _INITIAL[: kind.states]]
        states = [None if v is None else self.oriented(v, [1, 0, 2]) for v in initial]
        operands = [*self.weights, c.operand(3), c.operand(7), *states]
        parts = [self.by_direction(value) for value in operands]
        activations = self.activations()
        found = [
            self.direction(way, activations[d], [values[d] for values in parts])
            for d, way in enumerate(self.ways)
        ]
        y, *last = zip(*found, strict=True)
        stacked = self.oriented(self.stack(y, 1), [2, 0, 1, 3])
        return [stacked, *(self.oriented(self.stack(v, 0), [1, 0, 2]) for v in last)]

    def by_direction(self, value: ir.Value | None) -> Sequence[ir.Value | None]:
        """Return the part of an operand that belongs to each direction."""
        directions, c = len(self.ways), self.c
        if value is None:
            return [None] * directions
        pieces: Sequence[ir.Value] = [value]
        if directions > 1:
            pieces = c.builder.op_many("Split", [value, c.builder.ints(1, 1)], directions, axis=0)
        return [c.op("Squeeze", piece, c.builder.ints(0)) for piece in pieces]

    def stack(self, values: Sequence[ir.Value], axis: int) -> ir.Value:
        """Stack the directions along a new axis."""
        pieces = [self.c.op("Unsqueeze", value, self.c.builder.ints(axis)) for value in values]
        return pieces[0] if len(pieces) == 1 else self.c.op("Concat", *pieces, axis=axis)

    def activations(self) -> list[list[Activation]]:
        """Return the activations of each direction."""
        c, defaults = self.c, self.kind.activations
        names = c.attribute("activations", None) or [*defaults] * len(self.ways)
        alphas, betas = (c.attribute(f"activation_{n}", None) or [] for n in ("alpha", "beta"))
        try:
            found = recurrent_cells.activations(names, alphas, betas)
        except ValueError as error:
            raise c.refuse(_REFUSES[1], error) from error
        each = len(defaults)
        return [found[d * each : (d + 1) * each] for d in range(len(self.ways))]

    def direction(
        self,
        way: int,
        activations: Sequence[Activation],
        operands: Sequence[ir.Value | None],
    ) -> list[ir.Value]:
        """Append one direction; return its outputs at all times, and its last states."""
        c, b, slices = self.c, self.c.builder, Slices(direction=way)
        weight, recurrence, biases, peepholes, *initial = operands
        assert weight is not None and recurrence is not None
        projected = c.op("MatMul", self.x, c.op("Transpose", weight, perm=[1, 0]))
        cell = Cell(
            hidden=self.hidden,
            kind=c.kind,
            activations=activations,
            clip=c.attribute("clip", None),
            weight=recurrence,
            peepholes=peepholes,
            coupled=bool(c.attribute("input_forget", 0)),
        )
        input_bias, recurrence_bias = self.biases(biases)
        if self.kind.step is recurrent_cells.gru:
            if c.attribute("linear_before_reset", 0):
                cell = replace(cell, bias=recurrence_bias)
                recurrence_bias = None
            else:
                lengths = b.ints(2 * self.hidden, self.hidden)
                gates, candidate = b.op_many("Split", [recurrence, lengths], 2, axis=0)
                cell = replace(cell, weight=gates, candidate=candidate)
        for bias in (input_bias, recurrence_bias):
            if bias is not None:
                projected = c.op("Add", projected, bias)
        inputs = [(v, slices) for v in (projected, self.valid) if v is not None]
        start = [self.zeros() if v is None else v for v in initial]
        *last, y = scan_node(b, self.body(cell), start, inputs, [slices])
        if self.lengths is not None:  # an empty sequence has zeros, as in the runtime
            some = c.op("Greater", self.lengths, b.constant(0, self.lengths.dtype))
            some = c.op("Unsqueeze", some, b.ints(1))
            last = [c.op("Where", some, state, c.like(0.0)) for state in last]
        return [y, *last]

    def biases(self, biases: ir.Value | None) -> Sequence[ir.Value | None]:
        """Return the biases of the input and of the recurrence, ``[gates * hidden]`` each."""
        if biases is None:
            return [None, None]
        lengths = self.c.builder.ints(*[self.kind.gates * self.hidden] * 2)
        return self.c.builder.op_many("Split", [biases, lengths], 2, axis=0)

    def zeros(self) -> ir.Value:
        """Return the initial state where none is given, ``[batch, hidden]``."""
        c, b = self.c, self.c.builder
        batch = c.op("Slice", b.shape(self.x), b.ints(1), b.ints(2))
        return c.op("Expand", c.like(0.0), c.op("Concat", batch, b.ints(self.hidden), axis=0))

    def body(self, cell: Cell) -> ir.Graph:
        """Return the body of the Scan: the cell, idle at times beyond a sequence's end."""
        b = self.c.builder.subgraph("cell", [])
        states = [b.value(name) for name in ("hidden", "memory")[: self.kind.states]]
        x, valid = b.value("projected"), b.value("valid")
        for value in (*states, x):
            value.type = ir.TensorType(cell.kind)
        valid.type = ir.TensorType(ir.DataType.BOOL)
        following = self.kind.step(b, cell, x, states)
        y = following[0]
        b.graph.inputs.extend([*states, x])
        if self.valid is not None:
            b.graph.inputs.append(valid)
            following = [
                b.op("Where", valid, new, old) for new, old in zip(following, states, strict=True)
            ]
            y = b.op("Where", valid, y, b.constant(0.0, cell.kind))
        return close(b, [*following, y])


expansion("RNN GRU LSTM", lambda c: _Operator(c).outputs(), refuses=_REFUSES)


def _columns(c: Call, value: ir.Value) -> ir.Value:
    """Reshape ``[directions, 4 hidden]`` for broadcasting against the weights; keep vectors."""
    sizes = c.dims(value)
    if len(sizes) == 1:
        return value
    columns = c.op("Unsqueeze", value, c.builder.ints(1))
    columns.shape, columns.type = ir.Shape([sizes[0], 1, sizes[1]]), value.type
    return columns


def _quantized_lstm(c: Call) -> list[ir.Value]:
    """An LSTM with quantized weights, ``[directions, input or hidden, 4 hidden]``.

    They have one scale for each direction, or for each of its ``4 hidden`` columns. The runtime
    also quantizes input and state at each time; straight through, that is the identity.
    """
    weights = []
    for index, scale_index in ((1, 8), (2, 10)):
        scale, zero = c.x(scale_index), c.operand(scale_index + 1)
        if zero is not None and c.rank(zero) != c.rank(scale):
            raise c.refuse(_ZERO_POINTS)
        zero = None if zero is None else _columns(c, zero)
        weight = dequantize(c, c.x(index), _columns(c, scale), zero, axis=0)
        weights.append(c.op("Transpose", weight, perm=[0, 2, 1]))
    return _Operator(c, _KINDS["LSTM"], weights).outputs()


expansion(
    "DynamicQuantizeLSTM", _quantized_lstm, refuses=[*_REFUSES, _ZERO_POINTS], domain=MICROSOFT
)
