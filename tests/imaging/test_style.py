"""Options of pictures, against what NumPy and Pillow make of the heatmap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cmap import Colormap
from PIL import Image

import onnxcam
from onnxcam import Explanation, Style
from onnxcam.errors import PictureError
from onnxcam.imaging.captions import LEAST, evidence_bar, heat_bar, with_strip
from onnxcam.imaging.colour import colour_table
from onnxcam.imaging.smooth import bicubic
from onnxcam.kernels import Axis
from onnxcam.kernels.space import upsample
from onnxcam.targets.detections import Detected, Detection

from ..test_cases import CASES, arrays


@pytest.fixture(scope="module")
def cat() -> Explanation:
    """A photograph whose borders are cropped away, with a made-up map that is cold in parts."""
    [found] = onnxcam.Explainer(onnxcam.default_model()).explain(onnxcam.default_photograph())
    signed = np.random.default_rng(2).normal(size=(7, 7)).astype(np.float32)
    return replace(found, signed=signed, on_device=None)


def keys(x: float) -> float:
    """The kernel of Keys 1981, eq. 15."""
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def along(values: np.ndarray, axis: Axis) -> np.ndarray:
    """Resize one line of numbers, the slow and obvious way."""
    out = np.zeros(axis.length)
    for x in range(axis.first, axis.last):
        u = min(max((x + 0.5) * axis.scale + axis.offset - 0.5, 0), len(values) - 1)
        for i in range(-3, len(values) + 3):
            out[x] += keys(u - i) * values[min(max(i, 0), len(values) - 1)]
    return out


def painted(photo: np.ndarray, heat: np.ndarray, seen: np.ndarray, style: Style) -> np.ndarray:
    """The picture of a heatmap, its colours taken from the package cmap."""
    colours = np.asarray(Colormap(style.colours)(heat))[..., :3] * 255
    weight = (style.alpha * np.clip(2 * heat, 0, 1))[..., None]
    mixed = photo + weight * (colours - photo)
    return np.where(seen[..., None], mixed, style.shade * photo)


@pytest.mark.parametrize(
    ("counts", "axes"),
    [
        ((7, 5), (Axis.whole(40, 7), Axis(33, 5 / 20, -1.2, 5, 26))),
        ((1, 2), (Axis.whole(9, 1), Axis.whole(3, 2))),
        ((6,), (Axis(50, 0.15, -0.5, 3, 44),)),
        ((3, 4, 2), (Axis.whole(8, 3), Axis.whole(5, 4), Axis(7, 0.4, -0.3, 1, 6))),
    ],
)
def test_bicubic(counts: tuple[int, ...], axes: tuple[Axis, ...]) -> None:
    maps = np.random.default_rng(0).normal(size=(2, *counts))
    wanted = maps
    for n, axis in enumerate(axes):
        wanted = np.apply_along_axis(along, n + 1, wanted, axis)
    np.testing.assert_allclose(bicubic(maps, axes), wanted, atol=1e-6)
    broken = maps.copy()
    broken[0].flat[0] = np.nan
    maps[0].flat[0] = 0
    np.testing.assert_array_equal(bicubic(broken, axes), bicubic(maps, axes))


def test_bicubic_is_pillows_away_from_the_edges() -> None:
    raw = np.random.default_rng(1).random((7, 9)).astype(np.float32)
    wanted = np.asarray(Image.fromarray(raw).resize((90, 70), Image.Resampling.BICUBIC))
    found = bicubic(raw, [Axis.whole(70, 7), Axis.whole(90, 9)])
    inside = np.s_[15:-15, 15:-15]
    np.testing.assert_allclose(found[inside], wanted[inside], atol=1e-5)


@pytest.mark.parametrize(
    "style", [Style(), Style(1.0, "viridis", 0.2), Style(0.4, smooth=True)], ids=str
)
def test_an_overlay(cat: Explanation, style: Style) -> None:
    heat = cat.heatmap.astype(float)
    if style.smooth:
        heat = np.maximum(bicubic(cat.raw, cat.places), 0)
        heat = heat / heat.max()
        assert np.abs(heat - cat.heatmap).max() > 0.02
    wanted = painted(cat.photo, heat, cat.visible, style)
    found = np.asarray(cat.overlay(style)).astype(float)
    assert np.abs(found - wanted).max() <= 8 and np.abs(found - wanted).mean() < 0.7
    cold = cat.visible & (heat < 1 / 520)
    assert cold.sum() > 100
    np.testing.assert_array_equal(found[cold], cat.photo[cold])
    same = cat.overlay(
        alpha=style.alpha, colours=style.colours, shade=style.shade, smooth=style.smooth
    )
    np.testing.assert_array_equal(np.asarray(same), found)


def test_side_by_side(cat: Explanation) -> None:
    whole, alone = np.asarray(cat.overlay(side_by_side=True)), np.asarray(cat.overlay())
    height, width = cat.photo.shape[:2]
    np.testing.assert_array_equal(whole[:, :width], cat.photo)
    np.testing.assert_array_equal(whole[:, -width:], alone)
    assert whole.shape == (height, 2 * width + 8, 3) and (whole[:, width:-width] == 255).all()


def test_a_caption(cat: Explanation) -> None:
    alone, whole = np.asarray(cat.overlay()), np.asarray(cat.overlay(caption=True))
    height, width = alone.shape[:2]
    np.testing.assert_array_equal(whole[:height], alone)
    strip = whole[height:].astype(int)
    assert strip[:, : width // 2].min() < 60 and (strip[-2:] == 255).all()
    # The bar's last colour is the hottest of a white photograph.
    last = colour_table()[255]
    hottest = np.rint(255 * 0.4 + 0.6 * last.astype(float))
    assert (np.abs(strip - hottest).max(axis=-1) <= 6).sum() >= 5


def test_what_captions_say(cat: Explanation) -> None:
    heat, signs = heat_bar(colour_table(), 0.6), evidence_bar(0.6)
    seen = Detection(3, "dog", 0.59, (20, 30, 90, 80), 0)
    size = cat.photo.shape[:2]
    pixels = replace(cat, space="input", layer="input", signed=np.ones((224, 224), np.float32))
    coloured = replace(pixels, signed=np.ones((3, 224, 224), np.float32))
    boxed = replace(cat, detected=Detected((seen,), 0), element="box:0", target=None, label=None)
    nothing = replace(cat, note="zero", signed=cat.signed * 0)
    score = f"score {cat.score:.4g}"
    for one, lines, bar in (
        (cat, [f"tiger cat, {score}", "grad-cam, head.relu6"], heat),
        (replace(cat, label=None), [f"class 282, {score}", "grad-cam, head.relu6"], heat),
        (boxed, ["dog, probability 0.59", "grad-cam, head.relu6"], heat),
        (replace(boxed, detected=None), [f"box:0, {score}", "grad-cam, head.relu6"], heat),
        (pixels, [f"tiger cat, {score}", "grad-cam, input"], signs),
        (coloured, [f"tiger cat, {score}", "grad-cam, input"], None),
        (nothing, [f"tiger cat, {score}", "grad-cam, head.relu6"], None),
    ):
        wanted = with_strip(one.overlay(), lines, *([] if bar is None else [bar]))
        np.testing.assert_array_equal(np.asarray(one.overlay(caption=True)), np.asarray(wanted))
        assert wanted.size[1] > size[0]


def test_the_bars() -> None:
    bar = heat_bar(colour_table(), 0.5)
    assert (bar.colours[0] == 255).all()
    np.testing.assert_allclose(bar.colours[200], 127.5 + colour_table()[200] / 2, atol=0.51)
    against, for_ = evidence_bar(1.0).colours[[0, -1]]
    assert against[2] > against[0] + 50 and for_[0] > for_[2] + 50


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_evidence_is_as_strong_as_its_weight(cat: Explanation, alpha: float) -> None:
    rng = np.random.default_rng(3)
    signed = rng.uniform(-1, 1, (224, 224)).astype(np.float32)
    found = replace(cat, space="input", signed=signed)
    heat = upsample(signed, found.places).astype(float)
    size = np.minimum(np.abs(heat) / np.percentile(np.abs(heat), 99), 1)[..., None]
    grey = cat.photo.mean(axis=-1, keepdims=True)
    colour = np.where(heat[..., None] > 0, (178, 24, 43), (33, 102, 172))
    wanted = grey + alpha * size * (colour - grey)
    assert np.abs(np.asarray(found.overlay(alpha=alpha)) - wanted).max() <= 0.51


def test_long_lines_leave_the_bar_alone() -> None:
    bar = heat_bar(colour_table(), 1.0)
    picture = Image.new("RGB", (300, 20))
    short = np.asarray(with_strip(picture, ["a", "b"], bar))
    long = np.asarray(with_strip(picture, ["a" * 400, "b"], bar))
    assert (short != long).any()
    right = 300 - 300 // 4 - 12
    np.testing.assert_array_equal(short[:, right:], long[:, right:])


def test_small_pictures_are_enlarged_and_narrow_ones_centred() -> None:
    small = np.random.default_rng(0).integers(0, 256, (28, 20, 3)).astype(np.uint8)
    found = np.asarray(with_strip(Image.fromarray(small), ["a"]))
    assert found.shape[1] == LEAST
    left = (LEAST - 9 * 20) // 2
    middle = found[: 9 * 28, left : left + 9 * 20]
    np.testing.assert_array_equal(middle, small.repeat(9, 0).repeat(9, 1))


@pytest.mark.parametrize("name", ["alpha", "shade"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_weights_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(PictureError, match="between 0 and 1"):
        Style(**{name: value})


def test_unknown_colours_are_refused_and_the_named_ones_are_known(cat: Explanation) -> None:
    with pytest.raises(PictureError, match="Take turbo, viridis, magma or another"):
        cat.overlay(colours="rainbows")
    pictures = [np.asarray(cat.overlay(colours=c)) for c in ("turbo", "viridis", "magma")]
    assert (pictures[0] != pictures[1]).any() and (pictures[1] != pictures[2]).any()
    with pytest.raises(TypeError, match="opacity"):
        cat.overlay(opacity=1)


@pytest.mark.skipif(not (CASES / "cases.json").exists(), reason=f"no cases at {CASES}")
@pytest.mark.parametrize("smooth", [False, True])
def test_a_signal_is_white_where_it_is_cold(smooth: bool) -> None:
    explainer = onnxcam.Explainer(CASES / "signal.onnx")
    given = next(value for key, value in arrays("signal").items() if key.startswith("input."))
    found = explainer.explain(given[0])[0]
    length = given.shape[-1]
    heat = found.heatmap.astype(float)
    if smooth:
        heat = np.maximum(bicubic(found.raw, found.places), 0)
        heat /= heat.max()
    colours = np.asarray(Colormap("turbo")(heat))[..., :3] * 255
    wanted = 255 + (0.6 * np.minimum(2 * heat, 1))[:, None] * (colours - 255)
    picture = np.asarray(found.overlay(smooth=smooth)).astype(float)
    # Of every column the lightest pixel is no part of the line.
    place = ((np.arange(length) + 0.5) * picture.shape[1] / length).astype(int)
    shown = np.median(picture[:160, place], axis=0)
    assert np.abs(shown - wanted).max() <= 6
    sides = found.overlay(smooth=smooth, side_by_side=True)
    assert sides.width == 2 * picture.shape[1] + 8
    assert (np.median(np.asarray(sides)[:160, place], axis=0) == 255).all()
