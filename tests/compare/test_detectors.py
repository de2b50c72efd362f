"""Detectors: which boxes go together, and how alike their maps are, worked out a second time."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

import onnxcam
from onnxcam.compare.boxes import Boxes, compare_boxes, matched
from onnxcam.compare.measures import ALIKE, LOST, UNSEEN
from onnxcam.compare.results import FAILED
from onnxcam.compare.setup import Options, reference_side
from onnxcam.errors import CompareError, LayerError
from onnxcam.targets.detections import Detection

from ..conftest import runtime, small_cnn
from ..test_best_boxes import paddle, tensorflow
from ..yolo import STRIDES, yolo
from .models import cnn, renamed
from .test_sides import compared, means

SIZE = 96


def disturbed(model: onnx.ModelProto, size: float, seed: int = 3) -> onnx.ModelProto:
    """Return the model with noise on its filters, as coarse quantization puts it there."""
    rng = np.random.default_rng(seed)
    made = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in made.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.ndim == 4:
            noisy = array + size * array.std() * rng.normal(size=array.shape)
            tensor.CopyFrom(numpy_helper.from_array(noisy.astype("f"), tensor.name))
    return made


class Own(NamedTuple):
    """A detection as this file reads it; the box in pixels of the input."""

    index: int
    score: float
    box: np.ndarray
    row: int


def iou(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inside = max(width, 0.0) * max(height, 0.0)
    return inside / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inside)


def read(output: np.ndarray) -> list[Own]:
    """Threshold and suppress ``[4 + C, A]``, as every detector's tools do."""
    x, y, w, h = output[:4]
    boxes = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1).clip(0, SIZE)
    scores = output[4:].T
    rows = [r for r in np.argsort(-scores.max(1)) if scores[r].max() > 0.25]
    found: list[Own] = []
    for r in rows:
        one = Own(int(scores[r].argmax()), float(scores[r].max()), boxes[r], int(r))
        if all(iou(one.box, o.box) <= 0.5 for o in found if o.index == one.index):
            found.append(one)
    return found


def greedy(first: list[Own], second: list[Own]) -> dict[int, int]:
    """COCO's matching: the surest takes the best that is left."""
    pairs: dict[int, int] = {}
    for j, other in enumerate(second):
        overlaps = [
            iou(one.box, other.box) if one.index == other.index and i not in pairs else 0.0
            for i, one in enumerate(first)
        ]
        if overlaps and max(overlaps) >= 0.5:
            pairs[int(np.argmax(overlaps))] = j
    return pairs


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    def ranks(values: np.ndarray) -> np.ndarray:
        flat = values.ravel()
        return (flat[:, None] > flat).sum(1) + ((flat[:, None] == flat).sum(1) + 1) / 2

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


@pytest.fixture
def pictures(photos: list[Path]) -> list[Path]:
    """The photographs, as large as the detector takes them, so that pixels are pixels."""
    for path in photos:
        Image.open(path).resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(path)
    return photos


def test_boxes_and_maps_worked_out_a_second_time(pictures: list[Path], put) -> None:
    pictures = pictures[3:9]
    paths = put(yolo(), "first.onnx"), put(disturbed(yolo(), 0.3), "second.onnx")
    both, results = compared(*paths, pictures)
    assert results.boxes() == {
        k: sum(r.boxes[k] for r in results.rows) for k in ("found", "missed", "extra")
    }
    assert both.matched["layer"] == "p0, p1 and p0, p1, by place in the head"
    explainers = [onnxcam.Explainer(p, providers="cpu", method="layer-cam") for p in paths]
    both_scales = onnxcam.Explainer(paths[1], layer=["p0", "p1"], method="layer-cam")
    seen = []
    for row, picture in zip(results.rows, pictures, strict=True):
        pixels = np.asarray(Image.open(picture), np.float32).transpose(2, 0, 1)[None] / 255
        a, b = (read(runtime(p).run(None, {"images": pixels})[0][0]) for p in paths)
        pairs = greedy(a, b)
        right = {"found": len(pairs), "missed": len(a) - len(pairs), "extra": len(b) - len(pairs)}
        assert row.boxes == right
        seen.append((row.status, row.measures.get("agreement")))
        if not a:
            assert row.measures.get("agreement") == (0 if b else None) and row.status == UNSEEN
            assert row.candidate.name == (("cup", "hat", "cat")[b[0].index] if b else "nothing")
            continue
        assert row.measures["found"] == pytest.approx(len(pairs) / len(a))
        assert row.measures["extra"] == pytest.approx((len(b) - len(pairs)) / len(b))
        assert row.measures["agreement"] == float(0 in pairs)
        output = runtime(paths[1]).run(None, {"images": pixels})[0][0]
        score, overlap = float(output[4 + a[0].index, a[0].row]), 0.0
        [own] = explainers[0].explain(picture, "box:0")
        if 0 in pairs:
            twin = b[pairs[0]]
            score, overlap = twin.score, iou(a[0].box, twin.box)
            [other] = explainers[1].explain(picture, f"box:{pairs[0]}")
            assert other.detected.one.anchor == twin.row
            np.testing.assert_allclose(row.candidate.box, twin.box, atol=1e-3)
        else:  # the same row
            scale = int(a[0].row >= (SIZE // STRIDES[0]) ** 2)
            target = f"output0[{4 + a[0].index},{a[0].row}]"
            other = both_scales.explain(picture, target)[scale]
            assert row.candidate.name == "no such box" and row.candidate.box is None
        assert row.measures["box_iou"] == pytest.approx(overlap, abs=1e-4)
        assert row.measures["confidence_drift"] == pytest.approx(abs(a[0].score - score), abs=1e-5)
        x, y = np.maximum(own.signed, 0), np.maximum(other.signed, 0)
        assert row.status == ALIKE and x.shape == y.shape
        likeness = {
            "correlation": np.corrcoef(x.ravel(), y.ravel())[0, 1],
            "rank_correlation": spearman(x, y),
            "rmse": np.sqrt(np.mean((x / x.max() - y / y.max()) ** 2)),
            "iou": ((x >= 0.15 * x.max()) & (y >= 0.15 * y.max())).sum()
            / ((x >= 0.15 * x.max()) | (y >= 0.15 * y.max())).sum(),
            "peak_shift": np.hypot(
                *np.subtract(
                    np.unravel_index(x.argmax(), x.shape), np.unravel_index(y.argmax(), y.shape)
                )
            )
            / np.hypot(*x.shape),
            "mass_moved": np.abs(x / x.sum() - y / y.sum()).sum() / 2,
        }
        for name, value in likeness.items():
            assert row.measures[name] == pytest.approx(float(value), abs=2e-4), name
    assert {(ALIKE, 1.0), (ALIKE, 0.0), (UNSEEN, 0.0)} <= set(seen)  # the network shows all three
    assert all(np.isfinite(list(means(results).values())))


def test_a_detector_and_itself_in_other_words(pictures: list[Path], put) -> None:
    for candidate in (yolo(), renamed(yolo())):
        paths = put(yolo(), "first.onnx"), put(candidate, "second.onnx")
        _, results = compared(*paths, pictures[5:9])
        found = means(results)
        assert found["agreement"] == found["found"] == found["iou"] == 1
        assert found["box_iou"] == pytest.approx(1) and found["correlation"] == pytest.approx(1)
        assert found["extra"] == found["peak_shift"] == 0
        assert results.counts()[UNSEEN] == 1  # of one photograph nothing is detected


def test_the_greedy_match_on_boxes_made_by_hand() -> None:
    """Areas are counted in pixels here."""
    rng = np.random.default_rng(8)

    def some(count: int) -> list[Detection]:
        made = []
        for n in range(count):
            x, y = rng.integers(0, 12, 2)
            w, h = rng.integers(6, 14, 2)
            box = tuple(float(v) for v in (x, y, x + w, y + h))
            made.append(Detection(int(rng.integers(2)), None, 0.9 - 0.01 * n, box, n))
        return made

    def counted(one: Detection, other: Detection) -> float:
        sheets = np.zeros((2, 32, 32), bool)
        for sheet, d in zip(sheets, (one, other), strict=True):
            left, top, right, bottom = map(int, d.box)
            sheet[top:bottom, left:right] = True
        return float((sheets[0] & sheets[1]).sum() / (sheets[0] | sheets[1]).sum())

    taken = 0
    for _ in range(60):
        first, second = some(6), some(7)
        right: dict[int, int] = {}
        for j, other in enumerate(second):
            fits = [
                (-counted(one, other), i)
                for i, one in enumerate(first)
                if i not in right and one.index == other.index and counted(one, other) >= 0.5
            ]
            if fits:
                right[min(fits)[1]] = j
        assert matched(first, second) == right
        taken += len(right)
    assert taken > 30


def test_without_boxes_the_same_rows_go_together() -> None:
    def at(*rows: int) -> Boxes:
        every = tuple(Detection(1, None, 0.9 - 0.1 * n, None, row) for n, row in enumerate(rows))
        return Boxes(every, 0, (9, 6, 96, 96), every[0].probability, True)

    measures, counts = compare_boxes(at(4, 2), at(2, 7, 4))
    assert counts == {"found": 2, "missed": 0, "extra": 1}
    assert measures["agreement"] == 1 and "box_iou" not in measures
    assert compare_boxes(at(4), at(5))[0]["agreement"] == 0


def test_lists_of_the_best_have_no_row_for_a_lost_box(photos: list[Path], put) -> None:
    model = tensorflow()
    _, results = compared(put(model, "first.onnx"), put(disturbed(model, 2), "other.onnx"), photos)
    states = [row.status for row in results.rows]
    assert LOST in states and ALIKE in states
    for row in results.rows:
        assert (row.status == LOST) == (row.measures["agreement"] == 0)
        if row.status == LOST:
            assert row.measures["correlation"] == row.measures["box_iou"] == 0
            assert row.measures["peak_shift"] == 1 and row.candidate.heat.max() == 0
    assert results.counts()[LOST] == states.count(LOST)
    assert all(np.isfinite(list(means(results).values())))


def test_each_photograph_is_fed_its_own_scale(tmp_path: Path, put) -> None:
    """Paddle's rows are in pixels of the photograph, which the input ``scale_factor`` makes."""
    photos = []
    for n, size in enumerate([(64, 48), (128, 64), (40, 90)]):
        photos.append(tmp_path / f"{n}.png")
        pixels = np.random.default_rng(n).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(photos[-1])
    path = put(paddle(), "first.onnx")
    _, results = compared(path, put(disturbed(paddle(), 0.02), "second.onnx"), photos)
    explainer = onnxcam.Explainer(path, providers="cpu")
    boxes = []
    for row, photo in zip(results.rows, photos, strict=True):
        right = explainer.explain(photo, "box:0")[0].detected.one.box
        np.testing.assert_allclose(row.reference.box, right, atol=1e-3)
        assert row.measures["agreement"] == 1
        boxes.append(right)
    assert len(set(boxes)) == 3


def test_a_layer_that_is_named_is_named_for_both(pictures: list[Path], put) -> None:
    path, other = put(yolo(), "first.onnx"), put(renamed(yolo()), "second.onnx")
    both, _ = compared(path, path, pictures[:2], Options(cache=False, layer="p0"))
    assert both.matched["layer"].startswith("p0 and p0")
    with pytest.raises(LayerError, match="p0"):
        compared(path, other, pictures[:2], Options(cache=False, layer="p0"))
    place = [n.output[0] for n in yolo().graph.node].index("p0")
    theirs = onnx.load(other).graph.node[place].output[0]
    options = Options(cache=False, layer="p0", candidate_layer=theirs)
    both, results = compared(path, other, pictures[:2], options)
    assert both.matched["layer"] == f"p0 and {theirs}, as given"
    assert means(results)["correlation"] == pytest.approx(1)


def test_nan_in_one_image_fails_that_image_alone(pictures: list[Path], put) -> None:
    """A clip far above what photographs give, and a picture that reaches it."""
    model = disturbed(yolo(), 0.02)
    first = next(n for n in model.graph.node if n.output[0] == "s1")
    first.input[0] = "odd"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.9), "limit"))
    early = [
        onnx.helper.make_node("Sub", ["limit", "images"], ["left"]),
        onnx.helper.make_node("Sqrt", ["left"], ["root"]),  # NaN above 0.9
        onnx.helper.make_node("Sub", ["root", "root"], ["none"]),
        onnx.helper.make_node("Add", ["images", "none"], ["odd"]),
    ]
    for node in reversed(early):
        model.graph.node.insert(0, node)
    Image.new("RGB", (SIZE, SIZE), "white").save(pictures[3])
    for n in range(12):
        if n != 3:
            pixels = np.asarray(Image.open(pictures[n]), float) * 0.8
            Image.fromarray(pixels.astype(np.uint8)).save(pictures[n])
    _, results = compared(put(yolo(), "first.onnx"), put(model, "second.onnx"), pictures)
    assert [n for n, row in enumerate(results.rows) if row.status == FAILED] == [3]
    assert results.rows[3].error == "the candidate computes NaN or infinity on it"


def test_boxes_survive_storage(pictures: list[Path], put) -> None:
    side = reference_side(put(yolo(), "first.onnx"), Options(cache=False))
    assert side.about.boxes and side.about.method == "layer-cam"
    one = Detection(2, "cat", 0.5, (1.0, 2.0, 3.0, 4.25), 7)
    boxes = Boxes((one, Detection(0, None, 0.25, None, 9)), 0, (9, 6, 96, 96), 0.5, True)
    assert Boxes.from_dict(json.loads(json.dumps(boxes.to_dict()))) == boxes
    _, results = compared(side.explainer.path, side.explainer.path, pictures[:2])
    stored = json.loads(json.dumps(results.rows[0].to_dict()))
    assert type(results.rows[0]).from_dict(stored).to_dict() == results.rows[0].to_dict()


def test_boxes_and_scores_that_are_quantized_as_one(pictures: list[Path], put) -> None:
    """What onnxruntime's quantizer makes of the whole file, and of all but the last nodes."""

    def ends(model: onnx.ModelProto, name: str, scale: float) -> onnx.ModelProto:
        maker = next(n for n in model.graph.node if name in n.output)
        maker.output[list(maker.output).index(name)] = f"{name}_float"
        model.graph.initializer.append(numpy_helper.from_array(np.float32(scale), f"{name}_scale"))
        model.graph.initializer.append(numpy_helper.from_array(np.uint8(0), f"{name}_zero"))
        numbers = [f"{name}_scale", f"{name}_zero"]
        quantize = onnx.helper.make_node("QuantizeLinear", [f"{name}_float", *numbers], ["q"])
        back = onnx.helper.make_node("DequantizeLinear", ["q", *numbers], [name])
        place = list(model.graph.node).index(maker) + 1
        model.graph.node.insert(place, back)
        model.graph.node.insert(place, quantize)
        return model

    path, whole = put(yolo(), "first.onnx"), put(ends(yolo(), "output0", 0.4), "second.onnx")
    pixels = np.asarray(Image.open(pictures[3]), np.float32).transpose(2, 0, 1)[None] / 255
    assert len(np.unique(runtime(whole).run(None, {"images": pixels})[0][0, 4:])) <= 3
    with pytest.raises(CompareError, match="joins boxes and scores.*nodes_to_exclude"):
        compared(path, whole, pictures[:2])
    before = put(ends(yolo(), "c0y", 0.05), "third.onnx")
    _, results = compared(path, before, pictures[3:5])
    assert means(results)["agreement"] == 1 and means(results)["correlation"] > 0.9


def test_a_dynamically_quantized_detector(pictures: list[Path], put, tmp_path: Path) -> None:
    """What its head reads is integers; the numbers before these are explained."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path = put(yolo(), "first.onnx")
    quantize_dynamic(path, tmp_path / "second.onnx", weight_type=QuantType.QUInt8)
    both, results = compared(path, tmp_path / "second.onnx", pictures[3:6])
    assert both.candidate.about.layer == both.reference.about.layer == "p0, p1"
    assert means(results)["agreement"] == 1 and means(results)["correlation"] > 0.9


def test_probabilities_that_the_output_cannot_hold_are_warned_of(reference, photos, put) -> None:
    """What is compared is read before Softmax, where all is well."""
    for scale, warned in ((1 / 255, 0), (0.001, 1), (0.05, 1)):
        model = small_cnn()
        softmax = model.graph.node[-1]
        assert softmax.op_type == "Softmax"
        name, softmax.output[0] = softmax.output[0], "float"
        model.graph.initializer.append(numpy_helper.from_array(np.float32(scale), "scale"))
        for kind, ends in (("QuantizeLinear", ("float", "q")), ("DequantizeLinear", ("q", name))):
            node = onnx.helper.make_node(kind, [ends[0], "scale"], [ends[1]])
            model.graph.node.append(node)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            compared(reference, put(model, "second.onnx"), photos[:1])
        said = [str(w.message) for w in told if "it is quantized behind Softmax" in str(w.message)]
        assert len(said) == warned, scale
        if scale == 0.001:
            assert "holds nothing above 0.255, in steps of 0.001" in said[0]


def test_detectors_go_with_detectors_of_the_same_classes(pictures, reference, put) -> None:
    path = put(yolo(), "first.onnx")
    cases: list[tuple[Path, onnx.ModelProto, str]] = [
        (path, cnn(), "no boxes are known: 'logits' holds scores of classes. Compare two"),
        (reference, yolo(), "is a detector, and the reference .* --candidate-score NAME"),
        (path, yolo(labels=("cup", "hat")), "are of 2 classes, the reference's of 3"),
    ]
    for first, model, said in cases:
        with pytest.raises(CompareError, match=said):
            compared(first, put(model, "second.onnx"), pictures)
