"""Reference against an obvious loop, native against the reference."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from onnxcam.errors import KernelsError
from onnxcam.imaging.colour import colour_table
from onnxcam.kernels import Axis, View, kernels_name, reference

native = pytest.importorskip("onnxcam.kernels.native", reason="the C kernels were not built")
from onnxcam.kernels import _native  # noqa: E402


class AtLevel:
    """The native kernels as a processor of a lower level runs them."""

    def __init__(self, level: int) -> None:
        self.level = level

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            _native.limit_level(self.level)
            try:
                return getattr(native, name)(*args, **options)
            finally:
                _native.limit_level(1)

        return call


BOTH: list[ModuleType | AtLevel] = [reference, AtLevel(0), AtLevel(1)]


def test_the_native_kernels_are_the_ones_in_use() -> None:
    assert kernels_name() == "native"


def all_give(
    expected: np.ndarray, scale: float, relu: bool, sums: Callable[[Any], np.ndarray]
) -> None:
    """Compare what every implementation sums up with what it should be."""
    if relu:
        expected = np.maximum(expected, 0)
    for kernels in BOTH:
        found = sums(kernels)
        assert found.dtype == np.float32 and found.shape == expected.shape
        assert np.abs(found - expected).max(initial=0) <= 1e-5 * scale


def combine_by_loop(a: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the map, and ``max sum_k |alpha_k A_k|``."""
    n, t, k = weights.shape[:3]
    out = np.zeros((n, t, *a.shape[2:]))
    parts = np.zeros_like(out)
    for i, j, c in np.ndindex(n, t, k):
        product = weights[i, j, c].astype(float) * a[i, c].astype(float)
        out[i, j] += product
        parts[i, j] += np.abs(product)
    return out, parts.max(initial=0)


def mean_by_loop(g: np.ndarray) -> np.ndarray:
    out = np.zeros(g.shape[:3])
    for at in np.ndindex(*g.shape[:3]):
        out[at] = g[at].astype(float).mean() if g[at].size else 0
    return out


TYPES = st.sampled_from([np.float32, np.float16])
SHAPES = st.tuples(
    st.integers(0, 3),
    st.integers(0, 5),
    st.sampled_from([0, 1, 2, 7, 8, 9, 33, 130, 512, 4096]),
    st.one_of(
        st.lists(st.integers(0, 9), min_size=1, max_size=3),
        st.sampled_from([[1025], [40, 45], [16, 16], [11, 12, 13]]),
    ),
).filter(lambda s: s[0] * max(s[1], 1) * s[2] * np.prod(s[3]) <= 400_000)


@settings(deadline=None, max_examples=120)
@given(SHAPES, TYPES, TYPES, st.booleans(), st.integers(0, 2**32 - 1))
def test_combine(
    shape: tuple[int, int, int, list[int]], one: type, other: type, relu: bool, seed: int
) -> None:
    n, t, k, space = shape
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, k, *space)).astype(one)
    # Around a mean: that of noise alone cancels, and of one channel little but rounding is left.
    mean = rng.uniform(0.5, 2, (n, t, k)) * rng.choice([-1, 1], (n, t, k))
    g = rng.normal(size=(n, t, k, *space)) + mean[(..., *[None] * len(space))]
    g = g.astype(other)
    expected, scale = combine_by_loop(a, mean_by_loop(g))
    all_give(expected, scale, relu, lambda kernels: kernels.combine(a, g, relu=relu))


def test_combine_of_large_layers() -> None:
    """Rows that are read one after another, since they lie in no cache."""
    rng = np.random.default_rng(0)
    a = rng.normal(1, 1, size=(2, 150, 61, 83)).astype("f")
    g = rng.normal(1, 1, size=(2, 1, 150, 61, 83)).astype("f")
    expected = reference.combine(a, g)
    _, scale = combine_by_loop(a, g.astype(float).mean((3, 4)))
    for kernels in BOTH[1:]:
        assert np.abs(kernels.combine(a, g) - expected).max() <= 1e-5 * scale


@settings(deadline=None, max_examples=40)
@given(SHAPES, TYPES, st.integers(0, 2**32 - 1))
def test_combine_of_gradients_that_cancel(
    shape: tuple[int, int, int, list[int]], kind: type, seed: int
) -> None:
    n, t, k, space = shape
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, k, *space)).astype(kind)
    g = rng.normal(size=(n, t, k, *space)).astype(kind)
    expected, _ = combine_by_loop(a, mean_by_loop(g))
    _, scale = combine_by_loop(a, mean_by_loop(np.abs(g)))
    for kernels in BOTH:
        assert np.abs(kernels.combine(a, g) - expected).max(initial=0) <= 1e-6 * scale


@settings(deadline=None, max_examples=120)
@given(SHAPES, TYPES, TYPES, st.booleans(), st.booleans(), st.integers(0, 2**32 - 1))
def test_combine_weighted(
    shape: tuple[int, int, int, list[int]],
    one: type,
    other: type,
    pixels: bool,
    relu: bool,
    seed: int,
) -> None:
    n, t, k, space = shape
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, k, *space)).astype(one)
    weights = rng.normal(size=(n, t, k, *(space if pixels else []))).astype(other)
    expected, scale = combine_by_loop(a, weights)
    all_give(expected, scale, relu, lambda kernels: kernels.combine_weighted(a, weights, relu=relu))


def test_every_float16_is_read_exactly() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)[None, None]
    one = np.ones((1, 1, 1), np.float32)
    for kernels in BOTH:
        with np.errstate(invalid="ignore"):
            found = kernels.combine_weighted(every, one)
            assert_array_equal(found, every.astype(np.float32))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_combine_hands_on_what_is_not_finite(wrong: float, relu: bool, kind: type) -> None:
    rng = np.random.default_rng(0)
    a = rng.uniform(1, 2, size=(2, 19, 6, 7)).astype(kind)
    g = rng.uniform(1, 2, size=(2, 3, 19, 6, 7)).astype(kind)
    broken_a, broken_g = a.copy(), g.copy()
    broken_a[0, 18, 2, 3] = wrong
    broken_g[1, 2, 0, 5, 5] = wrong
    for kernels in BOTH:
        in_a = kernels.combine(broken_a, g, relu=relu)
        in_g = kernels.combine(a, broken_g, relu=relu)
        in_pixel = kernels.combine_weighted(a, broken_g, relu=relu)
        result = max(wrong, 0.0) if relu and wrong == -np.inf else wrong
        for found, hit in (
            (in_a, np.s_[0, :, 2, 3]),
            (in_g, np.s_[1, 2]),
            (in_pixel, np.s_[1, 2, 5, 5]),
        ):
            assert_array_equal(found[hit], np.full_like(found[hit], result))
            found[hit] = 1
            assert np.isfinite(found).all() and found.min() > 0


def test_combine_takes_views_and_refuses_misfits() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(2, 6, 4, 5)).astype("f")
    g = rng.normal(size=(3, 2, 6, 4, 5)).astype("f").swapaxes(0, 1)
    for first, second in ((a, g), (a[:, ::2], g[:, :, ::2]), (a[..., ::-1], g[..., ::-1])):
        for name in ("combine", "combine_weighted"):
            expected = getattr(reference, name)(first, second)
            assert_allclose(getattr(native, name)(first, second), expected, atol=1e-5)
    for kernels in BOTH:
        for first, second in ((a, g[:, :, :5]), (a, g[:1]), (a[:, 0], g), (a[0, 0], g[0, 0])):
            with pytest.raises(ValueError, match="do not fit"):
                kernels.combine(first, second)
        with pytest.raises(ValueError, match="gradients .* do not fit"):
            kernels.combine(a, g[:, :, :, 0, 0])
        with pytest.raises(ValueError, match="weights .* do not fit"):
            kernels.combine_weighted(a, g[:, :, :, 0])
        with pytest.raises(ValueError, match="one to three axes"):
            kernels.combine(a[..., None, None], g[..., None, None])


def test_the_number_of_threads_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(1, 96, 61, 63)).astype("f")
    g = rng.normal(size=(1, 3, 96, 61, 63)).astype("f")
    many = rng.normal(size=(37, 64, 14, 14)).astype("f")
    slopes = rng.normal(size=(37, 1, 64, 14, 14)).astype("f")
    raw = rng.uniform(size=(5, 7, 7)).astype("f")
    view = View.whole((301, 403), (7, 7))
    guided = rng.normal(size=(5, 3, 301, 403)).astype("f")
    photo = rng.integers(0, 256, (301, 403, 3)).astype(np.uint8)
    calls: list[Callable[[int], np.ndarray]] = [
        lambda threads: native.combine(a, g, threads=threads),
        lambda threads: native.combine(many, slopes, threads=threads),
        lambda threads: native.combine_weighted(a, g, threads=threads),
        lambda threads: native.combine_weighted(a, g[..., 0, 0], threads=threads),
        lambda threads: native.upsample(raw, view, normalise=True, threads=threads),
        lambda threads: native.fuse(guided, raw, threads=threads),
        lambda threads: native.paint(
            photo, raw[0], view, colour_table(), 0.5, 0.5, threads=threads
        ),
    ]
    for call in calls:
        alone = call(1)
        for threads in (2, 3, 8, 1000):
            assert_array_equal(call(threads), alone)


def test_the_environment_gives_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    a, g = np.ones((1, 2, 3), "f"), np.ones((1, 1, 2, 3), "f")
    monkeypatch.setenv("ONNXCAM_THREADS", "2")
    assert_array_equal(native.combine(a, g), np.full((1, 1, 3), 2, "f"))
    for wrong in ("many", "0", "-1"):
        monkeypatch.setenv("ONNXCAM_THREADS", wrong)
        with pytest.raises(KernelsError, match="ONNXCAM_THREADS"):
            native.combine(a, g)


ASAN = "asan" in os.environ.get("LD_PRELOAD", "")
CONCURRENT = """
import os, sys, threading
import numpy as np
from onnxcam.kernels import native

a, g = np.ones((8, 64, 40, 40), "f"), np.ones((8, 1, 64, 40, 40), "f")

def check(times):
    for _ in range(times):
        assert (native.combine(a, g, threads=3) == 64).all()

threads = [threading.Thread(target=check, args=(20,)) for _ in range(3)]
for thread in threads:
    thread.start()
children = []
for _ in range(int(sys.argv[1])):
    child = os.fork()
    if child == 0:
        check(5)
        os._exit(0)
    children.append(child)
for thread in threads:
    thread.join()
assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(children)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_threads_at_once_and_children() -> None:
    # In a child, asan's allocator may find its lock held for ever by a thread of the parent.
    command = [sys.executable, "-W", "ignore", "-c", CONCURRENT, "0" if ASAN else "5"]
    subprocess.run(command, check=True, timeout=120)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.skipif(ASAN, reason="asan keeps what is freed")
def test_a_thousand_calls_leave_memory_where_it_was() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(2, 16, 25, 25)).astype("f")
    g = rng.normal(size=(2, 2, 16, 25, 25)).astype(np.float16)
    raw = rng.uniform(size=(2, 7, 7)).astype("f")
    view = View.whole((96, 128), (7, 7))
    guided = rng.normal(size=(2, 3, 96, 128)).astype(np.float16)
    photo = rng.integers(0, 256, (96, 128, 3)).astype(np.uint8)

    def misfit() -> None:
        with pytest.raises(ValueError, match="do not fit"):
            native.combine(a, g[:1])

    calls: dict[str, Callable[[], object]] = {
        "combine": lambda: native.combine(a, g),
        "pixels": lambda: native.combine_weighted(a, g),
        "channels": lambda: native.combine_weighted(a, g[..., 0, 0]),
        "upsample": lambda: native.upsample(raw, view, normalise=True),
        "upsampled_max": lambda: native.upsampled_max(raw[0], view),
        "fuse": lambda: native.fuse(guided, raw),
        "paint": lambda: native.paint(photo, raw[0], view, colour_table(), 0.5, 0.5),
        "misfit": misfit,
    }

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for name, call in calls.items():
        for _ in range(10):
            call()
        before = resident()
        for _ in range(990):
            call()
        assert resident() - before < 1 << 20, name


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


@settings(deadline=None, max_examples=60)
@given(views, st.integers(0, 3), st.booleans(), TYPES, st.integers(0, 2**32 - 1))
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
    views,
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
    steps = np.abs(np.diff(table.astype(int), axis=0)).max()
    for kernels in BOTH[1:]:
        other = kernels.paint(photo, raw, view, table, alpha, shade).astype(int)
        # Rounding may choose the neighbouring colour, and differ by one level.
        assert np.abs(one - other).max(initial=0) <= steps + 1
        assert other.size < 300 or np.abs(one - other).mean() < 0.6


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
