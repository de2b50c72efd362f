"""Reference against an obvious loop, native against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from PIL import Image

from onnxcam.imaging.colour import colour_table
from onnxcam.kernels import Axis, View, kernels_name, reference

native = pytest.importorskip("onnxcam.kernels.native", reason="the C kernels were not built")
BOTH = [reference, native]


def test_the_native_kernels_are_the_ones_in_use() -> None:
    assert kernels_name() == "native"


def combine_by_loop(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    n, t, k = g.shape[:3]
    out = np.zeros((n, t, *a.shape[2:]))
    for i in range(n):
        for j in range(t):
            for c in range(k):
                out[i, j] += g[i, j, c].astype(float).mean() * a[i, c]
    return out


shapes = st.tuples(
    st.integers(0, 3),
    st.integers(1, 3),
    st.sampled_from([1, 2, 7, 33, 512]),
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
)


@settings(deadline=None, max_examples=60)
@given(shapes, st.integers(0, 2**32 - 1))
def test_combine(shape: tuple[int, int, int, list[int]], seed: int) -> None:
    n, t, k, space = shape
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, k, *space)).astype(np.float32)
    g = rng.normal(size=(n, t, k, *space)).astype(np.float32)
    expected = combine_by_loop(a, g)
    weights = np.abs(g.astype(float).mean(axis=tuple(range(3, g.ndim))))
    parts = weights[(...,) + (None,) * len(space)] * np.abs(a[:, None])
    scale = parts.sum(axis=2).max(initial=0)
    for kernels in BOTH:
        found = kernels.combine(a, g)
        assert found.dtype == np.float32 and found.shape == expected.shape
        assert np.abs(found - expected).max(initial=0) <= 1e-5 * scale


def test_combine_takes_views_and_refuses_misfits() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(2, 6, 4, 5)).astype("f")
    g = rng.normal(size=(3, 2, 6, 4, 5)).astype("f").swapaxes(0, 1)
    assert_allclose(native.combine(a, g), reference.combine(a, g), atol=1e-5)
    assert_allclose(
        native.combine(a[:, ::2], g[:, :, ::2]),
        reference.combine(a[:, ::2], g[:, :, ::2]),
        atol=1e-5,
    )
    with pytest.raises(ValueError, match="do not fit"):
        native.combine(a, g[:, :, :5])


def axis(length: int, size: int, scale: float, offset: float) -> Axis:
    """Visible are the pixels whose centre falls on a map of ``size`` elements."""
    u = (np.arange(length) + 0.5) * scale + offset
    seen = np.flatnonzero((u >= 0) & (u <= size))
    return Axis(length, scale, offset, *((seen[0], seen[-1] + 1) if seen.size else (0, 0)))


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


views = st.tuples(
    st.integers(1, 8),
    st.integers(1, 8),
    st.integers(1, 40),
    st.integers(1, 40),
    st.floats(0.4, 2.0),
    st.floats(-3.0, 3.0),
)


@settings(deadline=None, max_examples=60)
@given(views, st.integers(0, 2**32 - 1))
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


def test_upsample_equals_pillow() -> None:
    """Pillow's bilinear enlargement has half-pixel centres too."""
    raw = np.random.default_rng(1).uniform(size=(7, 5)).astype("f")
    view = View(axis(300, 7, 7 / 300, 0), axis(451, 5, 5 / 451, 0))
    expected = np.asarray(Image.fromarray(raw).resize((451, 300), Image.Resampling.BILINEAR))
    for kernels in BOTH:
        assert_allclose(kernels.upsample(raw, view), expected, atol=2e-6)


@settings(deadline=None, max_examples=40)
@given(views, st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1))
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
    other = native.paint(photo, raw, view, table, alpha, shade).astype(int)
    steps = np.abs(np.diff(table.astype(int), axis=0)).max()
    # Rounding may choose the neighbouring colour, and differ by one level.
    assert np.abs(one - other).max(initial=0) <= steps + 1
    assert np.abs(one - other).mean() < 0.6


@pytest.mark.parametrize(
    "raw", [np.zeros((7, 7), "f"), np.full((7, 7), 2.5, "f"), np.ones((1, 1), "f")]
)
def test_flat_maps(raw: np.ndarray) -> None:
    size = raw.shape[0]
    view = View(axis(20, size, size / 20, 0), axis(30, size, size / 30, 0))
    photo = np.full((20, 30, 3), 100, np.uint8)
    level = 255 if raw.max() > 0 else 0
    expected = np.rint(0.5 * 100 + 0.5 * colour_table()[level].astype(float))
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
