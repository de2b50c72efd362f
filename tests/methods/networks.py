"""Small networks on which every method can be run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import onnxcam
from onnxcam.explanation import Explanation

from ..conftest import parse

RNG = np.random.default_rng(11)
IMAGES = RNG.normal(size=(5, 3, 12, 12)).astype("f")
CLASSES = 4
# Every method, cheap enough for a small network.
METHODS = [
    *("grad-cam", "counterfactual", "cam", "hires-cam", "layer-cam", "grad-cam++"),
    *("xgrad-cam", "grad-cam-elementwise", "finer-cam", "grad-cam:max=1,relu=0"),
    *("excitation-bp", "eigen-cam", "random-cam", "ablation-cam"),
    *("saliency", "guided-backprop", "deconvnet", "guided-grad-cam", "deconv-grad-cam"),
    *("eigen-grad-cam", "score-cam", "recipro-cam", "smooth-grad-cam++:samples=3"),
    *("input-x-gradient", "smooth-grad:samples=3", "smooth-grad-squared:samples=3"),
    *("var-grad:samples=3", "gradient-shap:samples=3", "rise:masks=30,cells=4"),
    *("full-grad", "c-mwp", "lrp", "lrp-epsilon", "lrp-gamma", "lrp-z-plus", "lrp-alpha-beta"),
    *("eigen-smoothing", "augmentation-smoothing", "sess:scales=3"),
    *("shapley-cam", "shapley-cam:rest=1"),
    *("fem", "kpca-cam", "ss-cam:samples=2,noise=0.3", "is-cam:steps=2"),
    *("attn-lrp", "deep-lift:baseline=0.1"),
    *("integrated-gradients:steps=6", "occlusion:size=5,stride=3"),
    *("feature-ablation:segments=9", "shapley:samples=4,segments=9"),
    "extremal-perturbation:steps=3,cell=3,sigma=4",
]
# At a transformer's tokens only, see tests/methods/test_transformers.py.
ATTENTION = ["attention-rollout", "attention-gradient", "le-grad"]
LAYERS = ["refine-cam"]  # of several, see tests/methods/test_wrappers.py
BOXES = ["d-rise"]  # of detectors only, see tests/test_boxes.py
INNER = [m for m in METHODS if m != "cam"]  # at a layer that is not simply averaged
# Whose target may be anything, a class being the element of the scores (sess weighs by probability).
ELEMENTS = [m for m in INNER if m not in ("finer-cam", "shapley-cam:rest=1", "sess:scales=3")]


def weights(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    found = {}
    for name, shape in shapes.items():
        scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.2
        found[name] = (rng.normal(size=shape) * scale).astype("f")
    return found


def network(head: str = "pooled", batch: str = "N"):
    """Return three convolutions, ``r1`` to ``r3``, and a head; a skip leads around the third.

    ``pooled``: averaged, then linear (``a3`` is a sum that is averaged, as ResNet's); ``dense``:
    two dense layers over all positions.
    """
    body = """
        c1 = Conv <pads = [1, 1, 1, 1]> (image, w1, b1)
        r1 = Relu(c1)
        p1 = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r1)
        c2 = Conv <pads = [1, 1, 1, 1]> (p1, w2, b2)
        r2 = Relu(c2)
        c3 = Conv <pads = [1, 1, 1, 1]> (r2, w3, b3)
        s3 = Add(c3, r2)
        r3 = Relu(s3)
    """
    heads = {
        "pooled": """
        g = GlobalAveragePool(r3)
        f = Flatten(g)
        scores = Gemm <transB = 1> (f, w4, b4)
        probabilities = Softmax <axis = 1> (scores)""",
        "dense": """
        f = Flatten(r3)
        h = Gemm <transB = 1> (f, w4, b4)
        rh = Relu(h)
        scores = Gemm <transB = 1> (rh, w5, b5)
        probabilities = Softmax <axis = 1> (scores)""",
    }
    shapes: dict[str, tuple[int, ...]] = {
        "w1": (6, 3, 3, 3), "b1": (6,), "w2": (8, 6, 3, 3), "b2": (8,), "w3": (8, 8, 3, 3),
        "b3": (8,), "w4": (CLASSES, 8), "b4": (CLASSES,),
    }  # fmt: skip
    if head == "dense":
        shapes |= {"w4": (10, 288), "b4": (10,), "w5": (CLASSES, 10), "b5": (CLASSES,)}
    return parse(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[{batch},3,12,12] image) => (float[{batch},{CLASSES}] probabilities)
        {{ {body} {heads[head]} }}
        """,
        weights(**shapes),
    )


def explain(path: Path, method, images=IMAGES, targets=None, **options) -> list[list[Explanation]]:
    explainer = onnxcam.Explainer(path, method=method, preprocess="unit", **options)
    return explainer.explain_batch(images, targets)
