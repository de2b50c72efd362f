"""Spatial operators: what is refused, and what only works where the run brings the lengths."""

from __future__ import annotations

import numpy as np
import pytest

from onnxcam.errors import NoGradientError

from .cases.pooling import average_pool, lp_pool
from .finite import Case, build, check, differentiate

LAST = [  # the last window lies in the padding alone; the runtime drops it, shape inference not
    {"kernel_shape": [2], "strides": [3], "pads": [1, 1], "ceil_mode": 1},
    {"kernel_shape": [3], "strides": [4], "pads": [0, 2], "ceil_mode": 1},
]
POOLS = [("AveragePool", average_pool), ("LpPool", lp_pool)]


@pytest.mark.parametrize(("op", "obvious"), POOLS)
@pytest.mark.parametrize("options", LAST)
def test_a_window_in_the_padding_alone_is_dropped(op: str, obvious, options) -> None:
    x = np.random.default_rng(0).normal(size=(1, 2, 7))
    case = Case(op, [x], options, opset=19, obvious=obvious)
    check(case, 2, dynamic=True)
    with pytest.raises(NoGradientError, match="padding alone"):
        differentiate(build(case, np.float32, False), case, 3)


REFUSED = [
    ("AveragePool", {"kernel_shape": [3], "dilations": [2], "auto_pad": "SAME_UPPER"}, "dilations"),
    ("LpPool", {"kernel_shape": [2], "strides": [3], "auto_pad": "SAME_LOWER"}, "stride"),
]


@pytest.mark.parametrize(("op", "options", "why"), REFUSED)
def test_where_runtimes_disagree_there_is_no_gradient(op: str, options, why: str) -> None:
    case = Case(op, [np.ones((1, 2, 7))], options, opset=19)
    with pytest.raises(NoGradientError, match=why):
        differentiate(build(case, np.float32, False), case, 3)


@pytest.mark.parametrize("options", [{"output_padding": [1]}, {"strides": [4]}])
def test_automatic_pads_of_a_transposed_convolution(options) -> None:
    operands = [np.ones((1, 2, 5)), np.ones((2, 3, 3))]
    case = Case("ConvTranspose", operands, {"auto_pad": "SAME_UPPER", "strides": [2], **options})
    with pytest.raises(NoGradientError, match="auto_pad"):
        differentiate(build(case, np.float32, False), case, 3)
