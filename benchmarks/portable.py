"""A portable model's run over the plain model's, side by side: python benchmarks/portable.py

MODEL ... may be given; by default the embedded model and the real ones at hand. Processor time of
one thread is compared, which other programs disturb little. --quantize also has ONNX Runtime's
static quantizer quantize the portable model in each of its forms, and compares the heatmap.
"""

from __future__ import annotations

import itertools
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
from edge import Reader

import onnxcam

DATA = Path(os.environ.get("ONNXCAM_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
NAMES = ("mobilenetv2-torch-dynamo", "pplcnetv2-paddle", "squeezenet1.1-caffe")
ROUNDS = {1: 120, 8: 15}


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def ratio(plain: Path, portable: Path, name: str, images: np.ndarray) -> tuple[float, float]:
    """Return the ratio of medians, and of the least, of runs in turn."""
    sessions = [session(plain), session(portable)]
    times: list[list[float]] = [[], []]
    for n in range(ROUNDS[len(images)] + 2):
        for which in (0, 1) if n % 2 else (1, 0):
            start = time.process_time()
            sessions[which].run(None, {name: images})
            times[which].append(time.process_time() - start)
    kept = [t[2:] for t in times]
    return statistics.median(kept[1]) / statistics.median(kept[0]), min(kept[1]) / min(kept[0])


def quantized(
    portable: Path,
    out: Path,
    name: str,
    images: list[np.ndarray],
    exclude: list[str],
    form: str,
    per_channel: bool,
) -> float:
    """Return the correlation of the quantized portable model's heatmap with its own."""
    from onnxruntime.quantization import QuantFormat, quantize_static

    quantize_static(
        portable,
        out,
        Reader(images, name),
        quant_format=QuantFormat[form],
        reduce_range=True,
        nodes_to_exclude=exclude,
        per_channel=per_channel,
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
                median, least = ratio(model, out, image.name, images)
                found.append(f"batch {batch}: {median:.3f} (least {least:.3f})")
            if "--quantize" in sys.argv:
                explainer = onnxcam.Explainer(model, providers="cpu")
                photos = _photographs(explainer)
                nodes = [n.name for n in onnx.load(out, load_external_data=False).graph.node]
                own = [n for n in nodes if n.startswith("onnxcam:")]
                for form, by_channel in itertools.product(("QDQ", "QOperator"), (False, True)):
                    for said, left in (("all of it", []), ("the model's own nodes", own)):
                        file, way = Path(folder) / "int8.onnx", (form, by_channel)
                        r = quantized(out, file, image.name, photos, left, *way)
                        by = "channel" if by_channel else "tensor"
                        found.append(f"{form} per {by}, {said}: r = {r:.4f}")
            print(f"{model.stem:<28} {', '.join(found)}", flush=True)


def _photographs(explainer: onnxcam.Explainer) -> list[np.ndarray]:
    from PIL import Image

    photo = np.asarray(Image.open(onnxcam.default_photograph()).convert("RGB"))
    parts = [np.ascontiguousarray(photo[:, i * 20 : 300 + i * 20]) for i in range(8)]
    return [explainer._inputs.prepare(p, explainer.preprocess)[0] for p in [photo, *parts]]


if __name__ == "__main__":
    main()
