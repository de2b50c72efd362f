"""Attention: rows that are masked altogether, and lengths that only the run knows."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

import onnxcam

from .graphs import check_graph, model

MASKED = "m = Where(keep, zero, low) a = Add(x, m) p = Softmax(a)"
ROWS = "top = ReduceMax<axes=[-1]>(m) none = Equal(top, low)"
GUARDS = {
    "IsNaN": "bad = IsNaN(p) z = Where(bad, zero, p)",
    "IsNaN of a copy": "i = Identity(p) c = Cast<to=11>(i) bad = IsNaN(c) z = Where(bad, zero, c)",
    "masked rows": f"{ROWS} z = Where(none, zero, p)",
    "kept rows": f"{ROWS} some = Not(none) z = Where(some, p, zero)",
}


@pytest.mark.parametrize("guard", GUARDS)
def test_rows_that_are_masked_altogether(guard: str) -> None:
    """Their probabilities are NaN, which the model replaces."""
    rng = np.random.default_rng(3)
    keep = rng.random((2, 3, 4)) < 0.6
    keep[0, 1] = False
    keep[1, 2] = True
    x = rng.normal(size=keep.shape)
    text = f"""graph (double[2,3,4] x, bool[2,3,4] keep) => (double[2,3,4] y)
        <double zero = {{0}}, double low = {{-inf}}> {{ {MASKED} {GUARDS[guard]} y = Mul(z, x) }}"""
    check_graph(model(text), "y", ["x"], {"x": x, "keep": keep})


def test_a_mask_after_softmax_is_no_guard() -> None:
    """What is left out by it still takes its share of the others."""
    rng = np.random.default_rng(4)
    text = """graph (double[3,4] x, bool[3,4] keep) => (double[3,4] y)
        <double zero = {0}> { p = Softmax(x) y = Where(keep, p, zero) }"""
    feeds = {"x": rng.normal(size=(3, 4)), "keep": rng.random((3, 4)) < 0.5}
    check_graph(model(text), "y", ["x"], feeds)


@pytest.mark.parametrize("heads", ["", "<q_num_heads=2, kv_num_heads=2>"])
def test_lengths_of_the_run(heads: str) -> None:
    """onnx infers 0 for what it does not know."""
    shape, wanted = ("B,T,H", "Y") if heads else ("B,N,T,H", "qk")
    text = f"""<ir_version: 10, opset_import: ["" : 23]>
        graph (float[{shape}] q, float[{shape}] k, float[{shape}] v) => (float[{shape}] z)
        {{ Y, pk, pv, qk = Attention {heads} (q, k, v) z = Identity({wanted}) }}"""
    made = onnxcam.add_gradients(parser.parse_model(text), "z", "k")
    seed = next(i for i in made.graph.input if i.name == "seed:z")
    assert all(d.dim_param for d in seed.type.tensor_type.shape.dim[2:])
