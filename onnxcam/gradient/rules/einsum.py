"""Einstein summation.

The gradient of one operand is another such sum: of the cotangent and the other operands, with
the operand's own labels as result. What is special about a label follows after it:

* one that stands in this operand alone was summed: the gradient is repeated along it;
* one that stands twice in this operand reads a diagonal: the gradient lies there, between zeros;
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
    "it uses up all letters",
    "the order of upper and lower case labels is not agreed upon",
)


def _labels(c: Call) -> tuple[list[str], str]:
    """Return the labels of each operand and of the result, the ellipsis spelled out.

    Its axes get letters that the equation does not use.
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
    x, target = c.x(index), terms[index]
    lead = next(letter for letter in ascii_letters if letter not in "".join([*terms, result]))
    factors = {i: t for i, t in enumerate(terms) if i != index}
    elsewhere = "".join([result, *factors.values()])
    own = "".join(letter for letter in dict.fromkeys(target) if letter in elsewhere)
    equation = ",".join([lead + result, *factors.values()]) + f"->{lead}{own}"
    g = c.op("Einsum", g, *(c.x(i) for i in factors), equation=equation)
    missing = [p for p, letter in enumerate(target) if letter not in own or letter in target[:p]]
    if missing:
        g = c.op("Unsqueeze", g, c.builder.ints(*(p + 1 for p in missing)))
    grown, repeated = False, len(own) < len(set(target))
    for letter in own:
        size = c.dims(x)[target.index(letter)]
        against = [
            c.dims(c.x(i))[place]
            for i, term in factors.items()
            for place, other in enumerate(term)
            if other == letter
        ]
        if all(a is not None and a == size for a in against):
            continue
        grown |= size == 1 or not isinstance(size, int)
        repeated |= letter not in result and size != 1
    if grown:
        g = unbroadcast_at_run_time(c, g, x)
    g = _on_diagonals(c, g, x, target)
    if repeated:
        g = c.op("Expand", g, c.op("Concat", c.builder.ints(1), c.builder.shape(x), axis=0))
    return g


def _on_diagonals(c: Call, g: ir.Value, x: ir.Value, target: str) -> ir.Value:
    """Keep ``g`` where the axes of a repeated label agree."""
    rank = len(target)
    for second, letter in enumerate(target):
        first = target.index(letter)
        if first == second:
            continue
        places = _places(c, x, first)
        row, column = (
            c.op("Reshape", places, c.builder.ints(-1, *[1] * (rank - axis - 1)))
            for axis in (first, second)
        )
        g = c.mask(c.op("Equal", row, column), g)
    return g


def _places(c: Call, x: ir.Value, axis: int) -> ir.Value:
    """Return 0, 1, ... along an axis."""
    length = c.static(x, axis)
    if length is not None:
        return c.builder.constant(np.arange(length))
    count = c.op("Gather", c.op("Shape", x), c.builder.constant(axis), axis=0)
    return c.op("Range", c.builder.constant(0), count, c.builder.constant(1))


rule("Einsum", variadic=_einsum, refuses=_REFUSES)
