"""Hold a written gradient against central differences of the model itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxcam.gradient_run import not_finite, run_gradient, session_of, try_once
from onnxcam.runtime.session import Session

DIRECTIONS = 3
_STEPS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)  # of the tensor's own size; the best one counts

Array = NDArray[Any]
Exact = NDArray[np.float64]


@dataclass(frozen=True)
class Check:
    """What came of one tensor's gradient.

    Attributes:
        tensor: its name.
        largest: the largest absolute value of the gradient.
        error: the largest relative error over the directions: of the gradient's product with a
            direction against central differences, over the product or, where that is small by
            chance, over what a random direction gives on average; infinity where no difference is
            finite.
        problem: what is not finite, ``""`` where all is.
    """

    tensor: str
    largest: float
    error: float
    problem: str = ""


def check_gradient(
    made: onnx.ModelProto, path: Path, of: str, to: Sequence[str], given: str, seed: int = 0
) -> list[Check]:
    """Compare a gradient with the model that it was made of.

    Args:
        made: the model with gradients, as :func:`onnxcam.add_gradients` returns it.
        path: the file of the model without.
        of: the differentiated tensor.
        to: the tensors that it was differentiated with respect to.
        given: ``"random"``, a .npy file of the image input as the model takes it, or a photograph,
            which is prepared as for an explanation. Other inputs are random.
        seed: of what is random: inputs, one cotangent, directions.

    Raises:
        OnnxcamError: the model cannot be run, or the image does not fit.
    """
    rng = np.random.default_rng(seed)
    trial = try_once(path, of, to, given, rng)
    plain, start, values, feeds = trial.plain, trial.start, trial.values, trial.feeds
    cotangent = rng.normal(size=values[of].shape)
    gradients = run_gradient(made, trial, cotangent)
    found = []
    for name, end, (output, gradient) in zip(to, trial.ends, gradients.items(), strict=True):
        g = gradient.astype(np.float64)
        problem = not_finite({name: values[name], of: values[of], output: g})
        if problem:
            found.append(Check(name, float("nan"), float("nan"), problem))
            continue
        session = session_of(plain, path, [start], end)

        def total(x: Array, name: str = name, session: Session = session) -> float:
            y = session.run({**feeds, name: x}, [of])[of].astype(np.float64)
            return float(np.sum(y * cotangent))

        error = max(_compare(total, values[name], g, d) for d in _directions(g, rng))
        found.append(Check(name, float(np.abs(g).max(initial=0.0)), error))
    return found


def _directions(g: Exact, rng: np.random.Generator) -> list[Exact]:
    """Return random directions of length 1; the last leans towards the gradient."""
    drawn = [rng.normal(size=g.shape) for _ in range(DIRECTIONS)]
    drawn[-1] += g / max(float(np.linalg.norm(g)), 1e-300) * np.sqrt(g.size)
    return [d / max(float(np.linalg.norm(d)), 1e-300) for d in drawn]


def _compare(
    total: Callable[[Array], float], x: Array, g: NDArray[np.float64], d: NDArray[np.float64]
) -> float:
    """Return the relative error along one direction, at the step where it is least."""
    exact = float(np.sum(g * d))
    usual = float(np.linalg.norm(g)) / np.sqrt(max(g.size, 1))
    size = max(float(np.linalg.norm(x.astype(np.float64))), 1e-3)
    best = float("inf")
    for step in _STEPS:
        ends = [(x + sign * step * size * d).astype(x.dtype) for sign in (1, -1)]
        moved = float(np.sum((ends[0].astype(np.float64) - ends[1]) * d))  # after rounding
        slope = (total(ends[0]) - total(ends[1])) / (moved or 1e-300)
        if math.isfinite(slope):
            best = min(best, abs(slope - exact) / max(abs(exact), abs(slope), usual, 1e-300))
    return best
