"""Resizing, fusing and painting: the reference against a loop, native against the reference."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from onnxcam.imaging.colour import colour_table
from onnxcam.kernels import Axis, View, reference

from .sides import BOTH, TYPES
from .views import axis, views


def upsample_by_loop(raw: np.ndarray, view: View) -> np.ndarray:
    out = np.zeros(view.size)
    for y in range(view.rows.first, view.rows.last):
        for x in range(view.columns.first, view.columns.last):
            total = weight = 0.0
            v = np.clip((y + 0.5) * view.rows.scale + view.rows.offset - 0.5, 0, raw.shape[0] - 1)
            u = np.clip(
                (x + 0.5) * view.columns.scale + view.columns.offset - 0.5, 0, raw.shape[1] - 1
            )
            for i in range(raw.shape[0]):
                for j in range(raw.shape[1]):
                    w = max(0.0, 1 - abs(v - i)) * max(0.0, 1 - abs(u - j))
                    total += w * raw[i, j]
                    weight += w
            assert abs(weight - 1) < 1e-9
            out[y, x] = total
    return out


def paint_by_loop(
    photo: np.ndarray, raw: np.ndarray, view: View, table: np.ndarray, alpha: float, shade: float
) -> np.ndarray:
    heat = upsample_by_loop(raw, view)
    peak = heat.max(initial=0) or 1
    out = np.zeros(photo.shape)
    for y, x in np.ndindex(*view.size):
        if view.rows.first <= y < view.rows.last and view.columns.first <= x < view.columns.last:
            level = round(255 * max(heat[y, x], 0) / peak)
            weight = alpha if level >= 127.5 else alpha * level / 127.5
            out[y, x] = photo[y, x] + weight * (table[level] - photo[y, x].astype(float))
        else:
            out[y, x] = photo[y, x] * shade
    return out


VIEWS = views(8)


@settings(deadline=None, max_examples=60)
@given(VIEWS, st.integers(0, 2**32 - 1))
def test_upsample_and_its_maximum(
    shape: tuple[int, int, int, int, float, float], seed: int
) -> None:
    h, w, height, width, zoom, offset = shape
    raw = np.random.default_rng(seed).uniform(0, 3, size=(h, w)).astype(np.float32)
    view = View(
        axis(height, h, zoom * h / height, offset), axis(width, w, zoom * w / width, -offset)
    )
    expected = upsample_by_loop(raw, view)
    for kernels in BOTH:
        found = kernels.upsample(raw, view)
        assert_allclose(found, expected, atol=1e-5)
        assert abs(kernels.upsampled_max(raw, view) - found.max(initial=0)) <= 1e-6


@settings(deadline=None, max_examples=60)
@given(VIEWS, st.integers(0, 3), st.booleans(), TYPES, st.integers(0, 2**32 - 1))
def test_upsample_many_and_normalised(
    shape: tuple[int, int, int, int, float, float],
    count: int,
    normalise: bool,
    kind: type,
    seed: int,
) -> None:
    h, w, height, width, zoom, offset = shape
    raw = np.random.default_rng(seed).normal(0, 3, size=(count, 1, h, w)).astype(kind)
    view = View(
        axis(height, h, zoom * h / height, offset), axis(width, w, zoom * w / width, -offset)
    )
    expected = np.zeros((count, 1, height, width))
    for i in range(count):
        expected[i, 0] = upsample_by_loop(raw[i, 0].astype(float), view)
        peak = expected[i, 0].max()
        if normalise and peak > 0:
            expected[i, 0] /= peak
    for kernels in BOTH:
        found = kernels.upsample(raw, view, normalise=normalise)
        assert found.dtype == np.float32 and found.shape == expected.shape
        assert_allclose(found, expected, atol=1e-5 * max(np.abs(expected).max(initial=0), 1))
        assert not normalise or found.max(initial=0) <= 1


@settings(deadline=None, max_examples=60)
@given(
    VIEWS,
    st.lists(st.integers(0, 2), max_size=2),
    st.integers(0, 3),
    st.booleans(),
    TYPES,
    TYPES,
    st.integers(0, 2**32 - 1),
)
def test_fuse(
    shape: tuple[int, int, int, int, float, float],
    leading: list[int],
    channels: int,
    whole: bool,
    one: type,
    other: type,
    seed: int,
) -> None:
    h, w, height, width, zoom, offset = shape
    rng = np.random.default_rng(seed)
    raw = rng.uniform(0, 3, size=(*leading, h, w)).astype(one)
    guided = rng.normal(size=(*leading, channels, height, width)).astype(other)
    view = View(
        axis(height, h, zoom * h / height, offset), axis(width, w, zoom * w / width, -offset)
    )
    if whole:
        view = View.whole((height, width), (h, w))
    expected = guided.astype(float)
    for at in np.ndindex(*leading):
        expected[at] *= upsample_by_loop(raw[at].astype(float), view)
    for kernels in BOTH:
        found = kernels.fuse(guided, raw, None if whole else view)
        assert found.dtype == np.float32 and found.shape == expected.shape
        assert_allclose(found, expected, atol=1e-5 * max(np.abs(expected).max(initial=0), 1))


def test_fuse_is_guided_grad_cam() -> None:
    """Where the map is 1 the guided gradient stays; what does not fit is refused."""
    guided = np.random.default_rng(0).normal(size=(2, 4, 3, 20, 30)).astype("f")
    for kernels in BOTH:
        assert_array_equal(kernels.fuse(guided, np.ones((2, 4, 7, 7), "f")), guided)
        views = kernels.fuse(guided[:, ::2, ::-1, :, ::3], np.ones((2, 2, 7, 7), "f"))
        assert_array_equal(views, guided[:, ::2, ::-1, :, ::3])
        for raw in (np.ones((2, 7, 7), "f"), np.ones((2, 3, 7, 7), "f"), np.ones(7, "f")):
            with pytest.raises(ValueError, match="does not fit"):
                kernels.fuse(guided, raw)
        with pytest.raises(ValueError, match="does not fit"):
            kernels.fuse(guided, np.ones((2, 4, 7, 7), "f"), View.whole((20, 31), (7, 7)))


@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_elements_that_are_not_finite_are_read_as_0(wrong: float, kind: type) -> None:
    raw = np.random.default_rng(0).uniform(0, 3, size=(5, 6)).astype(kind)
    zero = raw.copy()
    raw[1, 2] = raw[4, 5] = wrong
    zero[1, 2] = zero[4, 5] = 0
    view = View.whole((31, 44), (5, 6))
    photo = np.full((31, 44, 3), 100, np.uint8)
    guided = np.ones((3, 31, 44), "f")
    for kernels in BOTH:
        assert_array_equal(kernels.upsample(raw, view), kernels.upsample(zero, view))
        assert kernels.upsampled_max(raw, view) == kernels.upsampled_max(zero, view)
        assert_array_equal(kernels.fuse(guided, raw), kernels.fuse(guided, zero))
        assert_array_equal(
            kernels.paint(photo, raw, view, colour_table(), 0.5, 0.5),
            kernels.paint(photo, zero, view, colour_table(), 0.5, 0.5),
        )
        guided[1, 2, 3] = np.nan
        assert np.isnan(kernels.fuse(guided, raw)).sum() == 1


@pytest.mark.parametrize("scale", [1e-45, 1e-39, 1e-30, 1e30])
def test_very_small_and_very_large_maps(scale: float) -> None:
    raw = np.array([[0, 1, 2], [3, -1, 4]], float) * scale
    raw = raw.astype(np.float32)
    view = View.whole((9, 11), (2, 3))
    photo = np.full((9, 11, 3), 100, np.uint8)
    normal = reference.upsample(raw, view, normalise=True)
    painted = reference.paint(photo, raw, view, colour_table(), 1, 0)
    for kernels in BOTH:
        # A subnormal number has few digits.
        tolerance = 0.3 if scale < 1e-40 else 1e-5
        assert_allclose(kernels.upsample(raw, view, normalise=True), normal, atol=tolerance)
        found = kernels.paint(photo, raw, view, colour_table(), 1, 0)
        if scale > 1e-40:
            assert np.abs(found.astype(int) - painted).max() <= 20


def test_views_that_show_what_they_do_not_have_are_refused() -> None:
    good = Axis.whole(10, 3)
    raw, photo = np.ones((3, 3), "f"), np.zeros((10, 10, 3), np.uint8)
    wrong = [Axis(10, 0.3, 0, -1, 10), Axis(10, 0.3, 0, 0, 11), Axis(10, 0.3, 0, 6, 5)]
    wrong += [Axis(10, np.nan, 0, 0, 10), Axis(10, 0.3, np.inf, 0, 10)]
    for kernels, one in itertools.product(BOTH, wrong):
        for view in (View(one, good), View(good, one)):
            for call in (kernels.upsample, kernels.upsampled_max):
                with pytest.raises(ValueError, match="visible pixels|finite"):
                    call(raw, view)
            with pytest.raises(ValueError, match="visible pixels|finite"):
                kernels.paint(photo, raw, view, colour_table(), 0.5, 0.5)
    for kernels in BOTH:
        view = View(good, good)
        with pytest.raises(ValueError, match="do not fit"):
            kernels.paint(photo[1:], raw, view, colour_table(), 0.5, 0.5)
        for weight in (-0.1, 1.1, np.nan):
            with pytest.raises(ValueError, match="between 0 and 1"):
                kernels.paint(photo, raw, view, colour_table(), weight, 0.5)


def test_upsample_equals_pillow() -> None:
    """Pillow's bilinear enlargement has half-pixel centres too."""
    raw = np.random.default_rng(1).uniform(size=(7, 5)).astype("f")
    view = View(axis(300, 7, 7 / 300, 0), axis(451, 5, 5 / 451, 0))
    expected = np.asarray(Image.fromarray(raw).resize((451, 300), Image.Resampling.BILINEAR))
    for kernels in BOTH:
        assert_allclose(kernels.upsample(raw, view), expected, atol=2e-6)


@settings(deadline=None, max_examples=40)
@given(VIEWS, st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1))
def test_paint(
    shape: tuple[int, int, int, int, float, float], seed: int, alpha: float, shade: float
) -> None:
    h, w, height, width, zoom, offset = shape
    rng = np.random.default_rng(seed)
    raw = rng.uniform(0, 3, size=(h, w)).astype(np.float32)
    photo = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    view = View(
        axis(height, h, zoom * h / height, offset), axis(width, w, zoom * w / width, -offset)
    )
    table = colour_table()
    one = reference.paint(photo, raw, view, table, alpha, shade).astype(int)
    steps = np.abs(np.diff(table.astype(int), axis=0)).max()
    wanted = paint_by_loop(photo, raw, view, table, alpha, shade)
    assert np.abs(one - wanted).max(initial=0) <= steps + 3
    assert one.size < 300 or np.abs(one - wanted).mean() < 0.3
    for kernels in BOTH[1:]:
        other = kernels.paint(photo, raw, view, table, alpha, shade).astype(int)
        # Rounding may choose the neighbouring colour and weight, and differ by one level.
        assert np.abs(one - other).max(initial=0) <= steps + 3
        assert other.size < 300 or np.abs(one - other).mean() < 0.6


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.6, 1.0])
def test_cold_places_show_the_photograph_as_it_is(alpha: float) -> None:
    """One pixel a level: its weight grows up to half of the peak, and stays alpha from there."""
    raw = np.arange(256, dtype=np.float32)[None]
    view = View.whole((1, 256), (1, 256))
    table = np.full((256, 3), 200, np.uint8)
    for black, kernels in itertools.product((0, 255), BOTH):
        photo = np.full((1, 256, 3), black, np.uint8)
        found = kernels.paint(photo, raw, view, table, alpha, 0.5)[0].astype(float)
        weight = alpha * np.minimum(np.arange(256) / 127.5, 1)
        wanted = black + weight[:, None] * (200.0 - black)
        assert np.abs(found - wanted).max() <= 1
        assert_array_equal(found[0], photo[0, 0])


def test_blending_rounds_to_the_nearest() -> None:
    """Every photograph's level with every weight that the C kernel has, exactly."""
    photo = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    raw, view = np.ones((1, 1), "f"), View.whole((256, 1), (1, 1))
    for weight in range(256):
        table = np.full((256, 3), (7 * weight + 31) % 256, np.uint8)
        exact = photo.astype(int) * (255 - weight) + table[0, 0].astype(int) * weight
        for kernels in BOTH[1:]:
            found = kernels.paint(photo, raw, view, table, weight / 255, 0.5)
            assert_array_equal(found, (2 * exact + 255) // 510)


@pytest.mark.parametrize(
    "raw", [np.zeros((7, 7), "f"), np.full((7, 7), 2.5, "f"), np.ones((1, 1), "f")]
)
def test_flat_maps(raw: np.ndarray) -> None:
    size = raw.shape[0]
    view = View(axis(20, size, size / 20, 0), axis(30, size, size / 30, 0))
    photo = np.full((20, 30, 3), 100, np.uint8)
    level = 255 if raw.max() > 0 else 0
    expected = np.rint(0.5 * 100 + 0.5 * colour_table()[level].astype(float)) if level else photo
    for kernels in BOTH:
        painted = kernels.paint(photo, raw, view, colour_table(), 0.5, 0.5)
        assert np.abs(painted - expected).max() <= 1
        assert_allclose(kernels.upsample(raw, view), np.full((20, 30), raw[0, 0]), rtol=1e-6)


def test_nothing_visible_and_empty_maps() -> None:
    hidden = Axis(10, 0.1, 5.0, 0, 0)
    photo = np.full((10, 10, 3), 200, np.uint8)
    for raw, view in (
        (np.ones((3, 3), "f"), View(hidden, hidden)),
        (np.zeros((0, 0), "f"), View(Axis(10, 0.1, 0, 0, 10), Axis(10, 0.1, 0, 0, 10))),
    ):
        for kernels in BOTH:
            assert not kernels.upsample(raw, view).any()
            assert kernels.upsampled_max(raw, view) == 0
            painted = kernels.paint(photo, raw, view, colour_table(), 0.5, 0.5)
            assert (painted == 100).all()
