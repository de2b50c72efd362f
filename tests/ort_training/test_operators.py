"""The builder's gradient of single operators, rewritten where it needs that."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from onnxcam.errors import EngineError
from onnxcam.gradient.ort import add_gradients_ort
from onnxcam.gradient.ort_rewrites import TRUSTED
from onnxcam.gradient.ort_says import SAYS

from ..gradient.cases import CASES
from ..gradient.finite import Case, build, differentiate, session
from . import needs_training

pytestmark = needs_training
NEWEST = 21  # opset that the training build knows
SAID = [c for c in CASES if c.opset <= NEWEST and not c.domain and c.op in TRUSTED | set(SAYS)]


def gradients(case: Case) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return ours and theirs."""
    names = [f"x{i}" for i in case.wrt]
    feeds = {
        n: np.asarray(case.inputs[i], np.float32) for n, i in zip(names, case.wrt, strict=True)
    }
    feeds |= case.given
    model = build(case, np.float32, False)
    [y] = session(model.SerializeToString()).run(["y0"], feeds)
    if not y.size:
        pytest.skip("nothing to differentiate")
    kind = helper.np_dtype_to_tensor_dtype(y.dtype)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y0", kind, y.shape))
    theirs = add_gradients_ort(model, "y0", names)
    seed = np.random.default_rng(4).normal(size=(1, *y.shape)).astype("f")
    ours = session(differentiate(model, case))
    return (
        ours.run([f"gradient_{n}" for n in names], {**feeds, "seed0": seed}),
        session(theirs.SerializeToString()).run(
            [f"gradient:{n}" for n in names], {**feeds, "seed:y0": seed}
        ),
    )


@pytest.mark.parametrize("case", SAID, ids=str)
def test_the_builder_agrees_or_is_not_asked(case: Case) -> None:
    try:
        pairs = zip(*gradients(case), strict=True)
    except EngineError as error:
        pytest.skip(f"refused: {error}")
    for ours, theirs in pairs:
        assert ours.shape == theirs.shape
        scale = max(np.abs(ours).max(initial=0), 1e-6)
        assert np.abs(ours - theirs).max(initial=0) <= 1e-4 * scale
