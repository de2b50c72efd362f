"""Where several elements attain a maximum the first of them takes the gradient."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from .finite import Case, build, differentiate, session


def first_maximum(x: np.ndarray, seed: np.ndarray, kernel: int, stride: int) -> np.ndarray:
    """Hand each window's cotangent to its first maximum, window by window."""
    dx = np.zeros((len(seed), *x.shape))
    height, width = seed.shape[-2:]
    for n, k, i, j in product(*map(range, x.shape[:2]), range(height), range(width)):
        window = x[n, k, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
        a, b = np.unravel_index(window.argmax(), window.shape)
        dx[:, n, k, i * stride + a, j * stride + b] += seed[:, n, k, i, j]
    return dx


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    ("size", "kernel", "stride"),
    [
        ((6, 8), 2, 2),
        ((7, 5), 2, 2),
        ((9, 6), 3, 3),
        ((11, 9), 3, 3),
        ((7, 9), 3, 2),
        ((5, 5), 2, 1),
    ],
)
def test_max_pool(size: tuple[int, int], kernel: int, stride: int, dynamic: bool) -> None:
    rng = np.random.default_rng(5)
    x = rng.integers(0, 3, (2, 3, *size)).astype(np.float32)
    settings = {"kernel_shape": [kernel, kernel], "strides": [stride, stride]}
    case = Case("MaxPool", [x], settings, dynamic=(0, 2, 3))
    runtime = session(differentiate(build(case, np.float32, dynamic), case, x.ndim))
    out = [(n - kernel) // stride + 1 for n in size]
    seed = rng.normal(size=(2, 2, 3, *out)).astype(np.float32)
    [dx] = runtime.run(["gradient_x0"], {"x0": x, "seed0": seed})
    np.testing.assert_allclose(dx, first_maximum(x, seed, kernel, stride), atol=1e-6)
