"""RNN, GRU and LSTM in NumPy: one sequence, one time, one gate after another.

Where the standard is silent it does as ONNX Runtime: an LSTM's third activation gets its input
without clipping, and the last states of an empty sequence are 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}

# alpha and beta by default; their number tells how many of the given ones a function takes
FUNCTIONS: dict[str, tuple[Callable[..., Array], tuple[float, ...]]] = {
    "affine": (lambda x, a, b: a * x + b, (np.nan, np.nan)),
    "relu": (lambda x: np.maximum(x, 0), ()),
    "leakyrelu": (lambda x, a: np.where(x >= 0, x, a * x), (0.01,)),
    "thresholdedrelu": (lambda x, a: np.where(x > a, x, 0), (1.0,)),
    "tanh": (np.tanh, ()),
    "scaledtanh": (lambda x, a, b: a * np.tanh(b * x), (np.nan, np.nan)),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), ()),
    "hardsigmoid": (lambda x, a, b: np.clip(a * x + b, 0, 1), (0.2, 0.5)),
    "elu": (lambda x, a: np.where(x >= 0, x, a * (np.exp(x) - 1)), (1.0,)),
    "softsign": (lambda x: x / (1 + np.abs(x)), ()),
    "softplus": (lambda x: np.log1p(np.exp(x)), ()),
}


def forward(
    op: str,
    X: Array,
    W: Array,
    R: Array,
    B: Array | None = None,
    lengths: Array | None = None,
    initial_h: Array | None = None,
    initial_c: Array | None = None,
    P: Array | None = None,
    **attributes: Any,
) -> list[Array]:
    """Return Y, Y_h and, of an LSTM, Y_c."""
    batch_first = attributes.get("layout", 0)
    states = [initial_h, initial_c]
    if batch_first:
        X = X.swapaxes(0, 1)
        states = [None if s is None else s.swapaxes(0, 1) for s in states]
    times, batch, _ = X.shape
    directions, hidden = R.shape[0], R.shape[2]
    count = 2 if op == "LSTM" else 1
    Y = np.zeros((times, directions, batch, hidden))
    last = [np.zeros((directions, batch, hidden)) for _ in range(count)]
    functions = _functions(op, directions, attributes)
    for d in range(directions):
        backwards = attributes.get("direction", "forward") == "reverse" or d == 1
        bias = np.zeros(2 * GATES[op] * hidden) if B is None else B[d]
        for n in range(batch):
            state = [np.zeros(hidden) if s is None else s[d, n] for s in states[:count]]
            length = times if lengths is None else int(lengths[n])
            order = range(length)[::-1] if backwards else range(length)
            for t in order:
                step = {"RNN": _rnn, "GRU": _gru, "LSTM": _lstm}[op]
                peep = None if P is None else P[d]
                state = step(X[t, n], state, W[d], R[d], bias, peep, functions[d], attributes)
                Y[t, d, n] = state[0]
            for i, value in enumerate(state if length else []):
                last[i][d, n] = value
    if batch_first:
        return [Y.transpose(2, 0, 1, 3), *(s.swapaxes(0, 1) for s in last)]
    return [Y, *last]


def _functions(
    op: str, directions: int, attributes: dict[str, Any]
) -> list[list[Callable[[Array], Array]]]:
    names = attributes.get("activations", DEFAULTS[op] * directions)
    given = [list(attributes.get(f"activation_{n}", [])) for n in ("alpha", "beta")]
    found = []
    for index, name in enumerate(names):
        function, defaults = FUNCTIONS[name.lower()]
        numbers = [left.pop(0) if left else d for left, d in zip(given, defaults, strict=False)]
        clip = attributes.get("clip", np.inf) if index % len(DEFAULTS[op]) < 2 else np.inf
        found.append(lambda x, f=function, n=numbers, c=clip: f(np.clip(x, -c, c), *n))
    size = len(DEFAULTS[op])
    return [found[d * size : (d + 1) * size] for d in range(directions)]


def _rnn(
    x: Array, state: Sequence[Array], W: Array, R: Array, b: Array, P: Any, f: Any, settings: Any
) -> list[Array]:
    half = len(b) // 2
    return [f[0](W @ x + b[:half] + R @ state[0] + b[half:])]


def _gru(
    x: Array, state: Sequence[Array], W: Array, R: Array, b: Array, P: Any, f: Any, settings: Any
) -> list[Array]:
    [h] = state
    Wz, Wr, Wh = np.split(W, 3)
    Rz, Rr, Rh = np.split(R, 3)
    Wbz, Wbr, Wbh, Rbz, Rbr, Rbh = np.split(b, 6)
    z = f[0](Wz @ x + Rz @ h + Wbz + Rbz)
    r = f[0](Wr @ x + Rr @ h + Wbr + Rbr)
    if settings.get("linear_before_reset", 0):
        new = f[1](Wh @ x + r * (Rh @ h + Rbh) + Wbh)
    else:
        new = f[1](Wh @ x + Rh @ (r * h) + Rbh + Wbh)
    return [(1 - z) * new + z * h]


def _lstm(
    x: Array, state: Sequence[Array], W: Array, R: Array, b: Array, P: Any, f: Any, settings: Any
) -> list[Array]:
    h, c = state
    half = len(b) // 2
    i, o, forget, g = np.split(W @ x + R @ h + b[:half] + b[half:], 4)
    Pi, Po, Pf = np.split(np.zeros(3 * len(h)) if P is None else P, 3)
    i = f[0](i + Pi * c)
    forget = 1 - i if settings.get("input_forget", 0) else f[0](forget + Pf * c)
    new = forget * c + i * f[1](g)
    o = f[0](o + Po * new)
    return [o * f[2](new), new]
