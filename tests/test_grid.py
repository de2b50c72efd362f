"""Tokens whose grid only the user knows, and layouts that only a run tells."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest

import onnxcam
from onnxcam.errors import LayerError
from onnxcam.surgeon.inspect import inspect
from onnxcam.surgeon.lengths import MOST_OTHERS, fits, likely_grid

from .conftest import parse, runtime

pytestmark = pytest.mark.filterwarnings("ignore:Attention mixes")

SIZE, GRID, K = (20, 24), (5, 6), 8
IMAGE = np.random.default_rng(1).normal(size=(3, *SIZE)).astype("f")
RNG = np.random.default_rng(2)
WEIGHTS = {
    "we": RNG.normal(size=(48, K)) * 0.2,
    "cls": RNG.normal(size=(1, 1, K)),
    "scale": RNG.uniform(0.5, 1.5, size=K),
    "shift": RNG.normal(size=K) * 0.3,
    "wq": RNG.normal(size=(K, K)) * 0.5,
    "wk": RNG.normal(size=(K, K)) * 0.5,
    "wv": RNG.normal(size=(K, K)),
    "wc": RNG.normal(size=(K, 4)),
    "shape": np.array([0, 48, -1]),
    "one": np.array([1]),
}


ATTENDED = """
q = MatMul(norm, wq)
k = MatMul(norm, wk)
v = MatMul(norm, wv)
kt = Transpose <perm = [0, 2, 1]> (k)
qk = MatMul(q, kt)
a = Softmax <axis = 2> (qk)
y = MatMul(a, v)
m = ReduceMean <axes = [1], keepdims = 0> (y)
scores = MatMul(m, wc)
"""  # scores of the layer ``norm``


def transformer(sizes: str, joined: bool = True):
    """Patches without a convolution, so that no grid is known; a class token; one attention."""
    join = "Concat <axis = 1> (class, e)" if joined else "Identity(e)"
    return parse(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,3,{sizes}] image) => (float[N,4] scores) {{
            p = SpaceToDepth <blocksize = 4> (image)
            f = Reshape(p, shape)
            t = Transpose <perm = [0, 2, 1]> (f)
            e = MatMul(t, we)
            first = Shape <start = 0, end = 1> (e)
            often = Concat <axis = 0> (first, one, one)
            class = Expand(cls, often)
            x = {join}
            norm = LayerNormalization(x, scale, shift)
            {ATTENDED}
        }}
        """,
        {n: w.astype("f") if w.dtype == float else w for n, w in WEIGHTS.items()},
    )


def norm_of(image: np.ndarray, joined: bool) -> np.ndarray:
    """The layer, ``[L, K]``, in float64."""
    c, (h, w) = len(image), GRID
    # SpaceToDepth puts the offsets before the channels.
    blocks = image.astype(float).reshape(c, h, 4, w, 4).transpose(1, 3, 2, 4, 0)
    x = blocks.reshape(h * w, -1) @ WEIGHTS["we"]
    x = np.concatenate([WEIGHTS["cls"][0], x]) if joined else x
    x = x - x.mean(axis=1, keepdims=True)
    x = x / np.sqrt((x * x).mean(axis=1, keepdims=True) + 1e-5)
    return x * WEIGHTS["scale"] + WEIGHTS["shift"]


def scores_of(norm: np.ndarray) -> np.ndarray:
    qk = (norm @ WEIGHTS["wq"]) @ (norm @ WEIGHTS["wk"]).T
    a = np.exp(qk - qk.max(axis=1, keepdims=True))
    y = (a / a.sum(axis=1, keepdims=True)) @ (norm @ WEIGHTS["wv"])
    return y.mean(axis=0) @ WEIGHTS["wc"]


def by_differences(target: int, joined: bool) -> np.ndarray:
    """Grad-CAM over the patches alone, gradients by central differences."""
    norm = norm_of(IMAGE, joined)
    g = np.zeros_like(norm)
    for place in np.ndindex(*norm.shape):
        step = np.zeros_like(norm)
        step[place] = 1e-5
        g[place] = (scores_of(norm + step) - scores_of(norm - step))[target] / 2e-5
    before = len(norm) - GRID[0] * GRID[1]
    return (norm[before:] @ g[before:].mean(axis=0)).reshape(GRID)


def check(explainer: onnxcam.Explainer, joined: bool) -> None:
    for target in (1, 3):
        [found] = explainer.explain(IMAGE, target)
        expected = by_differences(target, joined)
        scale = np.abs(expected).max()
        assert scale > 1e-3
        np.testing.assert_allclose(found.signed, expected, atol=1e-4 * scale)


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("sizes", ["20,24", "H,W"])
@pytest.mark.parametrize("layer", ["auto", "norm"])
def test_a_grid_that_is_given(save, sizes, joined, layer) -> None:
    path = save(transformer(sizes, joined))
    check(onnxcam.Explainer(path, layer=layer, grid=GRID, preprocess="unit"), joined)


@pytest.mark.parametrize("layer", ["auto", "norm"])
@pytest.mark.parametrize("joined", [True, False])
def test_an_unknown_grid_is_refused_with_one_that_fits(save, joined, layer) -> None:
    path = save(transformer("20,24", joined))
    if layer == "auto":
        with pytest.raises(LayerError, match="--grid 5x6") as refused:
            onnxcam.Explainer(path, preprocess="unit").explain(IMAGE)
    else:
        with pytest.raises(LayerError, match="grid is not known.*--grid") as refused:
            onnxcam.Explainer(path, layer=layer, preprocess="unit")
    rows, columns = re.search(r"--grid (\d+)x(\d+)", str(refused.value)).groups()
    grid = (int(rows), int(columns))
    check(onnxcam.Explainer(path, layer=layer, grid=grid, preprocess="unit"), joined)


@pytest.mark.parametrize("grid", [(2, 3), (6, 6), (31, 2)])
def test_a_wrong_grid_is_refused(save, grid) -> None:
    message = f"31 tokens are no grid of {grid[0]}x{grid[1]} .*--grid 5x6 fits"
    with pytest.raises(LayerError, match=message):
        onnxcam.Explainer(save(transformer("20,24")), grid=grid, preprocess="unit")


def test_a_wrong_grid_that_only_the_run_tells(save) -> None:
    path = save(transformer("H,W"))
    few = onnxcam.Explainer(path, grid=(2, 3), preprocess="unit")
    with pytest.raises(LayerError, match=r"shape \[1, 31, 8\].*no grid of 2x3.*--grid 5x6 fits"):
        few.explain(IMAGE)
    many = onnxcam.Explainer(path, grid=(9, 9), preprocess="unit")
    with pytest.raises(LayerError, match="layer 'norm' as a grid of 9x9 has patches"):
        many.explain(IMAGE)


def test_a_grid_of_maps_is_refused(cnn) -> None:
    with pytest.raises(LayerError, match="'r2' has rows and columns: leave out --grid"):
        onnxcam.Explainer(cnn, grid=(4, 4))
    with pytest.raises(LayerError, match="rows and columns of patches"):
        onnxcam.Explainer(cnn, grid=(0, 4))


def test_the_cache_tells_grids_apart(save) -> None:
    path = save(transformer("20,24"))
    found = [
        onnxcam.Explainer(path, grid=g, preprocess="unit", cache=True).explain(IMAGE, 1)[0]
        for g in (GRID, (6, 5), GRID)
    ]
    assert [f.signed.shape for f in found] == [(5, 6), (6, 5), (5, 6)]
    np.testing.assert_array_equal(found[0].signed, found[2].signed)


@pytest.mark.parametrize(
    ("length", "size", "grid"),
    [
        (197, (224, 224), (14, 14)),  # ViT
        (198, (224, 224), (14, 14)),  # DeiT, distilled
        (261, (224, 224), (16, 16)),  # DINOv2 with registers
        (49, (224, 224), (7, 7)),
        (50, None, (7, 7)),
        (577, (384, 384), (24, 24)),
        (129, (256, 128), (16, 8)),  # person re-identification
    ],
)
def test_likely_grids(length, size, grid) -> None:
    assert likely_grid(length, size) == grid


@pytest.mark.parametrize("length", range(1, 60))
def test_every_guess_fits(length) -> None:
    grid = likely_grid(length, (200, 300))
    assert fits(grid, length) and length - grid[0] * grid[1] <= MOST_OTHERS


# A layer [N, ., ., .] of unknown lengths and no structure that tells where its channels are.
def hintless(last: bool):
    perm = "[0, 2, 3, 1]" if last else "[0, 1, 2, 3]"
    axes = "[1, 2]" if last else "[2, 3]"
    return parse(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,3,H,W] image) => (float[N,4] scores) {{
            p = SpaceToDepth <blocksize = 4> (image)
            t = Transpose <perm = {perm}> (p)
            layer = Tanh(t)
            m = ReduceMean <axes = {axes}, keepdims = 0> (layer)
            h = MatMul(m, w)
            r = Relu(h)
            scores = MatMul(r, v)
        }}
        """,
        {
            "w": RNG.normal(size=(48, 6)).astype("f"),
            "v": RNG.normal(size=(6, 4)).astype("f"),
        },
    )


def by_hand(model, target: int) -> np.ndarray:
    """Grad-CAM where the score depends on averages over space alone."""
    w, v = ({t.name: t for t in model.graph.initializer}[n] for n in "wv")
    w, v = (np.frombuffer(t.raw_data, "f").reshape(t.dims).astype(float) for t in (w, v))
    h, wide = GRID
    blocks = IMAGE.astype(float).reshape(3, h, 4, wide, 4).transpose(1, 3, 2, 4, 0)
    a = np.tanh(blocks.reshape(h, wide, 48))
    on = (a.mean(axis=(0, 1)) @ w > 0).astype(float)
    return a @ (w @ (on * v[:, target])) / (h * wide)


def test_channels_last_that_only_the_run_tells(save) -> None:
    model = hintless(last=True)
    path = save(model)
    read_first = onnxcam.Explainer(path, layer="layer", preprocess="unit")
    with pytest.raises(
        LayerError, match=r"\[1, 5, 6, 48\].*last.* --layer 'layer:last'"
    ) as refused:
        read_first.explain(IMAGE, 1)
    assert "model.onnx: " in str(refused.value)
    for cache in (True, True):
        explainer = onnxcam.Explainer(path, layer="layer:last", preprocess="unit", cache=cache)
        [found] = explainer.explain(IMAGE, 1)
        expected = by_hand(model, 1)
        assert found.signed.shape == GRID and np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(found.signed, expected, atol=1e-5 * np.abs(expected).max())
    [forced] = onnxcam.Explainer(path, layer="layer:first", preprocess="unit").explain(IMAGE, 1)
    assert forced.signed.shape == (6, 48)


def test_methods_of_many_runs_read_each_layer_as_it_is_said(save) -> None:
    path = save(hintless(last=True))
    method = "ablation-cam"
    both = onnxcam.Explainer(path, layer=["layer:last", "p"], method=method, preprocess="unit")
    alone = onnxcam.Explainer(path, layer="layer:last", method=method, preprocess="unit")
    found, right = both.explain(IMAGE, 1)[0].signed, alone.explain(IMAGE, 1)[0].signed
    assert found.shape == GRID and np.ptp(right) > 1e-3
    np.testing.assert_allclose(found, right, atol=1e-5 * np.abs(right).max())


def test_maps_at_the_input_need_no_layer(save) -> None:
    explainer = onnxcam.Explainer(
        save(hintless(last=True)), layer="layer", method="saliency", preprocess="unit"
    )
    assert explainer.explain(IMAGE, 1)[0].signed.shape == (3, *SIZE)


def test_channels_first_that_only_the_run_tells(save) -> None:
    model = hintless(last=False)
    for layer in ("layer", "layer:first"):
        explainer = onnxcam.Explainer(save(model), layer=layer, preprocess="unit")
        [found] = explainer.explain(IMAGE, 1)
        expected = by_hand(model, 1)
        np.testing.assert_allclose(found.signed, expected, atol=1e-5 * np.abs(expected).max())


def test_where_channels_are_is_said_of_four_axes(save) -> None:
    path = save(transformer("20,24"))
    with pytest.raises(LayerError, match="'norm' .* has no four axes"):
        onnxcam.Explainer(path, layer="norm:last", preprocess="unit")


def test_tokens_of_a_signal_have_no_grid(save) -> None:
    model = parse(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,1,64] signal) => (float[N,4] scores) {{
            c = Conv <kernel_shape = [4], strides = [4]> (signal, conv)
            r = Relu(c)
            t = Transpose <perm = [0, 2, 1]> (r)
            norm = LayerNormalization(t, scale, shift)
            {ATTENDED}
        }}
        """,
        {
            "conv": np.random.default_rng(5).normal(size=(K, 1, 4)).astype("f"),
            **{n: w.astype("f") for n, w in WEIGHTS.items() if w.dtype == float},
        },
    )
    path = save(model)
    with pytest.raises(LayerError, match="'signal' takes signals: leave out --grid"):
        onnxcam.Explainer(path, grid=(4, 4))
    found = inspect(path)
    explainer = onnxcam.Explainer(path)
    assert not found.problems and found.default == "norm"
    assert explainer.plan.layer is not None and explainer.plan.layer.name.startswith("norm")
    [best] = explainer.explain(np.random.default_rng(6).normal(size=(1, 64)).astype("f"))
    assert best.heatmap.shape == (64,)


@pytest.mark.parametrize("known", [True, False])
def test_tokens_of_unknown_number_are_read_behind_the_class_token(save, known: bool) -> None:
    """As in DINOv2 where its positions are resized: patches are the last tokens."""
    last = "Identity(class)" if known else "Slice(class, zero, many, one)"
    model = parse(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,3,20,24] image) => (float[N,4] scores) {{
            p = Conv <strides = [4, 4]> (image, wp)
            f = Reshape(p, shape)
            t = Transpose <perm = [0, 2, 1]> (f)
            first = Shape <start = 0, end = 1> (image)
            often = Concat <axis = 0> (first, one, one)
            class = Expand(cls, often)
            many = Mul(first, thousand)
            some = {last}
            x = Concat <axis = 1> (some, t)
            norm = LayerNormalization(x, scale, shift)
            r = Relu(norm)
            m = ReduceMean <axes = [1], keepdims = 0> (r)
            scores = MatMul(m, wc)
        }}
        """,
        {
            **{n: w.astype("f") for n, w in WEIGHTS.items() if n in ("cls", "scale", "shift", "wc")},
            "wp": np.random.default_rng(3).normal(size=(K, 3, 4, 4)).astype("f") * np.float32(0.2),
            "shape": np.array([0, 0, -1]), "one": np.array([1]), "zero": np.array([0]),
            "thousand": np.array([1000]),
        },
    )  # fmt: skip
    explainer = onnxcam.Explainer(save(model), layer="r", method="hires-cam", preprocess="unit")
    [found] = explainer.explain(IMAGE, 1)
    assert found.signed.shape == GRID
    session = runtime(exposing(model, "r"))
    tokens = session.run(["r"], {"image": IMAGE[None]})[0][0]
    assert len(tokens) == 31
    expected = (tokens[1:] @ WEIGHTS["wc"][:, 1] / 31).reshape(GRID)
    np.testing.assert_allclose(found.signed, expected, atol=1e-5)


def exposing(model, name: str) -> bytes:
    other = onnx.ModelProto.FromString(model.SerializeToString())
    other.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    return other.SerializeToString()
