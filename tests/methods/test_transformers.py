"""Attention's methods on a small transformer: batches, targets, elements, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxcam.errors import MethodError

from ..conftest import parse
from .networks import ATTENTION, IMAGES, explain, network, weights
from .test_identities import close

TARGETS = ["top:2", 3]
pytestmark = pytest.mark.filterwarnings("ignore:Attention mixes")


@pytest.fixture
def vit(save) -> Path:
    """Return 4x4 patches and a class token, two blocks of two heads without layers between."""
    block = """
        n{0} = LayerNormalization <axis = -1> (x{0}, g, g0)
        qkv{0} = MatMul(n{0}, w{0})
        q{0}, k{0}, v{0} = Split <axis = -1> (qkv{0}, thirds)
        qs{0} = Reshape(q{0}, heads)
        ks{0} = Reshape(k{0}, heads)
        vs{0} = Reshape(v{0}, heads)
        qt{0} = Transpose <perm = [0, 2, 1, 3]> (qs{0})
        kt{0} = Transpose <perm = [0, 2, 3, 1]> (ks{0})
        vt{0} = Transpose <perm = [0, 2, 1, 3]> (vs{0})
        s{0} = MatMul(qt{0}, kt{0})
        a{0} = Softmax <axis = -1> (s{0})
        m{0} = MatMul(a{0}, vt{0})
        mt{0} = Transpose <perm = [0, 2, 1, 3]> (m{0})
        mr{0} = Reshape(mt{0}, joined)
        x{1} = Add(x{0}, mr{0})
    """
    stored = weights(wp=(8, 3, 3, 3), w1=(8, 24), w2=(8, 24), wh=(8, 4), token=(1, 1, 8))
    stored |= {"g": np.linspace(0.6, 1.4, 8, dtype="f"), "g0": np.zeros(8, "f")}
    stored |= {"thirds": np.array([8, 8, 8]), "heads": np.array([0, 0, 2, 4])}
    stored |= {"joined": np.array([0, 0, 8]), "flat": np.array([0, 0, -1]), "zero": np.array(0)}
    stored |= {"one": np.array([1]), "rest": np.array([1, 8])}
    model = parse(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,3,12,12] image) => (float[N,4] scores)
        {{
            p = Conv <strides = [3, 3]> (image, wp)
            f = Reshape(p, flat)
            t = Transpose <perm = [0, 2, 1]> (f)
            n = Shape <start = 0, end = 1> (image)
            size = Concat <axis = 0> (n, rest)
            many = Expand(token, size)
            x1 = Concat <axis = 1> (many, t)
            {block.format(1, 2)}
            {block.format(2, 3)}
            last = LayerNormalization <axis = -1> (x3, g, g0)
            c = Gather <axis = 1> (last, zero)
            scores = MatMul(c, wh)
        }}
        """,
        {**stored, "rest": np.array([1, 8])},
    )
    return save(model, "vit.onnx")


@pytest.mark.parametrize("method", ATTENTION)
def test_batches_targets_and_elements(vit: Path, method: str) -> None:
    together = explain(vit, method, IMAGES, TARGETS)
    for n in (0, 4):
        [alone] = explain(vit, method, IMAGES[n : n + 1], TARGETS)
        for one, other in zip(together[n], alone, strict=True):
            assert one.signed.shape == (4, 4)
            close(other.signed, one.signed, 2e-5)
    [[element]] = explain(vit, method, IMAGES[:1], "scores[3]")
    close(element.signed, together[0][2].signed, 2e-5)


@pytest.mark.parametrize("method", ATTENTION)
def test_a_network_without_tokens_is_refused(save, method: str) -> None:
    path = save(network("dense"))
    with pytest.raises(MethodError, match="one of a transformer's tokens"):
        explain(path, method, IMAGES[:1])
    assert explain(path, "attn-lrp", IMAGES[:1])[0][0].signed.any()  # the way out


def test_biases_of_tokens_have_no_place_in_the_image(save) -> None:
    stored = weights(wp=(8, 3, 3, 3), w1=(8, 8), b1=(8,), wh=(8, 4))
    model = parse(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,3,12,12] image) => (float[N,4] scores)
        {
            p = Conv <strides = [3, 3]> (image, wp)
            f = Reshape(p, flat)
            t = Transpose <perm = [0, 2, 1]> (f)
            d = MatMul(t, w1)
            e = Add(d, b1)
            r = Relu(e)
            m = ReduceMean <axes = [1], keepdims = 0> (r)
            scores = MatMul(m, wh)
        }
        """,
        {**stored, "flat": np.array([0, 0, -1])},
    )
    path = save(model)
    with pytest.raises(MethodError, match="biases of tokens or groups") as told:
        explain(path, "full-grad", IMAGES[:1])
    for way_out in ("input-x-gradient", "attn-lrp"):
        assert way_out in str(told.value)
        assert explain(path, way_out, IMAGES[:1])[0][0].signed.any()
