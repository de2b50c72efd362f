"""Export the models that every runtime is checked with, and what the Explainer says of each.

python -m tests.portable.make FOLDER

Writes NAME.onnx, raw little-endian arrays, and manifest.json, which says which array is which:
checkers of other environments (check.py, check.mjs) need nothing of onnxcam.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import onnxcam

from ..conftest import DATA, parse

CASES = DATA.parent / "cases"
CARD = """
[preprocess]
resize = "shorter"
shorter = 256
size = [224, 224]
divide = 255
mean = 0.5
std = 0.5
"""
ROUNDED = "an int8 step more or less moves the map: two optimization levels of one runtime do"


def vgg() -> onnx.ModelProto:
    """Convolutions, pooling, and dense layers over flattened maps."""
    rng = np.random.default_rng(5)
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,3,32,40] image) => (float[N,6] probabilities) {
            c1 = Conv <pads=[1,1,1,1]> (image, w1, b1)
            r1 = Relu (c1)
            p1 = MaxPool <kernel_shape=[2,2], strides=[2,2]> (r1)
            c2 = Conv <pads=[1,1,1,1]> (p1, w2, b2)
            r2 = Relu (c2)
            p2 = MaxPool <kernel_shape=[2,2], strides=[2,2]> (r2)
            flat = Flatten (p2)
            d1 = Gemm <transB=1> (flat, w3, b3)
            r3 = Relu (d1)
            d2 = Gemm <transB=1> (r3, w5, b5)
            r4 = Relu (d2)
            logits = Gemm <transB=1> (r4, w4, b4)
            probabilities = Softmax <axis=1> (logits)
        }
    """
    sizes = {
        "1": (8, 3, 3, 3),
        "2": (12, 8, 3, 3),
        "3": (20, 12 * 8 * 10),
        "4": (6, 20),
        "5": (20, 20),
    }
    weights = {}
    for n, size in sizes.items():
        weights[f"w{n}"] = (rng.normal(size=size) * (2 / np.prod(size[1:])) ** 0.5).astype("f")
        weights[f"b{n}"] = (rng.normal(size=size[0]) * 0.1).astype("f")
    return parse(text, weights)


def images(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Return coarse noise with some fine one on it: without that, equal neighbours tie in pools."""
    rng = np.random.default_rng(1)
    coarse = rng.normal(size=[1, *(max(1, n // 16) if n > 8 else n for n in shape)])
    for axis, n in enumerate(shape, 1):
        if n > 8:
            coarse = np.repeat(coarse, -(-n // coarse.shape[axis]), axis).take(range(n), axis)
    coarse = coarse + 0.3 * rng.normal(size=coarse.shape)
    if np.dtype(dtype) == np.uint8:
        return np.clip(128 + 60 * coarse, 0, 255).astype(np.uint8)
    return coarse.astype(dtype)


class Photographs:
    """What the quantizer is calibrated on: parts of one photograph."""

    def __init__(self, name: str, explainer: onnxcam.Explainer) -> None:
        photo = photograph()
        parts = [photo[:, i * 20 : 300 + i * 20] for i in range(8)]
        prepare = explainer.preprocess.apply
        self.left = [{name: prepare(np.ascontiguousarray(p), "NCHW", "float32")[0]} for p in parts]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.left.pop() if self.left else None


def photograph() -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(onnxcam.default_photograph()).convert("RGB"))


def quantize(source: Path, out: Path, data: object) -> None:
    """Quantize a model's weights and activations in QDQ form.

    With 7 bits for weights (``reduce_range``) no processor's int8 products saturate.
    """
    import logging

    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    logging.disable(logging.WARNING)
    quantize_static(
        source,
        out,
        data,
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=True,
    )


def entries(folder: Path) -> list[dict[str, Any]]:
    """Return what is exported: model, methods, targets, tolerance."""
    (folder / "vgg-source.onnx").write_bytes(vgg().SerializeToString())
    source = onnxcam.default_model()
    explainer = onnxcam.Explainer(source, providers="cpu")
    quantize(source, folder / "int8-source.onnx", Photographs("input", explainer))
    (folder / "int8-source.toml").write_text(CARD)
    exact: dict[str, Any] = {"most": 1e-4, "elsewhere": 1e-3, "correlation": 0.0}
    rounded = {"most": 5e-2, "elsewhere": 5e-2, "correlation": 0.999, "why": ROUNDED}
    found = [
        {"name": "gap", "model": onnxcam.default_model(), "method": "grad-cam", **exact},
        {"name": "gap-told", "model": onnxcam.default_model(), "target_required": True, **exact},
        {"name": "gap-half", "model": onnxcam.default_model(), "fp16": True, **rounded},
        {"name": "gap-photo", "model": onnxcam.default_model(), "with_preprocessing": True}
        | {"overlay": True, **rounded},
        {"name": "vgg", "model": folder / "vgg-source.onnx", "targets": ["top:2", 3], **exact}
        | {"method": ["grad-cam", "layer-cam", "saliency"]},
        {"name": "vit", "model": CASES / "tokens-vit.onnx", "batch": 1, **exact},
        {"name": "detector", "model": CASES / "detector-yolo8.onnx", "batch": 1, **exact},
        # OpenVINO rounds between the layers of a quantized network in a way of its own.
        {"name": "int8", "model": folder / "int8-source.onnx", **rounded}
        | {"openvino": {"elsewhere": 7e-2, "correlation": 0.998}},
    ]
    return [e for e in found if e["model"].exists()]


def make(folder: Path, entry: dict[str, Any]) -> dict[str, Any]:
    """Export one model and explain one image."""
    limits = ("name", "model", "most", "elsewhere", "correlation", "why", "openvino")
    options = {k: v for k, v in entry.items() if k not in limits}
    name = entry["name"]
    out = folder / f"{name}.onnx"
    made = onnxcam.export(entry["model"], out, overwrite=True, **options)
    onnx.checker.check_model(onnx.load(out), full_check=True)
    method = options.get("method", "auto")
    explainer = onnxcam.Explainer(entry["model"], method=method, providers="cpu")
    image, targets = made.plan.image, options.get("targets")
    feeds, fed = {}, {}
    if options.get("with_preprocessing"):
        feeds[made.names["photo"]] = x = photograph()
    elif name == "int8":
        seen = np.ascontiguousarray(photograph()[:, 60:400])
        x = explainer.preprocess.apply(seen, "NCHW", "float32")[0]
        feeds[image.name] = x
    else:
        feeds[image.name] = x = images(image.shape, image.dtype)
    if options.get("target_required"):
        targets = [7, "top:1"]
        fed = {made.names["target"]: np.array([[7, -1]])}
    explanations = explainer.explain(x, targets)
    if explainer.plan.detector is not None and targets is None:
        explanations = explanations[:1]
    if not explanations:
        raise SystemExit(f"{name}: no explanation of this image")
    expected = {}
    for used in dict.fromkeys(e.method for e in explanations):
        mine = [e for e in explanations if e.method == used]
        expected[made.heatmaps[used]] = np.stack([e.heatmap for e in mine])[None]
    if options.get("overlay"):
        pictures = [np.asarray(e.overlay()) for e in explanations]
        expected[made.overlays["grad-cam"]] = np.stack(pictures)
    first = [e for e in explanations if e.method == explanations[0].method]
    expected[made.names["scores"]] = np.array([[e.score for e in first]], np.float32)
    return {
        "name": name,
        "model": out.name,
        "inputs": written(folder, f"{name}-in", {**feeds, **fed}),
        "expected": written(folder, f"{name}-out", expected),
        **{k: v for k, v in entry.items() if k in limits[2:]},
    }


def written(folder: Path, prefix: str, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Write arrays; return how they are found."""
    found = []
    for n, (name, array) in enumerate(arrays.items()):
        file = f"{prefix}-{n}.bin"
        (folder / file).write_bytes(np.ascontiguousarray(array).tobytes())
        found.append(
            {"name": name, "file": file, "dtype": str(array.dtype)} | {"shape": array.shape}
        )
    return found


def main() -> None:
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    made = [make(folder, entry) for entry in entries(folder)]
    (folder / "manifest.json").write_text(json.dumps(made, indent=1))
    print(f"exported  {', '.join(m['name'] for m in made)}")


if __name__ == "__main__":
    main()
