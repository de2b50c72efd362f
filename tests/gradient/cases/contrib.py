"""Cases for what ONNX Runtime's optimizer writes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..finite import standard
from .values import case, i64, positive, reseed, rng, weight

reseed("contrib")
contrib = partial(case, domain="com.microsoft")


ACTIVATIONS = {
    "Relu": lambda x: np.maximum(x, 0),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Tanh": np.tanh,
    "LeakyRelu": lambda x, a: np.where(x > 0, x, a * x),
    "HardSigmoid": lambda x, a, b: np.clip(a * x + b, 0, 1),
    "Clip": np.clip,
    "Elu": lambda x, a: np.where(x > 0, x, a * np.expm1(x)),
    "Selu": lambda x, a, g: g * np.where(x > 0, x, a * np.expm1(x)),
    "Softplus": lambda x: np.log1p(np.exp(x)),
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "ThresholdedRelu": lambda x, a: np.where(x > a, x, 0),
}


def activated(x: np.ndarray, activation: str = "", params: Any = ()) -> np.ndarray:
    return ACTIVATIONS[activation](x, *params) if activation else x


# --- fused activations
def fused_conv(x, w, b=None, z=None, activation="", activation_params=(), **settings):
    y = standard("Conv", x, w, b, **settings)
    return activated(y if z is None else y + z, activation, activation_params)


KINKS = {"Relu": (0,), "LeakyRelu": (0,), "Clip": (-1, 2), "HardSigmoid": (-4 / 3, 2)}


def clear(forward: Callable[..., np.ndarray], kinks: Any, *shapes: tuple[int, ...]) -> list[Any]:
    """Draw operands whose result keeps away from every kink."""
    while True:
        operands = [weight(*shape) * (0.4 if index else 1.0) for index, shape in enumerate(shapes)]
        y = forward(*operands)
        if all(np.abs(y - kink).min() > 0.05 for kink in kinks):
            return operands


for activation, parameters in {
    "": None,
    "Relu": None,
    "Sigmoid": None,
    "Tanh": None,
    "LeakyRelu": [0.3],
    "Clip": [-1.0, 2.0],
    "HardSigmoid": [0.3, 0.4],
}.items():
    settings: dict[str, Any] = {"activation": activation} if activation else {}
    settings |= {"activation_params": parameters} if parameters else {}
    window = {"pads": [1, 1, 1, 1]}
    operands = clear(partial(fused_conv, **window), KINKS.get(activation, ()), (1, 2, 4, 3),
                     (3, 2, 3, 3), (3,))  # fmt: skip
    contrib("FusedConv", *operands, obvious=fused_conv, **window, **settings)
operands = clear(fused_conv, [0], (2, 3, 4, 4), (2, 3, 3, 3), (2,), (2, 2, 2, 2))
contrib("FusedConv", *operands, activation="Relu", obvious=fused_conv, wrt=(0, 1, 2, 3),
        dynamic=(0,))  # fmt: skip
for opset, window in ((17, {"strides": [2, 2], "pads": [1, 1, 1, 1]}), (26, {})):
    operands = clear(partial(fused_conv, group=4, **window), [0], (1, 4, 6, 5), (4, 1, 3, 3))
    contrib("FusedConv", *operands, activation="Relu", group=4, opset=opset, obvious=fused_conv,
            **window)  # fmt: skip


def fused_gemm(a, b, c=None, transA=0, transB=0, alpha=1.0, beta=1.0, activation="", **named):
    y = alpha * (a.T if transA else a) @ (b.T if transB else b)
    y = y if c is None else y + beta * c
    order = ("activation_alpha", "activation_beta", "activation_gamma")
    return activated(y, activation, [named[k] for k in order if k in named])


for activation, named in {
    "Relu": {},
    "Tanh": {},
    "Sigmoid": {},
    "Softplus": {},
    "Softsign": {},
    "LeakyRelu": {"activation_alpha": 0.2},
    "Elu": {"activation_alpha": 0.7},
    "Selu": {"activation_alpha": 1.3, "activation_gamma": 0.8},
    "HardSigmoid": {"activation_alpha": 0.3, "activation_beta": 0.4},
    "ThresholdedRelu": {"activation_alpha": 0.5},
}.items():
    kinks = {"HardSigmoid": (-4 / 3, 2), "ThresholdedRelu": (0.5,)}.get(activation, (0,))
    operands = clear(partial(fused_gemm, transB=1), kinks, (3, 4), (5, 4), (5,))
    contrib("FusedGemm", *operands, transB=1, activation=activation, obvious=fused_gemm, **named)
settings = {"transA": 1, "alpha": 0.5, "beta": 2.0}
operands = clear(partial(fused_gemm, **settings), [0], (4, 3), (4, 5), (3, 1))
contrib("FusedGemm", *operands, **settings, activation="Relu", obvious=fused_gemm, wrt=(0, 1, 2),
        dynamic=None)  # fmt: skip


def fused_matmul(a, b, transA=0, transB=0, transBatchA=0, transBatchB=0, alpha=1.0):
    a = np.moveaxis(a, 0, -2) if transBatchA else a
    b = np.moveaxis(b, 0, -2) if transBatchB else b
    a = np.swapaxes(a, -1, -2) if transA and a.ndim > 1 else a
    b = np.swapaxes(b, -1, -2) if transB and b.ndim > 1 else b
    return alpha * (a @ b)


both = {"wrt": (0, 1), "obvious": fused_matmul, "dynamic": None}
contrib("FusedMatMul", weight(2, 3, 4), weight(2, 4, 5), alpha=0.25, **both)
contrib("FusedMatMul", weight(2, 3, 4), weight(2, 5, 4), transB=1, alpha=0.25, **both)
contrib("FusedMatMul", weight(2, 4, 3), weight(4, 5), transA=1, **both)
contrib("FusedMatMul", weight(4, 3), weight(5, 4), transA=1, transB=1, **both)
contrib("FusedMatMul", weight(3, 2, 4), weight(2, 4, 5), transBatchA=1, **both)
contrib("FusedMatMul", weight(3, 2, 4), weight(4, 2, 5), transBatchA=1, transBatchB=1, **both)
contrib("FusedMatMul", weight(4, 2, 3), weight(5, 2, 4), transA=1, transB=1, transBatchA=1,
        transBatchB=1, **both)  # fmt: skip
contrib("FusedMatMul", weight(2, 2, 3, 4), weight(2, 2, 5, 4), transB=1, obvious=fused_matmul)
contrib("TransposeMatMul", weight(2, 3, 4), weight(2, 5, 4), transB=1, alpha=2.0, **both)


def dynamic_pads(x, w, pads=None, b=None, **settings):
    return standard("ConvTranspose", x, w, b, pads=pads.tolist(), **settings)


contrib("ConvTransposeWithDynamicPads", weight(2, 3, 4, 5), weight(3, 2, 3, 3), i64(1, 0, 1, 1),
        weight(2), strides=[2, 2], obvious=dynamic_pads, dynamic=(0,))  # fmt: skip


# --- activations
def erf(x: np.ndarray) -> np.ndarray:
    return standard("Erf", x)


def gelu(x, b=0.0):
    x = x + b
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


def fast_gelu(x, b=0.0):
    x = x + b
    return x * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def quick_gelu(x, alpha=1.702):
    return x / (1 + np.exp(-alpha * x))


contrib("Gelu", weight(2, 3, 4), obvious=gelu)
contrib("BiasGelu", weight(2, 3, 4), weight(4), wrt=(0, 1), obvious=gelu, dynamic=(0,))
contrib("FastGelu", weight(2, 3, 4), obvious=fast_gelu)
contrib("FastGelu", weight(2, 3, 4), weight(4), wrt=(0, 1), obvious=fast_gelu, dynamic=(0,))
contrib("QuickGelu", weight(2, 3, 4), obvious=quick_gelu)
contrib("QuickGelu", weight(2, 3, 4), alpha=1.0, obvious=quick_gelu)


# --- the standard's operators under another name
def trilu(x, k=None, upper=1):
    return (np.triu if upper else np.tril)(x, 0 if k is None else int(k))


contrib("Trilu", weight(2, 4, 5), obvious=trilu)
contrib("Trilu", weight(4, 4), np.array(-1), upper=0, obvious=trilu)


def grid_sample(x, grid, **settings):
    return standard("GridSample", x, grid, opset=16, **settings)


GRID = rng.uniform(-0.9, 0.9, (2, 3, 4, 2))
for opset in (16, 20):
    contrib("GridSample", weight(2, 3, 5, 4), GRID, obvious=grid_sample, opset=opset)
contrib("GridSample", weight(2, 3, 5, 4), GRID, align_corners=1, padding_mode="border",
        obvious=grid_sample)  # fmt: skip
contrib("GatherND", weight(3, 4, 5), np.array([[0, 1], [2, 3], [0, 1]]),
        obvious=lambda x, i: x[i[:, 0], i[:, 1]])  # fmt: skip


def pad(x, pads, value=0.0, mode="constant"):
    widths = np.reshape(pads, (2, -1)).T
    return np.pad(
        x, widths, **({"constant_values": value} if mode == "constant" else {"mode": mode})
    )


contrib("Pad", weight(2, 3, 4), i64(0, 1, 2, 0, 0, 1), np.float32(0.5), obvious=pad)
contrib("Pad", weight(2, 3, 4), i64(0, 1, 2, 0, 0, 1), mode="reflect", obvious=pad)
contrib("ExpandDims", weight(2, 3, 4), np.array(1, np.int32),
        obvious=lambda x, axis: np.expand_dims(x, int(axis)))  # fmt: skip
contrib("Inverse", weight(2, 3, 3) + 3 * np.eye(3), obvious=np.linalg.inv, dynamic=(0,))


# --- packed weights
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


# --- normalization
def simplified_norm(x, scale, axis=-1, epsilon=1e-5):
    axes = tuple(range(axis % x.ndim, x.ndim))
    return x / np.sqrt((x**2).mean(axis=axes, keepdims=True) + epsilon) * scale


def skip_norm(x, skip, gamma, beta=None, bias=None, epsilon=1e-12):
    total = x + skip + (0 if bias is None else bias)
    centred = total - total.mean(axis=-1, keepdims=True)
    h = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon)
    return h * gamma + (0 if beta is None else beta)


def skip_simplified_norm(x, skip, gamma, bias=None, epsilon=1e-12):
    total = x + skip + (0 if bias is None else bias)
    return simplified_norm(total, gamma, epsilon=epsilon)


for opset in (13, 17, 26):
    case("SimplifiedLayerNormalization", weight(2, 3, 6), positive(6), wrt=(0, 1), opset=opset,
         epsilon=1e-3, obvious=simplified_norm, dynamic=(0,))  # fmt: skip
case("SimplifiedLayerNormalization", weight(2, 3, 4), positive(3, 4), axis=1,
     obvious=simplified_norm, dynamic=(0,))  # fmt: skip
for rest in ((), (weight(6),), (weight(6), weight(6))):
    places = (0, 1, 2, *range(3, 3 + len(rest)))
    contrib("SkipLayerNormalization", weight(2, 3, 6), weight(2, 3, 6), positive(6), *rest,
            epsilon=1e-3, wrt=places, obvious=skip_norm, dynamic=None)  # fmt: skip
contrib("SkipLayerNormalization", weight(2, 3, 6), weight(3, 6), positive(6), weight(6),
        epsilon=1e-3, wrt=(0, 1), obvious=skip_norm, opset=18, dynamic=None)  # fmt: skip
contrib("SkipLayerNormalization", weight(2, 3, 6), weight(2, 3, 6), positive(6), weight(6),
        epsilon=1e-3, obvious=skip_norm)  # fmt: skip
for rest in ((), (weight(6),)):
    places = (0, 1, 2, *range(3, 3 + len(rest)))
    contrib("SkipSimplifiedLayerNormalization", weight(2, 3, 6), weight(2, 3, 6), positive(6),
            *rest, epsilon=1e-3, wrt=places, obvious=skip_simplified_norm,
            dynamic=None)  # fmt: skip


def embed(words, segments, word, position, segment, gamma, beta, mask=None, places=None, **how):
    places = np.arange(words.shape[1]) if places is None else places
    total = word[words] + position[places]
    total = total if segments is None else total + segment[segments]
    return skip_norm(total, 0.0, gamma, beta, **how)


ids = np.array([[3, 0, 5, 3], [1, 1, 2, 6]], np.int32)
kinds = np.array([[0, 0, 1, 1], [0, 1, 1, 0]], np.int32)
tables = (weight(7, 6), weight(5, 6))
for segments, rest, wrt in (
    ((kinds, weight(2, 6)), (), (2, 3, 4, 5, 6)),
    ((None, None), (), (2, 3, 5, 6)),
    ((kinds, weight(2, 6)), (None, np.array([[1, 0, 2, 4], [0, 1, 2, 3]], np.int32)), (2, 3, 4)),
):
    contrib("EmbedLayerNormalization", ids, segments[0], *tables, segments[1], positive(6),
            weight(6), *rest, epsilon=1e-3, wrt=wrt, obvious=embed, unread=1,
            dynamic=None)  # fmt: skip
