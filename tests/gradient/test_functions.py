"""Operators that have no rule of their own go by their definition in the standard."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxcam.errors import NoGradientError
from onnxcam.gradient.add import new_walk
from onnxcam.gradient.call import Call
from onnxcam.gradient.function_bodies import REFUSES, body_opset, from_schema
from onnxcam.gradient.registry import RULES, find_rule
from onnxcam.graph.builder import Builder

from .cases.values import i64, positive, reseed, weight
from .finite import Case, build, check

reseed(__name__)
BODIES = [
    Case("LayerNormalization", [weight(2, 3, 4), weight(4), weight(4)], wrt=(0, 1, 2)),
    Case("LayerNormalization", [weight(2, 3, 4), weight(4)], opset=23, wrt=(0, 1)),
    Case("RMSNormalization", [weight(2, 3, 4), weight(3, 4)], {"axis": 1}, (0, 1), opset=23),
    Case(
        "GroupNormalization", [weight(2, 6, 5), weight(6), weight(6)], {"num_groups": 3}, opset=21
    ),
    Case("Shrink", [weight(2, 3)], {"lambd": 0.1, "bias": 0.3}, opset=18),
    Case("ReduceLogSum", [positive(2, 3, 4), i64(1)], opset=18),
    Case("SoftmaxCrossEntropyLoss", [weight(3, 4), i64(0, 3, 1), positive(4)], opset=16),
    Case("CenterCropPad", [weight(2, 5, 3), i64(3, 5)], {"axes": [1, 2]}, opset=18, dynamic=(0,)),
    Case("Gelu", [weight(2, 3)], {"approximate": "tanh"}, opset=20),
]


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("case", BODIES, ids=str)
def test_gradient_of_the_body(case: Case, dynamic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(RULES, ("", case.op), raising=False)
    check(case, 2, dynamic)


def call_of(case: Case) -> Call:
    model = ir.serde.deserialize_model(build(case, np.float32, False))
    return Call(model.graph[0], new_walk(Builder(model.graph, case.opset)), REFUSES)


def test_constants_and_known_shapes_are_folded() -> None:
    call = call_of(Case("CenterCropPad", [weight(2, 5, 3), i64(3, 5)], {"axes": [1, 2]}, opset=18))
    before = len(call.builder.graph)
    from_schema(call)
    made = [n.op_type for n in call.builder.graph][before:]
    assert set(made) <= {"Slice", "Pad", "Identity"}, made


def test_a_branch_that_is_known_is_taken() -> None:
    call = call_of(Case("AffineGrid", [weight(2, 2, 3), i64(2, 3, 4, 5)], opset=20))
    from_schema(call)
    assert not any(n.op_type == "If" for n in call.builder.graph)


def test_outputs_that_the_node_does_not_have_are_left_out() -> None:
    call = call_of(Case("Attention", [weight(1, 2, 3, 4)] * 3, opset=23, wrt=(0, 1, 2)))
    outputs = from_schema(call)
    assert outputs[0] is not None and outputs[1:] == [None] * 3


def test_where_there_is_no_body() -> None:
    assert body_opset("Conv") is None
    assert find_rule(ir.node("StringConcat", [])) is None
    assert body_opset("CenterCropPad") == 18
    assert find_rule(ir.node("CenterCropPad", [])).needed(ir.node("CenterCropPad", [])) == 18
    call = call_of(Case("Gelu", [weight(2)], opset=20))
    call.builder.opset = 19
    with pytest.raises(NoGradientError, match="does not know it"):
        from_schema(call)
    call = call_of(Case("Shrink", [weight(2)], opset=13))
    with pytest.raises(NoGradientError, match="at this opset"):
        from_schema(call)
