"""Run node tests of the standard: as they are, and in float64 to take differences of.

The differences are those of ONNX Runtime's own double kernels, else of onnx's reference
evaluator, each believed where it computes what the float kernels do; else of the float kernels
over larger steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from ..finite import session
from .models import (
    DOUBLE,
    FLOAT,
    FLOATS,
    HIGHEST_OPSET,
    Example,
    Feeds,
    restamped,
    retyped,
)

_STEP = 3e-3  # of the operand's size
_SLOW = {"AveragePool", "MaxPool", "LpPool"}  # in the evaluator, which loops over windows
_WHOLE = ("indices", "depth")  # operands of OneHot that hold integers as floats

Forward = Callable[[Feeds], list[np.ndarray]]
Run = Callable[[Sequence[str], Feeds], list[np.ndarray]]


@dataclass
class Oracle:
    """A forward to take differences of."""

    name: str
    run: Forward
    steps: np.ndarray  # of the operand's size
    noise: float  # of what it returns, relative


def runner(model: onnx.ModelProto, by_reference: bool) -> Run:
    """Return what runs a model: ONNX Runtime, or onnx's reference evaluator."""
    if by_reference:
        evaluator = ReferenceEvaluator(model)
        return lambda names, feeds: [np.asarray(y) for y in evaluator.run(list(names), feeds)]
    loaded = session(model.SerializeToString())
    return lambda names, feeds: [np.asarray(y) for y in loaded.run(list(names), feeds)]


def forward(found: Example, by_reference: bool | None = None) -> Forward:
    """Return the floating-point outputs as a function of the operands."""
    engine = found.by_reference if by_reference is None else by_reference
    run, names = runner(found.model, engine), found.outputs()

    def outputs(values: Feeds) -> list[np.ndarray]:
        given = {k: v.astype(found.feeds[k].dtype) for k, v in values.items()}
        return [y.astype(np.float64) for y in run(names, given)]

    return outputs


def oracle(found: Example, actual: list[np.ndarray], feeds: Feeds) -> Oracle | None:
    """Return the best forward that agrees with ONNX Runtime's own."""
    double = retyped(found, FLOATS, DOUBLE)
    for name, by_reference, noise in (("double", False, 1e-12), ("reference", True, 1e-9)):
        try:
            if by_reference and not found.by_reference and found.operators() & _SLOW:
                continue
            run = forward(double, by_reference)
            agrees = close(run(feeds), actual, 2e-2 if found.half else 1e-4)
        except Exception:
            continue
        if agrees:
            name = "reference alone" if found.by_reference else name
            return Oracle(name, run, _STEP / np.array([1, 16, 256]), noise)
    if found.half or found.by_reference:
        return None
    return Oracle("float", forward(found), 10 * _STEP / np.array([1, 4, 16]), 1e-6)


def close(found: list[np.ndarray], expected: list[np.ndarray], tolerance: float) -> bool:
    for a, b in zip(found, expected, strict=True):
        size = max(np.abs(b[np.isfinite(b)]).max(initial=0), 1e-3)
        if a.shape != b.shape or not np.allclose(a, b, 0, tolerance * size, equal_nan=True):
            return False
    return True


def as_run(found: Example) -> tuple[Example | None, str]:
    """Return the example as ONNX Runtime runs it: as it is, of an older opset, or in float."""
    why = ""
    for candidate in _candidates(found):
        try:
            forward(candidate)(candidate.feeds)
        except Exception as error:
            why = why or str(error).strip().splitlines()[0]
            continue
        return candidate, ""
    return None, why


def _candidates(found: Example) -> Iterator[Example]:
    yield found
    for opset in range(HIGHEST_OPSET - 1, 12, -1):
        older = restamped(found.model, opset)
        if older is not None and older != found.model:
            yield Example(older, found.feeds)
    if found.kinds() != {FLOAT}:
        yield in_float(found)
    double = retyped(found, FLOATS, DOUBLE)
    yield Example(double.model, double.feeds, by_reference=True)


def in_float(found: Example) -> Example:
    plain = retyped(found, FLOATS, FLOAT)
    return Example(restamped(plain.model, HIGHEST_OPSET) or plain.model, plain.feeds)


def operands(found: Example, rng: np.random.Generator) -> Feeds:
    """Return operands off kinks, ties and integers: as many of them moved as keep the shapes."""
    run = forward(found)
    before = [y.shape for y in run(found.feeds)]
    movable = [name for name in found.inputs() if name not in _WHOLE]
    moved = []
    for names in (*[movable] * 5, *[movable[:1]] * 5):
        feeds = {k: _moved(v, rng) if k in names else v for k, v in found.feeds.items()}
        try:
            after = [y.shape for y in run(feeds)]
        except Exception:
            continue
        if after == before:
            return feeds
        moved.append(feeds)
    return moved[0] if moved and not found.declared() else found.feeds


def _moved(value: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move values a little within their range; what comes out is exact in their own type."""
    x = value.astype(np.float64)
    finite = np.isfinite(x)
    if not finite.any():
        return x
    low, high = x[finite].min(), x[finite].max()
    if low == high:
        low, high = sorted((0.8 * low, 1.2 * high)) if low else (-0.2, 0.2)
    x = np.where(finite, 0.9 * x + 0.1 * rng.uniform(low, high, x.shape), x)
    return x.astype(value.dtype).astype(np.float64)
