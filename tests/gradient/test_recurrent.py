"""RNN, GRU and LSTM: what they are said by equals the runtime's own operators, all outputs of
which carry gradients. Their first output is checked among the cases of rules.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from onnxcam.errors import NoGradientError
from onnxcam.gradient.add import new_walk
from onnxcam.gradient.call import Call
from onnxcam.gradient.differentiate import add_gradients
from onnxcam.gradient.kinds import Expansion
from onnxcam.gradient.registry import find_rule
from onnxcam.graph.builder import Builder
from onnxcam.graph.values import drop_unneeded
from onnxcam.model.prepare import Prepared

from .finite import central, session
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
    op: str,
    values: dict[str, np.ndarray],
    attributes: dict[str, Any],
    opset: int = 14,
    kind: str = "float",
) -> onnx.ModelProto:
    dtype = TensorProto.DataType.Value(kind.upper())
    names = [n if n in values else "" for n in NAMES]
    while not names[-1]:
        names.pop()
    outputs = ["Y", "Y_h", "Y_c"] if op == "LSTM" else ["Y", "Y_h"]
    node = helper.make_node(op, names, outputs, hidden_size=HIDDEN, **attributes)
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.INT32 if n == "lengths" else dtype, a.shape)
        for n, a in values.items()
    ]
    results = [helper.make_tensor_value_info(o, dtype, None) for o in outputs]
    graph = helper.make_graph([node], op, inputs, results)
    imports = [helper.make_opsetid("", opset)]
    proto = helper.make_model(graph, opset_imports=imports, ir_version=8)
    return onnx.shape_inference.infer_shapes(proto)


def floats(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {n: a.astype(np.float32) if a.dtype.kind == "f" else a for n, a in values.items()}


def said(proto: onnx.ModelProto, tmp_path: Any) -> bytes:
    """Return the model with its node's expansion in place of the node."""
    found = Prepared(proto, tmp_path, 13).model
    [node] = found.graph
    rule = find_rule(node)
    assert isinstance(rule, Expansion)
    walk = new_walk(Builder(found.graph, found.opset_imports[""]))
    values = rule.expand(Call(node, walk, rule.refuses))
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


def joined(
    op: str, values: dict[str, np.ndarray], attributes: dict[str, Any], kind: str = "float"
) -> onnx.ModelProto:
    """A model whose output ``all`` holds all outputs of the node."""
    proto = model(op, values, attributes, kind=kind)
    graph = proto.graph
    flat = [f"{o.name}_flat" for o in graph.output]
    graph.initializer.append(numpy_helper.from_array(np.array([-1]), "rest"))
    for output, name in zip(graph.output, flat, strict=True):
        graph.node.append(helper.make_node("Reshape", [output.name, "rest"], [name]))
    graph.node.append(helper.make_node("Concat", flat, ["all"], axis=0))
    del graph.output[:], graph.value_info[:]
    dtype = graph.input[0].type.tensor_type.elem_type
    graph.output.append(helper.make_tensor_value_info("all", dtype, ["L"]))
    return proto


def everything(op: str, values: dict[str, np.ndarray], settings: dict[str, Any]) -> np.ndarray:
    outputs = forward(op, *[values.get(n) for n in NAMES], **settings)
    return np.concatenate([y.ravel() for y in outputs])


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op", DEFAULTS)
def test_gradients_of_all_outputs(op: str, direction: str, layout: int) -> None:
    """The runtime knows no layout 1; without the node itself it runs all the same."""
    rng = np.random.default_rng(5)
    settings = {"direction": direction, "layout": layout}
    directions = 2 if direction == "bidirectional" else 1
    values = operands(op, rng, directions, "BhcPL" if op == "LSTM" else "BhL", layout)
    to = [n for n in values if n != "lengths"]
    changed = add_gradients(joined(op, values, settings), "all", to)
    y = everything(op, values, settings)
    seed = rng.normal(size=(3, y.size)).astype(np.float32)
    names = [o.name for o in changed.graph.output[1:]]
    found = run(changed, names, {**floats(values), "seed:all": seed})
    for name, gradient in zip(to, found, strict=True):
        assert gradient.shape == (3, *values[name].shape)
        for _ in range(4):
            v = rng.normal(size=values[name].shape)

            def along(h: float, name: str = name, v: np.ndarray = v) -> np.ndarray:
                return everything(op, {**values, name: values[name] + h * v}, settings)

            numeric = seed @ central(along, 1e-3)
            analytic = (gradient * v).reshape(3, -1).sum(axis=1)
            scale = np.abs(gradient).max() * np.linalg.norm(v)
            assert np.abs(analytic - numeric).max() <= 1e-5 * scale, name


def run(proto: onnx.ModelProto, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Run what ``names`` need alone, since the runtime does not have the operator in every form."""
    found = ir.serde.deserialize_model(proto)
    outputs = [o for o in found.graph.outputs if o.name in names]
    found.graph.outputs.clear()
    found.graph.outputs.extend(outputs)
    drop_unneeded(found.graph)
    return session(ir.serde.serialize_model(found).SerializeToString()).run(names, feeds)


@pytest.mark.parametrize("op", DEFAULTS)
@pytest.mark.parametrize(("kind", "bound"), [("double", 1e-7), ("float16", 2e-2)])
def test_other_types(op: str, kind: str, bound: float) -> None:
    rng = np.random.default_rng(5)
    values = operands(op, rng, 1, "Bh")
    seed = rng.normal(size=(1, everything(op, values, {}).size))
    found = []
    for name in ("float" if kind == "double" else "double", kind):
        dtype = {"float": "f4", "double": "f8", "float16": "f2"}[name]
        changed = add_gradients(joined(op, values, {}, name), "all", ["X", "R", "h"])
        feeds = {n: a.astype(dtype) for n, a in {**values, "seed:all": seed}.items()}
        found.append(run(changed, [o.name for o in changed.graph.output[1:]], feeds))
    for one, other in zip(*found, strict=True):
        assert other.dtype.name == {"double": "float64"}.get(kind, kind)
        assert np.abs(one - other).max() <= max(bound, 1e-5) * np.abs(one).max()


@pytest.mark.parametrize("opset", [7, 11, 13, 14, 18, 22, 26])
@pytest.mark.parametrize("op", DEFAULTS)
def test_every_opset(op: str, opset: int) -> None:
    rng = np.random.default_rng(5)
    values = operands(op, rng, 2, "Bh")
    settings = {"direction": "bidirectional"}
    changed = add_gradients(model(op, values, settings, opset), "Y", "X")
    assert changed.opset_import[0].version == max(opset, 13)
    y = forward(op, *[values.get(n) for n in NAMES], **settings)[0]
    seed = rng.normal(size=(1, *y.shape)).astype(np.float32)
    [found] = session(changed.SerializeToString()).run(
        ["gradient:X"], {**floats(values), "seed:Y": seed}
    )
    v = rng.normal(size=values["X"].shape)

    def along(h: float) -> np.ndarray:
        moved = {**values, "X": values["X"] + h * v}
        return forward(op, *[moved.get(n) for n in NAMES], **settings)[0]

    numeric = (seed * central(along, 1e-3)).sum()
    assert abs((found * v).sum() - numeric) <= 1e-5 * np.abs(found).max() * np.linalg.norm(v)


@pytest.mark.parametrize("op", DEFAULTS)
def test_an_empty_sequence_passes_nothing(op: str) -> None:
    values = operands(op, np.random.default_rng(5), 1, "BhL")
    values["lengths"] = np.array([4, 0, 2], np.int32)
    changed = add_gradients(model(op, values, {}), "Y_h", ["X", "h"])
    seed = np.ones((1, 1, BATCH, HIDDEN), np.float32)
    names = [o.name for o in changed.graph.output[-2:]]
    x, h = session(changed.SerializeToString()).run(names, {**floats(values), "seed:Y_h": seed})
    assert not x[:, :, 1].any() and not h[:, :, 1].any()
    assert x[:, :2, 2].any() and not x[:, 2:, 2].any() and h[:, :, 2].any()


@pytest.mark.parametrize(
    ("names", "message"),
    [(["Affine"], "activation Affine lacks alpha or beta"), (["Sine"], "'Sine' is unknown")],
)
def test_activations_that_mean_nothing(names: list[str], message: str) -> None:
    values = operands("RNN", np.random.default_rng(5))
    with pytest.raises(NoGradientError, match=rf"RNN \(.*opset 14\) cannot .*{message}"):
        add_gradients(model("RNN", values, {"activations": names}), "Y", "X")


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("kind", [QuantType.QInt8, QuantType.QUInt8])
def test_weights_that_the_quantizer_encoded(
    direction: str, per_channel: bool, kind: QuantType, tmp_path: Path
) -> None:
    """Against the float LSTM of the weights that the codes stand for."""
    directions = 2 if direction == "bidirectional" else 1
    values = operands("LSTM", np.random.default_rng(5), directions, "BhcPL")
    proto = model("LSTM", values, {"direction": direction})
    for name in ("W", "R"):
        proto.graph.initializer.append(numpy_helper.from_array(values[name].astype("f"), name))
    kept = [i for i in proto.graph.input if i.name not in ("W", "R")]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    paths = [tmp_path / "float.onnx", tmp_path / "codes.onnx"]
    onnx.save(proto, paths[0])
    quantize_dynamic(*paths, op_types_to_quantize=["LSTM"], per_channel=per_channel,
                     weight_type=kind)  # fmt: skip
    coded = onnx.load(paths[1])
    [node] = coded.graph.node
    assert node.op_type == "DynamicQuantizeLSTM"
    stored = {t.name: numpy_helper.to_array(t) for t in coded.graph.initializer}
    for name, place in (("W", 1), ("R", 2)):
        codes, scale, zero = (
            stored[node.input[i]].astype("f") for i in (place, 6 + 2 * place, 7 + 2 * place)
        )
        column = (directions, 1, -1)
        numbers = (codes - zero.reshape(column)) * scale.reshape(column)
        assert abs(numbers.transpose(0, 2, 1) - values[name]).max() < 0.03
        values[name] = numbers.transpose(0, 2, 1)
    feeds = {n: a for n, a in floats(values).items() if n not in ("W", "R")}
    seed = np.random.default_rng(6).normal(size=(2, TIMES, directions, BATCH, HIDDEN)).astype("f")
    to = ["X", "B", "h", "c"]
    names = [f"gradient:{n}" for n in to]
    twin = add_gradients(model("LSTM", values, {"direction": direction}), "Y", to)
    expected = run(twin, names, {**floats(values), "seed:Y": seed})
    del coded.graph.value_info[:]
    made = session(add_gradients(coded, "Y", to).SerializeToString())
    for found, exact in zip(made.run(names, {**feeds, "seed:Y": seed}), expected, strict=True):
        error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
        assert error < 2e-2  # the runtime encodes input and state, too


def test_zero_points_that_do_not_fit_are_refused() -> None:
    """ONNX Runtime's own reading of them is not clear."""
    shapes = {"W": (1, 2, 20), "R": (1, 5, 20)}
    stored = {n: np.ones(s, np.int8) for n, s in shapes.items()}
    stored |= {"scale": np.ones(1, np.float32), "zero": np.zeros((1, 20), np.int8)}
    names = ["X", "W", "R", "", "", "", "", "", "scale", "zero", "scale", "zero"]
    node = helper.make_node(
        "DynamicQuantizeLSTM", names, ["Y"], domain="com.microsoft", hidden_size=HIDDEN
    )
    graph = helper.make_graph(
        [node],
        "lstm",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [TIMES, BATCH, INPUT])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [TIMES, 1, BATCH, HIDDEN])],
        [numpy_helper.from_array(a, n) for n, a in stored.items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(graph, opset_imports=imports, ir_version=8)
    with pytest.raises(NoGradientError, match="zero points do not fit"):
        add_gradients(proto, "Y", "X")
