"""Combining: the reference against an obvious loop, native against the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from onnxcam.kernels import reference

from .sides import BOTH, TYPES, native


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
