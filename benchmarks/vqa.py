"""Visual question answering: where a network looks when it answers (docs/tasks.md).

On questions of easy-vqa that the network answers rightly:

* how often the map's peak lies on the shape, beside the shape's share of the picture;
* rank correlation (Spearman, image by image, then the mean) of the map with the occlusion map:
  how much the answer's score drops, and how much it changes, when a patch of the picture's
  background colour hides a part. The network's own sessions make it, not onnxcam's `occlusion`.

    pip install easy-vqa
    python benchmarks/vqa.py [--count 250] [--picture FILE.jpg] [MODEL.onnx]

MODEL is easy-vqa-keras.onnx, by default of the test data (ONNXCAM_TEST_DATA).
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import warnings
from collections import defaultdict
from pathlib import Path

import easy_vqa
import numpy as np
import onnx
import onnxruntime
from PIL import Image

import onnxcam
from onnxcam.compare.measures import spearman
from onnxcam.imaging.sheets import sheet

DATA = Path(os.environ.get("ONNXCAM_TEST_DATA", "../shared/data"))
CARD = Path(__file__).resolve().parents[1] / "examples" / "easy-vqa.toml"
QUESTION = "input_2"
POOLED = "model_1/max_pooling2d_3/MaxPool:0"
METHODS = ["grad-cam", "hires-cam", "layer-cam"]
CELL = 4  # pixels of the picture: maps are compared on 16x16 cells
PATCH = 16
# The picture for the page:
PICTURE, SCALE = 6, 3
ASKED = {
    "what color is the shape?": ["blue", "green", "red"],
    "what shape is in the image?": ["circle", "rectangle", "triangle"],
}


def cells(image: np.ndarray) -> np.ndarray:
    """Means over cells, [64, 64] -> [16, 16]."""
    side = len(image) // CELL
    return image.reshape(side, CELL, side, CELL).mean((1, 3))


def shape_of(pixels: np.ndarray) -> np.ndarray:
    """Where the shape is: what differs from the background, which fills the corners."""
    return np.abs(pixels.astype(int) - background(pixels)).max(axis=-1) > 30


def background(pixels: np.ndarray) -> np.ndarray:
    colours, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    return colours[counts.argmax()]


class Occlusion:
    """How the answer's score drops where a patch hides the picture."""

    def __init__(self, model: Path, score: str) -> None:
        made = onnx.load(model)
        made.graph.output.append(onnx.ValueInfoProto(name=score))
        self.session = onnxruntime.InferenceSession(
            made.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        self.score, self.image = score, made.graph.input[0].name

    def __call__(self, pixels: np.ndarray, question: np.ndarray, answer: int) -> np.ndarray:
        starts = range(CELL - PATCH, len(pixels), CELL)
        parts = [
            tuple(slice(max(c, 0), c + PATCH) for c in corner)
            for corner in np.stack(np.meshgrid(starts, starts), -1).reshape(-1, 2).tolist()
        ]
        images = np.repeat(pixels[None], len(parts) + 1, axis=0)
        for image, part in zip(images[1:], parts, strict=True):
            image[part] = background(pixels)
        feeds = {
            self.image: (images / 255 - 0.5).astype(np.float32),
            QUESTION: np.repeat(question, len(images), axis=0),
        }
        scores = self.session.run([self.score], feeds)[0][:, answer]
        total, count = np.zeros((2, *pixels.shape[:2]))
        for score, part in zip(scores[1:], parts, strict=True):
            total[part] += scores[0] - score
            count[part] += 1
        return total / count


def measure(model: Path, count: int) -> None:
    questions, answers, numbers = easy_vqa.get_test_questions()
    pictures = easy_vqa.get_test_image_paths()
    layers = onnxcam.Explainer(model, preprocess=CARD, method=METHODS, layer=["auto", POOLED])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without rectifiers guided-backprop is the gradient
        pixels = onnxcam.Explainer(model, preprocess=CARD, method="guided-backprop")
    occlusion = Occlusion(model, layers.plan.score)
    chosen = np.random.default_rng(0).choice(len(questions), count, replace=False)
    found: dict[tuple[str, str], list[tuple[float, ...]]] = defaultdict(list)
    right, area, centre = 0, [], []
    for n in chosen:
        picture, inputs = pictures[numbers[n]], {QUESTION: questions[n]}
        image = np.asarray(Image.open(picture).convert("RGB"))
        maps = [e for x in (layers, pixels) for e in x.explain(picture, inputs=inputs)]
        if maps[0].label != answers[n]:
            continue
        right += 1
        shape = shape_of(image)
        area.append(shape.mean())
        centre.append(shape[32, 32])
        drop = cells(occlusion(image, layers.others.check(inputs)[QUESTION], maps[0].target))
        named = answers[n] not in ("yes", "no")
        for e in maps:
            x, y = (int(min(v, 63)) for v in e.peak or (0, 0))
            seen = cells(np.asarray(e.heatmap, float))
            agreement = (spearman(seen, drop), spearman(seen, np.abs(drop)))
            found[e.method, e.layer].append((float(shape[y, x]), float(named), *agreement))
    print(f"{count} questions, {right} answered rightly. The shape covers {np.mean(area):.2f} of")
    print(f"the picture; the picture's centre lies on it in {np.mean(centre):.2f}.\n")
    print("| method | layer | peak on the shape | drop: what | drop: yes or no | change |")
    print("|---|---|---|---|---|---|")
    for (method, layer), rows in found.items():
        hit, named, drop, change = np.array(rows).T
        cells_ = [f"{hit.mean():.2f}", mean(drop[named > 0]), mean(drop[named == 0]), mean(change)]
        print(f"| {method} | {layer} | {' | '.join(cells_)} |")


def mean(values: np.ndarray) -> str:
    return f"{values.mean():.2f} ± {values.std() / np.sqrt(len(values)):.2f}"


def picture(model: Path, file: Path) -> None:
    """Write one picture with the maps of several questions and answers."""
    methods = ["layer-cam", "grad-cam"]
    explainer = onnxcam.Explainer(model, preprocess=CARD, method=methods, layer=POOLED)
    explainer.preprocess = dataclasses.replace(explainer.preprocess, interpolation="box")
    small = Image.open(easy_vqa.get_test_image_paths()[PICTURE]).convert("RGB")
    photo = small.resize([SCALE * n for n in small.size], Image.Resampling.NEAREST)
    rows = []
    for question, wanted in ASKED.items():
        found = explainer.explain(photo, wanted, inputs={QUESTION: question})
        shown = found[: len(wanted) + 1]  # of grad-cam the first answer alone
        row = [(f"{e.rank}. {e.label}, {e.method}", e.overlay()) for e in shown]
        rows.append([(question, photo), *row])
    sheet(rows).save(file, quality=88, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", default=DATA / "models" / "easy-vqa-keras.onnx")
    parser.add_argument("--count", type=int, default=250)
    parser.add_argument("--picture", type=Path, help="write the page's picture instead")
    options = parser.parse_args()
    if options.picture:
        picture(Path(options.model), options.picture)
    else:
        measure(Path(options.model), options.count)


if __name__ == "__main__":
    main()
