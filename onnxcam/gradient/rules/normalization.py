"""Normalization over the batch, a layer, an instance, a group of channels.

Each scales and shifts a normalized tensor ``h``: ``y = scale h + bias``, so that
``dscale = sum(g h)`` and ``dbias = sum(g)``.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.gradient.backward import Cotangents
from onnxcam.gradient.call import Call
from onnxcam.gradient.registry import joint, rule
from onnxcam.gradient.walker import unbroadcast
from onnxcam.graph.values import HALVES

_MEAN_VARIANCE = 1e-9  # what MeanVarianceNormalization adds to the standard deviation


def _kind(c: Call) -> ir.DataType:
    """Return the type of the statistics: float32 for half precision, as in the operators."""
    kind = c.x(0).dtype or ir.DataType.FLOAT
    return ir.DataType.FLOAT if kind in HALVES else kind


def _wide(c: Call, value: ir.Value) -> ir.Value:
    return value if value.dtype == _kind(c) else c.op("Cast", value, to=_kind(c))


def _narrow(c: Call, value: ir.Value, like: ir.Value) -> ir.Value:
    """Convert from the type of the statistics to that of an operand."""
    return value if like.dtype in (_kind(c), None) else c.op("Cast", value, to=like.dtype)


def _number(c: Call, number: float) -> ir.Value:
    return c.builder.constant(number, _kind(c))


class _Normalized:
    """The tensor ``h = (x - mean) / root`` over ``axes``, with ``root = sqrt(var + epsilon)``.

    Root mean square normalization leaves out the mean (``centered=False``).
    """

    def __init__(
        self, c: Call, x: ir.Value, axes: list[int], epsilon: float, centered: bool = True
    ) -> None:
        self.c, self.axes, self.centered = c, axes, centered
        x = _wide(c, x)
        self.deviation = c.op("Sub", x, self.mean(x)) if centered else x
        variance = self.mean(c.op("Mul", self.deviation, self.deviation))
        self.root = c.op("Sqrt", c.op("Add", variance, _number(c, epsilon)))
        self.h = c.op("Div", self.deviation, self.root)

    def mean(self, value: ir.Value) -> ir.Value:
        """Average over the normalized axes, keeping them with length 1."""
        return self.c.builder.mean(value, self.axes, keepdims=True)

    def back(self, g: ir.Value) -> ir.Value:
        """Return dx = (g - mean(g) - h mean(g h)) / root, given ``g = dh``."""
        op = self.c.op
        slope = op("Mul", self.h, self.mean(op("Mul", g, self.h)))
        rest = op("Sub", g, self.mean(g)) if self.centered else g
        return op("Div", op("Sub", rest, slope), self.root)


def _epsilon(c: Call) -> float:
    return float(c.attribute("epsilon", 1e-5))


def _scaled(c: Call, g: ir.Value) -> ir.Value:
    """Return dh = g scale, for a scale that broadcasts as it is."""
    return c.op("Mul", _wide(c, g), _wide(c, c.x(1)))


# --- over channels: batch and instance


def _per_channel(c: Call, value: ir.Value) -> ir.Value:
    """Shape ``[K]`` for broadcasting against ``[N, K, *S]``."""
    space = c.rank(c.x(0)) - 2
    return c.op("Reshape", value, c.builder.ints(-1, *[1] * space)) if space > 0 else value


def _space(c: Call) -> list[int]:
    return list(range(2 - c.rank(c.x(0)), 0))


def _per_batch(c: Call) -> list[int]:
    """Return all axes but that of the channels; a vector has no channels."""
    rank = c.rank(c.x(0))
    return [-1] if rank == 1 else [-rank, *_space(c)]


def _to_channels(c: Call, g: ir.Value) -> ir.Value:
    """Sum ``[T, N, K, *S]`` to ``[T, K]``."""
    return c.builder.sum(g, _per_batch(c), keepdims=c.rank(c.x(0)) == 1)


def _bias(c: Call, g: ir.Value) -> ir.Value:
    return _narrow(c, _to_channels(c, _wide(c, g)), c.x(2))


def _batch_spread(c: Call) -> ir.Value:
    """Return var + eps for each channel."""
    return c.op("Add", _wide(c, c.x(4)), _number(c, _epsilon(c)))


def _batch_root(c: Call) -> ir.Value:
    """Return sqrt(var + eps) for each channel, which the runtime folds if var is stored.

    Rules divide by it and never multiply by its inverse: ONNX Runtime 1.31 merges both into one
    division, and breaks the graph where another operand passed an Identity.
    """
    return c.op("Sqrt", _batch_spread(c))


def _batch_training(c: Call) -> _Normalized | None:
    """Return the normalized tensor when the node uses the batch's own statistics."""
    if not c.attribute("training_mode", 0):
        return None
    return _Normalized(c, c.x(0), _per_batch(c), _epsilon(c))


def _batch_x(c: Call, g: ir.Value) -> ir.Value:
    """Return dx = g scale / sqrt(var + eps)."""
    training = _batch_training(c)
    if training is not None:
        scale = _per_channel(c, _wide(c, c.x(1)))
        return _narrow(c, training.back(c.op("Mul", _wide(c, g), scale)), c.x(0))
    factor = _narrow(c, c.op("Div", _wide(c, c.x(1)), _batch_root(c)), c.x(0))
    return c.op("Mul", g, _per_channel(c, factor))


def _batch_deviation(c: Call, g: ir.Value) -> ir.Value:
    """Return sum(g (x - mean)) over each channel."""
    deviation = c.op("Sub", _wide(c, c.x(0)), _per_channel(c, _wide(c, c.x(3))))
    return _to_channels(c, c.op("Mul", _wide(c, g), deviation))


def _batch_scale(c: Call, g: ir.Value) -> ir.Value:
    training = _batch_training(c)
    if training is not None:
        return _narrow(c, _to_channels(c, c.op("Mul", _wide(c, g), training.h)), c.x(1))
    return _narrow(c, c.op("Div", _batch_deviation(c, g), _batch_root(c)), c.x(1))


def _batch_mean(c: Call, g: ir.Value) -> ir.Value | None:
    """Return dmean = -sum(g) scale / sqrt(var + eps)."""
    if c.attribute("training_mode", 0):
        return None
    factor = c.op("Div", _wide(c, c.x(1)), _batch_root(c))
    total = _to_channels(c, _wide(c, g))
    return _narrow(c, c.op("Neg", c.op("Mul", total, factor)), c.x(3))


def _batch_variance(c: Call, g: ir.Value) -> ir.Value | None:
    """Return dvar = -sum(g (x - mean)) scale / 2 (var + eps)^(-3/2)."""
    if c.attribute("training_mode", 0):
        return None
    slope = c.op("Div", c.op("Div", _wide(c, c.x(1)), _batch_root(c)), _batch_spread(c))
    factor = c.op("Mul", slope, _number(c, -0.5))
    return _narrow(c, c.op("Mul", _batch_deviation(c, g), factor), c.x(4))


rule("BatchNormalization", _batch_x, _batch_scale, _bias, _batch_mean, _batch_variance)


def _instance(c: Call) -> _Normalized:
    return _Normalized(c, c.x(0), _space(c), _epsilon(c))


def _instance_x(c: Call, g: ir.Value) -> ir.Value:
    scaled = c.op("Mul", _wide(c, g), _per_channel(c, _wide(c, c.x(1))))
    return _narrow(c, _instance(c).back(scaled), c.x(0))


def _instance_scale(c: Call, g: ir.Value) -> ir.Value:
    return _narrow(c, _to_channels(c, c.op("Mul", _wide(c, g), _instance(c).h)), c.x(1))


rule("InstanceNormalization", _instance_x, _instance_scale, _bias)

# --- over groups of channels


def _grouped(c: Call, value: ir.Value, before: int = 1) -> ir.Value:
    """Reshape ``[N, K, *S]`` to ``[N, G, rest]``, keeping ``before`` leading axes."""
    groups = int(c.attribute("num_groups", 1))
    return c.op("Reshape", _wide(c, value), c.builder.ints(*[0] * before, groups, -1))


def _group(c: Call) -> _Normalized:
    return _Normalized(c, _grouped(c, c.x(0)), [-1], _epsilon(c))


def _by_channel(c: Call) -> bool:
    """Whether each channel has a scale and bias (from opset 21 on), or each group (before)."""
    return c.builder.opset >= 21


def _group_x(c: Call, g: ir.Value) -> ir.Value:
    scale = _wide(c, c.x(1))
    if _by_channel(c):
        scaled = _grouped(c, c.op("Mul", _wide(c, g), _per_channel(c, scale)), before=2)
    else:
        scaled = c.op("Mul", _grouped(c, g, before=2), _at_end(c, scale))
    return c.split_t(_narrow(c, _group(c).back(scaled), c.x(0)), c.x(0))


def _at_end(c: Call, value: ir.Value) -> ir.Value:
    return c.op("Unsqueeze", value, c.builder.ints(-1))


def _group_sum(c: Call, g: ir.Value, h: ir.Value | None, like: ir.Value) -> ir.Value:
    """Return sum(g h) over each channel or group; h = 1 where it is ``None``."""
    if not _by_channel(c):
        g = _grouped(c, g, before=2)
        g = c.op("Mul", g, h) if h is not None else g
        return _narrow(c, c.builder.sum(g, [-3, -1]), like)
    g = _wide(c, g)
    if h is not None:
        g = c.op("Mul", g, c.op("Reshape", h, c.builder.shape(c.x(0))))
    return _narrow(c, _to_channels(c, g), like)


rule(
    "GroupNormalization",
    _group_x,
    lambda c, g: _group_sum(c, g, _group(c).h, c.x(1)),
    lambda c, g: _group_sum(c, g, None, c.x(2)),
)

# --- over the last axes


def _last(c: Call) -> list[int]:
    return list(range(c.axis(c.x(0), -1), 0))


def _layer(c: Call) -> _Normalized:
    return _Normalized(c, c.x(0), _last(c), _epsilon(c))


def _layer_x(c: Call, gs: Cotangents) -> ir.Value:
    """Return dx from y and from the outputs ``mean`` and ``inverse = 1 / root``.

    dmean/dx = 1/n and dinverse/dx = -h / (n root^2).
    """
    layer, parts = _layer(c), []
    g, mean, inverse = (*gs, None, None)[:3]
    if g is not None:
        parts.append(layer.back(_scaled(c, g)))
    if mean is not None or inverse is not None:
        ones = c.op("Expand", _number(c, 1.0), c.builder.shape(c.x(0)))
        share = c.op("Div", ones, c.builder.sum(ones, layer.axes, keepdims=True))
    if mean is not None:
        parts.append(c.op("Mul", _wide(c, mean), share))
    if inverse is not None:
        slope = c.op("Div", c.op("Mul", layer.h, share), c.op("Mul", layer.root, layer.root))
        parts.append(c.op("Neg", c.op("Mul", _wide(c, inverse), slope)))
    return _narrow(c, c.op("Sum", *parts) if len(parts) > 1 else parts[0], c.x(0))


def _layer_scale(c: Call, gs: Cotangents) -> ir.Value | None:
    return None if gs[0] is None else _normalized_scale(c, gs[0], _layer(c))


def _normalized_scale(c: Call, g: ir.Value, normalized: _Normalized) -> ir.Value:
    dscale = c.op("Mul", _wide(c, g), normalized.h)
    return _narrow(c, unbroadcast(c, dscale, c.x(1)), c.x(1))


def _layer_bias(c: Call, gs: Cotangents) -> ir.Value | None:
    if gs[0] is None:
        return None
    return _narrow(c, unbroadcast(c, _wide(c, gs[0]), c.x(2)), c.x(2))


def _root_mean_square(c: Call) -> _Normalized:
    return _Normalized(c, c.x(0), _last(c), _epsilon(c), centered=False)


joint("LayerNormalization", _layer_x, _layer_scale, _layer_bias)
rule(
    "RMSNormalization",
    lambda c, g: _narrow(c, _root_mean_square(c).back(_scaled(c, g)), c.x(0)),
    lambda c, g: _normalized_scale(c, g, _root_mean_square(c)),
)

# --- over given axes, without scale and bias


def _mean_variance(c: Call, g: ir.Value) -> ir.Value:
    """For y = (x - mean) / (sqrt(var) + 1e-9), taking sqrt(var + 1e-18) for the divisor."""
    rank = c.rank(c.x(0))
    axes = [a % rank - rank for a in c.attribute("axes", [0, 2, 3])]
    normalized = _Normalized(c, c.x(0), axes, _MEAN_VARIANCE**2)
    return _narrow(c, normalized.back(_wide(c, g)), c.x(0))


rule("MeanVarianceNormalization", _mean_variance)
