"""Sanity checks of Adebayo et al. 2018: does a map change when the network's weights are random?

    python benchmarks/sanity.py [--models FILE,FILE] [--methods saliency,grad-cam] [--steps 8]
        [--many-steps 3] [--photographs 5] [--shuffle] [--write]

The weights of convolutions and dense layers are drawn anew, from a normal distribution of the same
mean and deviation: from the top layer down (cascade), and one layer at a time. The class stays that
which the trained network predicts. Methods of up to ten forward passes are tried on every model,
the others on the last one, with fewer draws and steps than usual. ``--write`` puts the tables that
were made into docs/sanity.md, and the sheets into docs/pictures. Needs ONNXCAM_TEST_DATA (default
../shared/data).
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from measure import table
from PIL import Image, ImageDraw
from randomised import from_the_top, layers, randomised, ssim

import onnxcam
from onnxcam.compare.measures import pearson, ranks
from onnxcam.imaging.colour import colour_table
from onnxcam.kernels.space import resized
from onnxcam.methods.base import Method
from onnxcam.methods.registry import find_method, methods

DATA = Path(os.environ.get("ONNXCAM_TEST_DATA", "../shared/data"))
DOCS = Path(__file__).parents[1] / "docs"
MODELS = ["mobilenetv2-torch-dynamo.onnx", "squeezenet1.1-mxnet-opset7.onnx"]
PHOTOGRAPHS = ["both.png", "pets.jpg", "cheetah_person.jpg", "voc2007_001763.jpg", "cat_dog.jpg"]
FEWER = {"masks": 400, "samples": 16, "steps": 16, "iterations": 50, "permutations": 2}
FEWEST = {"ss-cam": {"samples": 2}, "is-cam": {"steps": 2}}  # these take as many for every channel
BEGIN, END = "<!-- sanity checks -->", "<!-- end of checks -->"
SIZE = 224  # at which structure is compared
CELL = 48  # pixels of a picture on a sheet
Maps = dict[str, list[onnxcam.Explanation | None]]  # by method, one a photograph


def chosen(many: bool, wanted: list[str] | None) -> list[Method]:
    """Return the methods of up to ten forward passes, or those of more."""
    found = []
    for name, method in methods().items():
        few = method.drive is None or (method.cost.isdigit() and int(method.cost) <= 10)
        if few != many and (wanted is None or name in wanted):
            less = {k: min(v, FEWER[k]) for k, v in method.parameters.items() if k in FEWER}
            less |= FEWEST.get(name, {})
            found.append(find_method(method, **less))
    return found


def usable(path: Path, some: Sequence[Method], photo: Path) -> list[Method]:
    """Return the methods that a network takes; say which it does not."""
    found = []
    for method in some:
        try:
            onnxcam.Explainer(path, method=method, providers="cpu").explain(photo)
            found.append(method)
        except onnxcam.OnnxcamError as error:
            print(f"{path.stem}: without {method.label}: {error}"[:200], flush=True)
    return found


def explained(
    model: onnx.ModelProto, path: Path, some: Sequence[Method], photos: Sequence[Path], targets: Any
) -> Maps:
    """Return maps of every method; ``None`` where a network is refused or not finite."""
    try:
        together = onnxcam.Explainer(model, method=some, providers="cpu", preprocess=_card(path))
        rows = [together.explain(p, t) for p, t in zip(photos, targets, strict=True)]
        return {m.label: [row[n] for row in rows] for n, m in enumerate(some)}
    except onnxcam.OnnxcamError as error:
        if len(some) == 1:
            print(f"{path.stem}: {some[0].label}: {error}"[:200], flush=True)
            return {some[0].label: [None] * len(photos)}
    halves = some[: len(some) // 2], some[len(some) // 2 :]
    first, second = (explained(model, path, half, photos, targets) for half in halves)
    return first | second


@cache
def _card(path: Path) -> Any:
    """Return how the trained file's photographs are prepared."""
    return onnxcam.Explainer(path, providers="cpu").preprocess


def shown(one: onnxcam.Explanation) -> np.ndarray:
    """Return the map without its sign, ``[H, W]`` in 0..1, of the size that is compared."""
    raw = one.raw.astype(np.float32)
    if raw.shape != (SIZE, SIZE):
        raw = resized(raw[None], (SIZE, SIZE))[0]
    return np.asarray(raw / max(float(raw.max()), 1e-30))


class Ranked:
    """What is compared of a map: the ranks of its sizes and of its signed values, the picture."""

    def __init__(self, one: onnxcam.Explanation) -> None:
        self.sizes = ranks(one.raw.astype(np.float64))
        self.signed = ranks(one.signed.astype(np.float64))
        self.shown = shown(one)

    def alike(self, one: onnxcam.Explanation | None) -> tuple[float, float, float]:
        """Return both rank correlations (Spearman's) with another map, and the SSIM."""
        if one is None:
            return (np.nan,) * 3
        other = Ranked(one)
        return (
            pearson(self.sizes, other.sizes),
            pearson(self.signed, other.signed),
            ssim(self.shown, other.shown),
        )


class Check:
    """What became of the maps of one network.

    Attributes:
        counts: how many layers were random, from the top, step by step.
        singles: which layers were random alone.
        cascade: ``[steps, methods, photographs, 3]``, what ``Ranked.alike`` returns.
        independent: the same of single layers.
        sheet: maps of the first photograph by method: trained, then of each step of the cascade.
    """

    def __init__(
        self, path: Path, many: bool, photos: Sequence[Path], steps: int, given: argparse.Namespace
    ) -> None:
        some = chosen(many, given.methods)
        model = onnx.load(path)
        known = list(layers(model))
        self.name, self.methods, self.total = path.stem, usable(path, some, photos[0]), len(known)
        self.many = many
        self.counts = sorted({round(c) for c in np.linspace(1, len(known), steps)})
        self.singles = [known[-c] for c in self.counts]
        plain = onnxcam.Explainer(path, providers="cpu")
        targets = [plain.explain(p)[0].target for p in photos]
        trained = explained(model, path, self.methods, photos, targets)
        self.sheet = {label: [found[0]] for label, found in trained.items()}
        before = {label: [Ranked(one) for one in found] for label, found in trained.items()}

        def compared(names: list[str], keep: bool) -> list[list[tuple[float, float, float]]]:
            other = randomised(model, names, seed=0, shuffle=given.shuffle)
            maps = explained(other, path, self.methods, photos, targets)
            print(f"{self.name}: {len(names)} of {len(known)} random, {names[0]}", flush=True)
            for label, found in maps.items() if keep else ():
                self.sheet[label].append(found[0])
            return [
                [a.alike(b) for a, b in zip(before[m.label], maps[m.label], strict=True)]
                for m in self.methods
            ]

        cascade = from_the_top(known, self.counts)
        self.cascade = np.array([compared(names, keep=True) for names in cascade])
        self.independent = np.array([compared([name], keep=False) for name in self.singles])

    def tables(self) -> Iterator[str]:
        """Yield Markdown: means over the photographs."""
        cascade = np.nanmean(self.cascade, axis=2)
        single = np.nanmean(self.independent, axis=2)
        counts = [str(c) for c in self.counts]
        last = ["signed, all", "SSIM, all"]
        header = ["cascade: layers random", *counts, *last, "one layer: mean", "largest change"]
        rows = []
        order = np.argsort(-cascade[-1, :, 0])
        for m in order:
            path = [f"{v:.2f}" for v in cascade[:, m, 0]]
            worst = int(np.argmin(single[:, m, 0]))
            rows.append([
                f"`{self.methods[m].label}`", *path,
                f"{cascade[-1, m, 1]:.2f}", f"{cascade[-1, m, 2]:.2f}",
                f"{single[:, m, 0].mean():.2f}",
                f"{single[worst, m, 0]:.2f} at {self.counts[worst]}",
            ])  # fmt: skip
        yield f"### {self.name}, {self.total} layers{', methods of many runs' * self.many}"
        yield ""
        yield table(header, rows)
        yield ""

    def picture(self) -> Image.Image:
        """Return the sheet: a row a method, the trained network first, then step by step."""
        left, top = 150, 16
        columns = ["trained", *map(str, self.counts)]
        size = left + len(columns) * (CELL + 2), top + len(self.sheet) * (CELL + 2)
        page = Image.new("RGB", size, "white")
        draw = ImageDraw.Draw(page)
        colours = colour_table()
        for n, text in enumerate(columns):
            draw.text((left + n * (CELL + 2) + 2, 2), text, fill="black")
        for m, (label, maps) in enumerate(self.sheet.items()):
            y = top + m * (CELL + 2)
            draw.text((2, y + CELL // 2 - 6), label.partition(":")[0], fill="black")
            for n, one in enumerate(maps):
                if one is not None:
                    page.paste(_small(one, colours), (left + n * (CELL + 2), y))
        return page.quantize(64, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def _small(one: onnxcam.Explanation, colours: np.ndarray) -> Image.Image:
    """Return a map in colours; at the image its brightest hundredth is cut off."""
    found = shown(one)
    if one.space != "layer":
        found = np.clip(found / max(float(np.quantile(found, 0.99)), 1e-30), 0, 1)
    small = Image.fromarray((found * 255).astype(np.uint8)).resize(
        (CELL, CELL), Image.Resampling.BOX
    )
    return Image.fromarray(colours[np.asarray(small)])


def sections(text: str) -> dict[str, str]:
    """Return the tables of a text by their headings."""
    parts = text.split("### ")[1:]
    return {part.partition("\n")[0]: part.partition("\n")[2].strip() for part in parts}


def write(checks: Sequence[Check], text: str) -> None:
    """Put tables and sheets into the documents; tables of other methods stay."""
    page = DOCS / "sanity.md"
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    old, _, after = rest.partition(END)
    whole = "\n\n".join(f"### {k}\n\n{v}" for k, v in (sections(old) | sections(text)).items())
    page.write_text(f"{before}{BEGIN}\n\n{whole}\n\n{END}{after}", "utf-8")
    for check in checks:
        name = check.name.split("-")[0].replace(".", "-") + "-many" * check.many
        check.picture().save(DOCS / "pictures" / f"sanity-{name}.png", optimize=True)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=lambda t: t.split(","))
    parser.add_argument("--methods", type=lambda t: t.split(","))
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--many-steps", type=int, default=3, help="of methods of many runs")
    parser.add_argument("--photographs", type=int, default=len(PHOTOGRAPHS))
    parser.add_argument("--shuffle", action="store_true")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    paths = [Path(m) for m in given.models or [DATA / "models" / m for m in MODELS]]
    photos = [DATA / "images" / "two_objects" / p for p in PHOTOGRAPHS[: given.photographs]]
    checks = []
    for path, many in [*((p, False) for p in paths), (paths[-1], True)]:
        if chosen(many, given.methods):
            steps = given.many_steps if many else given.steps
            checks.append(Check(path, many, photos, steps, given))
    text = "\n".join(line for check in checks for line in check.tables())
    print(text)
    if given.write:
        write(checks, text)


if __name__ == "__main__":
    main(sys.argv[1:])
