"""Attention that is masked altogether: NaN that the model replaces stays out of the gradient."""

from __future__ import annotations

import numpy as np
import pytest

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
