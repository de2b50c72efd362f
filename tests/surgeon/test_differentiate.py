"""Gradients of any tensor with respect to any others, as a model of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.external_data_helper
import pytest
from onnx import numpy_helper

import onnxcam
from onnxcam.errors import ModelError, NoGradientError, OutputError, TensorError
from onnxcam.gradient.differentiate import CHANGED
from onnxcam.model.write import write_model

from ..conftest import parse, runtime, shared, small_cnn

rng = np.random.default_rng(4)
IMAGES = rng.normal(size=(2, 3, 16, 16)).astype("f")


def run(
    model: onnx.ModelProto, feeds: dict[str, np.ndarray], *names: str
) -> tuple[np.ndarray, ...]:
    onnx.checker.check_model(model, full_check=True)
    return tuple(runtime(model).run(list(names), feeds))


def smooth(opset: int = 13) -> onnx.ModelProto:
    """y = tanh(W tanh(x)), of which second derivatives exist."""
    weights = np.random.default_rng(2).normal(size=(3, 4)).astype("f")
    return parse(
        f"""<ir_version: 7, opset_import: ["" : {opset}]>
        net (float[N,3] x) => (float[N,4] y) {{ a = Tanh (x) b = MatMul (a, w) y = Tanh (b) }}""",
        {"w": weights},
    )


def test_rows_of_the_jacobian() -> None:
    model = smooth()
    made = onnxcam.add_gradients(model, "y", "x")
    x = rng.normal(size=(1, 3)).astype("f")
    seeds = np.eye(4, dtype="f")[:, None]
    y, rows = run(made, {"x": x, "seed:y": seeds}, "y", "gradient:x")
    w = numpy_helper.to_array(model.graph.initializer[0])
    expected = (1 - y.T**2) * w.T * (1 - np.tanh(x) ** 2)
    np.testing.assert_allclose(rows[:, 0], expected, atol=1e-6)
    assert [i.name for i in made.graph.input] == ["x", "seed:y"]
    assert [o.name for o in made.graph.output] == ["y", "gradient:x"]


def test_applied_twice_it_gives_second_derivatives() -> None:
    first = onnxcam.add_gradients(smooth(), "y", "x")
    second = onnxcam.add_gradients(first, "gradient:x", "x")
    assert second.graph.output[-1].name == "gradient:x.2"
    x, seed = rng.normal(size=(1, 3)).astype("f"), rng.normal(size=(1, 1, 4)).astype("f")
    rows = np.eye(3, dtype="f")[:, None, None]  # [T, 1, N, 3]
    feeds = {"x": x, "seed:y": seed, "seed:gradient:x": rows}
    [hessian] = run(second, feeds, "gradient:x.2")
    steps = []
    for row in np.eye(3, dtype="f") * 1e-2:
        up, down = (
            run(first, {"x": x + s * row, "seed:y": seed}, "gradient:x")[0] for s in (1, -1)
        )
        steps.append((up - down)[0, 0] / 2e-2)
    np.testing.assert_allclose(hessian[:, 0], steps, atol=2e-3)
    np.testing.assert_allclose(hessian[:, 0], hessian[:, 0].T, atol=1e-5)


def test_inner_tensors_weights_and_several_at_once() -> None:
    made = onnxcam.add_gradients(small_cnn(), "logits", ["image", "r1", "r2", "w3", "b3"])
    seed = np.zeros((2, 2, 5), "f")
    seed[0, :, 1] = seed[1, :, 3] = 1
    names = [f"gradient:{n}" for n in ("image", "r1", "r2", "w3", "b3")]
    found = dict(zip(names, run(made, {"image": IMAGES, "seed:logits": seed}, *names), strict=True))
    assert found["gradient:image"].shape == (2, *IMAGES.shape)
    [r2] = run(onnxcam.add_gradients(small_cnn(), "r2", "r2"), {
        "image": IMAGES, "seed:r2": np.zeros((1, 2, 8, 8, 8), "f")}, "probabilities")  # fmt: skip
    assert r2.shape == (2, 5)
    weights = {t.name: numpy_helper.to_array(t) for t in small_cnn().graph.initializer}
    expected = weights["w3"][[1, 3]] / 64  # the pooled maps have 64 places
    np.testing.assert_allclose(
        found["gradient:r2"], np.broadcast_to(expected[:, None, :, None, None], (2, 2, 8, 8, 8)),
        atol=1e-7,
    )  # fmt: skip
    np.testing.assert_allclose(found["gradient:b3"], seed.sum(1), atol=1e-6)
    assert found["gradient:w3"].shape == (2, 5, 8) and found["gradient:w3"][0, 3].any() == 0


def test_a_tensor_upstream_of_another_gets_the_gradient_through_it() -> None:
    both = onnxcam.add_gradients(small_cnn(), "logits", ["image", "r1"])
    alone = onnxcam.add_gradients(small_cnn(), "logits", "image")
    feeds = {"image": IMAGES, "seed:logits": rng.normal(size=(1, 2, 5)).astype("f")}
    one, other = (run(m, feeds, "gradient:image")[0] for m in (both, alone))
    np.testing.assert_allclose(one, other, atol=1e-7)
    assert np.abs(one).max() > 1e-3


@pytest.mark.parametrize("clip", [False, True])
def test_policies(clip: bool) -> None:
    rectifier = "Clip (h, zero, six)" if clip else "Relu (h)"
    model = parse(
        f"""<ir_version: 7, opset_import: ["" : 13]>
        net (float[1,4] x) => (float[1,3] y) {{ h = MatMul (x, a) r = {rectifier} y = MatMul (r, b) }}""",
        {
            "a": rng.normal(size=(4, 6)).astype("f"),
            "b": rng.normal(size=(6, 3)).astype("f"),
            "zero": np.array(0, "f"),
            "six": np.array(6, "f"),
        },
    )
    a, b = (numpy_helper.to_array(t) for t in model.graph.initializer[:2])
    x, seed = rng.normal(size=(1, 4)).astype("f"), rng.normal(size=(2, 1, 3)).astype("f")
    g, on = seed @ b.T, (x @ a > 0)
    expected = {
        "standard": g * on,
        "guided": g * on * (g > 0),
        "deconvnet": g * (g > 0),
    }
    for policy, inner in expected.items():
        made = onnxcam.add_gradients(model, "y", "x", policy=policy)
        [found] = run(made, {"x": x, "seed:y": seed}, "gradient:x")
        np.testing.assert_allclose(found, inner @ a.T, atol=1e-5)
    noted = {p.key: p.value for p in made.metadata_props}[CHANGED]
    assert len(noted.split("\n")) == 1 and noted


@pytest.mark.parametrize(
    ("of", "to", "message"),
    [
        ("logitz", "image", "no tensor 'logitz' in the main graph. Nearest: logits"),
        ("logits", "imag", "Nearest: image"),
        ("image", "logits", "is computed without it"),
        ("r1", "r2", "does not depend on 'r2'"),
    ],
)
def test_tensors_that_do_not_fit(of: str, to: str, message: str) -> None:
    with pytest.raises((TensorError, NoGradientError), match=message.replace(".", r"\.")):
        onnxcam.add_gradients(small_cnn(), of, to)


def test_integer_tensors_and_flat_paths() -> None:
    model = parse(
        """<ir_version: 7, opset_import: ["" : 13]>
        net (float[1,4] x) => (float[1,4] y, int64[1] best) {
            best = ArgMax <axis=1, keepdims=0> (x) f = Floor (x) y = Sin (f) }"""
    )
    with pytest.raises(TensorError, match="'best' is of type int64; only floating-point"):
        onnxcam.add_gradients(model, "best", "x")
    with pytest.raises(NoGradientError, match="Floor passes none"):
        onnxcam.add_gradients(model, "y", "x")


def test_unknown_operators_name_themselves(save: Callable[..., Path]) -> None:
    model = smooth()
    model.graph.node[0].domain, model.graph.node[0].op_type = "my.domain", "Strange"
    model.graph.node[0].name = "odd"
    model.opset_import.append(onnx.helper.make_opsetid("my.domain", 1))
    with pytest.raises(
        NoGradientError, match=r"my\.domain\.Strange \(node 'odd', opset 13\)"
    ) as error:
        onnxcam.add_gradients(save(model), "y", "x")
    assert "which lies between 'x' and 'y'. docs/operators.md says" in str(error.value)
    assert "--layer" not in str(error.value)


def test_models_invalid_in_themselves(save: Callable[..., Path]) -> None:
    model = smooth()
    model.graph.node[1].attribute.append(onnx.helper.make_attribute("nonsense", 1))
    with pytest.raises(ModelError, match="not a valid model.*nonsense"):
        onnxcam.add_gradients(save(model), "y", "x")


def test_a_weight_in_constant_expressions_keeps_every_path() -> None:
    """y = exp(w) x + w: what could be folded is still a function of the weight."""
    w, x = np.array([0.1, 0.2, 0.3], "f"), rng.normal(size=(2, 3)).astype("f")
    model = parse(
        """<ir_version: 7, opset_import: ["" : 13]>
        net (float[N,3] x) => (float[N,3] y) { h = Exp (w) g = Mul (h, x) y = Add (g, w) }""",
        {"w": w},
    )
    feeds = {"x": x, "seed:y": np.ones((1, 2, 3), "f")}
    made = onnxcam.add_gradients(model, "y", ["w", "h"])
    to_w, to_h = run(made, feeds, "gradient:w", "gradient:h")
    np.testing.assert_allclose(to_w[0], np.exp(w) * x.sum(0) + 2, rtol=1e-5)
    np.testing.assert_allclose(to_h[0], x.sum(0), rtol=1e-5)


def test_shapes_of_one_run_are_not_believed_where_the_inputs_are_open() -> None:
    """Tools store the shapes they saw, and then open the inputs alone; runtimes do not care."""
    model = parse(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[N,4] x) => (float[1] y) <float[1,4] h, float[1,4] z> {
            h = Relu (x) z = Mul (h, p) y = ReduceMean <keepdims=0, axes=[1]> (z) }""",
        {"p": np.full((1, 4), 2, "f")},
    )
    made = onnxcam.add_gradients(model, "y", ["x", "p"])
    x = np.abs(rng.normal(size=(3, 4))).astype("f")
    feeds = {"x": x, "seed:y": np.ones((1, 3), "f")}
    to_x, to_p = run(made, feeds, "gradient:x", "gradient:p")
    np.testing.assert_allclose(to_x[0], np.full((3, 4), 0.5), rtol=1e-6)
    np.testing.assert_allclose(to_p[0], x.sum(0, keepdims=True) / 4, rtol=1e-5)


@pytest.mark.parametrize("unknown", ["None", "?"])
def test_lengths_called_nothing_are_not_taken_for_equal(unknown: str) -> None:
    model = parse(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[U,U] x, float[U,U] b) => (float[U,U] y) { y = Mul (x, b) }"""
    )
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            dim.dim_param = unknown
    made = onnxcam.add_gradients(model, "y", "b")
    x = rng.normal(size=(3, 4)).astype("f")
    feeds = {"x": x, "b": np.ones((1, 4), "f"), "seed:y": np.ones((1, 3, 4), "f")}
    [to_b] = run(made, feeds, "gradient:b")
    np.testing.assert_allclose(to_b[0], x.sum(0, keepdims=True), rtol=1e-5)


def test_declared_shapes_of_the_wrong_rank_are_a_model_error() -> None:
    model = parse(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[2,3] x) => (float[2,3] y) { h = Relu (x) y = Mul (h, h) }"""
    )
    info = onnx.helper.make_tensor_value_info("h", 1, [2, 3, 1])
    model.graph.value_info.append(info)
    try:
        made = onnxcam.add_gradients(model, "y", "x")
    except ModelError as error:
        assert "contradicts itself" in str(error) or "inconsistent" in str(error)
    else:
        feeds = {"x": np.ones((2, 3), "f"), "seed:y": np.ones((1, 2, 3), "f")}
        np.testing.assert_allclose(runtime(made).run(["gradient:x"], feeds)[0], 2)


@pytest.mark.parametrize("scale", [0.5, 0.7, 2.5])
def test_nearest_resize_of_opset_10_keeps_its_rounding(scale: float) -> None:
    model = parse(
        """<ir_version: 5, opset_import: ["" : 10]>
        net (float[1,1,9,9] x) => (float[1,1,a,b] y) { y = Resize <mode="nearest"> (x, s) }""",
        {"s": np.array([1, 1, scale, scale], "f")},
    )
    x = np.arange(81, dtype="f").reshape(1, 1, 9, 9)
    before = runtime(model).run(None, {"x": x})[0]
    made = onnxcam.add_gradients(model, "y", "x")
    seed = rng.normal(size=(1, *before.shape)).astype("f")
    after, g = runtime(made).run(["y", "gradient:x"], {"x": x, "seed:y": seed})
    np.testing.assert_array_equal(after, before)
    expected = np.zeros(81)
    np.add.at(expected, before.astype(int).ravel(), seed.ravel())
    np.testing.assert_allclose(g.ravel(), expected, atol=1e-5)


def external(folder: Path) -> Path:
    model = small_cnn()
    onnx.external_data_helper.convert_model_to_external_data(
        model, location="weights.bin", size_threshold=0
    )
    onnx.save_model(model, folder / "model.onnx")
    return folder / "model.onnx"


def test_external_weights_are_shared(tmp_path: Path) -> None:
    path = external(tmp_path)
    made = onnxcam.add_gradients(path, "logits", "image")
    out = write_model(made, tmp_path / "gradient.onnx", path)
    assert {f.name for f in tmp_path.iterdir()} == {"model.onnx", "weights.bin", "gradient.onnx"}
    onnx.checker.check_model(str(out), full_check=True)
    seed = np.ones((1, 2, 5), "f")
    feeds = {"image": IMAGES, "seed:logits": seed}
    embedded = onnxcam.add_gradients(small_cnn(), "logits", "image")
    [one], [other] = (runtime(m).run(["gradient:image"], feeds) for m in (out, embedded))
    np.testing.assert_allclose(one, other, atol=1e-7)
    with pytest.raises(OutputError, match="is the model's own file"):
        write_model(made, path, path)
    with pytest.raises(OutputError, match=r"Write it beside them"):
        write_model(made, tmp_path / "third" / "gradient.onnx", path)


REAL = {
    "squeezenet1.1-mxnet-opset7": ("squeezenet0_flatten0_reshape0", "data"),
    "squeezenet1.1-caffe": ("prob", "data_input"),
    "mobilenetv2-torch-dynamo": ("output", "input"),
    "efficientnet-lite0-torch": (None, None),
    "pplcnetv2-paddle": (None, None),
    "resnet50-keras-w8": (None, None),
    "vit-s-saliency-w8": (None, None),
    "mnist-cntk": (None, None),
    "easy-vqa-keras": (None, None),
    "pong-policy-a3c": (None, None),
}


@pytest.mark.parametrize("name", REAL)
def test_real_models_to_their_inputs(name: str) -> None:
    """Against central differences of the model itself along random smooth directions."""
    path = shared("models", f"{name}.onnx")
    # Of int8 weights the optimizer makes products that round activations to 8 bits too; that
    # noise is larger than the differences.
    rounds = name.endswith("-w8")
    plain = runtime(path, optimized=not rounds)
    source = next(i for i in plain.get_inputs() if i.type == "tensor(float)")
    output = next(o for o in plain.get_outputs() if o.type == "tensor(float)")
    feeds = {i.name: _values(i) for i in plain.get_inputs()}
    made = onnxcam.add_gradients(path, output.name, source.name)
    y = plain.run([output.name], feeds)[0]
    local = np.random.default_rng(9)
    seed = local.normal(size=(1, *y.shape)).astype("f")
    session = runtime(made, optimized=not rounds)
    names = [output.name, f"gradient:{source.name}"]
    same, g = session.run(names, {**feeds, f"seed:{output.name}": seed})
    np.testing.assert_allclose(same, y, atol=(5e-3 if rounds else 2e-5) * np.abs(y).max())
    assert g.shape == (1, *feeds[source.name].shape) and np.abs(g).max() > 0
    # Along the gradient itself the change is largest, and kinks matter least.
    direction = g[0] / np.linalg.norm(g)
    best = np.inf
    for step in (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1):
        ahead, behind = (
            plain.run([output.name], {**feeds, source.name: feeds[source.name] + s * direction})[0]
            for s in (np.float32(step), np.float32(-step))
        )
        slope = float(((ahead - behind).astype(np.float64) * seed[0]).sum() / (2 * step))
        best = min(best, abs(slope - np.linalg.norm(g)) / np.linalg.norm(g))
    assert best < 0.02, best


def _values(argument) -> np.ndarray:
    local = np.random.default_rng(6)
    shape = [d if isinstance(d, int) and d > 0 else 1 for d in argument.shape]
    if "float" in argument.type:
        return local.uniform(0, 1, shape).astype("f")
    return np.zeros(shape, np.int64)
