"""The runtime's operators that its CPU provider does not run, and what has no gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from onnxcam.errors import LayerError, NoGradientError
from onnxcam.gradient.add import add_gradient, new_walk
from onnxcam.gradient.call import Call
from onnxcam.gradient.differentiate import add_gradients
from onnxcam.gradient.kinds import Expansion
from onnxcam.gradient.registry import RULES
from onnxcam.graph.builder import Builder
from onnxcam.model.shapes import infer_shapes

from ..conftest import parse, runtime
from ..instrumented import instrument
from .cases.contrib import gelu
from .cases.contrib_norm import skip_norm
from .finite import central, session

MICROSOFT = "com.microsoft"
RNG = np.random.default_rng(21)


def group_norm(x, gamma, beta, groups, activation, channels_last=1, epsilon=1e-5):
    x = np.moveaxis(x, -1, 1) if channels_last else x
    rows = x.reshape(len(x), groups, -1)
    centred = rows - rows.mean(axis=2, keepdims=True)
    h = centred / np.sqrt((centred**2).mean(axis=2, keepdims=True) + epsilon)
    column = (-1, 1, 1)
    y = h.reshape(x.shape) * gamma.reshape(column) + beta.reshape(column)
    y = y / (1 + np.exp(-y)) if activation else y
    return np.moveaxis(y, 1, -1) if channels_last else y


def skip_group_norm(x, gamma, beta, skip, bias=0.0, **settings):
    skip = skip[:, None, None] if skip.ndim == 2 else skip
    return group_norm(x + skip + bias, gamma, beta, **settings)


def split_gelu(x, bias):
    a, b = np.split(x + bias, 2, axis=-1)
    return a * gelu(b)


def bias_softmax(x, bias, **_):
    e = np.exp(x + bias)
    return e / e.sum(axis=-1, keepdims=True)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


# operator, operands, its forward, attributes, which operands are differentiated
CASES: list[tuple[str, list[np.ndarray], Any, dict[str, Any], tuple[int, ...]]] = [
    ("GroupNorm", [normal(2, 3, 4, 6), normal(6), normal(6)], group_norm,
     {"groups": 3, "activation": 0}, (0, 1, 2)),
    ("GroupNorm", [normal(2, 3, 4, 6), normal(6), normal(6)], group_norm,
     {"groups": 2, "activation": 1, "epsilon": 1e-3}, (0, 1, 2)),
    ("GroupNorm", [normal(2, 6, 3, 4), normal(6), normal(6)], group_norm,
     {"groups": 3, "activation": 1, "channels_last": 0}, (0,)),
    ("SkipGroupNorm", [normal(2, 3, 4, 6), normal(6), normal(6), normal(2, 3, 4, 6), normal(6)],
     skip_group_norm, {"groups": 3, "activation": 1}, (0, 3, 4)),
    ("SkipGroupNorm", [normal(2, 3, 4, 6), normal(6), normal(6), normal(2, 6)], skip_group_norm,
     {"groups": 3, "activation": 0}, (0, 3)),
    ("BiasSplitGelu", [normal(2, 3, 8), normal(8)], split_gelu, {}, (0, 1)),
    ("BiasAdd", [normal(2, 3, 8), normal(8), normal(2, 3, 8)], lambda x, b, s: x + b + s, {},
     (0, 1, 2)),
    ("BiasSoftmax", [normal(2, 3, 4, 5), normal(2, 1, 1, 5)], bias_softmax,
     {"axis": 3, "is_inner_broadcast": 1}, (0, 1)),
    ("BiasDropout", [normal(2, 3, 4), normal(4), normal(2, 3, 4)], lambda x, b, r: x + b + r, {},
     (0, 1, 2)),
]  # fmt: skip


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0]}-{c[3]}")
def test_operators_of_other_providers(case: Any, opset: int) -> None:
    """What they stand for takes their place after they are differentiated."""
    op, arrays, forward, attributes, wrt = case
    names = [f"x{i}" for i in range(len(arrays))]
    node = helper.make_node(op, names, ["y"], domain=MICROSOFT, **attributes)
    inputs = [
        helper.make_tensor_value_info(n, 1, a.shape) for n, a in zip(names, arrays, strict=True)
    ]
    output = helper.make_tensor_value_info("y", 1, None)
    graph = helper.make_graph([node], op, inputs, [output])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    model = ir.serde.deserialize_model(proto)
    infer_shapes(model, proto, Path(op))
    [y], given = model.graph.outputs, list(model.graph.inputs)
    exact = forward(*arrays, **attributes)
    assert y.shape == ir.Shape(exact.shape)
    seed = ir.Value(name="seed", type=y.type, shape=ir.Shape(["T", *exact.shape]))
    model.graph.inputs.append(seed)
    builder = Builder(model.graph, opset)
    found = add_gradient(builder, y, seed, [given[i] for i in wrt])
    original = y.producer()
    rule = RULES[MICROSOFT, op]
    assert original is not None and isinstance(rule, Expansion)
    said = rule.expand(Call(original, new_walk(builder), rule.refuses))[0]
    for use in tuple(y.uses()):
        use.node.replace_input_with(use.idx, said)
    model.graph.outputs[:] = [builder.op("Identity", v) for v in (said, *found)]
    for index, value in enumerate(model.graph.outputs):
        value.type = y.type
        value.shape = ir.Shape(
            [None] * (exact.ndim if index == 0 else arrays[wrt[index - 1]].ndim + 1)
        )
    model.graph.remove(original)
    model.graph.sort()
    data = ir.serde.serialize_model(model)
    onnx.checker.check_model(data)
    cotangents = RNG.normal(size=(3, *exact.shape))
    feeds = {n: a.astype("f") for n, a in zip([*names, "seed"], [*arrays, cotangents], strict=True)}
    result, *gradients = session(data.SerializeToString()).run(None, feeds)
    np.testing.assert_allclose(result, exact, atol=1e-4)
    for index, gradient in zip(wrt, gradients, strict=True):
        for _ in range(12):
            direction = RNG.normal(size=arrays[index].shape)

            def along(h: float, i: int = index, v: np.ndarray = direction) -> np.ndarray:
                moved = [a + h * v if k == i else a for k, a in enumerate(arrays)]
                return forward(*moved, **attributes)

            numeric = cotangents.reshape(3, -1) @ central(along, 1e-3).ravel()
            analytic = gradient.reshape(3, -1) @ direction.ravel()
            scale = np.abs(gradient).max() * np.linalg.norm(direction)
            np.testing.assert_allclose(analytic, numeric, atol=3e-4 * scale)


def test_both_results_of_a_normalization_with_a_skip() -> None:
    """The sum that is normalized is an output too, which the next block adds to."""
    model = parse(
        """
        <ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        net (float[2,3,6] x) => (float[2,3,6] y) {
            n, m, v, s = com.microsoft.SkipLayerNormalization <epsilon=0.001> (x, skip, g, b, c)
            y = Mul (n, s)
        }
        """,
        {
            name: RNG.normal(size=shape).astype("f")
            for name, shape in {"skip": (2, 3, 6), "g": 6, "b": 6, "c": 6}.items()
        },
    )
    stored = {t.name: numpy_helper.to_array(t).astype(float) for t in model.graph.initializer}
    x, seed = RNG.normal(size=(2, 3, 6)), RNG.normal(size=(1, 2, 3, 6))

    def forward(value: np.ndarray) -> np.ndarray:
        total = value + stored["skip"] + stored["c"]
        return skip_norm(total, 0.0, stored["g"], stored["b"], epsilon=1e-3) * total

    feeds = {"x": x.astype("f"), "seed:y": seed.astype("f")}
    [found] = runtime(add_gradients(model, "y", "x")).run(["gradient:x"], feeds)
    for _ in range(10):
        v = RNG.normal(size=x.shape)
        numeric = (seed * central(lambda h, v=v: forward(x + h * v), 1e-3)).sum()
        assert abs((found * v).sum() - numeric) < 1e-3


def test_the_sum_of_embeddings() -> None:
    """As of a normalization with a skip, the sum is an output too."""
    shapes = {"word": (7, 6), "position": (5, 6), "segment": (2, 6), "g": 6, "b": 6}
    model = parse(
        """
        <ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        net (int32[2,3] ids, int32[2,3] kinds) => (float[2,3,6] y) {
            n, m, s = com.microsoft.EmbedLayerNormalization <epsilon=0.001>
                (ids, kinds, word, position, segment, g, b)
            y = Mul (n, s)
        }
        """,
        {name: RNG.normal(size=shape).astype("f") for name, shape in shapes.items()},
    )
    stored = {t.name: numpy_helper.to_array(t).astype(float) for t in model.graph.initializer}
    ids, kinds = np.array([[3, 0, 5], [1, 1, 6]], "i4"), np.array([[0, 0, 1], [0, 1, 0]], "i4")
    seed = RNG.normal(size=(1, 2, 3, 6))

    def forward(word: np.ndarray) -> np.ndarray:
        total = word[ids] + stored["position"][np.arange(3)] + stored["segment"][kinds]
        return skip_norm(total, 0.0, stored["g"], stored["b"], epsilon=1e-3) * total

    feeds = {"ids": ids, "kinds": kinds, "seed:y": seed.astype("f")}
    y, found = runtime(add_gradients(model, "y", "word")).run(["y", "gradient:word"], feeds)
    np.testing.assert_allclose(y, forward(stored["word"]), atol=1e-4)
    for _ in range(10):
        v = RNG.normal(size=(7, 6))
        numeric = (seed * central(lambda h, v=v: forward(stored["word"] + h * v), 1e-3)).sum()
        assert abs((found * v).sum() - numeric) < 1e-3


WITHOUT = ["PackedAttention", "GroupQueryAttention", "NhwcFusedConv", "GatedAdd", "MatMulBnb4"]


@pytest.mark.parametrize("op", WITHOUT)
def test_what_has_no_rule_is_named_with_its_domain(op: str) -> None:
    model = parse(
        f"""
        <ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        net (float[2,3] x) => (float[2,3] y) {{
            a = Relu (x)
            b = com.microsoft.{op} (a)
            y = Relu (b)
        }}
        """
    )
    model.graph.node[1].name = "the_odd_one"
    expected = rf"no gradient rule for com.microsoft.{op} \(node 'the_odd_one', opset 17\)"
    with pytest.raises(NoGradientError, match=expected):
        add_gradients(model, "y", "x")


REFUSED = {
    "a past": ("Attention", "x, w, b, empty, past", "reads a cache of the past"),
    "a rotation": ("Attention", "x, w, b", "rotates queries and keys"),
    "packed": ("MultiHeadAttention", "x", "are packed"),
    "other weights": ("MatMulNBits", "x, q, s, empty, places", "packed in a way"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_covered_is_refused(name: str) -> None:
    op, operands, message = REFUSED[name]
    settings = {
        "a past": {"num_heads": 2},
        "a rotation": {"num_heads": 2, "do_rotary": 1},
        "packed": {"num_heads": 2},
        "other weights": {"K": 6, "N": 12, "bits": 4, "block_size": 16},
    }[name]
    names = ["" if n == "empty" else n for n in operands.split(", ")]
    weights = {
        "w": np.ones((6, 18), "f"), "b": np.ones(18, "f"), "past": np.ones((2, 1, 2, 4, 3), "f"),
        "q": np.ones((12, 1, 8), "u1"), "s": np.ones((12, 1), "f"), "places": np.zeros(6, "i4"),
    }  # fmt: skip
    node = helper.make_node(op, names, ["y"], domain=MICROSOFT, **settings)
    graph = helper.make_graph(
        [node], op, [helper.make_tensor_value_info("x", 1, [1, 3, 6])],
        [helper.make_tensor_value_info("y", 1, [None, None, None])],
        [numpy_helper.from_array(a, k) for k, a in weights.items() if k in names],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    with pytest.raises(NoGradientError, match=message):
        add_gradients(model, "y", "x")


def test_files_in_the_layout_of_one_processor(save) -> None:
    """What to do about them is said, whether the layer or the way to the score is in it."""
    text = """
        <ir_version: 8, opset_import: ["" : 17, "com.microsoft.nchwc" : 1]>
        net (float[1,3,8,8] image) => (float[1,4] scores) {
            BODY
            pooled = GlobalAveragePool (last)
            flat = Flatten (pooled)
            scores = MatMul (flat, head)
        }
    """
    weights = {"w": np.ones((8, 3, 3, 3), "f"), "head": np.ones((8, 4), "f")}
    inside = "i = com.microsoft.nchwc.Conv (image, w) last = com.microsoft.nchwc.ReorderOutput (i)"
    after = "maps = Conv (image, w) last = com.microsoft.nchwc.MaxPool (maps)"
    for body, layer in ((inside, "auto"), (after, "maps")):
        path = save(parse(text.replace("BODY", body), weights))
        with pytest.raises((NoGradientError, LayerError), match="level 'extended'"):
            instrument(path, layer)


def test_a_refusal_inside_an_expansion_names_the_node_of_the_file() -> None:
    model = parse(
        """
        <ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        net (float[1,1,5,5] x) => (float[1,1,A,B] y) <float s = {0.5}, uint8 z = {0}> {
            q = QuantizeLinear (x, s, z)
            p = com.microsoft.QLinearAveragePool
                <kernel_shape=[2,2], strides=[2,2], pads=[1,1,1,1], ceil_mode=1> (q, s, z, s, z)
            y = DequantizeLinear (p, s, z)
        }
        """
    )
    model.graph.node[1].name = "the_pool"
    with pytest.raises(NoGradientError, match=r"node 'the_pool', opset 17\).*AveragePool.*alone"):
        add_gradients(model, "y", "x")
