"""Cases for what ONNX Runtime's optimizer writes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..finite import standard
from .values import case, i64, rng, weight

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
