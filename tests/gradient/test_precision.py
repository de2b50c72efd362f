"""Rules in other types than float32: no rule may name a type of its own.

One case for each way of writing an operator. Where the runtime has no kernel for a type, the
reference evaluator stands in for double, and for bfloat16 the types alone are checked.
"""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from onnxruntime import InferenceSession
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidGraph,
    NotImplemented,
    RuntimeException,
)

import onnxcam

from .cases import SAMPLED
from .finite import Case, build, differentiate, session

TOLERANCE = {np.float16: 2e-2, np.float64: 1e-4}
BFLOAT16_OPSET = 22  # most operators take it from here on


def rounded(case: Case, dtype: type) -> Case:
    """Return the case with operands that are exact in ``dtype``."""

    def near(array: object) -> object:
        if array is None or np.asarray(array).dtype.kind != "f":
            return array
        return np.asarray(array).astype(dtype).astype(np.float64)

    return replace(case, inputs=[near(a) for a in case.inputs])


def feeds(case: Case, dtype: type) -> dict[str, np.ndarray]:
    given = {f"x{i}": np.asarray(case.inputs[i]) for i in (*case.wrt, *case.fed)}
    return {k: v.astype(dtype) if v.dtype.kind == "f" else v for k, v in given.items()}


def loaded(model: bytes) -> InferenceSession | None:
    """Return a session; ``None`` where the runtime has no kernel for the type."""
    try:
        return session(model)
    except NotImplemented:
        return None


def runs(model: onnx.ModelProto, given: dict[str, np.ndarray]) -> bool:
    """Whether the runtime runs the operator in the type; some kernels say only then."""
    runtime = loaded(model.SerializeToString())
    try:
        return runtime is not None and runtime.run(["y0"], given) is not None
    except RuntimeException:
        return False


def narrowed(model: bytes) -> list[str]:
    """Return the casts from double to float that a rule has appended."""
    proto = onnx.shape_inference.infer_shapes(onnx.load_from_string(model))
    values = [*proto.graph.input, *proto.graph.value_info, *proto.graph.output]
    kinds = {v.name: v.type.tensor_type.elem_type for v in values}
    return [
        n.name
        for n in proto.graph.node
        if n.op_type == "Cast"
        and n.name.startswith("onnxcam:")
        and n.attribute[0].i == TensorProto.FLOAT
        and kinds.get(n.input[0]) == TensorProto.DOUBLE
    ]


def taken(case: Case, dtype: type) -> onnx.ModelProto:
    """Return the model in ``dtype``; skip where the operator does not take it."""
    try:
        model = build(case, dtype, False)
        onnx.checker.check_model(model, full_check=True)
        loaded(model.SerializeToString())
    except (Fail, InvalidGraph, onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        pytest.skip("the operator does not take the type")
    return model


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("case", SAMPLED, ids=str)
def test_gradient_is_that_of_float32(case: Case, dtype: type) -> None:
    case = rounded(case, dtype)
    model = taken(case, dtype)
    plain = build(case, np.float32, False)
    y = session(plain.SerializeToString()).run(["y0"], feeds(case, np.float32))[0]
    seed = np.random.default_rng(1).normal(size=(2, *y.shape)).astype(dtype)
    names = [f"gradient_x{i}" for i in case.wrt]
    given = {**feeds(case, np.float32), "seed0": seed.astype(np.float32)}
    expected = session(differentiate(plain, case, y.ndim)).run(names, given)
    differentiated = differentiate(model, case, y.ndim)
    if dtype is np.float64:
        assert not narrowed(differentiated)
    runtime, given = loaded(differentiated), {**feeds(case, dtype), "seed0": seed}
    if runtime is None or not runs(model, feeds(case, dtype)):
        if dtype is np.float16 or case.linear or case.obvious is not None:
            pytest.skip("nothing runs the operator in this type")
        runtime = ReferenceEvaluator(onnx.load_from_string(differentiated))
    found = runtime.run(names, given)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == dtype
        scale = max(np.abs(b).max(initial=0), 1e-3)
        np.testing.assert_allclose(a.astype(np.float64), b, rtol=0, atol=TOLERANCE[dtype] * scale)


@pytest.mark.parametrize("case", SAMPLED, ids=str)
def test_gradient_has_the_type_bfloat16(case: Case) -> None:
    case = replace(case, opset=max(case.opset, BFLOAT16_OPSET))
    model = taken(case, ml_dtypes.bfloat16)
    try:
        plain = build(case, np.float32, False).SerializeToString()
        rank = session(plain).run(["y0"], feeds(case, np.float32))[0].ndim
    except (Fail, NotImplemented):
        pytest.skip("the case is not of this opset")
    loaded(differentiate(model, case, rank))


def test_bfloat16_lifts_a_model_to_where_operators_take_it() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> graph (bfloat16[3, 4] x) => (bfloat16[3, 4] y) '
        "{ y = Relu(x) }"
    )
    lifted = onnxcam.add_gradients(model, "y", "x")
    assert lifted.opset_import[0].version == BFLOAT16_OPSET
    onnx.checker.check_model(lifted, full_check=True)
