"""A portable model's run over the plain model's, side by side: python benchmarks/portable.py

MODEL ... may be given; by default the embedded model and the real ones at hand. --quantize also has
ONNX Runtime's static quantizer quantize the portable model, and compares its heatmap.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

import onnxcam

DATA = Path(os.environ.get("ONNXCAM_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
NAMES = ("mobilenetv2-torch-dynamo", "pplcnetv2-paddle", "squeezenet1.1-caffe")
ROUNDS = 15


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def ratio(plain: Path, portable: Path, name: str, images: np.ndarray) -> float:
    """Return the median of ratios, each of two runs next to each other."""
    sessions = [session(plain), session(portable)]
    times = []
    for _ in range(ROUNDS + 2):
        pair = []
        for one in sessions:
            start = time.perf_counter()
            one.run(None, {name: images})
            pair.append(time.perf_counter() - start)
        times.append(pair[1] / pair[0])
    return statistics.median(times[2:])


class Images:
    """What the quantizer is calibrated on."""

    def __init__(self, name: str, images: list[np.ndarray]) -> None:
        self.left = [{name: image} for image in images]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.left.pop() if self.left else None


def quantized(
    portable: Path, out: Path, name: str, images: list[np.ndarray], exclude: list[str]
) -> float:
    """Return the correlation of the quantized portable model's heatmap with its own."""
    from onnxruntime.quantization import QuantFormat, quantize_static

    quantize_static(
        portable,
        out,
        Images(name, images),
        quant_format=QuantFormat.QDQ,
        reduce_range=True,
        nodes_to_exclude=exclude,
        per_channel=bool(exclude),  # it cannot quantize Gather of rows by channel
    )
    maps = [session(p).run(["heatmap"], {name: images[0]})[0].ravel() for p in (portable, out)]
    return float(np.corrcoef(*maps)[0, 1])


def main() -> None:
    warnings.simplefilter("ignore")
    given = [Path(a) for a in sys.argv[1:] if not a.startswith("-")]
    models = given or [onnxcam.default_model(), *(DATA / "models" / f"{n}.onnx" for n in NAMES)]
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            if not model.exists():
                continue
            out = Path(folder) / "portable.onnx"
            made = onnxcam.export(model, out, overwrite=True)
            image, found = made.plan.image, []
            for batch in (1, 8):
                if image.batch not in (None, batch):
                    continue
                shape = (batch, *(d or 224 for d in image.shape))
                images = rng.standard_normal(shape).astype(image.dtype)
                found.append(f"batch {batch}: {ratio(model, out, image.name, images):.3f}")
            if "--quantize" in sys.argv:
                explainer = onnxcam.Explainer(model, providers="cpu")
                photos = _photographs(explainer)
                nodes = [n.name for n in onnx.load(out, load_external_data=False).graph.node]
                own = [n for n in nodes if n.startswith("onnxcam:")]
                for said, excluded in (("all of it", []), ("the model's own nodes", own)):
                    r = quantized(out, Path(folder) / "int8.onnx", image.name, photos, excluded)
                    found.append(f"int8 {said}: r = {r:.4f}")
            print(f"{model.stem:<28} {', '.join(found)}", flush=True)


def _photographs(explainer: onnxcam.Explainer) -> list[np.ndarray]:
    from PIL import Image

    photo = np.asarray(Image.open(onnxcam.default_photograph()).convert("RGB"))
    parts = [np.ascontiguousarray(photo[:, i * 20 : 300 + i * 20]) for i in range(8)]
    return [explainer._inputs.prepare(p, explainer.preprocess)[0] for p in [photo, *parts]]


if __name__ == "__main__":
    main()
