"""In the form for blocks ONNX Runtime converts its layout where images enter and leave only."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from onnx import numpy_helper

from onnxcam import add_gradients

RNG = np.random.default_rng(8)
WEIGHTS = {
    "w": RNG.normal(size=(16, 16, 3, 3)),
    "v": RNG.normal(size=(16, 16, 1, 1)),
    "d": RNG.normal(size=(16, 1, 3, 3)),
    "zero": np.zeros(()),
    "six": np.array(6.0),
}
BODIES = {
    "Relu": "b = Relu(a)",
    "Clip at 0 and 6": "b = Clip(a, zero, six)",
    "Clip at 6": "b = Clip(a, , six)",
    "SiLU": "s = Sigmoid(a) b = Mul(a, s)",
    "a gate": "p = GlobalAveragePool(a) q = Conv(p, v) s = Sigmoid(q) b = Mul(a, s)",
    "a residual": "r = Conv<pads=[1,1,1,1]>(a, w) b = Add(r, a)",
    "branches": """
        r = Conv(a, v) t = Relu(r) q = Conv<pads=[1,1,1,1]>(a, w) u = Relu(q)
        b = Concat<axis=1>(t, u)
    """,
    "averages": "b = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(a)",
    "depthwise": "b = Conv<group=16, pads=[1,1,1,1]>(a, d)",
}
PLAIN = ("a residual", "averages", "depthwise")  # have it in the general form as well


def conversions(proto: onnx.ModelProto, folder: Path) -> int:
    """Return how often the runtime's own graph changes the layout of images."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found = Counter(n.op_type for n in onnx.load(options.optimized_model_filepath).graph.node)
    if not found["Conv"] or "ReorderOutput" not in found:
        pytest.skip("this processor has no blocked layout")
    return found["ReorderInput"] + found["ReorderOutput"]


@pytest.mark.parametrize("name", BODIES)
def test_layouts_change_at_the_ends_only(name: str, tmp_path: Path) -> None:
    channels = 32 if name == "branches" else 16
    proto = onnx.parser.parse_model(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,16,8,8] x) => (float[N,16,8,8] y) {{
            a = Conv<pads=[1,1,1,1]>(x, w)
            {BODIES[name]}
            y = Conv<pads=[1,1,1,1]>(b, last)
        }}
        """
    )
    weights = WEIGHTS | {"last": RNG.normal(size=(16, channels, 3, 3))}
    for key, array in weights.items():
        if any(key in n.input for n in proto.graph.node):
            proto.graph.initializer.append(numpy_helper.from_array(array.astype("f"), key))
    # x and the seed enter, y and the gradient leave.
    assert conversions(add_gradients(proto, "y", "x", blocked=True), tmp_path) == 4
    if name not in PLAIN:
        assert conversions(add_gradients(proto, "y", "x"), tmp_path) > 4
