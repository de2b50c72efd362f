"""Shortcuts of the backward pass, on heads of every kind.

The walk starts before the last linear layer and sums over space where it may; both must give
what the whole backward pass gives, and that what differences of the score give.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxcam

from ..instrumented import instrument
from .test_instrument import gradient_agrees, map_agrees

RNG = np.random.default_rng(12)

HEADS = {
    "dense, sigmoid inside the head": (
        "flat = Flatten (pooled)  z = MatMul (flat, head)  scores = Tanh (z)"
    ),
    "dense with scale, untransposed": (
        "flat = Flatten (pooled)  scores = Gemm <alpha=0.5, beta=2.0> (flat, head, bias4)"
    ),
    "bias computed from the layer": (
        "flat = Flatten (pooled)  extra = MatMul (flat, head)  scores = Gemm (flat, head, extra)"
    ),
    "convolution, rectified and pooled": (
        "z = Conv (last, wc, bias4)  r = Relu (z)  p = GlobalAveragePool (r)  scores = Flatten (p)"
    ),
    "convolution over padding": (
        "z = Conv <pads=[1,1,1,1]> (last, wc, bias4)  r = Relu (z)  p = GlobalAveragePool (r)"
        "  scores = Flatten (p)"
    ),
    "convolution, clipped, pooled by windows": (
        "z = Conv (last, wc, bias4)  r = LeakyRelu (z)"
        "  p = AveragePool <kernel_shape=[16,16]> (r)  scores = Flatten (p)"
    ),
    "convolution, largest place": (
        "z = Conv (last, wc)  p = GlobalMaxPool (z)  scores = Flatten (p)"
    ),
    "flattened maps into a dense layer": (
        "m = MaxPool <kernel_shape=[2,2], strides=[2,2]> (last)  flat = Flatten (m)"
        "  h = Gemm <transB=1> (flat, wide, bias6)  hr = Relu (h)  scores = MatMul (hr, top)"
    ),
    "maps flattened channels last": (
        "t = Transpose <perm=[0,2,3,1]> (last)  flat = Flatten (t)  scores = MatMul (flat, tall)"
    ),
    "maps reshaped in rows": (
        "f = Reshape (last, rows)  m = ReduceMean <axes=[2], keepdims=0> (f)"
        "  scores = MatMul (m, rest)"
    ),
    "average over padding": (
        "a = AveragePool <kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1> (last)"
        "  g = GlobalAveragePool (a)  flat = Flatten (g)  scores = MatMul (flat, head)"
    ),
    "maps read twice": (
        "g = GlobalAveragePool (last)  x = GlobalMaxPool (last)  s = Add (g, x)"
        "  flat = Flatten (s)  scores = MatMul (flat, head)"
    ),
}


HEADS |= {
    f"dense, bias added, {op}": f"flat = Flatten (pooled)  z = MatMul (flat, head)"
    f"  zb = Add (z, big4)  scores = {op} (zb)"
    for op in ("Tanh", "Relu", "LeakyRelu")
}
HEADS |= {
    "convolution and pooling alone": (
        "z = Conv (last, wc, bias4)  p = GlobalAveragePool (z)  scores = Flatten (p)"
    ),
    "convolution, bias added, rectified": (
        "z = Conv (last, wc)  zb = Add (z, big411)  r = Relu (zb)  p = GlobalAveragePool (r)"
        "  scores = Flatten (p)"
    ),
    "flattened maps as operand and as bias": (
        "small = MaxPool <kernel_shape=[8,8], strides=[8,8]> (last)  flat = Flatten (small)"
        "  d = Gemm (flat, square, flat)  r = Relu (d)  scores = MatMul (r, after)"
    ),
    "classes along a row of places": (
        "m = AveragePool <kernel_shape=[4,16], strides=[4,16]> (last)  scores4 = Conv (m, one)"
        "  scores = Reshape (scores4, as_scores)"
    ),
}


@pytest.mark.parametrize("batch", ["1", "N"])
@pytest.mark.parametrize("name", HEADS)
def test_heads(name: str, batch: str, save) -> None:
    """Shortcuts of the backward pass give what the whole backward pass gives."""
    body = HEADS[name]
    pooled = "pooled = GlobalAveragePool (last)" if "pooled)" in body else ""
    text = f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[{batch},3,16,16] image) => (float[{batch},4] scores) {{
            maps = Conv <pads=[1,1,1,1]> (image, w)
            last = Relu (maps)
            {pooled}
            {body}
        }}
    """
    model = onnx.parser.parse_model(text)
    stored = {
        "w": RNG.normal(size=(8, 3, 3, 3)),
        "head": RNG.normal(size=(8, 4)) * 0.1,  # Tanh behind it does not saturate
        "bias4": RNG.normal(size=4),
        "wc": RNG.normal(size=(4, 8, 1, 1)),
        "wide": RNG.normal(size=(6, 8 * 64)) * 0.03,
        "bias6": RNG.uniform(4, 6, size=6),  # no draw leaves all six units dead
        "top": RNG.normal(size=(6, 4)),
        "tall": RNG.normal(size=(8 * 256, 4)),
        "rows": np.array([0, 128, 16]),
        "rest": RNG.normal(size=(128, 4)),
        "big4": RNG.normal(size=4),
        "big411": RNG.normal(size=(4, 1, 1)) * 2,
        "square": RNG.normal(size=(32, 32)) * 0.2,
        "after": RNG.normal(size=(32, 4)),
        "one": RNG.normal(size=(1, 8, 1, 1)),
        "as_scores": np.array([0, 4]),
    }
    used = {name for node in model.graph.node for name in node.input}
    for key, array in stored.items():
        if key in used:
            array = array if array.dtype.kind == "i" else array.astype(np.float32)
            model.graph.initializer.append(numpy_helper.from_array(array, key))
    path = save(model)
    full, plan = instrument(path, layer="last", gradients=True)
    gradient_agrees(full, plan, [-1, -2, 0, 3])
    map_agrees(instrument(path, layer="last")[0], full, plan)
    if batch == "N":  # several images and targets in one run
        explainer = onnxcam.Explainer(path, layer="last", preprocess="unit")
        images = RNG.normal(size=(3, 3, 16, 16)).astype("f")
        for image, found in zip(images, explainer.explain_batch(images, "top:3"), strict=True):
            for one, other in zip(explainer.explain(image, "top:3"), found, strict=True):
                scale = np.abs(one.signed).max()
                np.testing.assert_allclose(other.signed, one.signed, atol=1e-5 * scale)
