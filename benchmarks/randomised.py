"""Networks with weights made random, and how alike two maps are: Adebayo et al. 2018, section 3."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

LAYERS = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}  # by which operand weights come
Floats = NDArray[np.floating]


def layers(model: onnx.ModelProto) -> dict[str, str]:
    """Return the weights of each layer by the layer's output, in topological order.

    Weights are initializers, or such that one DequantizeLinear reads.
    """
    stored = {t.name for t in model.graph.initializer}
    behind = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    found: dict[str, str] = {}
    for node in model.graph.node:  # an ONNX graph is sorted
        if node.op_type in LAYERS:
            given = [behind.get(name, name) for name in node.input[:2]]
            weights = [name for name in given if name in stored]
            if weights:
                found[node.output[0]] = weights[-1]
    return found


def randomised(
    model: onnx.ModelProto, chosen: Sequence[str], seed: int, shuffle: bool = False
) -> onnx.ModelProto:
    """Return the network with other weights in these layers; biases and all else are untouched.

    Args:
        model: the trained network, which is not changed.
        chosen: layers by their outputs.
        seed: of the draws; a layer's weights depend on it and the layer alone.
        shuffle: take the same numbers in another order, not normal ones of the same mean and
            deviation.
    """
    known = layers(model)
    order = list(known)
    made = onnx.ModelProto()
    made.CopyFrom(model)
    stored = {t.name: t for t in made.graph.initializer}
    for layer in chosen:
        tensor = stored[known[layer]]
        weights = numpy_helper.to_array(tensor)
        rng = np.random.default_rng([seed, order.index(layer)])
        if shuffle:
            other = rng.permutation(weights.ravel()).reshape(weights.shape)
        else:
            other = rng.normal(weights.mean(), weights.std(), weights.shape)
            if np.issubdtype(weights.dtype, np.integer):
                kept = np.iinfo(weights.dtype)
                other = np.clip(np.round(other), kept.min, kept.max)
        fresh = numpy_helper.from_array(np.ascontiguousarray(other, weights.dtype), tensor.name)
        tensor.CopyFrom(fresh)
    return made


def from_the_top(known: Sequence[str], counts: Sequence[int]) -> list[list[str]]:
    """Return the last 1, 2, ... layers: ``counts`` of them."""
    return [list(known[len(known) - count :]) for count in counts]


def ssim(a: Floats, b: Floats, window: int = 7) -> float:
    """Return the mean structural similarity of two pictures ``[H, W]`` of values 0..1.

    Wang et al. 2004, eq. 13, over even windows that lie inside, with variances of samples, as
    scikit-image computes it by default.
    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    count = window**2
    mx, my = _means(x, window), _means(y, window)
    share = count / (count - 1)
    xx, yy, xy = (
        share * (_means(p, window) - q)
        for p, q in ((x * x, mx * mx), (y * y, my * my), (x * y, mx * my))
    )
    c1, c2 = 0.01**2, 0.03**2
    found = (2 * mx * my + c1) * (2 * xy + c2) / ((mx**2 + my**2 + c1) * (xx + yy + c2))
    return float(found.mean())


def _means(x: Floats, window: int) -> Floats:
    """Return the means of all windows that lie inside."""
    views = np.lib.stride_tricks.sliding_window_view
    rows = views(x, window, axis=0).mean(axis=-1)
    return np.asarray(views(rows, window, axis=1).mean(axis=-1))
