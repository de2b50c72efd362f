"""The table of gradient rules.

A rule has one *maker* for each operand: a function of the call and the output's cotangent that
appends operators and returns the operand's cotangent. Cotangents have a leading axis ``T``: for
a value of shape ``S`` they are ``[T, *S]``. Saved values broadcast against it from the right;
rules that need the plain rank fold it into the batch with :meth:`Call.fold`.

``None`` in place of a maker means that the operand carries no gradient (a shape, an index); a
maker that returns ``None`` says so of this node alone.

An operator that others can say is *expanded* in place of that (:func:`expansion`): a function of
the call appends those others, computing the node's outputs a second time, and the walk goes back
through them. The node itself stays, so that what the model computes does not change.

Operators with inner graphs read values that are not among their operands; their rule makes the
cotangents of all of them at once (:func:`whole`).

Where an operator is flat or works on integers the gradient *stops* (:func:`stop`), and the
registry says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcam.errors import NoGradientError
from onnxcam.gradient.function_bodies import body_opset, from_schema
from onnxcam.graph.builder import Builder, shaped
from onnxcam.graph.values import constant, describe, dims, is_float

Maker = Callable[["Call", ir.Value], ir.Value | None]
VariadicMaker = Callable[["Call", ir.Value, int], ir.Value | None]
Expander = Callable[["Call"], Sequence[ir.Value | None]]
WholeMaker = Callable[
    ["Call", Sequence[ir.Value | None], Sequence[ir.Value]], Sequence[ir.Value | None]
]


class Call:
    """One node being differentiated: its values, attributes and the builder."""

    def __init__(self, node: ir.Node, builder: Builder) -> None:
        self.node = node
        self.builder = builder
        self.op = builder.op

    def x(self, index: int) -> ir.Value:
        """Return an operand that must be there."""
        value = self.operand(index)
        if value is None:
            raise self.refuse(f"operand {index} is missing")
        return dequantized(self.builder, value)

    def operand(self, index: int) -> ir.Value | None:
        """Return an operand, ``None`` when it was left out."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    @property
    def y(self) -> ir.Value:
        """The first output."""
        return self.node.outputs[0]

    def attribute(self, name: str, default: Any) -> Any:
        """Return an attribute's value as plain Python data."""
        found = self.node.attributes.get(name)
        if found is None:
            return default
        value = found.value
        return list(value) if isinstance(value, (list, tuple)) else value

    def refuse(self, why: str) -> NoGradientError:
        """Return the error that this node cannot be differentiated, and why."""
        where = describe(self.node, self.builder.opset)
        return NoGradientError(f"{where} cannot be differentiated here: {why}.")

    def dims(self, value: ir.Value) -> list[int | str | None]:
        """Return the dimensions of a value whose rank must be known."""
        found = dims(value)
        if found is None:
            culprit = _first_unknown(value)
            if culprit is None:
                raise self.refuse(f"the rank of '{value.name}' is unknown")
            raise self.refuse(
                f"the rank of '{value.name}' is unknown, since shape inference ends at "
                f"{describe(culprit)}"
            )
        return found

    def rank(self, value: ir.Value) -> int:
        """Return the rank of a value."""
        return len(self.dims(value))

    def static(self, value: ir.Value, axis: int) -> int | None:
        """Return the length of an axis when it is known."""
        length = self.dims(value)[axis]
        return length if isinstance(length, int) else None

    def known(self, index: int, what: str) -> np.ndarray:
        """Return an operand that must be a constant."""
        value = self.operand(index)
        array = constant(value)
        if array is None:
            raise self.refuse(f"its {what} must be known before the run")
        return array

    def optional(self, index: int, what: str) -> np.ndarray | None:
        """Return an operand that may be left out but must be constant."""
        return None if self.operand(index) is None else self.known(index, what)

    def axis(self, value: ir.Value, default: int = 0) -> int:
        """Return the attribute ``axis`` counted from the end, so that it holds under ``T``."""
        axis = int(self.attribute("axis", default))
        return axis - self.rank(value) if axis >= 0 else axis

    @property
    def kind(self) -> ir.DataType:
        """The node's floating-point type."""
        kinds = (v.dtype for v in (self.y, self.operand(0)) if v is not None and is_float(v))
        return next(kinds, None) or ir.DataType.FLOAT

    def like(self, number: float) -> ir.Value:
        """Return a scalar constant of the node's floating-point type."""
        return self.builder.constant(number, self.kind)

    def mask(self, condition: ir.Value, g: ir.Value) -> ir.Value:
        """Return ``g`` where the condition holds and 0 elsewhere.

        A product is several times faster than ``Where``, but would make NaN of an infinite
        cotangent.
        """
        if self.builder.bounded:
            return self.op("Mul", g, self.op("Cast", condition, to=self.kind))
        return self.op("Where", condition, g, self.like(0.0))

    def fold(self, g: ir.Value, like: ir.Value, keep: int = 1) -> ir.Value:
        """Reshape ``[T, *like]`` so that T and all axes before ``keep`` become the first axis."""
        if keep == 1 and g in self.builder.folded:
            return self.builder.folded[g]
        if keep == 1 and self.builder.single:
            return shaped(self.op("Squeeze", g, self.builder.ints(0)), like)
        rest = self.dims(like)[keep:]
        if all(isinstance(d, int) for d in rest):
            target = self.builder.ints(-1, *rest)  # type: ignore[arg-type]
        else:
            shape = self.builder.shape(like)
            tail = self.op(
                "Slice", shape, self.builder.ints(keep), self.builder.ints(len(rest) + keep)
            )
            target = self.op("Concat", self.builder.ints(-1), tail, axis=0)
        return self.op("Reshape", g, target)

    def unfold(self, g: ir.Value, like: ir.Value, folded: bool = False) -> ir.Value:
        """Reshape to ``[T, *like]``; ``folded`` says that ``g`` is what :meth:`fold` returns."""
        return unfold(self.builder, g, like, folded)


def _first_unknown(value: ir.Value) -> ir.Node | None:
    """Return the node that shape inference did not get past."""
    node = value.producer()
    while node is not None:
        before = next((v for v in node.inputs if v is not None and v.shape is None), None)
        producer = before.producer() if before is not None else None
        if producer is None:
            break
        node = producer
    return node


def unfold(builder: Builder, g: ir.Value, like: ir.Value, folded: bool = False) -> ir.Value:
    """Reshape ``g`` to ``[T, *like]``; see :meth:`Call.unfold`."""
    if folded and builder.single:
        result = builder.op("Unsqueeze", shaped(g, like), builder.ints(0))
        builder.folded[result] = g
        return result
    known = [d for d in dims(like) or [None] if isinstance(d, int)]
    settings: dict[str, int] = {}
    if like.shape is not None and len(known) == len(like.shape) and 0 not in known:
        target = builder.ints(-1, *known)
    else:  # -1 beside a length that turns out to be 0 is no shape
        if like not in builder.targets:
            rows = builder.ints(-1) if builder.rows is None else builder.rows
            shape = builder.op("Shape", like)
            builder.targets[like] = builder.op("Concat", rows, shape, axis=0)
        target = builder.targets[like]
        if builder.rows is not None and builder.opset >= 14:
            settings["allowzero"] = 1  # without it, 0 stands for the length before
    result = builder.op("Reshape", g, target, **settings)
    if folded:  # the runtime keeps its own layout between two convolutions without Reshape
        builder.folded[result] = g
    return result


def dequantized(builder: Builder, value: ir.Value) -> ir.Value:
    """Return stored integer weights as floats of their own, other values as they are.

    The runtime fuses ``DequantizeLinear`` with the product that reads it, and that changes the
    prediction in the third digit; a second reader would prevent it. Written as arithmetic on the
    stored integers, the copy is folded once, when the session is made.
    """
    node = value.producer()
    if node is None or node.op_type != "DequantizeLinear" or node.domain:
        return value
    codes, scale, zero = (*node.inputs, None)[:3]
    factors = constant(scale)
    if factors is None or codes is None or codes.const_value is None:
        return value
    if factors.size > 1 and (factors.ndim != 1 or "block_size" in node.attributes):
        return value
    per_axis = factors.size > 1
    if value in builder.dequantized:
        return builder.dequantized[value]
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    rank = len(codes.const_value.shape)
    column = [-1 if i == axis % max(rank, 1) else 1 for i in range(rank)]
    kind: ir.DataType = value.dtype or ir.DataType.FLOAT

    def along(operand: ir.Value) -> ir.Value:
        return builder.op("Reshape", operand, builder.ints(*column)) if per_axis else operand

    assert scale is not None
    copy = builder.op("Cast", codes, to=kind)
    if zero is not None:
        copy = builder.op("Sub", copy, along(builder.op("Cast", zero, to=kind)))
    copy = builder.op("Mul", copy, along(scale))
    copy.shape, copy.dtype = value.shape, kind
    builder.dequantized[value] = copy
    return copy


@dataclass(frozen=True)
class Rule:
    """How an operator is differentiated.

    Attributes:
        makers: one for each operand.
        variadic: the maker of every operand, for operators with any number of them.
        broadcasts: operands may have been broadcast; the walker undoes it.
        all_outputs: every output can carry a cotangent; ``g`` is then the list of them.
        opset: the opset that the rule's operators need, or a function of the node.
        expand: returns the node's outputs computed by other operators, in place of makers;
            ``None`` for an output that is refused or carries no gradient.
        stops: why no gradient passes, in place of makers.
        whole: takes the cotangents of all outputs and the values that are wanted, operands or
            captured by inner graphs, and returns the cotangents of these, in place of makers;
            ``None`` for a value that no output depends on.
    """

    makers: tuple[Maker | None, ...] = ()
    variadic: VariadicMaker | None = None
    broadcasts: bool = False
    all_outputs: bool = False
    opset: int | Callable[[ir.Node], int] = 13
    expand: Expander | None = None
    stops: str | None = None
    whole: WholeMaker | None = None

    def maker(self, index: int) -> Maker | None:
        """Return the maker of an operand."""
        variadic = self.variadic
        if variadic is not None:
            return lambda call, g: variadic(call, g, index)
        return self.makers[index] if index < len(self.makers) else None

    def needed(self, node: ir.Node) -> int:
        """Return the opset that the rule needs for ``node``."""
        return self.opset if isinstance(self.opset, int) else self.opset(node)


RULES: dict[tuple[str, str], Rule] = {}


def rule(
    op_types: str | Sequence[str],
    *makers: Maker | None,
    variadic: VariadicMaker | None = None,
    broadcasts: bool = False,
    all_outputs: bool = False,
    opset: int | Callable[[ir.Node], int] = 13,
    domain: str = "",
) -> None:
    """Register the rule of one or several operators."""
    for op_type in op_types.split() if isinstance(op_types, str) else op_types:
        RULES[domain, op_type] = Rule(makers, variadic, broadcasts, all_outputs, opset)


def expansion(
    op_types: str,
    expand: Expander,
    opset: int | Callable[[ir.Node], int] = 13,
    domain: str = "",
) -> None:
    """Register how one or several operators are said by others.

    ``expand`` appends them with ``call.op`` and returns the values of the node's outputs, in
    order. It may use operators that are expanded themselves.
    """
    for op_type in op_types.split():
        RULES[domain, op_type] = Rule(expand=expand, opset=opset)


def stop(op_types: str, why: str, domain: str = "") -> None:
    """Register operators through which no gradient passes."""
    for op_type in op_types.split():
        RULES[domain, op_type] = Rule(stops=why)


def whole(op_types: str, maker: WholeMaker, opset: int | Callable[[ir.Node], int] = 13) -> None:
    """Register operators whose inner graphs capture values: see :attr:`Rule.whole`."""
    for op_type in op_types.split():
        RULES["", op_type] = Rule(whole=maker, opset=opset)


def find_rule(node: ir.Node) -> Rule | None:
    """Return the rule of a node's operator.

    An operator of the standard that has none is differentiated through its function body.
    """
    found = RULES.get((node.domain, node.op_type))
    if found is None and node.domain == "":
        opset = body_opset(node.op_type)
        return None if opset is None else Rule(expand=from_schema, opset=max(opset, 13))
    return found
