"""ONNX Runtime's static quantizer takes portable models, and their heatmaps stay alike."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

import onnxcam

from ..conftest import parse, runtime

quantization = pytest.importorskip("onnxruntime.quantization")
HEADS = {
    "gemm": ("logits = Gemm <transB=1> (pooled, row, bias)", (5, 12)),
    "matmul": ("product = MatMul (pooled, row) logits = Add (product, bias)", (12, 5)),
}


def network(head: str) -> bytes:
    """A map of 8x8 with a peak in each quarter, averaged, and a linear layer of either form."""
    layer, shape = HEADS[head]
    rng = np.random.default_rng(7)
    text = f"""
        <ir_version: 8, opset_import: ["" : 13]>
        net (float[N,3,32,32] image) => (float[N,5] logits) {{
            c1 = Conv <strides=[2,2], pads=[1,1,1,1]> (image, w1, b1)
            r1 = Relu (c1)
            c2 = Conv <strides=[2,2], pads=[1,1,1,1]> (r1, w2, b2)
            r2 = Relu (c2)
            mean = GlobalAveragePool (r2)
            pooled = Flatten (mean)
            {layer}
        }}
    """
    sizes = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (12, 8, 3, 3), "b2": (12,)}
    sizes |= {"row": shape, "bias": (5,)}
    weights = {n: (rng.normal(size=s) * 0.3).astype("f") for n, s in sizes.items()}
    return parse(text, weights).SerializeToString()


def images() -> np.ndarray:
    coarse = np.random.default_rng(3).normal(size=(6, 3, 4, 4))
    return np.repeat(np.repeat(coarse, 8, 2), 8, 3).astype("f")


class Images:
    def __init__(self) -> None:
        self.left = [{"image": image[None]} for image in images()]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.left.pop() if self.left else None


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
@pytest.mark.parametrize("head", HEADS)
def test_the_heatmap_survives_the_quantizer(head, form, per_channel, tmp_path: Path) -> None:
    made = onnxcam.export(network(head), tmp_path / "made.onnx")
    logging.disable(logging.WARNING)
    quantization.quantize_static(
        made.path,
        tmp_path / "int8.onnx",
        Images(),
        quant_format=quantization.QuantFormat[form],
        per_channel=per_channel,
        reduce_range=True,
    )
    logging.disable(logging.NOTSET)
    maps = []
    for path in (made.path, tmp_path / "int8.onnx"):
        session = runtime(path)
        found = session.run(["heatmap", "targets"], {"image": images()})
        maps.append(found[0].ravel())
    assert maps[0].max() == 1 and maps[0].std() > 0.1
    assert np.corrcoef(*maps)[0, 1] > 0.98
