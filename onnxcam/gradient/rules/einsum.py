"""Einstein summation.

The gradient of an operand is another Einsum, of the cotangent and the other operands, with the
operand's labels as its result. Special labels are treated afterwards:

* a label of this operand alone was summed over: the gradient is repeated along it;
* a label twice in this operand reads a diagonal: the gradient lies there, zeros elsewhere;
* an axis of length 1 may have been broadcast: the gradient is summed over it.
"""

from __future__ import annotations

from string import ascii_letters

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.registry import rule
from onnxcam.gradient.walker import unbroadcast_at_run_time

_REFUSES = (
    "its equation leaves no letter unused",
    "runtimes disagree on the order of upper and lower case labels",
)


def _labels(c: Call) -> tuple[list[str], str]:
    """Return the labels of each operand and of the result.

    The axes of an ellipsis get letters that the equation does not use.
    """
    equation = str(c.attribute("equation", "")).replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if not arrow:
        named = [letter for letter in left if letter in ascii_letters]
        once = "".join(sorted(letter for letter in named if named.count(letter) == 1))
        if once and not (once.isupper() or once.islower()):
            raise c.refuse(_REFUSES[1])
        right = "..." * ("..." in left) + once
    free = "".join(letter for letter in ascii_letters if letter not in equation)
    spans = [c.rank(c.x(i)) - len(t.replace("...", "")) for i, t in enumerate(terms)]
    longest = max(spans)
    if longest >= len(free):  # one more is needed for T
        raise c.refuse(_REFUSES[0])
    shared = free[:longest]
    terms = [t.replace("...", shared[longest - s :]) for t, s in zip(terms, spans, strict=True)]
    return terms, right.replace("...", shared)


def _einsum(c: Call, g: ir.Value, index: int) -> ir.Value:
    terms, result = _labels(c)
    x, labels = c.x(index), terms[index]
    lead = next(letter for letter in ascii_letters if letter not in "".join([*terms, result]))
    factors = {i: t for i, t in enumerate(terms) if i != index}
    elsewhere = "".join([result, *factors.values()])
    own = "".join(letter for letter in dict.fromkeys(labels) if letter in elsewhere)
    equation = ",".join([lead + result, *factors.values()]) + f"->{lead}{own}"
    g = c.op("Einsum", g, *(c.x(i) for i in factors), equation=equation)
    missing = [p for p, letter in enumerate(labels) if letter not in own or letter in labels[:p]]
    if missing:
        g = c.op("Unsqueeze", g, c.builder.ints(*(p + 1 for p in missing)))
    broadcast, repeated = False, len(own) < len(set(labels))
    for letter in own:
        size = c.dims(x)[labels.index(letter)]
        against = [
            c.dims(c.x(i))[axis]
            for i, term in factors.items()
            for axis, other in enumerate(term)
            if other == letter
        ]
        if all(a is not None and a == size for a in against):
            continue
        broadcast |= size == 1 or not isinstance(size, int)
        repeated |= letter not in result and size != 1
    if broadcast:
        g = unbroadcast_at_run_time(c, g, x)
    g = _on_diagonals(c, g, x, labels)
    if repeated:
        g = c.op("Expand", g, c.op("Concat", c.builder.ints(1), c.builder.shape(x), axis=0))
    return g


def _on_diagonals(c: Call, g: ir.Value, x: ir.Value, labels: str) -> ir.Value:
    """Keep ``g`` where the indices along a repeated label are equal."""
    rank = len(labels)
    for second, letter in enumerate(labels):
        first = labels.index(letter)
        if first == second:
            continue
        indices = _indices(c, x, first)
        row, column = (
            c.op("Reshape", indices, c.builder.ints(-1, *[1] * (rank - axis - 1)))
            for axis in (first, second)
        )
        g = c.mask(c.op("Equal", row, column), g)
    return g


def _indices(c: Call, x: ir.Value, axis: int) -> ir.Value:
    """Return 0, 1, ... along an axis."""
    length = c.static(x, axis)
    if length is not None:
        return c.builder.constant(np.arange(length))
    count = c.op("Gather", c.op("Shape", x), c.builder.constant(axis), axis=0)
    return c.op("Range", c.builder.constant(0), count, c.builder.constant(1))


rule("Einsum", variadic=_einsum, refuses=_REFUSES)
