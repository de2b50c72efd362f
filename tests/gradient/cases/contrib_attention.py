"""Cases for the attention and rotary embeddings that ONNX Runtime's optimizer writes."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from .values import case, weight

contrib = partial(case, domain="com.microsoft")


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def heads(x: np.ndarray, count: int) -> np.ndarray:
    if x.ndim == 4:
        return x
    return x.reshape(*x.shape[:2], count, -1).transpose(0, 2, 1, 3)


def attend(q, k, v, count, mask=None, bias=None, scale=None, unidirectional=0):
    q, k, v = heads(q, count), heads(k, count), heads(v, count)
    scores = q @ k.swapaxes(2, 3) * (scale or 1 / np.sqrt(q.shape[-1]))
    scores = scores if bias is None else scores + bias
    batch, rows, columns = len(q), scores.shape[2], scores.shape[3]
    if mask is not None:
        allowed = np.zeros((batch, 1, rows, columns), bool)
        for b in range(batch):
            if mask.ndim > 1:
                allowed[b] = mask[b] != 0
            else:
                start = mask[batch + b] if len(mask) == 2 * batch else 0
                allowed[b, :, :, start : mask[b]] = True
        scores = np.where(allowed, scores, scores - 10000)
    if unidirectional:
        scores = np.where(np.tri(rows, columns, dtype=bool), scores, -np.inf)
    y = (softmax(scores) @ v).transpose(0, 2, 1, 3)
    return y.reshape(batch, rows, -1)


def attention(x, w, b=None, mask=None, past=None, bias=None, num_heads=1, **settings):
    sizes = settings.pop("qkv_hidden_sizes", [w.shape[1] // 3] * 3)
    y = x @ w + (0 if b is None else b)
    parts = np.split(y, np.cumsum(sizes)[:2], axis=-1)
    return attend(*parts, num_heads, mask, bias, **settings)


def masks(batch: int, length: int) -> dict[str, Any]:
    keys = np.ones((batch, length), np.int32)
    keys[-1, -2:] = 0
    return {
        "none": None,
        "keys": keys,
        "queries and keys": np.tril(np.ones((batch, length, length), np.int32), 1),
        "ends": np.array([length, length - 2][:batch], np.int32),
        "ends and starts": np.array([length, length - 1, 0, 1], np.int32),
    }


both = {"obvious": attention, "num_heads": 2}
for mask in masks(2, 5).values():
    contrib("Attention", weight(2, 5, 6), weight(6, 12) * 0.5, weight(12), mask,
            dynamic=() if mask is None or mask.ndim == 1 else (0, 1), **both)  # fmt: skip
contrib("Attention", weight(2, 5, 6), weight(6, 12) * 0.5, weight(12), unidirectional=1, **both)
contrib("Attention", weight(2, 5, 6), weight(6, 12) * 0.5, weight(12), masks(2, 5)["keys"],
        unidirectional=1, scale=0.3, **both)  # fmt: skip
contrib("Attention", weight(2, 5, 6), weight(6, 14) * 0.5, weight(14),
        qkv_hidden_sizes=[4, 4, 6], wrt=(0, 1, 2), dynamic=None, **both)  # fmt: skip
contrib("Attention", weight(2, 5, 6), weight(6, 12) * 0.5, weight(12), None, None,
        weight(2, 2, 5, 5), wrt=(0, 5), dynamic=None, **both)  # fmt: skip
contrib("Attention", weight(2, 5, 6), weight(6, 12) * 0.5, weight(12), opset=26, **both)


def multi_head(q, k, v, b=None, mask=None, bias=None, num_heads=1, **settings):
    if b is not None:
        sizes = [q.shape[-1], k.shape[-1]]
        q, k, v = (x + c for x, c in zip((q, k, v), np.split(b, np.cumsum(sizes)), strict=True))
    return attend(q, k, v, num_heads, mask, bias, **settings)


mha = partial(contrib, "MultiHeadAttention", obvious=multi_head, num_heads=2)
Q, K, V = weight(2, 3, 6), weight(2, 5, 6), weight(2, 5, 4)
mha(Q, K, V, wrt=(0, 1, 2), dynamic=(1,))
mha(Q, K, weight(2, 5, 6), weight(18), wrt=(0, 1, 2, 3), dynamic=None)
mha(Q, K, weight(2, 5, 6), None, masks(2, 5)["keys"], dynamic=(0, 1))
mha(Q, K, weight(2, 5, 6), None, None, weight(1, 2, 3, 5), wrt=(0, 1, 2, 5), dynamic=None)
mha(weight(2, 5, 6), K, weight(2, 5, 6), unidirectional=1, scale=0.4, dynamic=(0, 1))
mha(Q, weight(2, 2, 5, 3), weight(2, 2, 5, 3), wrt=(0, 1, 2), dynamic=None)


# --- rotary embeddings
def rotary(x, positions, cos, sin, interleaved=0, num_heads=0, rotary_embedding_dim=0):
    size = x.shape[-1] // num_heads if x.ndim == 3 else x.shape[-1]
    h = x.reshape(*x.shape[:2], -1, size).swapaxes(1, 2) if x.ndim == 3 else x
    if positions.ndim == 1:
        positions = np.tile(positions + np.arange(h.shape[2]), (len(h), 1))
    c, s = (table[positions][:, None].astype(float) for table in (cos, sin))
    half = cos.shape[1]
    a, b = (h[..., 0 : 2 * half : 2], h[..., 1 : 2 * half : 2]) if interleaved else (
        h[..., :half], h[..., half : 2 * half])  # fmt: skip
    turned = a * c - b * s, a * s + b * c
    if interleaved:
        y = np.stack(turned, axis=-1).reshape(*h.shape[:-1], -1)
    else:
        y = np.concatenate(turned, axis=-1)
    y = np.concatenate([y, h[..., 2 * half :]], axis=-1)
    return y.swapaxes(1, 2).reshape(x.shape) if x.ndim == 3 else y


ANGLES = np.arange(7)[:, None] * np.array([1.0, 0.3])
COS, SIN = np.cos(ANGLES).astype("f"), np.sin(ANGLES).astype("f")
POSITIONS = np.array([[0, 1, 2], [3, 4, 6]])
for interleaved in (0, 1):
    contrib("RotaryEmbedding", weight(2, 3, 8), POSITIONS, COS, SIN, num_heads=2,
            interleaved=interleaved, obvious=rotary, dynamic=(0, 1))  # fmt: skip
    contrib("RotaryEmbedding", weight(2, 2, 3, 4), np.array([2]), COS, SIN,
            interleaved=interleaved, obvious=rotary, dynamic=(0, 2))  # fmt: skip
contrib("RotaryEmbedding", weight(2, 3, 12), POSITIONS, COS, SIN, num_heads=2,
        rotary_embedding_dim=4, obvious=rotary, dynamic=(0, 1))  # fmt: skip
