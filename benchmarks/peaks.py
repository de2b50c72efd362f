"""How often a map's peak lies in the box of the detection that it explains.

Of each photograph the surest three detections; beside the methods, the photograph's centre.

    python benchmarks/peaks.py [--preprocess CARD] [--least 0.6] [--method NAME] DETECTOR.onnx PHOTO...
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter

from measure import table
from PIL import Image

import onnxcam

METHODS = ["layer-cam", "hires-cam", "grad-cam", "grad-cam++", "eigen-cam", "random-cam"]
CENTRE = "centre"


def inside(point: tuple[float, float] | None, box: tuple[float, ...]) -> bool:
    """Whether a point is in a box; a map that says nothing has none."""
    return point is not None and box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def run(detector: str, photos: list[str], card: str, least: float, methods: list[str]) -> str:
    explainer = onnxcam.Explainer(detector, method=methods, preprocess=card, providers="cpu")
    hits: Counter[str] = Counter()
    count = 0
    for photo in photos:
        pixels = Image.open(photo).convert("RGB")
        centre = pixels.width / 2, pixels.height / 2
        for found in explainer.explain(pixels):
            seen = found.detected.one
            if seen.box is None or seen.probability < least:
                continue
            hits[found.method] += inside(found.peak, seen.box)
            if found.method == methods[0]:
                count += 1
                hits[CENTRE] += inside(centre, seen.box)
    header = ["detections", *methods, CENTRE]
    return table(header, [[str(count), *(str(hits[name]) for name in header[1:])]])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("detector")
    parser.add_argument("photos", nargs="+")
    parser.add_argument("--preprocess", default="auto")
    parser.add_argument("--least", type=float, default=0.0)
    parser.add_argument("--method", action="append")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    print(run(given.detector, given.photos, given.preprocess, given.least, given.method or METHODS))
