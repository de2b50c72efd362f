"""Excitation backprop against a slow, obvious implementation of the paper's equation.

Each node is taken as a matrix, found by running it on every unit vector, and the marginal winning
probability goes back through it unit by unit (Zhang et al. 2016, eq. 4).
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

import onnxcam
from onnxcam.errors import EngineError, NoGradientError

from .finite import session

OPSET = 17


def model_of(text: str, inputs: str, outputs: str, **weights: np.ndarray) -> onnx.ModelProto:
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {OPSET}]> net ({inputs}) => ({outputs}) {{ {text} }}'
    )
    for info in model.graph.output:
        if not info.type.tensor_type.shape.dim:  # to be inferred
            info.type.tensor_type.ClearField("shape")
    for name, array in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    return onnx.shape_inference.infer_shapes(model)


def run(
    model: onnx.ModelProto, x: np.ndarray, p: np.ndarray, to: str = "x", of: str = "y", **form
) -> tuple[np.ndarray, dict[str, bool]]:
    """Return the marginal winning probability, and which nodes read negative activations."""
    made = onnxcam.add_gradients(model, of, to, policy="excitation", **form)
    onnx.checker.check_model(made, full_check=True)
    feeds = {"x": x.astype(np.float32), f"seed:{of}": p.astype(np.float32)}
    names = [f"gradient:{to}"]
    noted = {m.key: m.value for m in made.metadata_props}.get("onnxcam.negative")
    if noted is None:
        return session(made.SerializeToString()).run(names, feeds)[0], {}
    found, flags = session(made.SerializeToString()).run([*names, "onnxcam:negative"], feeds)
    return found, dict(zip(noted.split("\n"), map(bool, flags), strict=True))


def matrix(node: onnx.NodeProto, weights: dict[str, np.ndarray], shape: tuple[int, ...]):
    """Return the linear part of a node as ``[outputs, inputs]``."""
    feeds = [helper.make_tensor_value_info(node.input[0], onnx.TensorProto.DOUBLE, shape)]
    out = helper.make_tensor_value_info(node.output[0], onnx.TensorProto.DOUBLE, None)
    stored = [
        numpy_helper.from_array(
            weights[n].astype(np.float64 if weights[n].dtype.kind == "f" else np.int64), n
        )
        for n in node.input[1:]
        if n in weights
    ]
    graph = helper.make_graph([node], "one", feeds, [out], stored)
    one = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    evaluator, size = ReferenceEvaluator(one), int(np.prod(shape))
    rest = evaluator.run(None, {node.input[0]: np.zeros(shape)})[0].ravel()
    columns = [
        evaluator.run(None, {node.input[0]: unit.reshape(shape)})[0].ravel() - rest
        for unit in np.eye(size)
    ]
    return np.array(columns).T


def winning(w: np.ndarray, a: np.ndarray, p: np.ndarray) -> np.ndarray:
    """P(j) = sum_i P(i) a_j w+_ij / sum_k a_k w+_ik, unit by unit."""
    found = np.zeros(a.size)
    a = np.maximum(a.ravel(), 0)
    for i, probability in enumerate(p.ravel()):
        share = a * np.maximum(w[i], 0)
        if share.sum() > 0:
            found += probability * share / share.sum()
    return found


RNG = np.random.default_rng(3)
X = RNG.uniform(0.1, 1.0, (1, 4, 6, 5))
NODES = {
    "Conv": ("y = Conv<pads=[1,1,1,1], strides=[2,1]>(x, w, b)", {"w": (6, 4, 3, 3), "b": (6,)}),
    "Conv, groups": ("y = Conv<group=2, dilations=[2,1]>(x, w)", {"w": (4, 2, 2, 2)}),
    "ConvTranspose": ("y = ConvTranspose<strides=[2,2]>(x, w, b)", {"w": (4, 3, 2, 2), "b": (3,)}),
    "AveragePool": ("y = AveragePool<kernel_shape=[3,2], strides=[2,2], pads=[1,0,1,1]>(x)", {}),
    "GlobalAveragePool": ("y = GlobalAveragePool(x)", {}),
    "ReduceMean": ("y = ReduceMean<axes=[2,3], keepdims=0>(x)", {}),
    "MatMul": ("y = MatMul(x, w)", {"w": (5, 3)}),
}


@pytest.mark.parametrize("form", [{}, {"T": 1}, {"blocked": True}], ids=str)
@pytest.mark.parametrize("name", NODES)
def test_linear_operators(name: str, form: dict) -> None:
    text, shapes = NODES[name]
    weights = {n: RNG.normal(size=s) for n, s in shapes.items()}
    model = model_of(text, "float[1,4,6,5] x", "float y", **weights)
    y = session(model.SerializeToString()).run(["y"], {"x": X.astype(np.float32)})[0]
    T = 1 if form else 2
    p = RNG.uniform(size=(T, *y.shape))
    w = matrix(model.graph.node[0], weights, X.shape)
    found, negative = run(model, X, p, **form)
    for t in range(T):
        expected = winning(w, X, p[t])
        np.testing.assert_allclose(found[t].ravel(), expected, atol=1e-5 * expected.max())
    assert not any(negative.values())
    if name not in ("Conv", "Conv, groups", "ConvTranspose", "MatMul"):  # all weights positive
        np.testing.assert_allclose(found.sum(), p.sum(), rtol=1e-5)


@pytest.mark.parametrize("swapped", [0, 1])
def test_gemm(swapped: int) -> None:
    w, b, x = RNG.normal(size=(3, 7) if swapped else (7, 3)), RNG.normal(size=3), X[0, 0, :, :1]
    x = RNG.uniform(0.1, 1, (2, 7))
    model = model_of(
        f"y = Gemm<transB={swapped}>(x, w, b)", "float[2,7] x", "float[2,3] y", w=w, b=b
    )
    p = RNG.uniform(size=(1, 2, 3))
    found, _ = run(model, x, p)
    rows = w if swapped else w.T
    expected = [winning(rows, x[i], p[0, i]) for i in range(2)]
    np.testing.assert_allclose(found[0], expected, atol=1e-6)


def test_a_sum_is_shared_by_what_is_positive_and_biases_take_no_part() -> None:
    model = model_of(
        "s = Add(x, u) y = Add(s, b)", "float[1,4] x, float[1,4] u", "float[1,4] y", b=-np.ones(4)
    )
    made = onnxcam.add_gradients(model, "y", ["x", "u"], policy="excitation")
    x, u = np.array([[1, 2, 0, -1]], np.float32), np.array([[3, 0, 0, 2]], np.float32)
    p = np.array([[[0.4, 0.3, 0.2, 0.1]]], np.float32)
    dx, du, negative = session(made.SerializeToString()).run(
        ["gradient:x", "gradient:u", "onnxcam:negative"], {"x": x, "u": u, "seed:y": p}
    )
    np.testing.assert_allclose(dx, [[[0.1, 0.3, 0, 0]]], rtol=1e-6)
    np.testing.assert_allclose(du, [[[0.3, 0, 0, 0.1]]], rtol=1e-6)
    assert negative.tolist() == [True]


def test_a_scale_belongs_to_the_convolution_before_it() -> None:
    """Batch normalization or a product right after it; negative scales turn the weights."""
    w, s = RNG.normal(size=(3, 4, 2, 2)), np.array([0.5, -2.0, 1.5])
    stored = {"w": w, "s": s, "b": RNG.normal(size=3), "m": RNG.normal(size=3), "v": np.ones(3)}
    plain = model_of("y = Conv(x, w)", "float[1,4,6,5] x", "float y", w=w * s[:, None, None, None])
    y = session(plain.SerializeToString()).run(["y"], {"x": X.astype(np.float32)})[0]
    p = RNG.uniform(size=(1, *y.shape))
    expected, _ = run(plain, X, p)
    normal = model_of(
        "c = Conv(x, w) y = BatchNormalization(c, s, b, m, v)",
        "float[1,4,6,5] x",
        "float y",
        **stored,
    )
    column = {"w": w, "s": s.reshape(1, 3, 1, 1)}
    scaled = model_of("c = Conv(x, w) y = Mul(c, s)", "float[1,4,6,5] x", "float y", **column)
    for model in (normal, scaled):
        found, _ = run(model, X, p)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert expected.sum() > 0.5 * p.sum()


def test_a_network() -> None:
    """A residual block, pooling, concatenation and a dense head, unit by unit."""
    w = {
        "w1": RNG.normal(size=(4, 4, 3, 3)),
        "w2": RNG.normal(size=(2, 4, 1, 1)),
        "w3": RNG.normal(size=(5, 36)),
    }
    model = model_of(
        "c = Conv<pads=[1,1,1,1]>(x, w1) r = Relu(c) s = Add(r, x) "
        "m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(s) d = Conv(m, w2) e = Relu(d) "
        "j = Concat<axis=1>(m, e) f = Flatten(j) y = Gemm<transB=1>(f, w3)",
        "float[1,4,6,5] x",
        "float[1,5] y",
        **w,
    )
    values = ("c", "r", "s", "m", "d", "e", "j", "f", "y")
    every = onnx.ModelProto()
    every.CopyFrom(model)
    del every.graph.output[:]
    every.graph.output.extend(helper.make_empty_tensor_value_info(n) for n in values)
    a = dict(zip(values, ReferenceEvaluator(every).run(None, {"x": X.astype("f")}), strict=True))
    nodes = {n.output[0]: n for n in model.graph.node}
    p = np.eye(5)[[1, 3], None]
    found, _ = run(model, X, p)
    for t in range(2):
        f = winning(w["w3"], a["f"], p[t])
        j = f.reshape(a["j"].shape)
        m, e = j[:, :4].copy(), j[:, 4:]
        m += winning(matrix(nodes["d"], w, a["m"].shape), a["m"], e).reshape(m.shape)
        s = np.zeros(X.shape)
        for n, k, i, o in np.ndindex(m.shape):
            window = a["s"][n, k, 2 * i : 2 * i + 2, 2 * o : 2 * o + 2]
            di, do = np.unravel_index(window.argmax(), window.shape)
            s[n, k, 2 * i + di, 2 * o + do] += m[n, k, i, o]
        share = a["r"] + X
        x = s * X / share
        x += winning(matrix(nodes["c"], w, X.shape), X, s * a["r"] / share).reshape(X.shape)
        np.testing.assert_allclose(found[t], x, atol=1e-5 * x.max())
        assert 0.2 < x.sum() <= 1.0 + 1e-6 and x.max() > 1e-3


def test_nothing_excited_hands_nothing_on() -> None:
    model = model_of("y = MatMul(x, w)", "float[1,3] x", "float[1,2] y", w=np.array([[1, -1]] * 3))
    found, _ = run(model, np.ones((1, 3)), np.ones((1, 1, 2)))
    np.testing.assert_allclose(found, [[[1 / 3] * 3]], rtol=1e-6)
    found, _ = run(model, np.zeros((1, 3)), np.ones((1, 1, 2)))
    assert not found.any()


def test_negative_activations_are_found_at_run_time() -> None:
    model = model_of(
        "a = MatMul(x, v) y = MatMul(a, w)",
        "float[1,3] x",
        "float[1,2] y",
        v=np.eye(3),
        w=np.ones((3, 2)),
    )
    model.graph.node[0].name, model.graph.node[1].name = "first", "second"
    seed = np.ones((1, 1, 2))
    assert run(model, np.ones((1, 3)), seed)[1] == {"second": False, "first": False}
    assert run(model, np.array([[1, -1, 1]]), seed)[1] == {"second": True, "first": True}


def test_silu_passes_and_what_has_no_rule_is_refused() -> None:
    silu = model_of("s = Sigmoid(x) y = Mul(x, s)", "float[1,3] x", "float[1,3] y")
    found, _ = run(silu, np.ones((1, 3)), np.ones((1, 1, 3)))
    np.testing.assert_allclose(found, np.ones((1, 1, 3)))
    gate = model_of("s = Relu(x) y = Mul(x, s)", "float[1,3] x", "float[1,3] y")
    with pytest.raises(NoGradientError, match=r"Mul .*product of two computed tensors"):
        run(gate, np.ones((1, 3)), np.ones((1, 1, 3)))
    other = model_of("y = Softmax(x)", "float[1,3] x", "float[1,3] y")
    with pytest.raises(NoGradientError, match=r"Softmax .*excitation backprop has no rule"):
        run(other, np.ones((1, 3)), np.ones((1, 1, 3)))
    with pytest.raises(
        EngineError, match="choose one of standard, guided, guided-wide, deconvnet, excitation"
    ):
        onnxcam.add_gradients(silu, "y", "x", policy="exitation")
