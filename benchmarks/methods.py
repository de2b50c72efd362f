"""Methods over the forward pass, and several at once over the dearest of them."""

from __future__ import annotations

import warnings

import exports
import numpy as np
import onnxruntime
from measure import side_by_side, table

import onnxcam

METHODS = ["grad-cam", "layer-cam", "grad-cam++", "excitation-bp", "guided-grad-cam"]


def run(names: list[str] | None = None, rounds: int = 9) -> str:
    """Return the table, of one image and two threads."""
    rows = []
    image = np.random.default_rng(0).normal(size=(3, 224, 224)).astype(np.float32)
    for name in names or ["resnet50", "mobilenet_v2"]:
        path = exports.export(name)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        feeds = {session.get_inputs()[0].name: image[None]}
        calls = {"forward": lambda s=session, f=feeds: s.run(None, f)}
        for label, methods in {**{m: [m] for m in METHODS}, "all five": METHODS}.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                explainer = onnxcam.Explainer(
                    path, method=methods, preprocess="unit", providers="cpu"
                )
            calls[label] = lambda e=explainer: e.explain(image)
        _, ratios = side_by_side(calls, rounds)
        five = ratios["all five"] / max(ratios[m] for m in METHODS)
        figures = [f"{ratios[c]:.2f}" for c in list(calls)[1:]]
        rows.append([name, *figures, f"**{five:.2f}**", "1.20"])
    return table(["network", *METHODS, "all five", "over the dearest", "aim"], rows)


if __name__ == "__main__":
    print(run())
