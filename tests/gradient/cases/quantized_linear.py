"""Cases for products with packed weights."""

from __future__ import annotations

from functools import partial

import numpy as np

from .values import case, rng, weight

contrib = partial(case, domain="com.microsoft")


def packed(rows: int, depth: int, bits: int, block: int, zeros: bool = False) -> list[np.ndarray]:
    """Return codes, scales and, perhaps, zero points of a weight ``[rows, depth]``."""
    blocks = -(-depth // block)
    stored = [rng.integers(0, 256, (rows, blocks, block * bits // 8)).astype(np.uint8)]
    stored.append(rng.uniform(0.01, 0.05, (rows, blocks)).astype(np.float32))
    if zeros:
        stored.append(rng.integers(0, 256, (rows, -(-blocks * bits // 8))).astype(np.uint8))
    return stored


def numbers(codes: np.ndarray, bits: int) -> np.ndarray:
    parts = [(codes >> shift) & (2**bits - 1) for shift in range(0, 8, bits)]
    return np.stack(parts, axis=-1).reshape(*codes.shape[:-1], -1).astype(float)


def matmul_nbits(a, b, scales, zeros=None, g=None, bias=0.0, *, K, N, block_size, bits=4):
    weights = numbers(b, bits)
    shift = np.full(weights.shape[:2], 2.0 ** (bits - 1))
    if zeros is not None:
        floats = zeros.dtype.kind == "f"
        shift = zeros if floats else numbers(zeros.reshape(N, -1), bits)[:, : weights.shape[1]]
    weights = (weights - shift[..., None]) * scales.reshape(N, -1, 1)
    return a @ weights.reshape(N, -1)[:, :K].T + bias


for bits, depth, zeros in ((4, 64, False), (4, 40, True), (8, 64, True), (8, 32, False)):
    contrib("MatMulNBits", weight(2, 3, depth), *packed(6, depth, bits, 32, zeros), K=depth, N=6,
            bits=bits, block_size=32, obvious=matmul_nbits)  # fmt: skip
B4, S4 = packed(5, 48, 4, 16)
contrib("MatMulNBits", weight(2, 48), B4, S4, weight(5, 3).astype(np.float32), K=48, N=5, bits=4,
        block_size=16, obvious=matmul_nbits)  # fmt: skip
contrib("MatMulNBits", weight(2, 48), B4, S4, None, None, weight(5).astype(np.float32), K=48, N=5,
        bits=4, block_size=16, obvious=matmul_nbits)  # fmt: skip
