"""Cases for recurrent operators; their first output, see test_recurrent.py for the others."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..recurrence import GATES, forward
from .values import case, rng, weight

TIMES, BATCH, INPUT, HIDDEN = 4, 2, 3, 2


def small(*shape: int) -> np.ndarray:
    return rng.normal(scale=0.6, size=shape)


def recurrent(op: str, given: str = "", wrt: tuple[int, ...] = (0,), **options: Any) -> None:
    """Add a case; ``given`` are the operands besides X, W and R, L standing for the lengths."""
    directions, gates = 2 if options.get("direction") == "bidirectional" else 1, GATES[op]
    shapes = {
        "B": (directions, 2 * gates * HIDDEN),
        "h": (directions, BATCH, HIDDEN),
        "c": (directions, BATCH, HIDDEN),
        "P": (directions, 3 * HIDDEN),
    }
    values: dict[str, np.ndarray | None] = {
        n: small(*s) if n in given else None for n, s in shapes.items()
    }
    values["L"] = np.array([2, 4], np.int32) if "L" in given else None
    inputs = [
        weight(TIMES, BATCH, INPUT),
        small(directions, gates * HIDDEN, INPUT),
        small(directions, gates * HIDDEN, HIDDEN),
        *(values[n] for n in "BLhcP"),
    ]
    while inputs[-1] is None:
        inputs.pop()

    if "activations" in options and inputs[3] is not None:  # away from kinks
        inputs[1], inputs[2] = 0.3 * inputs[1], 0.4 * inputs[2]
        inputs[3] = 2.0 * np.sign(inputs[3])

    def obvious(*operands: np.ndarray | None, **attributes: Any) -> np.ndarray:
        return forward(op, *operands, **attributes)[0]

    options = {"opset": 14, "dynamic": (0, 1) if wrt == (0,) else None, **options}
    case(op, *inputs, wrt=wrt, obvious=obvious, hidden_size=HIDDEN, **options)


for op in ("RNN", "GRU", "LSTM"):
    state = "hc" if op == "LSTM" else "h"
    everything = (0, 1, 2, 3, 5, 6) if op == "LSTM" else (0, 1, 2, 3, 5)
    recurrent(op, opset=13)
    recurrent(op, "BL", opset=22)
    recurrent(op, f"B{state}", wrt=everything)
    recurrent(op, f"B{state}L", wrt=everything, direction="bidirectional")
    recurrent(op, "B", wrt=(0, 2), direction="reverse")
    recurrent(op, "BL", direction="reverse", clip=0.7)
recurrent("GRU", "Bh", wrt=(0, 1, 2, 3, 5), linear_before_reset=1)
recurrent("GRU", "BhL", direction="bidirectional", linear_before_reset=1)
recurrent("GRU", wrt=(0, 2), linear_before_reset=1)
recurrent("LSTM", "BhcP", wrt=(0, 1, 2, 3, 5, 6, 7))
recurrent("LSTM", "BhcPL", wrt=(0, 6, 7), direction="bidirectional")
recurrent("LSTM", "Bc", wrt=(0, 3, 6), input_forget=1)
for names, alphas, betas in (
    (["Affine"], [0.6], [0.1]),
    (["Relu"], [], []),
    (["LeakyRelu"], [0.2], []),
    (["ThresholdedRelu"], [0.3], []),
    (["ScaledTanh"], [0.8], [0.7]),
    (["HardSigmoid"], [], []),
    (["Elu"], [0.5], []),
    (["Softsign"], [], []),
    (["Softplus"], [], []),
):
    numbers = {"activation_alpha": alphas, "activation_beta": betas}
    numbers = {k: v for k, v in numbers.items() if v}
    recurrent("RNN", "B", wrt=(0, 2), activations=names, **numbers)
