"""The equations of RNN, GRU and LSTM cells, as the standard has them.

A cell computes its next states from its states, ``[batch, hidden]`` each, and from ``x``,
``[batch, gates * hidden]``: the projected input ``X[t] W^T + biases`` of all gates. Biases that
enter elsewhere are parameters of the cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxcam.graph.builder import Builder

# operator -> defaults of alpha and beta; None: no default, it must be given
_SETTINGS: dict[str, tuple[float | None, ...]] = {
    "Affine": (None, None),
    "Relu": (),
    "LeakyRelu": (0.01,),
    "ThresholdedRelu": (1.0,),
    "Tanh": (),
    "ScaledTanh": (None, None),
    "Sigmoid": (),
    "HardSigmoid": (0.2, 0.5),
    "Elu": (1.0,),
    "Softsign": (),
    "Softplus": (),
}


@dataclass(frozen=True)
class Activation:
    """An activation function and its parameters."""

    name: str
    numbers: tuple[float, ...]

    def apply(self, b: Builder, x: ir.Value, kind: ir.DataType) -> ir.Value:
        """Append the activation of ``x``."""
        if self.name in ("Affine", "ScaledTanh"):
            alpha, beta = (b.constant(n, kind) for n in self.numbers)
            if self.name == "Affine":
                return b.op("Add", b.op("Mul", x, alpha), beta)
            return b.op("Mul", b.op("Tanh", b.op("Mul", x, beta)), alpha)
        settings = dict(zip(("alpha", "beta"), self.numbers, strict=False))
        return b.op(self.name, x, **settings)


def activations(
    names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]
) -> list[Activation]:
    """Return the activations; each takes its parameters from the front of ``alphas`` and ``betas``.

    Raises:
        ValueError: a name is unknown, or a number that has no default is missing.
    """
    known = {name.lower(): name for name in _SETTINGS}
    given = (list(alphas), list(betas))
    found = []
    for requested in names:
        name = known.get(requested.lower())
        if name is None:
            raise ValueError(f"activation '{requested}' is unknown")
        numbers = []
        for default, left in zip(_SETTINGS[name], given, strict=False):
            number = left.pop(0) if left else default
            if number is None:
                raise ValueError(f"activation {name} lacks alpha or beta")
            numbers.append(float(number))
        found.append(Activation(name, tuple(numbers)))
    return found


@dataclass(frozen=True)
class Cell:
    """One direction of a recurrent operator.

    Attributes:
        hidden: the length of a state.
        kind: the floating-point type.
        activations: in the order of the standard: f; f, g; f, g, h.
        clip: the inputs of activations are clipped to ``[-clip, clip]``.
        weight: the recurrence weight ``[gates * hidden, hidden]``.
        candidate: the candidate's rows of it, where a GRU resets the state before the product.
        bias: the recurrence bias ``[gates * hidden]`` of a GRU that resets after the product.
        peepholes: of an LSTM ``[3 * hidden]``, for the gates i, o, f.
        coupled: whether an LSTM's forget gate is ``1 - i``.
    """

    hidden: int
    kind: ir.DataType
    activations: Sequence[Activation]
    clip: float | None
    weight: ir.Value
    candidate: ir.Value | None = None
    bias: ir.Value | None = None
    peepholes: ir.Value | None = None
    coupled: bool = False

    def activate(self, b: Builder, index: int, x: ir.Value) -> ir.Value:
        """Clip ``x`` and apply activation ``index``."""
        if self.clip is not None:
            low, high = (b.constant(v, self.kind) for v in (-self.clip, self.clip))
            x = b.op("Clip", x, low, high)
        return self.activations[index].apply(b, x, self.kind)

    def split(self, b: Builder, value: ir.Value, *gates: int) -> Sequence[ir.Value]:
        """Split the last axis into parts that have these numbers of gates."""
        lengths = b.ints(*(g * self.hidden for g in gates))
        return b.op_many("Split", [value, lengths], len(gates), axis=-1)


def rnn(b: Builder, cell: Cell, x: ir.Value, states: Sequence[ir.Value]) -> list[ir.Value]:
    """``H' = f(x + H R^T)``."""
    return [cell.activate(b, 0, b.op("Gemm", states[0], cell.weight, x, transB=1))]


def gru(b: Builder, cell: Cell, x: ir.Value, states: Sequence[ir.Value]) -> list[ir.Value]:
    """``H' = (1 - z) h + z H``, where ``z, r = f(x + H R^T)`` and ``h`` is a candidate.

    ``h = g(x + (r H) R^T)``, or with ``linear_before_reset`` ``h = g(x + r (H R^T + bias))``.
    """
    [h] = states
    if cell.candidate is None:
        product = b.op("Gemm", h, cell.weight, cell.bias, transB=1)
        xz, xr, xh = cell.split(b, x, 1, 1, 1)
        pz, pr, ph = cell.split(b, product, 1, 1, 1)
        z = cell.activate(b, 0, b.op("Add", xz, pz))
        r = cell.activate(b, 0, b.op("Add", xr, pr))
        candidate = b.op("Add", xh, b.op("Mul", r, ph))
    else:
        xzr, xh = cell.split(b, x, 2, 1)
        zr = cell.activate(b, 0, b.op("Gemm", h, cell.weight, xzr, transB=1))
        z, r = cell.split(b, zr, 1, 1)
        candidate = b.op("Gemm", b.op("Mul", r, h), cell.candidate, xh, transB=1)
    new = cell.activate(b, 1, candidate)
    keep = b.op("Sub", b.constant(1.0, cell.kind), z)
    return [b.op("Add", b.op("Mul", keep, new), b.op("Mul", z, h))]


def lstm(b: Builder, cell: Cell, x: ir.Value, states: Sequence[ir.Value]) -> list[ir.Value]:
    """``C' = f C + i g(c)``, ``H' = o h(C')``, where ``i, o, f, c = x + H R^T`` with peepholes.

    The gates i, o, f go through the first activation; o peeps at ``C'``, the others at ``C``.
    What enters h is not clipped (as in ONNX Runtime; the standard is silent).
    """
    h, c = states
    i, o, f, g = cell.split(b, b.op("Gemm", h, cell.weight, x, transB=1), 1, 1, 1, 1)
    peepholes: Sequence[ir.Value] = ()
    if cell.peepholes is not None:
        peepholes = cell.split(b, cell.peepholes, 1, 1, 1)
        i = b.op("Add", i, b.op("Mul", peepholes[0], c))
        f = b.op("Add", f, b.op("Mul", peepholes[2], c))
    i = cell.activate(b, 0, i)
    f = b.op("Sub", b.constant(1.0, cell.kind), i) if cell.coupled else cell.activate(b, 0, f)
    new = b.op("Add", b.op("Mul", f, c), b.op("Mul", i, cell.activate(b, 1, g)))
    if peepholes:
        o = b.op("Add", o, b.op("Mul", peepholes[1], new))
    squashed = cell.activations[2].apply(b, new, cell.kind)
    return [b.op("Mul", cell.activate(b, 0, o), squashed), new]
