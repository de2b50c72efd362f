"""A gradient is made of operators that have gradients themselves."""

from __future__ import annotations

import numpy as np
import onnx.defs
import pytest

import onnxcam
from onnxcam.errors import NoGradientError

from .cases import CASES
from .finite import Case, build, session

FIRST: dict[str, Case] = {}
for _case in CASES:
    standard = not _case.domain and onnx.defs.has(_case.op)
    if standard and not _case.fed and 0 in _case.wrt:
        FIRST.setdefault(_case.op, _case)


@pytest.mark.parametrize("op", FIRST)
def test_second_derivative_equals_difference_of_the_first(op: str) -> None:
    case = FIRST[op]
    model = build(case, np.float32, False)
    if not model.graph.output[0].type.tensor_type.HasField("shape"):
        pytest.skip("onnx does not infer the shape of its result")
    first = onnxcam.add_gradients(model, "y0", "x0")
    try:
        second = onnxcam.add_gradients(first, "gradient:x0", "x0")
    except NoGradientError as error:
        assert "does not depend on" in str(error)
        return  # linear, or linear piece by piece
    rng = np.random.default_rng(3)
    feeds = {f"x{i}": np.asarray(case.inputs[i], np.float32) for i in case.wrt}
    [y] = session(model.SerializeToString()).run(["y0"], feeds)
    x, step = feeds["x0"], 3e-3
    seed = {"seed:y0": rng.normal(size=(1, *y.shape)).astype(np.float32)}
    row = rng.normal(size=(1, 1, *x.shape)).astype(np.float32)
    direction = rng.normal(size=x.shape)
    runtime = session(first.SerializeToString())

    def along(h: float) -> float:
        moved = {**feeds, "x0": (x + h * direction).astype(np.float32), **seed}
        return float((runtime.run(["gradient:x0"], moved)[0] * row[0].astype(np.float64)).sum())

    run = session(second.SerializeToString()).run
    [curvature] = run(["gradient:x0.2"], {**feeds, **seed, "seed:gradient:x0": row})
    found = float((curvature[0] * direction).sum())
    expected = (along(step) - along(-step)) / (2 * step)
    assert abs(found - expected) <= 2e-2 * max(abs(found), abs(expected), 0.3)
