"""A model whose images have their channels last gives the maps of the same one with them first."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from .networks import IMAGES, METHODS, explain, network
from .test_identities import close

# Those that read or drive the image, whose layout they must not mind.
NAMES = ("score-cam", "recipro-cam", "smooth-grad-cam++", "smooth-grad", "gradient-shap", "rise")
NAMES += ("input-x-gradient", "full-grad", "lrp", "lrp-gamma", "attn-lrp", "deep-lift")
NAMES += ("augmentation-smoothing", "finer-cam", "c-mwp", "eigen-grad-cam")


@pytest.mark.parametrize("method", [m for m in METHODS if m.split(":")[0] in NAMES])
def test_channels_last(save, method: str) -> None:
    model = network("dense")
    for node in model.graph.node:
        node.input[:] = ["first" if name == "image" else name for name in node.input]
    turn = onnx.helper.make_node("Transpose", ["image"], ["first"], perm=[0, 3, 1, 2])
    model.graph.node.insert(0, turn)
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    for size, length in zip(sizes[1:], (12, 12, 3), strict=True):
        size.dim_value = length
    images = np.ascontiguousarray(IMAGES[:2].transpose(0, 2, 3, 1))
    found = explain(save(model, "last.onnx"), method, images, [1, 2], layer="r2")
    expected = explain(save(network("dense")), method, IMAGES[:2], [1, 2], layer="r2")
    for ones, others in zip(found, expected, strict=True):
        for one, other in zip(ones, others, strict=True):
            close(one.signed, other.signed, 1e-4)
