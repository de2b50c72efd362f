"""EfficientNet-Lite0 against its own quantized forms, by ``onnxcam.compare``; docs/edge-compare.md.

    python benchmarks/edge.py make DATA FOLDER       # quantize: minutes; needs onnxruntime
    python benchmarks/edge.py compare DATA FOLDER    # the table, as Markdown, and FOLDER/NAME.json
    python benchmarks/edge.py speed DATA FOLDER      # compare over both models run plainly
    python benchmarks/edge.py sweep DATA FOLDER      # one scale off, layer by layer
    python benchmarks/edge.py picture DATA FOLDER    # FOLDER/compare.jpg, after compare

``DATA`` holds ``images/coco``, ``images/voc`` and ``images/imagenet_samples``. 40 photographs of
the first two calibrate, every fourth, and the others are compared; the 60 of the third are labelled.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

import onnxcam
from onnxcam.compare.feeding import Feeding
from onnxcam.compare.policy import Policy, judge, other_reason
from onnxcam.compare.results import Results
from onnxcam.compare.run import Run
from onnxcam.compare.setup import Options, pair, reference_side
from onnxcam.compare.totals import totals

SOURCE = Path(onnxcam.default_model())
OFF = "head.relu6"  # whose scale is wrong in the subtly broken model
FACTOR = 0.125


def photographs(data: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Return those that calibrate, those that are compared, and the labelled ones."""
    every = sorted([*(data / "images/coco").glob("*.jpg"), *(data / "images/voc").glob("*.jpg")])
    calibrate = every[::4][:40]
    labelled = sorted((data / "images/imagenet_samples").glob("*.JPEG"))
    return calibrate, [p for p in every if p not in calibrate], labelled


class Reader:
    """What onnxruntime's quantizer calibrates with."""

    def __init__(self, tensors: list[np.ndarray], name: str = "input") -> None:
        self._left = iter([{name: tensor} for tensor in tensors])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next image."""
        return next(self._left, None)


def tensors(paths: list[Path]) -> list[np.ndarray]:
    about = reference_side(SOURCE, Options()).about
    feeding = Feeding(about, about.image, about.ends)
    return [feeding.prepare(path)[0].tensor for path in paths]


def make(data: Path, folder: Path) -> None:
    """Write every form of the model that is not there yet."""
    from onnxruntime.quantization import (
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )
    from onnxruntime.transformers.float16 import convert_float_to_float16

    right = tensors(photographs(data)[0])
    noise = list(np.random.default_rng(0).normal(0, 0.1, (40, 1, 3, 224, 224)).astype("f"))
    qdq = {"quant_format": QuantFormat.QDQ, "per_channel": True}
    narrow = {**qdq, "reduce_range": True}
    kinds: dict[str, Callable[[Path], object]] = {
        "int8-minmax": lambda p: quantize_static(str(SOURCE), p, Reader(right), **qdq),
        "int8-minmax-7bit": lambda p: quantize_static(str(SOURCE), p, Reader(right), **narrow),
        "int8-percentile-7bit": lambda p: quantize_static(
            str(SOURCE),
            p,
            Reader(right),
            calibrate_method=CalibrationMethod.Percentile,
            **narrow,
        ),
        "int8-per-tensor": lambda p: quantize_static(
            str(SOURCE), p, Reader(right), quant_format=QuantFormat.QDQ, reduce_range=True
        ),
        "int8-qoperator": lambda p: quantize_static(
            str(SOURCE), p, Reader(right), quant_format=QuantFormat.QOperator, per_channel=True
        ),
        "int8-dynamic": lambda p: quantize_dynamic(SOURCE, p, weight_type=QuantType.QUInt8),
        "int4-weights": lambda p: onnx.save(int4_weights(), p),
        "int4-static": lambda p: quantize_static(
            str(SOURCE), p, Reader(right), weight_type=QuantType.QInt4, **qdq
        ),
        "float16": lambda p: onnx.save(
            convert_float_to_float16(onnx.load(SOURCE), keep_io_types=True), p
        ),
        "broken-noise": lambda p: quantize_static(str(SOURCE), p, Reader(noise), **narrow),
        "broken-scale": lambda p: onnx.save(
            scaled(folder / "int8-minmax-7bit.onnx", OFF, FACTOR), p
        ),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, write in kinds.items():
        if not (folder / f"{name}.onnx").exists():
            write(folder / f"{name}.onnx")
            print(name, flush=True)


def int4_weights(block: int = 32) -> onnx.ModelProto:
    """Return the model with int4 weights in blocks along each filter, activations in float.

    Of depthwise filters, which are shorter than a block, each is a block.
    """
    model = onnx.version_converter.convert_version(onnx.load(SOURCE), 21)
    weights = {t.name: t for t in model.graph.initializer}
    for node in [n for n in model.graph.node if n.op_type in ("Conv", "Gemm")]:
        tensor = weights[node.input[1]]
        array = numpy_helper.to_array(tensor)
        rows = array.reshape(len(array), -1)
        size = block if rows.shape[1] % block == 0 else rows.shape[1]
        blocks = rows.reshape(len(rows), -1, size)
        scale = np.maximum(np.abs(blocks).max(axis=2) / 7, 1e-12).astype("f")
        codes = np.clip(np.rint(blocks / scale[..., None]), -8, 7).astype(np.int8)
        name = tensor.name
        model.graph.initializer.remove(tensor)
        packed = onnx.helper.make_tensor(
            f"{name}.int4", onnx.TensorProto.INT4, rows.shape, codes.reshape(rows.shape).ravel()
        )
        shape = numpy_helper.from_array(np.array(array.shape, np.int64), f"{name}.shape")
        model.graph.initializer.extend(
            [packed, numpy_helper.from_array(scale, f"{name}.scale"), shape]
        )
        dequantized = onnx.helper.make_node(
            "DequantizeLinear",
            [f"{name}.int4", f"{name}.scale"],
            [f"{name}.rows"],
            axis=1,
            block_size=size,
        )
        reshaped = onnx.helper.make_node("Reshape", [f"{name}.rows", f"{name}.shape"], [name])
        for made in (reshaped, dequantized):
            model.graph.node.insert(0, made)
    model.ir_version = max(model.ir_version, 10)
    return model


def scaled(path: Path, tensor: str, factor: float) -> onnx.ModelProto:
    """Return a QDQ model in which one activation's scale is wrong by a factor."""
    model = onnx.load(path)
    [scale] = [t for t in model.graph.initializer if t.name == f"{tensor}_scale"]
    wrong = numpy_helper.to_array(scale) * np.float32(factor)
    scale.CopyFrom(numpy_helper.from_array(wrong.astype("f"), scale.name))
    return model


def compared(candidate: Path, paths: list[Path]) -> Results:
    options = Options(cache=False)
    both = pair(reference_side(SOURCE, options), candidate, options, paths)
    rows = [
        row for batch in Run(both.reference, both.candidate, both.feeding, paths) for row in batch
    ]
    return Results(both.reference.about, both.candidate.about, both.matched, rows)


def accuracy(results: Results, data: Path) -> float:
    """Return how often the candidate's class is the label."""
    classes = (data / "imagenet_classes.txt").read_text().splitlines()
    right = json.loads((data / "images/imagenet_samples/labels.json").read_text())
    hits = [row.candidate.target == _label(right, row.image, classes) for row in results.rows]
    return float(np.mean(hits))


def _label(right: dict, image: str, classes: list[str]) -> int:
    found = right[Path(image).name]
    found = found.get("index", found.get("class")) if isinstance(found, dict) else found
    return found if isinstance(found, int) else classes.index(found)


def compare(data: Path, folder: Path) -> None:
    """Print the table."""
    _, photos, labelled = photographs(data)
    policy = Policy()
    print(
        "| model | MB | right | same answer | correlation | peak shift | same answer | correlation | peak shift | different reason | verdict |"
    )
    print("| --- " * 11 + "|")
    for path in [SOURCE, *sorted(folder.glob("*.onnx"))]:
        first, second = compared(path, labelled), compared(path, photos)
        for name, results in (("labelled", first), ("photographs", second)):
            results.save(folder / f"{path.stem}-{name}.json")
        cells = [path.stem, f"{path.stat().st_size / 1e6:.1f}", f"{accuracy(first, data):.2f}"]
        for results in (first, second):
            found = totals(results.rows)
            cells += [
                f"{found['agreement'].mean:.2f}",
                f"{found['correlation'].mean:.3f}",
                f"{found['peak_shift'].mean:.3f}",
            ]
        cells.append(str(sum(other_reason(r, policy) for r in [*first.rows, *second.rows])))
        cells.append("passes" if judge(second, policy).passed else "fails")
        print("| " + " | ".join(cells) + " |", flush=True)


def sweep(data: Path, folder: Path) -> None:
    """Print what one wrong scale does, for several layers and factors, on the labelled images."""
    labelled = photographs(data)[2]
    for tensor in ("head.relu6", "block15.project.out", "block14.add", "block10.add"):
        for factor in (0.5, 0.25, 0.125):
            place = folder.parent / "sweep.onnx"
            onnx.save(scaled(folder / "int8-minmax-7bit.onnx", tensor, factor), place)
            results = compared(place, labelled)
            found = totals(results.rows)
            print(
                tensor,
                factor,
                f"right {accuracy(results, data):.3f}",
                *(f"{k} {found[k].mean:.3f}" for k in ("agreement", "correlation", "peak_shift")),
                f"other reason {sum(other_reason(r, Policy()) for r in results.rows)}",
                flush=True,
            )


def picture(data: Path, folder: Path, shown: str = "000000525891") -> None:
    """Write a photograph with the maps of the original and of the subtly broken model."""
    from PIL import Image

    from onnxcam.compare.page import painted, photograph
    from onnxcam.compare.results import read_results

    results = read_results(folder / "broken-scale-photographs.json")
    [row] = [r for r in results.rows if Path(r.image).stem == shown]
    photo, geometry = photograph(results.reference, row)
    panels = [photo, *(painted(photo, geometry, side) for side in (row.reference, row.candidate))]
    whole = Image.fromarray(np.concatenate(panels, axis=1))
    whole.thumbnail((1200, 1200))
    whole.save(folder / "compare.jpg", quality=85)


def speed(data: Path, folder: Path, rounds: int = 3) -> None:
    """Print how fast a comparison is, over both models run plainly from the same photographs.

    On a loaded machine the CPU time tells more than the clock.
    """
    _, photos, labelled = photographs(data)
    paths = [*photos, *labelled][:150]
    candidate = folder / "int8-minmax-7bit.onnx"
    options = Options(cache=False)
    both = pair(reference_side(SOURCE, options), candidate, options, paths)
    sessions = [onnxruntime.InferenceSession(str(p)) for p in (SOURCE, candidate)]

    def plain() -> Iterator[int]:
        from onnxcam.runtime.batching import ahead

        def ready(some: list[Path]) -> np.ndarray:
            return np.concatenate([both.feeding.prepare(p)[0].tensor for p in some])

        chunks = [paths[i : i + 8] for i in range(0, len(paths), 8)]
        for batch in ahead(chunks, ready):
            for session in sessions:
                session.run(None, {"input": batch})
            yield len(batch)

    def whole() -> Iterator[int]:
        for rows in Run(both.reference, both.candidate, both.feeding, paths):
            yield len(rows)

    ratios = []
    for _ in range(rounds):
        spent = []
        for walk in (plain, whole):
            wall, cpu = time.perf_counter(), time.process_time()
            assert sum(walk()) == len(paths)
            spent.append((time.perf_counter() - wall, time.process_time() - cpu))
        ratios.append([a / b for a, b in zip(*spent, strict=True)])
        print("plain, compare: {}; wall {:.3f}, CPU {:.3f}".format(spent, *ratios[-1]), flush=True)
    wall, cpu = (statistics.median(r[i] for r in ratios) for i in (0, 1))
    print(
        f"median of the plain speed: wall {wall:.3f}, CPU time {cpu:.3f}; {len(paths)} photographs"
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    tasks = {"make": make, "compare": compare, "speed": speed, "sweep": sweep, "picture": picture}
    tasks[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
