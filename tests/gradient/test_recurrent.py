"""RNN, GRU and LSTM: what they are said by equals the runtime's own operators, all outputs of
which carry gradients. Their first output is checked among the cases of rules.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from onnxcam.gradient.builder import Builder
from onnxcam.gradient.registry import Call, find_rule
from onnxcam.surgeon.prepare import prepare

from .finite import session
from .recurrence import DEFAULTS, GATES, forward

TIMES, BATCH, INPUT, HIDDEN = 4, 3, 2, 5
NAMES = ("X", "W", "R", "B", "lengths", "h", "c", "P")


def operands(
    op: str, rng: np.random.Generator, directions: int = 1, given: str = "", layout: int = 0
) -> dict[str, np.ndarray]:
    gates = GATES[op]
    shapes: dict[str, tuple[int, ...]] = {
        "X": (BATCH, TIMES, INPUT) if layout else (TIMES, BATCH, INPUT),
        "W": (directions, gates * HIDDEN, INPUT),
        "R": (directions, gates * HIDDEN, HIDDEN),
        "B": (directions, 2 * gates * HIDDEN),
        "h": (BATCH, directions, HIDDEN) if layout else (directions, BATCH, HIDDEN),
        "c": (BATCH, directions, HIDDEN) if layout else (directions, BATCH, HIDDEN),
        "P": (directions, 3 * HIDDEN),
    }
    found = {n: rng.normal(scale=0.7, size=s) for n, s in shapes.items() if n in f"XWR{given}"}
    if "L" in given:
        found["lengths"] = np.array([4, 1, 3], np.int32)
    return found


def model(
    op: str, values: dict[str, np.ndarray], attributes: dict[str, Any], opset: int = 14
) -> onnx.ModelProto:
    names = [n if n in values else "" for n in NAMES]
    while not names[-1]:
        names.pop()
    outputs = ["Y", "Y_h", "Y_c"] if op == "LSTM" else ["Y", "Y_h"]
    node = helper.make_node(op, names, outputs, hidden_size=HIDDEN, **attributes)
    inputs = [
        helper.make_tensor_value_info(
            n, TensorProto.INT32 if n == "lengths" else TensorProto.FLOAT, a.shape
        )
        for n, a in values.items()
    ]
    results = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs]
    graph = helper.make_graph([node], op, inputs, results)
    imports = [helper.make_opsetid("", opset)]
    proto = helper.make_model(graph, opset_imports=imports, ir_version=8)
    return onnx.shape_inference.infer_shapes(proto)


def floats(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {n: a.astype(np.float32) if a.dtype.kind == "f" else a for n, a in values.items()}


def said(proto: onnx.ModelProto, tmp_path: Any) -> bytes:
    """Return the model with its node's expansion in place of the node."""
    found = prepare(proto, tmp_path, 13)
    [node] = found.graph
    rule = find_rule(node)
    assert rule is not None and rule.expand is not None
    values = rule.expand(Call(node, Builder(found.graph, found.opset_imports[""])))
    for index, value in enumerate(values):
        assert value is not None
        old = found.graph.outputs[index]
        old.name, value.name = f"theirs{index}", old.name
        value.type, found.graph.outputs[index] = old.type, value
    found.graph.remove(node)
    return ir.serde.serialize_model(found).SerializeToString()


ACTIVATIONS = {
    "RNN": [
        (["Affine"], [0.6], [0.1]),
        (["Relu"], [], []),
        (["LeakyRelu"], [0.2], []),
        (["LeakyRelu"], [], []),
        (["ThresholdedRelu"], [0.3], []),
        (["ScaledTanh"], [0.8], [0.7]),
        (["HardSigmoid"], [0.3], [0.4]),
        (["HardSigmoid"], [], []),
        (["Elu"], [0.5], []),
        (["Softsign"], [], []),
        (["Softplus"], [], []),
    ],
    "GRU": [(["HardSigmoid", "ScaledTanh"], [0.3, 0.9], [0.4, 0.8]), (["Sigmoid", "Relu"], [], [])],
    "LSTM": [
        (["HARDSIGMOID", "leakyrelu", "ScaledTanh"], [0.3, 0.1, 0.9], [0.4, 0.8]),
        (["Sigmoid", "Softsign", "Elu"], [0.5], []),
    ],
}
SETTINGS: list[tuple[str, str, dict[str, Any]]] = [
    (op, given, settings)
    for op in DEFAULTS
    for given, settings in [
        ("", {}),
        ("B", {}),
        ("BhL", {}),
        ("BhL", {"direction": "reverse"}),
        ("Bhc" if op == "LSTM" else "Bh", {"direction": "bidirectional"}),
        ("L", {"direction": "bidirectional"}),
        ("B", {"clip": 0.3}),
    ]
]
SETTINGS += [
    (op, "B", {"activations": names, **{k: v for k, v in numbers if v}})
    for op, several in ACTIVATIONS.items()
    for names, alphas, betas in several
    for numbers in [[("activation_alpha", alphas), ("activation_beta", betas)]]
]
SETTINGS += [
    ("RNN", "B", {"direction": "bidirectional", "activations": ["Elu", "Affine"],
                  "activation_alpha": [0.4, 0.6], "activation_beta": [0.2]}),
    ("GRU", "BhL", {"linear_before_reset": 1}),
    ("GRU", "h", {"linear_before_reset": 1, "direction": "bidirectional"}),
    ("GRU", "Bh", {"linear_before_reset": 1, "clip": 0.4}),
    ("LSTM", "BhcPL", {}),
    ("LSTM", "BhcP", {"direction": "bidirectional", "clip": 0.4}),
    ("LSTM", "Bc", {"input_forget": 1}),
]  # fmt: skip


def show(value: object) -> str:
    if isinstance(value, dict):
        return ",".join(f"{k}={v}" for k, v in value.items()).replace(" ", "")
    return str(value)


@pytest.mark.parametrize(("op", "given", "settings"), SETTINGS, ids=show)
def test_expansion_computes_what_the_runtime_does(
    op: str, given: str, settings: dict[str, Any], tmp_path
) -> None:
    directions = 2 if settings.get("direction") == "bidirectional" else 1
    values = operands(op, np.random.default_rng(5), directions, given)
    proto = model(op, values, settings)
    theirs = session(proto.SerializeToString()).run(None, floats(values))
    ours = session(said(proto, tmp_path / "m.onnx")).run(None, floats(values))
    plain = forward(op, *[values.get(n) for n in NAMES], **settings)
    for a, b, c in zip(theirs, ours, plain, strict=True):
        np.testing.assert_allclose(c, a, rtol=1e-5, atol=2e-6)
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=2e-6)
