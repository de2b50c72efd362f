"""Elements of outputs behind Sigmoid or Softmax are explained before it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxcam

from ..conftest import parse, runtime

RNG = np.random.default_rng(5)
IMAGES = RNG.normal(size=(2, 3, 8, 8)).astype("f")
BIAS = np.array([0, 1, 40, -1, -60, 0], "f")  # of 40 and -60 nothing is left behind Sigmoid

# From 'raw' [N,6,16] to the output; and of raw's [k,a] the place in the output.
ENDINGS = {
    "moved by everything": (
        """
        p = Sigmoid (raw)
        boxes, classes = Split <axis=1> (p, two_four)
        scaled = Mul (boxes, ten)
        joined = Concat <axis=1> (scaled, classes)
        turned = Transpose <perm=[0,2,1]> (joined)
        gathered = Gather <axis=1> (turned, backwards)
        wide = Unsqueeze (gathered, three)
        same = Identity (wide)
        flat = Squeeze (same, three)
        out = Slice (flat, zero, last, one)
        """,
        lambda k, a: (15 - a, k),
        "float[N,12,6]",
        "Sigmoid",
    ),
    "quantized at the end": (
        """
        p = Sigmoid (raw)
        boxes, classes = Split <axis=1> (p, two_four)
        scaled = Mul (boxes, ten)
        whole = QuantizeLinear (classes, scale, zero_point)
        rounded = DequantizeLinear (whole, scale, zero_point)
        out = Concat <axis=1> (scaled, rounded)
        """,
        lambda k, a: (k, a),
        "float[N,6,16]",
        "Sigmoid",
    ),
    "written out": (
        """
        negative = Neg (raw)
        e = Exp (negative)
        more = Add (e, onef)
        p = Div (onef, more)
        boxes, classes = Split <axis=1> (p, two_four)
        scaled = Mul (boxes, ten)
        out = Concat <axis=1> (scaled, classes)
        """,
        lambda k, a: (k, a),
        "float[N,6,16]",
        "Sigmoid",
    ),
    "softmax": (
        """
        boxes, classes = Split <axis=1> (raw, two_four)
        scaled = Mul (boxes, ten)
        p = Softmax <axis=1> (classes)
        joined = Concat <axis=1> (scaled, p)
        out = Reshape (joined, shape)
        """,
        lambda k, a: (k, a // 4, a % 4),
        "float[N,6,4,4]",
        "Softmax",
    ),
}


def network(nodes: str, shape: str) -> onnx.ModelProto:
    return parse(
        f"""
        <ir_version: 8, opset_import: ["" : 13]>
        net (float[N,3,8,8] image) => ({shape} out) {{
            c1 = Conv <pads=[1,1,1,1], strides=[2,2]> (image, w1)
            r1 = Relu (c1)
            c2 = Conv (r1, w2, bias)
            raw = Reshape (c2, flat_shape)
            {nodes}
        }}
        """,
        {
            "w1": RNG.normal(size=(5, 3, 3, 3)).astype("f"),
            "w2": RNG.normal(size=(6, 5, 1, 1)).astype("f") * 0.3,
            "bias": BIAS,
            "flat_shape": np.array([0, 6, 16]),
            "two_four": np.array([2, 4]),
            "ten": np.float32(10),
            "onef": np.float32(1),
            "backwards": np.arange(15, -1, -1),
            "three": np.array([3]),
            "zero": np.array([0]),
            "one": np.array([1]),
            "scale": np.float32(1 / 255),
            "zero_point": np.uint8(0),
            "last": np.array([12]),
            "shape": np.array([0, 0, 4, 4]),
        },
    )


def ending(name: str) -> onnx.ModelProto:
    nodes, _, shape, _ = ENDINGS[name]
    return network(nodes, shape)


def text(name: str, index: tuple[int, ...]) -> str:
    return f"{name}[{','.join(map(str, index))}]"


@pytest.mark.parametrize("name", ENDINGS)
def test_an_element_is_the_one_before(name: str, save) -> None:
    """Also where p is 1 or 0 in float32; a box made of the same Sigmoid stays a box."""
    model, place, kind = ending(name), ENDINGS[name][1], ENDINGS[name][3]
    explainer = onnxcam.Explainer(save(model), layer="r1", preprocess="unit")
    out = runtime(model).run(None, {"image": IMAGES})[0]
    places = [(k, a) for k in range(6) for a in (5, 14)]
    asked = [text("out", place(k, a)) for k, a in places]
    together = explainer.explain_batch(IMAGES, asked)
    for n, image in enumerate(IMAGES):
        inner = explainer.explain(image, [text("raw", at) for at in places])
        for (k, a), found, raw in zip(places, together[n], inner, strict=True):
            assert found.score_name == f"out before any {kind}"
            if k < 2:  # a box: 10 p, or 10 x
                p = 1 / (1 + np.exp(-raw.score))
                slope = 10 if kind == "Softmax" else 10 * p * (1 - p)
                assert found.score == pytest.approx(out[(n, *place(k, a))], rel=1e-5)
                np.testing.assert_allclose(found.signed, slope * raw.signed, rtol=1e-3, atol=1e-6)
            else:
                assert found.score == pytest.approx(raw.score, rel=1e-5)
                np.testing.assert_allclose(found.signed, raw.signed, rtol=1e-4, atol=1e-6)
                assert np.abs(found.signed).max() > 1e-4


def test_a_sum_of_one_is_the_probability_itself(save) -> None:
    model = ending("softmax")
    explainer = onnxcam.Explainer(save(model), layer="r1", preprocess="unit")
    out = runtime(model).run(None, {"image": IMAGES})[0]
    [found] = explainer.explain(IMAGES[0], "out[5,2,3]:sum")
    assert found.score == pytest.approx(float(out[0, 5, 2, 3]), rel=1e-4)
    assert "before" not in found.score_name


@pytest.mark.parametrize("method", ["integrated-gradients:steps=256", "occlusion:size=2,stride=2"])
def test_methods_of_many_runs_follow_the_logit(method: str, save) -> None:
    explainer = onnxcam.Explainer(
        save(ending("moved by everything")), preprocess="unit", method=method
    )
    one, raw = explainer.explain(IMAGES[0], ["out[4,2]", "raw[2,11]"])
    assert one.score == pytest.approx(raw.score) and raw.score > 20
    np.testing.assert_allclose(one.signed, raw.signed, rtol=1e-4, atol=1e-5)


def test_what_only_multiplies_probabilities_stays_as_it_is(save) -> None:
    """Objectness times class: no logit is that."""
    model = network("p = Sigmoid (raw) out = Mul (p, p)", "float[N,6,16]")
    [found] = onnxcam.Explainer(save(model), preprocess="unit").explain(IMAGES[0], "out[0,3]")
    out = runtime(model).run(None, {"image": IMAGES[:1]})[0]
    assert found.score == pytest.approx(float(out[0, 0, 3]), rel=1e-5)
    assert found.score_name == "out"


def test_of_a_layer_behind_sigmoid_the_probability_is_explained(save) -> None:
    """The logits do not depend on it."""
    nodes = """
        p = Sigmoid (c2)
        out = Reshape (p, flat_shape)
    """
    model = network(nodes, "float[N,6,16]")
    [found] = onnxcam.Explainer(save(model), layer="p", preprocess="unit").explain(
        IMAGES[0], "out[1,7]"
    )
    out = runtime(model).run(None, {"image": IMAGES[:1]})[0]
    assert found.score_name == "out" and found.score == pytest.approx(float(out[0, 1, 7]))
    # The gradient is 1 at one place of channel 1, on average 1 / 16.
    np.testing.assert_allclose(found.signed, out[0, 1].reshape(4, 4) / 16, rtol=1e-4)
