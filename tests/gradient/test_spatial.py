"""Spatial operators: what is refused, and what only works where the run brings the lengths."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest
from onnx import numpy_helper

from onnxcam import add_gradients
from onnxcam.errors import NoGradientError

from .cases.lp_pool import lp_pool
from .cases.pool import average_pool
from .finite import Case, build, check, differentiate, session

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


DENSE = [
    "AveragePool<kernel_shape=[2,2]>(x)",
    "AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)",
    "AveragePool<kernel_shape=[3,3], pads=[2,0,1,2], count_include_pad=1>(x)",
    "AveragePool<kernel_shape=[1,1]>(x)",
    "Conv<group=4, pads=[1,1,1,1]>(x, w)",
]
COARSE = [
    "AveragePool<kernel_shape=[3,3], strides=[3,3]>(a)",
    "AveragePool<kernel_shape=[4,3], strides=[4,3]>(a)",
    "AveragePool<kernel_shape=[3,3], strides=[3,3], ceil_mode=1>(a)",
    "Conv<strides=[3,3]>(a, p)",
    "Slice(a, one, three, axes)",
]


@pytest.mark.parametrize("form", [{}, {"T": 1}, {"blocked": True}], ids=str)
@pytest.mark.parametrize("coarse", COARSE)
@pytest.mark.parametrize("dense", DENSE)
def test_what_the_runtime_merges(dense: str, coarse: str, form: dict[str, object]) -> None:
    """ONNX Runtime makes one operator of Pad and what follows, also where that takes less of it.

    All are linear, so that ``<s, J v> = <J^T s, v>``.
    """
    proto = onnx.parser.parse_model(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[1,4,9,8] x) => (float[1,4,H,W] y) {{ a = {dense} y = {coarse} }}
        """
    )
    rng = np.random.default_rng(3)
    stored = {
        "w": rng.normal(size=(4, 1, 3, 3)).astype("f"),
        "p": rng.normal(size=(4, 4, 1, 1)).astype("f"),
        **{name: np.array([n, n]) for name, n in (("one", 1), ("three", 3))},
        "axes": np.array([2, 3]),
    }
    used = {i for n in proto.graph.node for i in n.input}
    proto.graph.initializer.extend(
        numpy_helper.from_array(a, n) for n, a in stored.items() if n in used
    )
    x = rng.normal(size=(1, 4, 9, 8)).astype("f")
    y = session(proto.SerializeToString()).run(["y"], {"x": x})[0]
    seed = rng.normal(size=y.shape).astype("f")
    runtime = session(add_gradients(proto, "y", "x", **form).SerializeToString())  # type: ignore[arg-type]
    [dx] = runtime.run(["gradient:x"], {"x": x, "seed:y": seed[None]})
    np.testing.assert_allclose(np.vdot(seed, y), np.vdot(dx, x), rtol=1e-4, atol=1e-4)
