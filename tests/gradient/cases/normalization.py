"""Cases for normalization, with respect to scales, biases and statistics too."""

from __future__ import annotations

import numpy as np

from .values import case, positive, weight

ALL = (0, 1, 2, 3, 4)


def batch(
    x: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    epsilon: float = 1e-5,
    training_mode: int = 0,
) -> np.ndarray:
    channel = [1, -1, *[1] * (x.ndim - 2)]
    if training_mode:
        others = tuple(i for i in range(x.ndim) if i != 1)
        mean, variance = x.mean(others), x.var(others)
    h = (x - mean.reshape(channel)) / np.sqrt(variance.reshape(channel) + epsilon)
    return h * scale.reshape(channel) + bias.reshape(channel)


STATISTICS = (weight(3), weight(3), weight(3), positive(3))
case("BatchNormalization", weight(2, 3, 4, 4), *STATISTICS)
case("BatchNormalization", weight(2, 3), *STATISTICS, epsilon=0.01)
case("BatchNormalization", weight(2, 3, 4, 4), *STATISTICS, opset=13, linear=True)
for shape in ((2, 3, 4, 4), (2, 3), (2, 3, 5), (2, 3, 2, 3, 2)):
    for opset in (13, 14, 15, 26):
        x = weight(*shape)
        case("BatchNormalization", x, *STATISTICS, wrt=ALL, opset=opset, dynamic=ALL, obvious=batch)
    case(
        "BatchNormalization",
        weight(*shape),
        *STATISTICS,
        wrt=(0, 1, 2),
        opset=15,
        dynamic=ALL,
        obvious=batch,
        training_mode=1,
        epsilon=0.1,
        unread=2,
    )
case("BatchNormalization", weight(5), *[positive(1)] * 4, wrt=ALL, dynamic=ALL)

case("LayerNormalization", weight(2, 3, 6), weight(6), weight(6), dynamic=(0, 1))
case("LayerNormalization", weight(2, 3, 6), weight(3, 6), axis=1, epsilon=0.01, dynamic=(0,))
for scale, bias, axis in [
    ((6,), (6,), -1),
    ((3, 6), (3, 6), 1),
    ((3, 1), (1, 6), -2),
    ((), (1,), -1),
    ((2, 1, 6), (3, 6), 2),
    ((2, 3, 6), (2, 3, 6), 0),
]:
    x = weight(2, 3, 6)
    for opset in (17, 26):
        operands = x, weight(*scale), weight(*bias)
        case("LayerNormalization", *operands, axis=axis, wrt=(0, 1, 2), opset=opset, dynamic=ALL)
    case("LayerNormalization", x, weight(*scale), axis=axis, wrt=(0, 1), dynamic=ALL, epsilon=0.1)
    if len(scale) < 3:
        for opset in (23, 26):
            operands = x, weight(*scale)
            case("RMSNormalization", *operands, axis=axis, wrt=(0, 1), opset=opset, dynamic=ALL)
# The gradient of the mean and of the inverse deviation, which are joined to the result.
case("LayerNormalization", weight(2, 3, 6), weight(6), axis=-1, wrt=(0, 1), outputs=3, dynamic=ALL)

case("InstanceNormalization", weight(2, 3, 4, 4), weight(3), weight(3))
for opset in (13, 22):
    operands = weight(2, 3, 4, 5), weight(3), weight(3)
    case("InstanceNormalization", *operands, wrt=(0, 1, 2), opset=opset, dynamic=ALL)
    case("InstanceNormalization", weight(2, 3, 5), weight(3), weight(3), wrt=(0, 1, 2), epsilon=0.1)


def group(
    x: np.ndarray, scale: np.ndarray, bias: np.ndarray, num_groups: int, epsilon: float = 1e-5
) -> np.ndarray:
    """One scale for each channel, or one for each group."""
    flat = x.reshape(len(x), num_groups, -1)
    h = flat - flat.mean(-1, keepdims=True)
    h /= np.sqrt(flat.var(-1, keepdims=True) + epsilon)
    parts = h.reshape(len(x), len(scale), -1)
    return (parts * scale[:, None] + bias[:, None]).reshape(x.shape)


for opset, scales in ((18, 3), (20, 3), (21, 6), (26, 6)):
    for shape in ((2, 6, 4, 3), (2, 6, 5)):
        case(
            "GroupNormalization",
            weight(*shape),
            weight(scales),
            weight(scales),
            num_groups=3,
            wrt=(0, 1, 2),
            opset=opset,
            dynamic=ALL,
            obvious=group,
        )
case(
    "GroupNormalization",
    *(weight(2, 4, 3), weight(4), weight(4)),
    num_groups=2,
    epsilon=0.1,
    opset=21,
    obvious=group,
)


def mean_variance(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    axes = tuple(axes)
    return (x - x.mean(axes, keepdims=True)) / (x.std(axes, keepdims=True) + 1e-9)


for opset in (13, 18, 26):
    for shape, axes in (((2, 3, 4, 5), [0, 2, 3]), ((2, 3, 4), [0, 2]), ((2, 3, 4, 5), [-1, -2])):
        case(
            "MeanVarianceNormalization",
            weight(*shape),
            axes=axes,
            opset=opset,
            dynamic=ALL,
            obvious=mean_variance,
        )
