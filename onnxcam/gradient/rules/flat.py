"""Operators that pass no gradient, and why."""

from __future__ import annotations

from onnxcam.gradient.registry import stop

stop("Floor Ceil Round Sign Hardmax", "it is a step function, flat between its steps")
stop(
    "Equal Greater Less GreaterOrEqual LessOrEqual And Or Xor Not IsNaN IsInf",
    "it compares, and true and false carry no gradient",
)
stop("ArgMax ArgMin NonZero", "it returns indices, which are integers")
stop(
    "BitShift BitwiseAnd BitwiseOr BitwiseXor BitwiseNot BitCast",
    "it works on the bits of numbers",
)
stop(
    "Shape Size EyeLike ConstantOfShape RandomNormalLike RandomUniformLike",
    "its result depends on the shape alone",
)
stop("Bernoulli Multinomial", "it draws at random")
