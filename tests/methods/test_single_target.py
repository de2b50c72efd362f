"""A run of one target, which is written for the CPU's blocks of channels, gives the same maps."""

from __future__ import annotations

import numpy as np
import pytest

import onnxcam
from onnxcam.methods.registry import find_method
from onnxcam.surgeon.plan import TARGETS

from ..conftest import parse
from .networks import CLASSES, METHODS, weights

AT_IMAGE = [m for m in METHODS if find_method(m).space == "input"]
IMAGES = np.random.default_rng(3).normal(size=(3, 3, 20, 20)).astype("f")


def wide(gated: bool = True):
    """Return a network whose channels fill blocks: pools, rectifiers of both kinds, a gate."""
    body = """
        c1 = Conv <pads = [1, 1, 1, 1]> (image, w1, b1)
        r1 = Relu(c1)
        p1 = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (r1)
        c2 = Conv <pads = [1, 1, 1, 1], group = 16> (p1, w2, b2)
        r2 = Clip(c2, low, high)
        c3 = Conv (r2, w3, b3)
        a = GlobalAveragePool(c3)
        d = Conv(a, w4, b4)
        e = Sigmoid(d)
        m = Mul(c3, GATE)
        s = Add(m, p1)
        r3 = Relu(s)
        c5 = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (r3, w5, b5)
        r5 = Relu(c5)
        g = GlobalAveragePool(r5)
        f = Flatten(g)
        scores = Gemm <transB = 1> (f, w6, b6)
        probabilities = Softmax <axis = 1> (scores)
    """
    held = weights(
        w1=(16, 3, 3, 3), b1=(16,), w2=(16, 1, 3, 3), b2=(16,), w3=(16, 16, 1, 1), b3=(16,),
        w4=(16, 16, 1, 1), b4=(16,), w5=(32, 16, 3, 3), b5=(32,), w6=(CLASSES, 32), b6=(CLASSES,),
    )  # fmt: skip
    body = body.replace("GATE", "e" if gated else "half")
    return parse(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,3,20,20] image) => (float[N,{CLASSES}] probabilities) {{ {body} }}
        """,
        held | {"low": np.float32(0), "high": np.float32(1), "half": np.float32(0.5)},
    )


@pytest.mark.parametrize("method", AT_IMAGE)
def test_one_target_gives_what_several_do(method: str, save) -> None:
    path = save(wide(gated="deep-lift" not in method))  # which has no form for products
    explainer = onnxcam.Explainer(path, method=method, preprocess="unit")
    for targets, row in ((2, 1), ("probabilities[2]", 1)):
        alone = explainer.explain_batch(IMAGES, targets)
        other = 0 if targets == 2 else "probabilities[0]"
        beside = explainer.explain_batch(IMAGES, [other, targets])
        for one, several in zip(alone, beside, strict=True):
            expected = several[row].signed
            most = np.abs(expected).max()
            assert most > 0
            np.testing.assert_allclose(one[0].signed, expected, rtol=1e-4, atol=1e-5 * most)


def test_the_number_of_targets_is_in_the_file(save) -> None:
    """One at the image; at a layer any number is no more work."""
    path = save(wide())
    for method, length in (("saliency", 1), ("grad-cam", "T")):
        explainer = onnxcam.Explainer(path, method=method, preprocess="unit")
        inputs = explainer._session._session.get_overridable_initializers()
        assert [i.shape[0] for i in inputs if i.name == TARGETS] == [length]
