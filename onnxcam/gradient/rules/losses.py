"""Losses, expanded into simpler operators.

The score of the target class is selected by comparing the target with every class index, so that
infinite scores of other classes do no harm.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.gradient.call import Call
from onnxcam.gradient.registry import expansion


def _likelihood(c: Call, scores: ir.Value) -> ir.Value:
    """Return the loss ``-w[y] scores[n, y, ...]`` of target classes ``y``, reduced as asked for."""
    target, weights, op, ints = c.x(1), c.operand(2), c.op, c.builder.ints
    classes = op("Slice", c.builder.shape(c.x(0)), ints(1), ints(2))
    indices = op(
        "Range",
        c.builder.constant(0),
        op("Squeeze", classes, ints(0)),
        c.builder.constant(1),
    )
    indices = op("Reshape", indices, ints(-1, *[1] * (c.rank(c.x(0)) - 2)))
    target = op("Cast", target, to=ir.DataType.INT64)
    hot = op("Equal", op("Unsqueeze", target, ints(1)), indices)
    picked = op("Where", hot, scores, c.like(0.0))
    loss = op("Neg", op("ReduceSum", picked, ints(1), keepdims=0))
    share = None if weights is None else op("Gather", weights, _inside(c, target))
    if "ignore_index" in c.node.attributes:
        counted = op("Not", op("Equal", target, _ignored(c)))
        loss = op("Where", counted, loss, c.like(0.0))
        ones = op("Cast", counted, to=c.kind)
        share = ones if share is None else op("Mul", share, ones)
    if share is not None:
        loss = op("Mul", loss, share)
    reduction = c.attribute("reduction", "mean")
    if reduction == "none":
        return loss
    if reduction == "sum":
        return op("ReduceSum", loss, keepdims=0)
    if share is None:
        return c.builder.mean(loss, list(range(1 - c.rank(c.x(0)), 0)))
    return op("Div", op("ReduceSum", loss, keepdims=0), op("ReduceSum", share, keepdims=0))


def _ignored(c: Call) -> ir.Value:
    return c.builder.constant(int(c.attribute("ignore_index", 0)))


def _inside(c: Call, target: ir.Value) -> ir.Value:
    """Return the targets; ignored ones, which need not be classes, become class 0."""
    if "ignore_index" not in c.node.attributes:
        return target
    return c.op("Where", c.op("Equal", target, _ignored(c)), c.builder.constant(0), target)


def _negative_log_likelihood(c: Call) -> list[ir.Value]:
    return [_likelihood(c, c.x(0))]


def _cross_entropy(c: Call) -> list[ir.Value]:
    """Return the loss of the log softmax; this is the second output."""
    logarithms = c.op("LogSoftmax", c.x(0), axis=1)
    return [_likelihood(c, logarithms), logarithms]


expansion("NegativeLogLikelihoodLoss", _negative_log_likelihood)
expansion("SoftmaxCrossEntropyLoss", _cross_entropy)
