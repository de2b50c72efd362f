"""Second derivatives of shapley-cam: what they are, and where they are refused."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from onnxcam.errors import MethodError

from ..conftest import parse
from .networks import IMAGES, explain, network
from .networks import weights as network_weights


def smooth():
    """Return the dense network with Softplus for its last rectifier."""
    model = network("dense")
    [node] = [n for n in model.graph.node if n.output[0] == "rh"]
    node.op_type = "Softplus"
    return model


@pytest.mark.parametrize("targets", [[1], [3, 1, 0]])
def test_the_hessian_is_that_of_the_network(save, targets: list[int]) -> None:
    """In NumPy: behind the layer are ``softplus(a W + b) V``, whose Hessian is written down."""
    model = smooth()
    stored = {t.name: numpy_helper.to_array(t).astype(float) for t in model.graph.initializer}
    path = save(model, "smooth.onnx")
    model.graph.output.append(onnx.helper.make_tensor_value_info("r3", 1, None))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    [maps] = session.run(["r3"], {"image": IMAGES[:2]})
    found = explain(path, "shapley-cam", IMAGES[:2], targets, layer="r3")
    for n, a in enumerate(maps.astype(float)):
        z = stored["w4"] @ a.ravel() + stored["b4"]
        sigmoid = 1 / (1 + np.exp(-z))
        for t, target in enumerate(targets):
            v = stored["w5"][target]
            gradient = stored["w4"].T @ (v * sigmoid)
            bent = stored["w4"].T @ (v * sigmoid * (1 - sigmoid) * (stored["w4"] @ a.ravel()))
            assert np.abs(bent).max() > 0.02 * np.abs(gradient).max()
            means = (gradient - bent / 2).reshape(a.shape).mean(axis=(1, 2))
            expected = np.tensordot(means, a, 1)
            close = np.abs(found[n][t].signed - expected).max() <= 1e-4 * np.abs(expected).max()
            assert close


def test_a_gradient_that_needs_a_higher_opset_is_refused(save) -> None:
    """Det's gradient has a Det of smaller matrices in it, whose own needs opset 16."""

    def path(opset: int):
        model = parse(
            f"""
            <ir_version: 8, opset_import: ["" : {opset}]>
            net (float[N,3,3,3] image) => (float[N,4] scores)
            {{
                maps = Conv (image, w1)
                found = Det(maps)
                scores = MatMul(found, w2)
            }}
            """,
            network_weights(w1=(5, 3, 1, 1), w2=(5, 4)),
        )
        return save(model, f"det{opset}.onnx")

    images = IMAGES[:2, :, :3, :3]
    with pytest.raises(MethodError, match="second derivatives need opset 16, and the model has 13"):
        explain(path(13), "shapley-cam", images, 1, layer="maps")
    assert explain(path(13), "grad-cam", images, 1, layer="maps")[0][0].signed.any()  # ways out
    [[bent], _] = explain(path(16), "shapley-cam", images, 1, layer="maps")
    [[plain], _] = explain(path(16), "grad-cam", images, 1, layer="maps")
    # Det of 3x3 is of degree 3: the Hessian times the maps is 2 times the gradient.
    assert np.abs(bent.signed).max() < 1e-4 * np.abs(plain.signed).max()
