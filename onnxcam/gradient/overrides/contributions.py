"""Which share of a unit's relevance each of its inputs takes: the rules of LRP.

Each is given ``R = G z`` of a linear operator ``z = W x + b`` and returns ``G`` of its input, whose
relevance is ``x G``. ``W+`` is what is positive of the weights, ``x-`` what is negative of the
input. As in zennit, inputs may have both signs, and biases take their share, which is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.kinds import Rule
from onnxcam.gradient.overrides.affine import Affine, readers_of
from onnxcam.graph.builder import shaped
from onnxcam.graph.values import constant

_STABLE = 1e-6


class Contributions(Protocol):
    """How relevance is shared."""

    def back(
        self, call: Call, layer: Affine, rule: Rule, r: ir.Value, g: ir.Value, z: ir.Value
    ) -> ir.Value:
        """Return ``G`` of what the layer reads.

        Args:
            call: the operator that multiplies with the weights.
            layer: the same, with scales and shifts after it.
            rule: its derivative.
            r: ``G z``, ``[T, *shape of z]``.
            g: ``G``.
            z: the layer's output.
        """


@dataclass(frozen=True)
class Epsilon:
    """``W^T (R / (z + epsilon sign(z)))``.

    Bach et al. 2015, eq. 58. With an epsilon of 0 it is the gradient.
    """

    epsilon: float = _STABLE

    def back(
        self, call: Call, layer: Affine, rule: Rule, r: ir.Value, g: ir.Value, z: ir.Value
    ) -> ir.Value:
        """Return ``G`` of what the layer reads."""
        ratio = call.op("Div", r, stabilized(call, z, self.epsilon)) if self.epsilon else g
        return _pulled(call, layer, rule, layer.x, layer.weights(call), ratio)


@dataclass(frozen=True)
class AlphaBeta:
    """``alpha`` times the shares of what is positive, less ``beta`` times those of the negative.

    Bach et al. 2015, eq. 60. (1, 0) is the rule called z+ (Montavon et al. 2017).
    """

    alpha: float = 2.0
    beta: float = 1.0

    def back(
        self, call: Call, layer: Affine, rule: Rule, r: ir.Value, g: ir.Value, z: ir.Value
    ) -> ir.Value:
        """Return ``G`` of what the layer reads."""
        weight, bias = layer.weights(call), layer.bias(call)
        up = _Part(above(call, weight), below(call, weight), bias and above(call, bias))
        found = _shared(call, layer, rule, r, up)
        found = found if self.alpha == 1 else call.op("Mul", found, call.like(self.alpha))
        if self.beta == 0:
            return found
        down = _Part(below(call, weight), above(call, weight), bias and below(call, bias))
        against = _shared(call, layer, rule, r, down)
        return call.op("Sub", found, call.op("Mul", against, call.like(self.beta)))


@dataclass(frozen=True)
class Gamma:
    """Shares of ``W + gamma W+`` where ``z`` is positive, of ``W + gamma W-`` where it is not.

    Montavon et al. 2019, section 10.2.3; for inputs of both signs Andeol et al. 2021.
    """

    gamma: float = 0.25

    def back(
        self, call: Call, layer: Affine, rule: Rule, r: ir.Value, g: ir.Value, z: ir.Value
    ) -> ir.Value:
        """Return ``G`` of what the layer reads."""
        if not_negative(layer.x):
            return self._of_positive(call, layer, rule, r, z)
        weight, bias, zero = layer.weights(call), layer.bias(call), call.like(0.0)
        more, less = (self._more(call, weight, part) for part in (above, below))
        up = _Part(more, less, bias and self._more(call, bias, above))
        down = _Part(less, more, bias and self._more(call, bias, below))
        for_it = call.mask(call.op("Greater", z, zero), r)
        against = call.mask(call.op("Less", z, zero), r)
        return call.op(
            "Add",
            _shared(call, layer, rule, for_it, up),
            _shared(call, layer, rule, against, down),
        )

    def _of_positive(
        self, call: Call, layer: Affine, rule: Rule, r: ir.Value, z: ir.Value
    ) -> ir.Value:
        """Return the same of an input that is nowhere negative, by fewer convolutions.

        With ``z+ = W+ x`` what is shared among is ``z + gamma z+`` or ``z + gamma (z - z+)``, and
        ``W-`` is ``W - W+``. Both have the sign of ``z``, and nothing cancels.
        """
        weight, bias, gamma = layer.weights(call), layer.bias(call), call.like(self.gamma)
        upper = above(call, weight)
        up = layer.applied(call, layer.x, upper, bias and above(call, bias))
        rectified = _is_rectified(call, z)  # then R is 0 where z is negative
        positive = call.op("Greater", z, call.like(0.0))
        added = up if rectified else call.op("Where", positive, up, call.op("Sub", z, up))
        total = call.op("Add", z, call.op("Mul", added, gamma))
        ratio = call.op("Div", r, stabilized(call, total, _STABLE))
        if rectified:
            return _pulled(call, layer, rule, layer.x, self._more(call, weight, above), ratio)
        more = call.op("Where", positive, call.like(1.0), call.like(1 + self.gamma))
        sign = call.op("Where", positive, gamma, call.like(-self.gamma))
        return call.op(
            "Add",
            _pulled(call, layer, rule, layer.x, weight, call.op("Mul", ratio, more)),
            _pulled(call, layer, rule, layer.x, upper, call.op("Mul", ratio, sign)),
        )

    def _more(self, call: Call, value: ir.Value, part: Part) -> ir.Value:
        added = call.op("Mul", part(call, value), call.like(self.gamma))
        return shaped(call.op("Add", value, added), value)


@dataclass(frozen=True)
class Flat:
    """Even shares: ``R`` of what the layer reads, in place of ``G``.

    Lapuschkin et al. 2019. For the first layer, whose input is then not multiplied with.
    """

    def back(
        self, call: Call, layer: Affine, rule: Rule, r: ir.Value, g: ir.Value, z: ir.Value
    ) -> ir.Value:
        """Return the relevance of what the layer reads."""
        one = call.like(1.0)
        weight = shaped(
            call.op("Expand", one, call.op("Shape", call.x(1 - layer.index))), call.x(1)
        )
        ones = shaped(call.op("Expand", one, call.op("Shape", layer.x)), layer.x)
        count = layer.applied(call, ones, weight, None)
        ratio = call.op("Div", r, stabilized(call, count, _STABLE))
        return _pulled(call, layer, rule, ones, weight, ratio)


@dataclass(frozen=True)
class _Part:
    """Weights of what is positive of an input, weights of what is negative, and a bias."""

    positive: ir.Value
    negative: ir.Value
    bias: ir.Value | None


def _shared(call: Call, layer: Affine, rule: Rule, r: ir.Value, part: _Part) -> ir.Value:
    """Return ``W^T (r / z)``, with one ``W`` for positive inputs and another for negative ones."""
    x = layer.x
    positive = not_negative(x)
    high = x if positive else above(call, x)
    z = layer.applied(call, high, part.positive, part.bias)
    if positive:
        ratio = call.op("Div", r, stabilized(call, z, _STABLE))
        return _pulled(call, layer, rule, high, part.positive, ratio)
    low = below(call, x)
    z = call.op("Add", z, layer.applied(call, low, part.negative, None))
    ratio = call.op("Div", r, stabilized(call, z, _STABLE))
    zero = call.like(0.0)
    return call.op(
        "Add",
        call.mask(
            call.op("Greater", x, zero), _pulled(call, layer, rule, high, part.positive, ratio)
        ),
        call.mask(call.op("Less", x, zero), _pulled(call, layer, rule, low, part.negative, ratio)),
    )


def _pulled(
    call: Call, layer: Affine, rule: Rule, x: ir.Value, weight: ir.Value, ratio: ir.Value
) -> ir.Value:
    """Return ``W^T ratio``: the derivative of the layer with other weights."""
    x = shaped(call.op("Identity", x), x) if x in layer.node.inputs else x
    copy = layer.applied(call, x, weight, None).producer()
    assert copy is not None
    [(_, found)] = rule.back(call.walk, copy, [ratio], {x})
    return found


def _is_rectified(call: Call, z: ir.Value) -> bool:
    """Whether rectifiers are all that reads a layer's output."""
    readers = readers_of(z)
    return (
        bool(readers)
        and z not in call.walk.ends
        and all(n.op_type == "Relu" and not n.domain for n in readers)
    )


def stabilized(call: Call, value: ir.Value, epsilon: float) -> ir.Value:
    """Return a value moved away from 0 by epsilon, 0 itself upwards."""
    below_zero = call.op("Less", value, call.like(0.0))
    away = call.op("Where", below_zero, call.like(-epsilon), call.like(epsilon))
    return call.op("Add", value, away)


class Part(Protocol):
    """What is positive, or negative, of a value."""

    def __call__(self, call: Call, value: ir.Value) -> ir.Value:
        """Append it."""


def above(call: Call, value: ir.Value) -> ir.Value:
    """Return what is positive of a value, and 0 elsewhere."""
    return call.builder.once("above", value, lambda: shaped(call.op("Relu", value), value))


def below(call: Call, value: ir.Value) -> ir.Value:
    """Return what is negative of a value, and 0 elsewhere."""

    def made() -> ir.Value:
        return shaped(call.op("Min", value, call.like(0.0)), value)

    return call.builder.once("below", value, made)


_WORDS = (
    "MaxPool AveragePool GlobalAveragePool GlobalMaxPool ReduceMean Reshape Flatten Transpose "
    "Identity Dropout Squeeze Unsqueeze Concat Add Sum Pad"
)
_KEEP = frozenset(_WORDS.split())  # what is not negative of what is not


def not_negative(value: ir.Value) -> bool:
    """Whether a value is known to be nowhere negative, as what a rectifier gives."""
    stack, seen = [value], {value}
    while stack:
        node = stack.pop().producer()
        if node is None or node.domain:
            return False
        if node.op_type in ("Relu", "Sigmoid", "Softmax", "HardSigmoid"):
            continue
        if node.op_type == "Clip" and len(node.inputs) > 1:
            least = constant(node.inputs[1])
            if least is not None and least >= 0:
                continue
        if node.op_type not in _KEEP or (node.op_type == "Pad" and len(node.inputs) > 2):
            return False
        data = node.inputs if node.op_type in ("Concat", "Add", "Sum") else node.inputs[:1]
        for one in data:
            if one is None:
                continue
            stored = constant(one)
            if stored is not None and np.all(stored >= 0):
                continue
            if one not in seen:
                seen.add(one)
                stack.append(one)
    return True
