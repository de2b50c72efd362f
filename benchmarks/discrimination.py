"""Class discrimination: does a map lie on its own class rather than on the other's?

Of every photograph that shows two classes or more, the two that the model scores highest are
explained, and each map is averaged over the boxes of its own class and over those of the other,
without pixels that lie in both or that the network did not see. A case is won where its own mean is
the larger one. A map that is the same for every class wins exactly one of two: 0.5. Of maps whose
numbers add up to the score, or are drops of it, only what speaks for the class counts, summed over
channels; of other maps at the image their size.

    python benchmarks/discrimination.py [--photographs 10] [--model MODEL.onnx] [METHOD ...]

Without methods: those of one run that fit the model. Needs the annotated photographs
(ONNXCAM_TEST_DATA, default ../shared/data).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import onnxcam
from onnxcam.methods.registry import methods

DATA = Path(os.environ.get("ONNXCAM_TEST_DATA", "../shared/data"))
Item = dict[str, Any]


# At the image, with a sign that says for or against.
SIGNED = ("input-x-gradient", "lrp", "attn-lrp", "deep-lift", "integrated", "gradient-shap")
SIGNED += ("occlusion", "rise", "feature-ablation", "shapley")


def heat(explanation: onnxcam.Explanation) -> NDArray[np.float32]:
    """Return what counts of a map, on the photograph, ``[H, W]``."""
    if not explanation.method.startswith(SIGNED):
        return explanation.heatmap
    signed = explanation.signed
    total = signed.sum(axis=0) if signed.ndim > explanation.axes else signed
    return dataclasses.replace(explanation, signed=np.maximum(total, 0)).heatmap


def covered(item: Item, category: str) -> NDArray[np.bool_]:
    """Return which pixels ``[H, W]`` lie in the category's boxes."""
    found = np.zeros((item["height"], item["width"]), bool)
    for thing in item["objects"]:
        if thing["category"] == category:
            left, top, width, height = thing["bbox"]
            rows = slice(int(top), max(int(top + height), int(top) + 1))
            found[rows, int(left) : max(int(left + width), int(left) + 1)] = True
    return found


def won(heatmap: NDArray[np.float32], own: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    """Return whether a map is larger on its own class; where it is zero on both it is not."""
    return bool(heatmap[own].mean() > heatmap[other].mean())


def usable(model: str, names: list[str]) -> list[str]:
    """Return the methods that the model takes; say which it does not."""
    found = []
    for name in names:
        try:
            explainer = onnxcam.Explainer(model, method=name, providers="cpu")
            explainer.explain(onnxcam.default_photograph())
            found.append(name)
        except onnxcam.OnnxcamError as error:
            print(f"without {name}: {error}", flush=True)
    return found


def parts(explainer: onnxcam.Explainer, item: Item) -> tuple[list[NDArray[np.bool_]], list[int]]:
    """Return the pixels of the two best classes, and these; no pixels where they are not apart."""
    targets = item["targets"]
    found = explainer.explain(DATA / "images" / item["file"], [t["imagenet_id"] for t in targets])
    order = sorted(range(len(targets)), key=lambda i: -found[i].score)
    two = [targets[i] for i in order[:2]]
    first, second = (covered(item, t["category"]) & found[0].visible for t in two)
    alone = [first & ~second, second & ~first]
    return (alone if all(a.any() for a in alone) else []), [t["imagenet_id"] for t in two]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("methods", nargs="*")
    parser.add_argument("--photographs", type=int)
    parser.add_argument("--model", default=str(onnxcam.default_model()))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    items = json.loads((DATA / "images" / "benchmark.json").read_text())
    items = [item for item in items if "two_class" in item["tasks"]][: options.photographs]
    plain = onnxcam.Explainer(options.model, providers="cpu")
    one_run = [m.name for m in methods().values() if m.drive is None]
    names = options.methods or usable(options.model, one_run)
    explainer = onnxcam.Explainer(options.model, method=names, providers="cpu")
    wins, cases, seen = dict.fromkeys(names, 0), 0, 0
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C: the table of those that were done
        for item in items:
            alone, two = parts(plain, item)
            found = explainer.explain(DATA / "images" / item["file"], two) if alone else []
            for n, explanation in enumerate(found):  # for each method both targets
                own, other = alone[:: -1 if n % 2 else 1]
                wins[names[n // 2]] += won(heat(explanation), own, other)
            cases, seen = cases + len(alone), seen + 1
    print(f"{cases} cases of {seen} photographs, {Path(options.model).stem}")
    print("| method | won | share |\n|---|---|---|")
    for name in sorted(names, key=lambda n: -wins[n]):
        print(f"| {name} | {wins[name]} | {wins[name] / max(cases, 1):.3f} |")


if __name__ == "__main__":
    main()
