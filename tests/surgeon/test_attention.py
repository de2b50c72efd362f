"""What mixes the places of a layer, and what only looks like it."""

from __future__ import annotations

import numpy as np
import pytest

import onnxcam
from onnxcam.errors import LayerError
from onnxcam.model.prepare import load
from onnxcam.surgeon.find.attention import attention

from ..conftest import parse
from ..instrumented import instrument

pytestmark = pytest.mark.filterwarnings("ignore:Attention mixes")
RNG = np.random.default_rng(0)
WEIGHTS = {
    "w": RNG.normal(size=(6, 3, 2, 2)).astype("f"),
    "wq": RNG.normal(size=(6, 6)).astype("f"),
    "head": RNG.normal(size=(6, 4)).astype("f"),
    "toward": RNG.normal(size=(6, 5)).astype("f"),
    "values": RNG.normal(size=(6, 30)).astype("f"),
    "flat": np.array([0, 6, 16]),
    "parts": np.array([0, 5, 6]),
    "row": np.array([0, 1, 5]),
    "zero": np.array([0]),
    "one": np.array([1]),
    "two": np.array([2]),
    "first": np.array([[0]]),
    "single": np.array([0]),
    "far": np.array([100]),
}


def model(body: str, batch: str = "N", opset: int = 13):
    """Maps ``[N, 6, 4, 4]`` and what follows, which ends in ``scores``."""
    used = {
        n: w
        for n, w in WEIGHTS.items()
        if n == "w" or n in body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    }
    return parse(
        f"""
        <ir_version: 7, opset_import: ["" : {opset}]>
        net (float[{batch},3,8,8] image) => (float[{batch},4] scores) {{
            maps = Conv <strides=[2,2]> (image, w)
            {body}
        }}
        """,
        used,
    )


TOKENS = """
    rows = Reshape(maps, flat)
    tokens = Transpose <perm=[0,2,1]> (rows)
    q = MatMul(tokens, wq)
    keys = Transpose <perm=[0,2,1]> (tokens)
    products = MatMul(q, keys)
"""
END = """
    pooled = ReduceMean <axes=[1], keepdims=0> (mixed)
    scores = MatMul(pooled, head)
"""
MIXES = {
    "all rows": f"""{TOKENS}
        weights = Softmax <axis=-1> (products)
        mixed = MatMul(weights, tokens) {END}""",
    "the first row, gathered": f"""{TOKENS}
        weights = Softmax <axis=2> (products)
        row0 = Gather <axis=1> (weights, single)
        mixed = MatMul(row0, tokens) {END}""",
    "some rows, sliced": f"""{TOKENS}
        weights = Softmax <axis=2> (products)
        some = Slice(weights, one, two, one)
        mixed = MatMul(some, tokens) {END}""",
    "some keys, sliced": f"""{TOKENS}
        weights = Softmax <axis=2> (products)
        some = Slice(weights, one, far, two)
        others = Slice(tokens, one, far, one)
        mixed = MatMul(some, others) {END}""",
    "turned": f"""{TOKENS}
        weights = Softmax <axis=1> (products)
        turned = Transpose <perm=[0,2,1]> (weights)
        mixed = MatMul(turned, tokens) {END}""",
    "weights of places by one vector": f"""
        rows = Reshape(maps, flat)
        tokens = Transpose <perm=[0,2,1]> (rows)
        logits = ReduceMean <axes=[1], keepdims=1> (rows)
        weights = Softmax <axis=2> (logits)
        mixed = MatMul(weights, tokens) {END}""",
}
KEEPS = {
    "classes": """
        g = GlobalAveragePool(maps)
        f = Flatten(g)
        logits = MatMul(f, head)
        scores = Softmax <axis=1> (logits)""",
    "experts, once the places were averaged": """
        g = ReduceMean <axes=[2,3], keepdims=0> (maps)
        gate = MatMul(g, toward)
        weights = Softmax <axis=1> (gate)
        row0 = Unsqueeze(weights, one)
        each = MatMul(g, values)
        experts = Reshape(each, parts)
        m = MatMul(row0, experts)
        mixed = Identity(m)"""
    + END,
    "a gate of channels": """
        g = GlobalAveragePool(maps)
        gate = Softmax <axis=1> (g)
        gated = Mul(maps, gate)
        p = GlobalAveragePool(gated)
        f = Flatten(p)
        scores = MatMul(f, head)""",
    "a product over another axis": f"""{TOKENS}
        weights = Softmax <axis=1> (q)
        other = MatMul(weights, wq)
        turned = Transpose <perm=[0,2,1]> (tokens)
        gram = MatMul(turned, tokens)
        classes = Softmax <axis=1> (q)
        mixed = MatMul(classes, gram) {END}""",
    "classes of every step of a text line": """
        line = ReduceMean <axes=[2], keepdims=0> (maps)
        steps = Transpose <perm=[0,2,1]> (line)
        logits = MatMul(steps, head)
        each = Softmax <axis=2> (logits)
        scores = ReduceMax <axes=[1], keepdims=0> (each)""",
    "the images of a bag": """
        g = GlobalAveragePool(maps)
        f = Flatten(g)
        weights = Softmax <axis=0> (f)
        turned = Transpose <perm=[1,0]> (weights)
        whole = MatMul(turned, f)
        m = MatMul(f, whole)
        scores = MatMul(m, head)""",
}


def found(made, save) -> list[str]:
    graph = load(save(made)).graph
    values = {v.name: v for node in graph for v in node.outputs}
    return [n.outputs[0].name for n in attention(graph, values["maps"], graph.outputs[0])]


@pytest.mark.parametrize("opset", [12, 13])
@pytest.mark.parametrize("name", MIXES)
def test_attention(save, name, opset) -> None:
    assert found(model(MIXES[name], opset=opset), save) == ["weights"]


@pytest.mark.parametrize("name", KEEPS)
def test_what_only_looks_like_it(save, name) -> None:
    made = model(KEEPS[name], opset=13)
    assert found(made, save) == []
    layer = "gated" if "gated" in KEEPS[name] else "maps"
    assert instrument(save(made))[1].layer.name == layer


def test_the_images_axis_is_no_place(save) -> None:
    """Weights of the images of a run, of maps whose places were kept."""
    body = """
        f = Flatten(maps)
        weights = Softmax <axis=0> (f)
        turned = Transpose <perm=[1,0]> (weights)
        whole = MatMul(turned, f)
        m = MatMul(f, whole)
        mixed = Reshape(m, flat)
        turns = Transpose <perm=[0,2,1]> (mixed)
        pooled = ReduceMean <axes=[1], keepdims=0> (turns)
        scores = MatMul(pooled, head)
    """
    assert found(model(body), save) == []


def test_attention_is_refused_by_its_maps(save) -> None:
    body = MIXES["weights of places by one vector"]
    with pytest.raises(LayerError, match="attention mixes all positions .* --layer 'maps'"):
        instrument(save(model(body)))
    assert instrument(save(model(body)), layer="maps")[1].layer.name == "maps"


# Tokens [N, 16, 6] of 4x4 places in windows of 2x2, rolled by one before and back afterwards.
def windowed(norm_inside: bool):
    roll = "a = Slice(grid, {0}, {1}, axis1)\n b = Slice(grid, {2}, {3}, axis1)"
    inside, outside = ("LayerNormalization(windows, scale)", "Identity(tokens)")
    if not norm_inside:
        inside, outside = "Identity(windows)", "LayerNormalization(tokens, scale)"
    weights = {
        **{n: WEIGHTS[n] for n in ("w", "flat", "wq", "head", "zero", "one", "far")},
        "scale": RNG.uniform(0.5, 1.5, size=6).astype("f"),
        "axis1": np.array([1]),
        "as_grid": np.array([-1, 4, 4, 6]),
        "split": np.array([-1, 2, 2, 2, 2, 6]),
        "as_windows": np.array([-1, 4, 6]),
        "as_tokens": np.array([-1, 16, 6]),
        "end": np.array([4]),
        "three": np.array([3]),
    }
    return parse(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[1,3,8,8] image) => (float[1,4] scores) {{
            maps = Conv <strides=[2,2]> (image, w)
            rows = Reshape(maps, flat)
            tokens = Transpose <perm=[0,2,1]> (rows)
            norm = {outside}
            grid = Reshape(norm, as_grid)
            {roll.format("one", "end", "zero", "one")}
            rolled = Concat <axis=1> (a, b)
            pieces = Reshape(rolled, split)
            sorted = Transpose <perm=[0,1,3,2,4,5]> (pieces)
            windows = Reshape(sorted, as_windows)
            inner = {inside}
            q = MatMul(inner, wq)
            keys = Transpose <perm=[0,2,1]> (inner)
            products = MatMul(q, keys)
            weights = Softmax <axis=-1> (products)
            mixed = MatMul(weights, inner)
            back = Reshape(mixed, split)
            unsorted = Transpose <perm=[0,1,3,2,4,5]> (back)
            shifted = Reshape(unsorted, as_grid)
            c = Slice(shifted, three, end, axis1)
            d = Slice(shifted, zero, three, axis1)
            straight = Concat <axis=1> (c, d)
            long = Reshape(straight, as_tokens)
            sum = Add(long, tokens)
            pooled = ReduceMean <axes=[1], keepdims=0> (sum)
            scores = MatMul(pooled, head)
        }}
        """,
        weights,
    )


@pytest.mark.parametrize("norm_inside", [True, False])
def test_the_layer_lies_outside_of_shifted_windows(save, norm_inside: bool) -> None:
    """Tokens in the image's order are taken, never those of one window."""
    path = save(windowed(norm_inside))
    image = RNG.normal(size=(3, 8, 8)).astype("f")
    chosen, named = (
        onnxcam.Explainer(path, layer=layer, preprocess="unit") for layer in ("auto", "norm")
    )
    assert chosen.plan.layer.name == "grid:maps" and chosen.plan.layer.shape == (1, 6, 4, 4)
    right = named.explain(image, 2)[0].signed
    assert np.ptp(right) > 1e-3
    found = chosen.explain(image, 2)[0].signed
    np.testing.assert_allclose(found, right, atol=1e-5 * np.abs(right).max())


def test_a_window_is_refused(save) -> None:
    path = save(windowed(norm_inside=True))
    with pytest.raises(LayerError, match=r"'inner' of shape \[4, 4, 6\].* not the images"):
        onnxcam.Explainer(path, layer="inner", preprocess="unit")
