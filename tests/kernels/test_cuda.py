"""The CUDA kernels against the reference, in Numba's simulator.

NUMBA_ENABLE_CUDASIM=1 pytest tests/kernels/test_cuda.py

The simulator runs each of a block's threads as one of Python's. It has no streams and no
``__cuda_array_interface__``, so those stay unverified until a GPU ran ``benchmarks/gpu.py``.
"""

from __future__ import annotations

import os
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if os.environ.get("NUMBA_ENABLE_CUDASIM") != "1":
    pytest.skip("needs NUMBA_ENABLE_CUDASIM=1", allow_module_level=True)
pytest.importorskip("numba_cuda", reason="needs numba-cuda")

from numba import cuda as device

from onnxcam.kernels import (
    View,
    cuda,
    cuda_arrays,
    cuda_common,
    kernels,
    kernels_for,
    reference,
)

from .views import axis, views

DTYPES = ("float32", "float16")
quick = settings(deadline=None, max_examples=20, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
shapes = st.tuples(
    st.integers(0, 2),
    st.integers(0, 3),
    st.sampled_from([0, 1, 2, 7, 33, 150]),
    st.lists(st.integers(0, 5), min_size=1, max_size=3),
    st.sampled_from(DTYPES),
    st.booleans(),
)


def sent(array: np.ndarray) -> object:
    return device.to_device(array)


def close(found: object, expected: np.ndarray, scale: float) -> None:
    array = found.copy_to_host()
    assert array.dtype == expected.dtype and array.shape == expected.shape
    assert np.abs(array.astype(float) - expected).max(initial=0) <= 1e-5 * scale


def scale_of(a: np.ndarray, alpha: np.ndarray) -> float:
    """``max sum_k |alpha_k A_k|``, with the weights ``[N, T, K]`` or ``[N, T, K, *S]``."""
    alpha = alpha.reshape(alpha.shape + (1,) * (a.ndim + 1 - alpha.ndim))
    return float(np.abs(alpha * a[:, None].astype(float)).sum(axis=2).max(initial=0))


@quick
@given(shapes, seeds)
def test_combine(shape: tuple, seed: int) -> None:
    n, t, k, space, dtype, relu = shape
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, k, *space)).astype(dtype)
    g = rng.normal(size=(n, t, k, *space)).astype(dtype)
    alpha = g.astype(float).sum(axis=tuple(range(3, g.ndim))) / max(np.prod(space), 1)
    found = cuda.combine(sent(a), sent(g), relu=relu)
    close(found, reference.combine(a, g, relu=relu), scale_of(a, alpha))


@quick
@given(shapes, st.booleans(), seeds)
def test_combine_weighted(shape: tuple, pixels: bool, seed: int) -> None:
    n, t, k, space, dtype, relu = shape
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, k, *space)).astype(dtype)
    w = rng.normal(size=(n, t, k, *space) if pixels else (n, t, k)).astype(dtype)
    found = cuda.combine_weighted(sent(a), sent(w), relu=relu)
    close(found, reference.combine_weighted(a, w, relu=relu), scale_of(a, w.astype(float)))


@pytest.mark.parametrize(
    ("k", "space"), [(4096, (1,)), (1100, (3, 5)), (600, (2, 3)), (3, (65, 64)), (2, (5, 9, 19))]
)
def test_many_channels_and_large_maps(k: int, space: tuple[int, ...]) -> None:
    """More channels than a block holds weights of; rows longer than a block stages."""
    rng = np.random.default_rng(k)
    a = rng.uniform(0, 1, (1, k, *space)).astype("f")
    g = rng.uniform(0, 1, (1, 1, k, *space)).astype("f")
    alpha = g.astype(float).mean(axis=tuple(range(3, g.ndim)))
    close(cuda.combine(sent(a), sent(g)), reference.combine(a, g), scale_of(a, alpha))


@pytest.mark.parametrize("places", [4, 25])
def test_nan_is_handed_on(places: int) -> None:
    a, g = np.ones((1, 3, places), "f"), np.ones((1, 2, 3, places), "f")
    a[0, 1, 2] = np.nan
    g[0, 1, 2, 0] = np.inf
    for relu in (False, True):
        found = cuda.combine(sent(a), sent(g), relu=relu).copy_to_host()
        np.testing.assert_array_equal(found, reference.combine(a, g, relu=relu))


def test_what_is_refused() -> None:
    a, g = np.ones((2, 6, 4), "f"), np.ones((2, 1, 6, 4), "f")
    with pytest.raises(ValueError, match="do not fit"):
        cuda.combine(sent(a), sent(g[:, :, :5].copy()))
    with pytest.raises(TypeError, match="ndarray: the CUDA kernels take arrays on the device"):
        cuda.combine(a, g)
    with pytest.raises(TypeError, match="float64: expected float32 or float16"):
        cuda.combine(sent(a.astype(float)), sent(g))
    with pytest.raises(ValueError, match="contiguous"):
        cuda.combine(sent(np.asfortranarray(a)), sent(g))
    with pytest.raises(ValueError, match=r"out \(1,\): the result has shape \(2, 1, 4\)"):
        cuda.combine(sent(a), sent(g), out=sent(np.ones(1, "f")))
    out = sent(np.full((2, 1, 4), -1, "f"))
    assert cuda.combine(sent(a), sent(g), out=out) is out
    assert (out.copy_to_host() == 6).all()


VIEWS = views(6, st.sampled_from(DTYPES))


def example(shape: tuple, seed: int) -> tuple[np.random.Generator, np.ndarray, View]:
    h, w, height, width, zoom, offset, dtype = shape
    rng = np.random.default_rng(seed)
    raw = rng.uniform(-1, 3, size=(2, h, w)).astype(dtype)
    raw[1, rng.integers(h), rng.integers(w)] = rng.choice([np.nan, np.inf, 1.0])
    rows, columns = zoom * h / height, zoom * w / width
    return rng, raw, View(axis(height, h, rows, offset), axis(width, w, columns, -offset))


@quick
@given(VIEWS, st.booleans(), seeds)
def test_upsample(shape: tuple, normalise: bool, seed: int) -> None:
    _, raw, view = example(shape, seed)
    expected = reference.upsample(raw, view, normalise=normalise)
    found = cuda.upsample(sent(raw), view, normalise=normalise)
    close(found, expected, 1.0 if normalise else 3.0)
    assert not normalise or found.copy_to_host().max(initial=0) <= 1
    peak = cuda.upsampled_max(sent(raw[0].copy()), view)
    assert abs(peak - reference.upsampled_max(raw[0], view)) <= 1e-5


@quick
@given(VIEWS, st.integers(0, 4), st.sampled_from(DTYPES), seeds)
def test_fuse(shape: tuple, channels: int, dtype: str, seed: int) -> None:
    rng, raw, view = example(shape, seed)
    guided = rng.normal(size=(2, channels, *view.size)).astype(dtype)
    scale = 3 * float(np.abs(guided).max(initial=0))
    close(cuda.fuse(sent(guided), sent(raw), view), reference.fuse(guided, raw, view), scale)


@quick
@given(VIEWS, seeds, st.floats(0, 1), st.floats(0, 1))
def test_paint(shape: tuple, seed: int, alpha: float, shade: float) -> None:
    rng, raw, view = example(shape, seed)
    photo = rng.integers(0, 256, (*view.size, 3)).astype(np.uint8)
    table = rng.integers(0, 256, (256, 3)).cumsum(axis=0) // 256
    table = table.astype(np.uint8)
    steps = np.abs(np.diff(table.astype(int), axis=0)).max()
    for one in raw:
        expected = reference.paint(photo, one, view, table, alpha, shade).astype(int)
        found = cuda.paint(sent(photo), sent(one.copy()), view, sent(table), alpha, shade)
        # Rounding may choose the neighbouring colour and weight, and differ by one level.
        assert np.abs(found.copy_to_host() - expected).max() <= steps + 3


@pytest.mark.parametrize("raw", [np.zeros((3, 3), "f"), np.full((3, 3), 1e-40, "f")])
def test_flat_and_tiny_maps(raw: np.ndarray) -> None:
    view = View.whole((9, 20), (3, 3))
    expected = reference.upsample(raw, view, normalise=True)
    close(cuda.upsample(sent(raw), view, normalise=True), expected, 1.0)


def test_empty_maps_and_pictures() -> None:
    view = View.whole((9, 20), (0, 3))
    photo = np.full((9, 20, 3), 200, np.uint8)
    table = np.zeros((256, 3), np.uint8)
    empty = sent(np.zeros((0, 3), "f"))
    assert not cuda.upsample(empty, view).copy_to_host().any()
    assert cuda.upsampled_max(empty, view) == 0
    painted = cuda.paint(sent(photo), empty, view, sent(table), 0.5, 0.5).copy_to_host()
    assert (painted == 100).all()
    none = cuda.upsample(sent(np.zeros((0, 3, 3), "f")), View.whole((4, 5), (3, 3)))
    assert none.shape == (0, 4, 5)
    nothing = cuda.upsample(sent(np.ones((2, 3, 3), "f")), View.whole((0, 5), (3, 3)))
    assert nothing.shape == (2, 0, 5)


def test_the_peak_lies_among_the_candidates() -> None:
    """Large pictures of small maps, where only some pixels are looked at."""
    rng = np.random.default_rng(5)
    for h, w, height, width in ((7, 7, 100, 90), (1, 4, 33, 200), (2, 2, 57, 57)):
        for _ in range(3):
            raw = rng.uniform(0, 1, (h, w)).astype("f")
            zoom, offset = rng.uniform(0.3, 1.2), rng.uniform(-1, 1)
            view = View(
                axis(height, h, zoom * h / height, offset), axis(width, w, zoom * w / width, 0)
            )
            peak = cuda.upsampled_max(sent(raw), view)
            assert abs(peak - reference.upsampled_max(raw, view)) <= 1e-6


def test_channels_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few images, many channels: two passes."""
    monkeypatch.setattr(cuda, "BLOCKS_A_PROCESSOR", 64)
    cuda._shares.cache_clear()
    assert cuda._shares(2, 1000) == (15, 67)
    assert cuda._shares(40, 1000) == (1, 1000)  # as many as there is room for, and no more
    assert cuda._shares(64, 1000) == (1, 1000)
    assert cuda._shares(1, 0) == cuda._shares(0, 0) == (1, 0)
    rng = np.random.default_rng(1)
    for relu in (False, True):
        a = rng.normal(size=(1, 200, 7)).astype("f")
        g = rng.normal(size=(1, 2, 200, 7)).astype("f")
        alpha = g.mean(axis=3)
        close(
            cuda.combine(sent(a), sent(g), relu=relu),
            reference.combine(a, g, relu=relu),
            scale_of(a, alpha),
        )
    cuda._shares.cache_clear()


def test_check_runs_every_kernel() -> None:
    worst = cuda.check()
    assert set(worst) == {"combine", "combine_weighted", "upsample", "fuse", "paint"}
    assert worst.pop("paint") <= 2 and max(worst.values()) < 1e-5


def test_the_stream_is_the_array_s(monkeypatch: pytest.MonkeyPatch) -> None:
    class Array:
        def __init__(self, stream: int | None) -> None:
            self.__cuda_array_interface__ = {"stream": stream}

    monkeypatch.setattr(cuda_arrays, "_external", lambda handle: f"stream {handle}")
    stream_of = cuda_arrays.stream_of
    assert stream_of(None, Array(77)) == "stream 77"
    assert stream_of("Numba's", Array(77)) == "Numba's"
    assert stream_of(99, Array(77)) == stream_of(np.int64(99), Array(77)) == "stream 99"
    assert stream_of(0, Array(77)) == stream_of(1, Array(77)) == 0, "the default stream"
    assert stream_of(None, Array(1)) == stream_of(None, Array(None)) == 0
    assert stream_of(None, sent(np.ones(3))) == 0


def test_arrays_on_the_gpu_go_to_its_kernels() -> None:
    class Array:
        __cuda_array_interface__: ClassVar = {"stream": None}

    assert kernels_for(Array()) is cuda
    assert kernels_for(np.ones(3)) is kernels_for([1.0]) is kernels()


def test_arrays_are_read_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """What kernels are given of arrays from elsewhere: address, size, type."""

    class Array:
        def __init__(self, shape: tuple[int, ...], strides: tuple[int, ...] | None) -> None:
            self.shape = shape
            self.__cuda_array_interface__ = {
                "shape": shape, "strides": strides, "typestr": "<f2", "data": (4096, False),
            }  # fmt: skip

    monkeypatch.setattr(cuda_arrays, "_at", lambda *given: given)
    halves = ("float16",)
    assert cuda_arrays.flat(Array((2, 3, 4), None), halves) == (4096, 24, "<f2")
    assert cuda_arrays.flat(Array((2, 1, 4), (8, 999, 2)), halves) == (4096, 8, "<f2")
    assert cuda_arrays.flat(Array((2, 0, 4), None), halves).size == 0
    for strides in ((8, 16, 2), (24, 8, 4)):
        with pytest.raises(ValueError, match="contiguous"):
            cuda_arrays.flat(Array((2, 3, 4), strides), halves)


def test_blocks_are_of_the_simulator() -> None:
    assert cuda.SIMULATED and cuda_common.THREADS == 16
