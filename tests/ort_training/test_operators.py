"""The builder's gradient of single operators, rewritten where it needs that."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

import onnxcam
from onnxcam.errors import EngineError
from onnxcam.gradient.function_bodies import body_opset
from onnxcam.gradient.ort.engine import add_gradients_ort
from onnxcam.gradient.ort.equivalents import EQUIVALENTS
from onnxcam.gradient.ort.rewrites import TRUSTED

from ..gradient.cases import CASES
from ..gradient.finite import Case, build, session
from . import PRESENT, needs_training

pytestmark = needs_training
NEWEST = 21  # opset that the training build knows


def comparable(case: Case) -> bool:
    """Whether the builder may know the operator, or others that say it."""
    if case.domain or case.opset > NEWEST:
        return False
    if case.op == "BatchNormalization" and np.ndim(case.inputs[0]) < 2:
        return False  # ends the process of this old runtime
    return case.op in TRUSTED | set(EQUIVALENTS) or body_opset(case.op) is not None


COMPARED = [case for case in CASES if PRESENT and comparable(case)]


def gradients(case: Case) -> tuple[list[np.ndarray], ...]:
    """Return ours and theirs."""
    names = [f"x{i}" for i in case.wrt]
    feeds = {
        n: np.asarray(case.inputs[i], np.float32) for n, i in zip(names, case.wrt, strict=True)
    }
    feeds |= case.given
    model = build(case, np.float32, False)
    try:
        [y] = session(model.SerializeToString()).run(["y0"], feeds)
    except Exception as error:
        pytest.skip(f"the old runtime cannot run it: {error}")
    if not y.size:
        pytest.skip("nothing to differentiate")
    kind = helper.np_dtype_to_tensor_dtype(y.dtype)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y0", kind, y.shape))
    theirs = add_gradients_ort(model, "y0", names)
    seed = np.random.default_rng(4).normal(size=(1, *y.shape)).astype("f")
    ours = onnxcam.add_gradients(model, "y0", names)
    feeds |= {"seed:y0": seed}
    outputs = [f"gradient:{name}" for name in names]
    return tuple(session(m.SerializeToString()).run(outputs, feeds) for m in (ours, theirs))


@pytest.mark.parametrize("case", COMPARED, ids=str)
def test_the_builder_agrees_or_is_not_asked(case: Case) -> None:
    try:
        pairs = zip(*gradients(case), strict=True)
    except EngineError as error:
        pytest.skip(f"refused: {error}")
    for ours, theirs in pairs:
        assert ours.shape == theirs.shape
        scale = max(np.abs(ours).max(initial=0), 1e-6)
        assert np.abs(ours - theirs).max(initial=0) <= 1e-4 * scale


def test_every_operator_left_to_the_builder_is_compared() -> None:
    assert TRUSTED | set(EQUIVALENTS) <= {case.op for case in COMPARED}
