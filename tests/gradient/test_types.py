"""In double and in half precision the gradient runs wherever the operator does, in its type."""

from __future__ import annotations

import numpy as np
import pytest

from .cases import CASES
from .finite import Case, build, differentiate, session

TYPED = {
    "Cast": "its result has a type of its own",
    "CastLike": "its result has a type of its own",
    "MeanVarianceNormalization": "onnx's definition of it is not valid in half precision",
}
FIRST: dict[str, Case] = {}
for _case in CASES:
    if not _case.domain and _case.op not in TYPED and np.asarray(_case.inputs[0]).dtype.kind == "f":
        FIRST.setdefault(_case.op, _case)


def gradients(case: Case, dtype: type) -> list[np.ndarray] | None:
    """Return the gradients in a type, ``None`` where the runtime lacks the operator in it."""

    def typed(array: object) -> np.ndarray:
        array = np.asarray(array)
        return array.astype(dtype) if array.dtype.kind == "f" else array

    feeds = {f"x{i}": typed(case.inputs[i]) for i in [*case.wrt, *case.fed]}
    model = build(case, dtype, False)
    try:
        [y] = session(model.SerializeToString()).run(["y0"], feeds)
    except Exception:
        return None
    seed = typed(np.random.default_rng(7).normal(size=(2, *y.shape)))
    names = [f"gradient_x{i}" for i in case.wrt]
    made = differentiate(model, case, y.ndim)
    return session(made).run(names, {**feeds, "seed0": seed})


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-4), (np.float16, 2e-2)])
@pytest.mark.parametrize("op", FIRST)
def test_types(op: str, dtype: type, tolerance: float) -> None:
    expected, found = gradients(FIRST[op], np.float32), gradients(FIRST[op], dtype)
    if expected is None or found is None:
        pytest.skip("the runtime does not run the operator in this type")
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == dtype
        scale = max(np.abs(b).max(initial=0), 1e-3)
        assert np.abs(a.astype(np.float64) - b).max(initial=0) <= tolerance * scale
