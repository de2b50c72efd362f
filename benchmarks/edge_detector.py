"""A detector of Ultralytics (YOLOv8) against its own quantized forms; docs/edge-compare.md.

    python benchmarks/edge_detector.py make DETECTOR.onnx DATA FOLDER      # quantize: minutes
    python benchmarks/edge_detector.py compare DETECTOR.onnx DATA FOLDER   # the table, as Markdown
    python benchmarks/edge_detector.py picture DETECTOR.onnx DATA FOLDER IMAGE FORM
    python benchmarks/edge_detector.py memory MODEL.onnx CANDIDATE.onnx DATA COUNT

``DATA`` as in edge.py, whose 40 photographs calibrate, with the labelled ones compared, too.
"""

from __future__ import annotations

import resource
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from edge import Reader, photographs
from PIL import Image

from onnxcam.compare.feeding import Feeding
from onnxcam.compare.page import painted, photograph
from onnxcam.compare.policy import Policy, judge, other_reason
from onnxcam.compare.results import Results, read_results
from onnxcam.compare.run import Run
from onnxcam.compare.setup import Options, pair, reference_side
from onnxcam.compare.totals import totals
from onnxcam.errors import OnnxcamError

OPTIONS = Options(cache=False, provider="cpu")


def reader(source: Path, paths: list[Path]) -> Reader:
    """Return what onnxruntime's quantizer calibrates with."""
    about = reference_side(source, OPTIONS).about
    feeding = Feeding(about, about.image, about.ends)
    return Reader([feeding.prepare(p)[0].tensor for p in paths], about.image.name)


def after_the_head(source: Path) -> list[str]:
    """Return the nodes behind the last convolutions of the head: boxes made of its numbers."""
    nodes = onnx.load(source).graph.node
    head = max(int(n.name.split("/")[1].split(".")[1]) for n in nodes if "/model." in n.name)
    own = [n.name for n in nodes if n.name.startswith(f"/model.{head}/")]
    return [name for name in own if "/cv2." not in name and "/cv3." not in name]


def make(source: Path, data: Path, folder: Path) -> None:
    """Write every form of the model that is not there yet."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.transformers.float16 import convert_float_to_float16

    calibrate = photographs(data)[0]
    qdq = {"quant_format": QuantFormat.QDQ, "per_channel": True}
    tail = after_the_head(source)

    def static(path: Path, **options: object) -> None:
        quantize_static(str(source), path, reader(source, calibrate), **{**qdq, **options})

    kinds: dict[str, Callable[[Path], object]] = {
        "float16": lambda p: onnx.save(
            convert_float_to_float16(onnx.load(source), keep_io_types=True), p
        ),
        "int8-7bit": lambda p: static(p, reduce_range=True, nodes_to_exclude=tail),
        "int8-8bit": lambda p: static(p, nodes_to_exclude=tail),
        "int8-7bit-whole": lambda p: static(p, reduce_range=True),
        "int8-7bit-per-tensor": lambda p: static(
            p, reduce_range=True, per_channel=False, nodes_to_exclude=tail
        ),
        "int8-dynamic": lambda p: quantize_dynamic(source, p, weight_type=QuantType.QUInt8),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, write in kinds.items():
        if not (folder / f"{name}.onnx").exists():
            write(folder / f"{name}.onnx")
            print(name, flush=True)


def compared(source: Path, candidate: Path, paths: list[Path]) -> Results:
    both = pair(reference_side(source, OPTIONS), candidate, OPTIONS, paths)
    run = Run(both.reference, both.candidate, both.feeding, paths)
    rows = [row for batch in run for row in batch]
    return Results(both.reference.about, both.candidate.about, both.matched, rows)


def compare(source: Path, data: Path, folder: Path) -> None:
    """Print the table."""
    _, photos, labelled = photographs(data)
    names = ("agreement", "box_iou", "confidence_drift", "correlation", "iou", "peak_shift")
    print("| form | MB | found, missed, extra | " + " | ".join(names) + " | reason | verdict |")
    print("| --- " * (5 + len(names)) + "|")
    for path in [source, *sorted(folder.glob("*.onnx"))]:
        if (folder / f"{path.stem}.json").is_file():
            results = read_results(folder / f"{path.stem}.json")
        else:
            try:
                results = compared(source, path, [*photos, *labelled])
            except OnnxcamError as error:
                print(f"| {path.stem} | {path.stat().st_size / 1e6:.1f} | {error} |", flush=True)
                continue
            results.save(folder / f"{path.stem}.json")
        found, policy = totals(results.rows), Policy()
        # The surest box alone: where the reference sees none, there is nothing to find again.
        seen = [row for row in results.rows if "confidence_drift" in row.measures]
        agreed = sum(row.measures["agreement"] for row in seen)
        cells = [path.stem, f"{path.stat().st_size / 1e6:.1f}"]
        cells.append(", ".join(map(str, results.boxes().values())))
        cells.append(f"{agreed:.0f} of {len(seen)}")
        cells += [f"{found[name].mean:.3f}" if name in found else "-" for name in names[1:]]
        cells.append(str(sum(other_reason(r, policy) for r in results.rows)))
        cells.append("passes" if judge(results, policy).passed else "fails")
        print("| " + " | ".join(cells) + " |", flush=True)


def picture(source: Path, data: Path, folder: Path, shown: str, form: str) -> None:
    """Write a photograph of a face with the maps of both models, ``FOLDER/FORM-IMAGE.jpg``."""
    results = read_results(folder / f"{form}.json")
    [row] = [r for r in results.rows if Path(r.image).stem == shown]
    photo, geometry = photograph(results.reference, row)
    sides = [replace(s, label="face" if s.box else None) for s in (row.reference, row.candidate)]
    panels = [photo, *(painted(photo, geometry, side) for side in sides)]
    whole = Image.fromarray(np.concatenate(panels, axis=1))
    whole.thumbnail((1200, 1200))
    whole.save(folder / f"{form}-{shown}.jpg", quality=85)
    print(row.measures)


def memory(source: Path, candidate: Path, data: Path, count: str) -> None:
    """Print the largest resident size of a comparison of so many photographs."""
    calibrate, photos, labelled = photographs(data)
    paths = [*photos, *calibrate, *labelled][: int(count)]
    assert len(compared(source, candidate, paths).rows) == len(paths) == int(count)
    print(
        f"{count} photographs: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    tasks = {"make": make, "compare": compare, "picture": picture, "memory": memory}
    paths = [Path(a) for a in sys.argv[2:5]]
    tasks[sys.argv[1]](*paths, *sys.argv[5:])
