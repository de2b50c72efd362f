"""ONNX Runtime's static quantizer takes portable models, and their heatmaps stay alike."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxcam

from ..conftest import parse, runtime
from .make import CASES, vgg

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
    coarse = np.random.default_rng(3).normal(size=(6, 3, 4, 5))
    return np.repeat(np.repeat(coarse, 8, 2), 8, 3).astype("f")


class Images:
    def __init__(self, seen: np.ndarray) -> None:
        self.left = [{"image": image[None]} for image in seen]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.left.pop() if self.left else None


def quantized(made: onnxcam.portable.Exported, out: Path, data: Images, **options) -> Path:
    logging.disable(logging.WARNING)
    try:
        quantization.quantize_static(made.path, out, data, reduce_range=True, **options)
    finally:
        logging.disable(logging.NOTSET)
    return out


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
@pytest.mark.parametrize("head", ["gemm", "matmul", "vgg"])
def test_the_heatmap_survives_the_quantizer(head, form, per_channel, tmp_path: Path) -> None:
    model = vgg().SerializeToString() if head == "vgg" else network(head)
    made = onnxcam.export(model, tmp_path / "made.onnx")
    seen = images()[..., :40] if head == "vgg" else images()[..., :32]
    kind = quantization.QuantFormat[form]
    out = quantized(
        made, tmp_path / "int8.onnx", Images(seen), quant_format=kind, per_channel=per_channel
    )
    maps = [runtime(p).run(["heatmap"], {"image": seen})[0].ravel() for p in (made.path, out)]
    assert maps[0].max() == 1 and maps[0].std() > 0.1
    assert np.corrcoef(*maps)[0, 1] > 0.98


@pytest.mark.skipif(not CASES.exists(), reason=f"no cases at {CASES}")
def test_a_detector_goes_and_is_alike_where_the_gradient_is_left_out(tmp_path) -> None:
    made = onnxcam.export(CASES / "detector-yolo8.onnx", tmp_path / "made.onnx", batch=1)
    image = np.load(CASES / "detector-yolo8.npz")["input.image"][:1]
    own = [n.name for n in onnx.load(made.path).graph.node if n.name.startswith("onnxcam:")]
    want = runtime(made.path).run(["heatmap"], {"image": image})[0]
    for excluded in ([], own):
        form = {"quant_format": quantization.QuantFormat.QOperator, "per_channel": True}
        out = quantized(made, tmp_path / "q.onnx", Images(image), nodes_to_exclude=excluded, **form)
        found = runtime(out).run(["heatmap"], {"image": image})[0]
        assert np.isfinite(found).all()
    assert np.corrcoef(found.ravel(), want.ravel())[0, 1] > 0.98
