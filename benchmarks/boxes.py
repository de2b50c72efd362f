"""Boxes of a detector: one and five, over the plain forward pass.

python benchmarks/boxes.py [FILE.onnx PHOTO ...]

Without files: two small detectors of the tests with seeded weights, at 640 by 640.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
from measure import side_by_side, table
from PIL import Image

import onnxcam

SIZE, BOXES = 640, 5


def seeded() -> list[tuple[Path, str]]:
    """Export the detectors of the tests; any picture has boxes in their eyes."""
    import torch

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.parity.detectors import Anchored, Anchorless

    folder, made = Path(tempfile.mkdtemp()), []
    for name, build in (("yolov8-like", Anchorless), ("yolov5-like", Anchored)):
        torch.manual_seed(0)
        path = folder / f"{name}.onnx"
        image = torch.rand(1, 3, SIZE, SIZE)
        torch.onnx.export(build().eval(), (image,), path, dynamo=False, input_names=["images"])
        made.append((path, str(onnxcam.default_photograph())))
    return made


def run(models: list[tuple[Path, str]] | None = None, rounds: int = 9) -> str:
    """Return the table, of one image each."""
    rows = []
    for path, photo in models or seeded():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            explainer = onnxcam.Explainer(path, providers="cpu")
        takes = explainer.plan.image
        prepared = explainer.preprocess
        pixels = np.asarray(Image.open(photo).convert("RGB"))
        if prepared.size is None:
            prepared = replace(prepared, size=(takes.height or SIZE, takes.width or SIZE))
        x, _ = prepared.apply(pixels, takes.layout, takes.dtype)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        five = [f"box:{n}" for n in range(BOXES)]
        detected = explainer.explain_batch(x, five)[0][0].detected.every
        seconds, ratios = side_by_side(
            {
                "plain": lambda s=session, n=takes.name, x=x: s.run(None, {n: x}),
                "one": lambda e=explainer, x=x: e.explain_batch(x, "box:0"),
                "five": lambda e=explainer, x=x, t=five: e.explain_batch(x, t),
            },
            rounds,
        )
        sizes = "x".join(map(str, x.shape[2:]))
        known = [path.stem, sizes, str(len(detected)), f"{seconds['plain'] * 1e3:.1f}"]
        more = f"**{ratios['five'] / ratios['one']:.2f}**"
        rows.append([*known, f"{ratios['one']:.2f}", f"{ratios['five']:.2f}", more])
    header = ["detector", "size", "detections", "plain, ms", "a box", "five boxes"]
    return table([*header, "five over one"], rows)


if __name__ == "__main__":
    given = sys.argv[1:]
    print(run([(Path(m), p) for m, p in zip(given[::2], given[1::2], strict=True)] or None))
