"""Check the gradient of a whole graph, in float64, against differences of what it computes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx.shape_inference
from onnx import parser

from onnxcam.gradient.differentiate import add_gradients

from .finite import central, session

STEP = 1e-3


def model(text: str, opset: int = 17) -> onnx.ModelProto:
    """Parse a graph of type double; ``D`` abbreviates double of unknown shape."""
    header = f'<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1]>\n'
    parsed = parser.parse_model(header + text.replace("D ", "double[] "))
    found = onnx.shape_inference.infer_shapes(parsed, data_prop=True)
    onnx.checker.check_model(found)
    return found


def check_graph(
    proto: onnx.ModelProto,
    of: str,
    to: Sequence[str],
    feeds: dict[str, np.ndarray],
    targets: int = 3,
) -> onnx.ModelProto:
    """Compare every cotangent with central differences; return the model with gradients."""
    rng = np.random.default_rng(11)
    before = session(proto.SerializeToString())
    y = before.run([of], feeds)[0]
    changed = add_gradients(proto, of, to)
    onnx.checker.check_model(changed, full_check=True)
    seed = rng.normal(size=(targets, *y.shape))
    names = [output.name for output in changed.graph.output[-len(to) :]]
    found = session(changed.SerializeToString()).run(names, {**feeds, f"seed:{of}": seed})
    for name, gradient in zip(to, found, strict=True):
        x = feeds[name]
        assert gradient.shape == (targets, *x.shape), (gradient.shape, x.shape)
        for index in range(x.size):
            probe = np.eye(x.size)[index].reshape(x.shape)

            def along(h: float, name: str = name, probe: np.ndarray = probe) -> np.ndarray:
                return before.run([of], {**feeds, name: feeds[name] + h * probe})[0]

            slope = central(along, STEP).ravel()
            numeric = seed.reshape(targets, -1) @ slope
            analytic = gradient.reshape(targets, -1)[:, index]
            bound = 1e-7 * max(np.abs(gradient).max(), 1.0)
            np.testing.assert_allclose(analytic, numeric, rtol=1e-6, atol=bound, err_msg=name)
    return changed
