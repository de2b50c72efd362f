"""The forms that a gradient is written in: any number of cotangents, one, one in blocks."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser

from onnxcam import add_gradients

from .finite import session

FORMS: list[dict[str, object]] = [{}, {"T": 1}, {"blocked": True}]


def gradient(proto: onnx.ModelProto, feeds: dict[str, np.ndarray], **form: object) -> np.ndarray:
    """Return the gradient of ``y0`` to ``x0`` for a seed that depends on its shape only."""
    made = add_gradients(proto, "y0", "x0", **form)  # type: ignore[arg-type]
    if all(current(n, proto) for n in proto.graph.node):
        onnx.checker.check_model(made, full_check=True)
    y = session(proto.SerializeToString()).run(["y0"], feeds)[0]
    seed = np.random.default_rng(3).normal(size=(1, *y.shape)).astype(y.dtype)
    runtime = session(made.SerializeToString())
    got, dx = runtime.run(["y0", "gradient:x0"], {**feeds, "seed:y0": seed})
    np.testing.assert_allclose(got, y, rtol=1e-5, atol=1e-6)
    assert isinstance(dx, np.ndarray) and dx.shape == (1, *feeds["x0"].shape)
    return dx


def current(node: onnx.NodeProto, proto: onnx.ModelProto) -> bool:
    """Whether onnx's checker lets an operator of the standard pass."""
    if not onnx.defs.has(node.op_type, node.domain):
        return False
    return not onnx.defs.get_schema(node.op_type, proto.opset_import[0].version).deprecated


def close(found: np.ndarray, expected: np.ndarray) -> None:
    """Compare to single precision."""
    bound = 2e-5 * max(float(np.abs(expected).max(initial=0)), 1e-3)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=bound)


def single(text: str) -> onnx.ModelProto:
    """Parse a graph of single precision."""
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')


def pulled(proto: onnx.ModelProto, to: str, x: np.ndarray, **form: object) -> np.ndarray:
    """Return the gradient of the sum of ``y0``."""
    made = add_gradients(proto, "y0", to, **form)  # type: ignore[arg-type]
    y = session(proto.SerializeToString()).run(["y0"], {"x0": x})[0]
    feeds = {"x0": x, "seed:y0": np.ones((1, *y.shape), np.float32)}
    [found] = session(made.SerializeToString()).run([f"gradient:{to}"], feeds)
    return np.asarray(found)
