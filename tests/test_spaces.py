"""Signals, volumes, images without channels or in one row: what is explained has other axes."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import onnxcam
from onnxcam.errors import (
    LayerError,
    MethodError,
    NoImageInputError,
)
from onnxcam.kernels import Axis, View, kernels
from onnxcam.kernels.space import upsample

from .conftest import parse, runtime, shared, small_cnn
from .test_cases import CASES, arrays, case, rewritten


def explainer(model: Path | onnx.ModelProto, **options) -> onnxcam.Explainer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return onnxcam.Explainer(model, **options)


@pytest.mark.parametrize("variant", ["as it is", "neutral names"])
@pytest.mark.parametrize("name", ["signal", "volume", "stft-script", "stft-dynamo", "stft-fixed"])
def test_the_map_of_a_class(name: str, variant: str, tmp_path: Path) -> None:
    path, names = rewritten(name, tmp_path, neutral=variant != "as it is", turned=False)
    [given] = case(name)["inputs"]
    stored = arrays(name)
    want = next(w for w in case(name)["wants"] if w["expects"] == "signed")
    made = explainer(path, layer=names.get(want["layer"], want["layer"]))
    assert explainer(path).plan.layer == made.plan.layer  # the default is that layer
    right = stored[f"{want['name']}.signed"]
    for n, one in enumerate(stored[f"input.{given}"]):
        [found] = made.explain(one, want["target"]["index"])
        np.testing.assert_allclose(found.signed, right[n], rtol=0, atol=1e-4 * np.abs(right).max())
        assert found.score == pytest.approx(stored[f"{want['name']}.number"][n], rel=1e-4)
        assert found.peak is not None and len(found.peak) == found.heatmap.ndim


@pytest.mark.parametrize("name", ["stft-script", "stft-dynamo", "stft-fixed"])
def test_the_gradient_at_a_waveform(name: str) -> None:
    stored = arrays(name)
    want = next(w for w in case(name)["wants"] if w["expects"] == "gradient")
    made = explainer(CASES / f"{name}.onnx", method="saliency")
    right = stored[f"{want['name']}.gradient"]
    for n, one in enumerate(stored["input.wave"]):
        [found] = made.explain(one, want["target"]["index"])
        assert found.signed.shape == (1, one.size)
        np.testing.assert_allclose(
            found.signed[0], right[n], rtol=0, atol=1e-4 * np.abs(right).max()
        )
    with pytest.raises(MethodError, match="a map of 2 spatial axes with an input of 1"):
        explainer(made.path, method="guided-grad-cam").explain(stored["input.wave"][0])


@pytest.mark.parametrize("shape", [(5,), (3, 4), (3, 4, 2), (1, 1, 1)])
def test_maps_are_resized_linearly_along_every_axis(shape: tuple[int, ...]) -> None:
    """Against numpy.interp, axis by axis."""
    rng = np.random.default_rng(3)
    maps = rng.random((2, *shape)).astype(np.float32)
    axes = [Axis(n * 3 + 1, 1 / 3.1, 0.2, 1, n * 3) for n in shape]
    right = maps.astype(np.float64)
    for a, (axis, n) in enumerate(zip(axes, shape, strict=True), 1):
        at = (np.arange(axis.length) + 0.5) * axis.scale + axis.offset - 0.5
        right = np.apply_along_axis(lambda v, at=at, n=n: np.interp(at, range(n), v), a, right)
        hidden = [slice(None)] * right.ndim
        for part in (slice(0, axis.first), slice(axis.last, None)):
            hidden[a] = part
            right[tuple(hidden)] = 0
    np.testing.assert_allclose(upsample(maps, axes), right, atol=1e-6)


METHODS = [
    "saliency",
    "guided-grad-cam",
    "occlusion:size=4,stride=2",
    "integrated-gradients:steps=200",
]


@pytest.mark.parametrize("name", ["signal", "volume"])
@pytest.mark.parametrize("method", METHODS)
def test_methods_at_the_input(name: str, method: str) -> None:
    """Integrated gradients add up, occlusion is what one masked run says, and so on."""
    [given] = case(name)["inputs"]
    x = arrays(name)[f"input.{given}"][0]
    made = explainer(CASES / f"{name}.onnx", method=["grad-cam", "guided-backprop", method])
    cam, guided, found = made.explain(x, 1)
    places = [Axis.whole(n, m) for n, m in zip(x.shape[1:], cam.raw.shape, strict=True)]
    if method == "guided-grad-cam":
        right = guided.signed * upsample(cam.raw, places)
        np.testing.assert_allclose(found.signed, right, atol=1e-6 * np.abs(right).max())
    elif method.startswith("integrated"):
        [nothing] = made.scores(np.zeros_like(x))[1:2]
        assert found.signed.sum() == pytest.approx(cam.score - nothing, rel=1e-3)
    elif method == "saliency":
        step, index = np.float32(1e-2), np.unravel_index(np.abs(found.signed).argmax(), x.shape)
        ends = []
        for sign in (1, -1):
            moved = x.copy()
            moved[index] += sign * step
            ends.append(made.scores(moved)[1])
        assert found.signed[index] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=0.05)
    else:
        corner = x.copy()
        corner[(slice(None), *[slice(0, 4)] * (x.ndim - 1))] = 0
        first = found.signed[(0,) * (x.ndim - 1)]
        assert first == pytest.approx(cam.score - made.scores(corner)[1], abs=1e-5)
    picture = found.overlay()
    assert min(picture.size) >= 128 and np.asarray(picture).std() > 5


def channels_last(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network, its input with channels last."""
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 16
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 3
    model.graph.node.insert(
        0, onnx.helper.make_node("Transpose", ["image"], ["first"], perm=[0, 3, 1, 2])
    )
    model.graph.node[1].input[0] = "first"
    return model


@pytest.mark.parametrize("method", ["guided-grad-cam", "deconv-grad-cam", "saliency"])
def test_channels_last_change_nothing(method: str) -> None:
    x = np.random.default_rng(4).random((3, 16, 16), np.float32)
    [right] = explainer(small_cnn(), method=method).explain(x, 2)
    last = np.ascontiguousarray(np.moveaxis(x, 0, -1))
    [found] = explainer(channels_last(small_cnn()), method=method).explain(last, 2)
    np.testing.assert_allclose(found.signed, right.signed, atol=1e-6 * np.abs(right.signed).max())


def test_guided_grad_cam_of_a_real_model_with_channels_last() -> None:
    made = explainer(
        shared("models", "resnet50-keras-w8.onnx"),
        method=["grad-cam", "guided-backprop", "guided-grad-cam"],
    )
    cam, guided, fused = made.explain(shared("images", "two_objects", "both.png"))
    heat = kernels().upsample(cam.raw, View.whole((224, 224), cam.raw.shape))
    right = guided.signed * heat
    np.testing.assert_allclose(fused.signed, right, atol=1e-6 * np.abs(right).max())


BARE = {
    # how the input becomes [N, 1, 12, 16]
    "float[N,12,16] x": "m = Unsqueeze (x, axes)",
    "float[N,192] x": "m = Reshape (x, grid)",
    "float[N,1,12,16] x": "m = Identity (x)",
}


def bare(given: str) -> onnx.ModelProto:
    rng = np.random.default_rng(5)
    return parse(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net ({given}) => (float[N,3] y) {{
            {BARE[given]}
            c = Conv <pads=[1,1,1,1]> (m, w)
            r = Relu (c)
            p = GlobalAveragePool (r)
            f = Flatten (p)
            y = Gemm (f, v)
        }}
        """,
        {
            "axes": np.array([1], np.int64),
            "grid": np.array([-1, 1, 12, 16], np.int64),
            "w": rng.normal(size=(5, 1, 3, 3)).astype(np.float32),
            "v": rng.normal(size=(5, 3)).astype(np.float32),
        },
    )


@pytest.mark.parametrize("given", list(BARE)[:2])
def test_images_without_channels(given: str, tmp_path: Path) -> None:
    """As ready arrays and as photographs, at the layer and at the input."""
    methods = ["grad-cam", "saliency", "guided-grad-cam", "occlusion:size=4,stride=2"]
    card = {"color": "grey", "divide": 255}
    usual = explainer(bare("float[N,1,12,16] x"), method=methods, preprocess=card)
    other = explainer(bare(given), method=methods, preprocess=card)
    pixels = np.random.default_rng(6).integers(0, 256, (30, 40), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    x = np.random.default_rng(7).random((1, 12, 16), np.float32)
    ready = x.reshape(other.plan.image.shape)
    for one, another in ((x, ready), (tmp_path / "grey.png",) * 2, (pixels, pixels)):
        for right, found in zip(usual.explain(one, 1), other.explain(another, 1), strict=True):
            assert found.signed.shape == right.signed.shape
            np.testing.assert_allclose(found.signed, right.signed, atol=1e-6)
            assert found.overlay().size == right.overlay().size
    # The maps are the image's, not its pixels' in a row.
    assert usual.explain(x, 1)[0].signed.shape == (12, 16)


def test_a_network_without_convolution() -> None:
    """A dense one of 784 numbers: an image of 28 by 28, explained at the input."""
    rng = np.random.default_rng(8)
    weights = rng.normal(size=(784, 3)).astype(np.float32)
    model = parse(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,784] x) => (float[N,3] y) { y = Gemm (x, v) }
        """,
        {"v": weights},
    )
    made = explainer(model, method="saliency", preprocess={"color": "grey", "divide": 255})
    [found] = made.explain(Image.fromarray(rng.integers(0, 256, (28, 28), np.uint8)), 2)
    np.testing.assert_allclose(found.signed[0], weights[:, 2].reshape(28, 28), rtol=1e-6)


def test_a_table_is_no_image() -> None:
    model = parse(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,13] x) => (float[N,3] y) { y = Gemm (x, v) }
        """,
        {"v": np.ones((13, 3), np.float32)},
    )
    with pytest.raises(NoImageInputError, match="no input takes an image"):
        onnxcam.Explainer(model)


def test_pixels_of_opencv_or_pil() -> None:
    """[H, W, 3] of 8 bits is a photograph; a batch of them, too."""
    made = onnxcam.Explainer(onnxcam.default_model())
    photo = Image.open(onnxcam.default_photograph()).convert("RGB")
    [right] = made.explain(photo)
    [found] = made.explain(np.asarray(photo))
    np.testing.assert_array_equal(found.signed, right.signed)
    both = made.explain_batch(np.stack([np.asarray(photo)] * 2))
    np.testing.assert_allclose(both[1][0].signed, right.signed, atol=1e-5)


def test_the_region_of_a_volume() -> None:
    """Scores of voxels by one linear layer: sum_k mean_S(w_k R) A_k, with the region R."""
    rng = np.random.default_rng(10)
    first, last = rng.normal(size=(4, 1, 3, 3, 3)), rng.normal(size=(2, 4, 1, 1, 1))
    model = parse(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,1,6,8,10] x) => (float[N,2,6,8,10] y) {
            c = Conv <pads=[1,1,1,1,1,1]> (x, first)
            a = Relu (c)
            y = Conv (a, last)
        }
        """,
        {"first": first.astype(np.float32), "last": last.astype(np.float32)},
    )
    x = rng.normal(size=(1, 6, 8, 10)).astype(np.float32)
    [a, y] = runtime(add_output(model, "a")).run(["a", "y"], {"x": x[None]})
    [found] = explainer(model).explain(x, "region:1")
    region = y[0].argmax(axis=0) == 1
    assert 0 < region.sum() < region.size
    assert found.score == pytest.approx(y[0, 1][region].sum(), rel=1e-5)
    weights = last[1].reshape(4) * region.mean()
    right = np.tensordot(weights, a[0], axes=1)
    np.testing.assert_allclose(found.signed, right, atol=1e-5 * np.abs(right).max())


def add_output(model: onnx.ModelProto, name: str, shape: object = None) -> onnx.ModelProto:
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, shape))
    return model


def test_tokens_of_a_signal_whose_layers_share_weights() -> None:
    """Exporters write weights that are the same twice as Identity of one."""
    rng = np.random.default_rng(12)
    wanted = {"c": (8, 1, 4), "q": (8, 8), "v": (8, 3), "scale": (8,), "bias": (8,)}
    model = parse(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,40] x) => (float[N,3] y) {
            axes = Constant <value_ints = [1]> ()
            m = Unsqueeze (x, axes)
            maps = Conv <strides=[4]> (m, c)
            t = Transpose <perm=[0,2,1]> (maps)
            n = LayerNormalization (t, scale, bias)
            again = Identity (q)
            query = MatMul (n, again)
            key = MatMul (n, again)
            turned = Transpose <perm=[0,2,1]> (key)
            product = MatMul (query, turned)
            weights = Softmax (product)
            value = MatMul (n, again)
            mixed = MatMul (weights, value)
            pooled = ReduceMean <axes=[1], keepdims=0> (mixed)
            y = MatMul (pooled, v)
        }
        """,
        {n: rng.normal(size=s).astype(np.float32) for n, s in wanted.items()},
    )
    x = rng.normal(size=40).astype(np.float32)
    with pytest.warns(UserWarning, match="Attention mixes the places of the layer 'n:maps'"):
        made = onnxcam.Explainer(model)
    [found] = made.explain(x, 1)
    assert found.signed.shape == (10,) and found.heatmap.shape == (40,)
    full = onnxcam.add_gradients(add_output(model, "n", [None, None, 8]), "y", "n")
    seed = np.array([[[0, 1, 0]]], np.float32)
    n, g = runtime(full).run(["n", "gradient:n"], {"x": x[None], "seed:y": seed})
    right = n[0] @ g[0, 0].mean(axis=0)
    np.testing.assert_allclose(found.signed, right, atol=1e-5 * np.abs(right).max())


def test_a_network_without_maps_names_the_way_out() -> None:
    model = parse(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,1,8,8] x) => (float[N,3] y) {
            f = Flatten (x)
            y = Gemm (f, v)
        }
        """,
        {"v": np.ones((64, 3), np.float32)},
    )
    x = np.ones((1, 8, 8), np.float32)
    with pytest.raises(LayerError, match="at the input: --method saliency"):
        explainer(model).explain(x)
    assert explainer(model, method="saliency").explain(x)[0].signed.shape == (1, 8, 8)
