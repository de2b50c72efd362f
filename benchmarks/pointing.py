"""The pointing game (Zhang et al. 2016) on annotated photographs, per model.

For every photograph and category: does the heatmap's peak lie in one of the category's boxes
(within 15 pixels)? Beside it the same for the photograph's centre.

    python benchmarks/pointing.py [--resize squash] [MODEL.onnx ...]

Needs the annotated photographs (ONNXCAM_TEST_DATA, default ../shared/data).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path

import onnxcam

DATA = Path(os.environ.get("ONNXCAM_TEST_DATA", "../shared/data"))
TOLERANCE = 15
MODELS = [
    "efficientnet-lite0-torch",
    "mobilenetv2-torch-dynamo",
    "resnet50-keras-w8",
    "pplcnetv2-paddle",
    "squeezenet1.1-mxnet-opset7",
    "squeezenet1.1-caffe",
]


def hit(point: tuple[float, float], boxes: list[list[float]]) -> bool:
    x, y = point
    return any(
        left - TOLERANCE <= x <= left + width + TOLERANCE
        and top - TOLERANCE <= y <= top + height + TOLERANCE
        for left, top, width, height in boxes
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*")
    parser.add_argument("--resize", choices=["squash", "shorter", "letterbox"])
    options = parser.parse_args()
    items = json.loads((DATA / "images" / "benchmark.json").read_text())
    items = [item for item in items if "pointing" in item["tasks"]]
    paths = options.models or [str(DATA / "models" / f"{name}.onnx") for name in MODELS]
    print(f"{len(items)} photographs, tolerance {TOLERANCE} px")
    print("| model | layer | items | heatmap | centre |\n|---|---|---|---|---|")
    for path in paths:
        explainer = onnxcam.Explainer(path, providers="cpu")
        if options.resize:
            explainer.preprocess = dataclasses.replace(
                explainer.preprocess, resize=options.resize, shorter=None
            )
        hits = centre = count = 0
        for item in items:
            targets = [t["imagenet_id"] for t in item["targets"]]
            found = explainer.explain(DATA / "images" / item["file"], targets)
            for target, explanation in zip(item["targets"], found, strict=True):
                boxes = [o["bbox"] for o in item["objects"] if o["category"] == target["category"]]
                hits += explanation.peak is not None and hit(explanation.peak, boxes)
                centre += hit((item["width"] / 2, item["height"] / 2), boxes)
                count += 1
        print(
            f"| {Path(path).stem} | {explainer.plan.layer.name} | {count} "
            f"| {hits / count:.3f} | {centre / count:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
