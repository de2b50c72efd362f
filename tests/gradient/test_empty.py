"""Tensors without elements have gradients without elements."""

from __future__ import annotations

import numpy as np
import pytest

import onnxcam

from .finite import session
from .graphs import model

STATIC = {
    "graph (float[2,0,4] x) => (float[2,1,4] y) <int64[1] a = {1}> { y = ReduceLogSum(x, a) }": (
        2,
        0,
        4,
    ),
    "graph (float[0,3,4] x) => (float[3,4,0] y) <int64[3] s = {3, 4, 0}> { y = Reshape<allowzero=1>(x, s) }": (
        0,
        3,
        4,
    ),
}
DYNAMIC = {
    "Conv": "y = Conv(x, w)",
    "MaxPool": "y = MaxPool<kernel_shape=[2,2]>(x)",
    "mean": "y = GlobalAveragePool(x)",
    "Reshape": "y = Reshape(x, s)",
    "LayerNormalization": "y = LayerNormalization(x, v)",
}


def gradient(text: str, shape: tuple[int, ...]) -> np.ndarray:
    proto = model(text, 18)
    x = np.ones(shape, "f")
    y = session(proto.SerializeToString()).run(["y"], {"x": x})[0]
    made = session(onnxcam.add_gradients(proto, "y", "x").SerializeToString())
    return made.run(["gradient:x"], {"x": x, "seed:y": np.ones((2, *y.shape), "f")})[0]


@pytest.mark.parametrize("text", STATIC)
def test_known_before_the_run(text: str) -> None:
    assert gradient(text, STATIC[text]).shape == (2, *STATIC[text])


@pytest.mark.parametrize("op", DYNAMIC)
@pytest.mark.parametrize("count", [0, 3])
def test_known_by_the_run(op: str, count: int) -> None:
    weights = "float[2,3,1,1] w = {1,2,3,4,5,6}, float[4] v = {1,1,1,1}, int64[2] s = {-1, 4}"
    text = f"graph (float[N,3,4,4] x) => (float[] y) <{weights}> {{ {DYNAMIC[op]} }}"
    assert gradient(text, (count, 3, 4, 4)).shape == (2, count, 3, 4, 4)
