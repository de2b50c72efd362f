"""A single number of a tensor as the target, over a class of the same model.

python benchmarks/elements.py [FILE.onnx ...]
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
from measure import side_by_side, table

import onnxcam
from onnxcam.surgeon.inspect import tensors

CLASS = 281
AIM = 1.10


def run(paths: list[Path] | None = None, rounds: int = 9) -> str:
    """Return the table, of one image and one target."""
    if paths is None:
        import exports

        paths = [exports.export(name) for name in exports.NAMES]
    rows = []
    for path in paths:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            explainer = onnxcam.Explainer(path, preprocess="unit", providers="cpu")
        takes, score = explainer.plan.image, explainer.plan.score
        sizes = (takes.height or 224, takes.width or 224)
        shape = (takes.channels, *sizes) if takes.layout == "NCHW" else (*sizes, takes.channels)
        image = np.random.default_rng(0).uniform(0, 1, size=shape).astype(takes.dtype)
        shape_of = {facts.name: facts.shape for facts, _ in tensors(path)}
        element = f"{score}[{','.join([str(CLASS), *['0'] * (len(shape_of[score]) - 2)])}]"
        [by_class], [one] = explainer.explain(image, CLASS), explainer.explain(image, element)
        error = np.abs(by_class.signed - one.signed).max() / np.abs(by_class.signed).max()
        if not error <= 1e-4:
            raise AssertionError(f"{path.name}: {element} differs from the class by {error:.1e}")
        seconds, ratios = side_by_side(
            {
                "class": lambda e=explainer, i=image: e.explain(i, CLASS),
                "element": lambda e=explainer, i=image, t=element: e.explain(i, t),
            },
            rounds,
        )
        milliseconds = f"{seconds['class'] * 1e3:.2f}"
        rows.append([path.stem, milliseconds, f"**{ratios['element']:.3f}**", f"{AIM:.2f}"])
    return table(["model", "class, ms", "element", "aim"], rows)


if __name__ == "__main__":
    print(run([Path(name) for name in sys.argv[1:]] or None))
