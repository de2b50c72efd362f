"""What central differences of one node do not show: old opsets, kinks, refusals."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxcam
from onnxcam.errors import NoGradientError

from ..conftest import parse, runtime

rng = np.random.default_rng(11)


def model(
    text: str, x: np.ndarray, y: tuple[int, ...], opset: int, **weights: np.ndarray
) -> onnx.ModelProto:
    """Return a model of the nodes of ``text``, from x to y."""
    shape, out = (",".join(map(str, s)) for s in (x.shape, y))
    head = f'<ir_version: 8, opset_import: ["" : {opset}]> net (float[{shape}] x)'
    return parse(f"{head} => (float[{out}] y) {{ {text} }}", weights)


def gradient(
    text: str, x: np.ndarray, seed: np.ndarray, opset: int = 17, **weights: np.ndarray
) -> np.ndarray:
    """Return dy/dx for the cotangent ``seed``."""
    made = onnxcam.add_gradients(model(text, x, seed.shape, opset, **weights), "y", "x")
    feeds = {"x": x.astype("f"), "seed:y": seed[None].astype("f")}
    return runtime(made).run(["gradient:x"], feeds)[0][0]


def refused(text: str, *y: int, opset: int = 17, **weights: np.ndarray) -> str:
    """Return why there is no gradient of y, of x with shape [2, 2]."""
    with pytest.raises(NoGradientError) as error:
        onnxcam.add_gradients(model(text, np.zeros((2, 2)), y, opset, **weights), "y", "x")
    return str(error.value)


@pytest.mark.parametrize("opset", [11, 12])
@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_softmax_of_flattened_axes(op: str, axis: int, opset: int) -> None:
    """Before opset 13 softmax runs over all axes from ``axis`` on."""
    x, seed = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3, 4))
    rows, g = (a.reshape(int(np.prod(a.shape[:axis])), -1) for a in (x, seed))
    y = np.exp(rows) / np.exp(rows).sum(1, keepdims=True)
    if op == "Softmax":
        expected = y * (g - (g * y).sum(1, keepdims=True))
    else:
        expected = g - y * g.sum(1, keepdims=True)
    found = gradient(f"e = Identity (x) y = {op} <axis = {axis}> (e)", x, seed, opset)
    np.testing.assert_allclose(found, expected.reshape(x.shape), atol=1e-6)


@pytest.mark.parametrize(
    ("text", "x", "slope"),
    [
        ("y = Relu (x)", [-1.0, 0.0, 2.0], [0, 0, 1]),
        ("y = Abs (x)", [-1.0, 0.0, 2.0], [-1, 0, 1]),
        ("y = LeakyRelu <alpha = 0.5> (x)", [-1.0, 0.0, 2.0], [0.5, 0.5, 1]),
        ("y = Clip (x, low, high)", [-1.0, 0.0, 1.0], [0, 1, 0]),
        ("y = Shrink <lambd = 1.0> (x)", [-1.0, 1.0, 2.0], [0, 0, 1]),
        ("y = Max (x, low)", [-2.0, -1.0, 2.0], [0, 1, 1]),  # the first of two that tie
        ("y = Max (low, x)", [-2.0, -1.0, 2.0], [0, 0, 1]),
        ("y = Pow (x, zero)", [-1.0, 0.0, 2.0], [0, 0, 0]),
        ("y = Pow (high, x)", [-1.0, 0.0, 2.0], [0, 0, 0]),
        ("y = Pow (zero, x)", [0.0, 1.0, 2.0], [0, 0, 0]),
        ("y = Pow (low, x)", [1.0, 2.0, 3.0], [0, 0, 0]),  # no derivative, and no NaN
        ("y = LpNormalization (x)", [0.0, 0.0, 0.0], [0, 0, 0]),
        ("y = LpNormalization <p = 1> (x)", [0.0, 0.0, 0.0], [0, 0, 0]),
        ("n = ReduceL2 <keepdims = 1> (x) y = Expand (n, three)", [0.0, 0.0, 0.0], [0, 0, 0]),
        ("n = ReduceProd <keepdims = 1> (x) y = Expand (n, three)", [0.0, 3.0, 2.0], [18, 0, 0]),
        ("n = ReduceProd <keepdims = 1> (x) y = Expand (n, three)", [0.0, 0.0, 2.0], [0, 0, 0]),
        ("r = Round (x) y = Add (r, x)", [0.2, 0.7, -1.4], [1, 1, 1]),
        ("c = Cast <to = 6> (x) f = Cast <to = 1> (c) y = Add (f, x)", [0.2, 0.7, 3.4], [1, 1, 1]),
    ],
)
def test_kinks(text: str, x: list[float], slope: list[float]) -> None:
    weights = {"low": -1.0, "high": 1.0, "zero": 0.0}
    found = gradient(
        text,
        np.array(x),
        np.ones(3),
        three=np.array([3]),
        **{name: np.array(value, "f") for name, value in weights.items()},
    )
    np.testing.assert_array_equal(found, slope)


def test_the_gradient_stops_with_a_reason() -> None:
    assert "Floor passes none: it is a step function" in refused("y = Floor (x)", 2, 2)
    assert "Sign passes none" in refused("y = Sign (x)", 2, 2)
    assert "shape alone" in refused("y = EyeLike (x)", 2, 2)
    text = "s = Shape (x) f = Cast <to = 1> (s) y = Exp (f)"
    assert "does not depend on 'x' in a differentiable way" in refused(text, 2)


def test_refusals() -> None:
    half, true = np.array(0.5, "f"), np.array(True)
    text = "y = Dropout (x, half, true)"
    assert "training mode" in refused(text, 2, 2, half=half, true=true)
    text = 'y = Einsum <equation = "Ab"> (x)'
    assert "upper and lower case" in refused(text, 2, 2)
    axis = np.array(1)
    text = "a = ReduceMax <keepdims = 0> (x) i = Cast <to = 7> (a) y = CumProd (x, i)"
    assert "its axes must be known" in refused(text, 2, 2, opset=26, axis=axis)


def test_a_cast_to_integers_is_flat() -> None:
    text = "c = Cast <to = 3> (x) y = Cast <to = 1> (c)"
    assert "differentiable way" in refused(text, 2, 2)
