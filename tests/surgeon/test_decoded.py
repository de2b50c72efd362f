"""Graphs of quantized operators: their layers and scores are codes, and are read as numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxcam.errors import LayerError, ScoreError
from onnxcam.model.prepare import load
from onnxcam.surgeon.find.score import find_score
from onnxcam.surgeon.inspect import inspect

from ..conftest import parse, runtime, small_cnn, wanted
from ..instrumented import ACTIVATIONS, GRADIENTS, SIGNED, instrument

IMAGES = np.random.default_rng(4).normal(size=(2, 3, 16, 16)).astype("f")


def quantized(folder: Path) -> Path:
    """Quantize the small network to operators on codes, with room above what is tested."""
    quantization = pytest.importorskip("onnxruntime.quantization")

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.items = iter([{"image": IMAGES * 1.3}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.items, None)

    exact, out = folder / "float.onnx", folder / "codes.onnx"
    onnx.save(small_cnn(), exact)
    quantization.quantize_static(
        str(exact), str(out), Reader(), quant_format=quantization.QuantFormat.QOperator,
        activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
        reduce_range=True,  # what processors without VNNI multiply right
    )  # fmt: skip
    return out


def maps(path: Path, classes: list[list[int]], **choices: object) -> np.ndarray:
    data, plan = instrument(path, **choices)
    found = runtime(data).run([SIGNED], {"image": IMAGES, **wanted(classes)})[0]
    return found


def test_maps_of_codes_are_those_of_the_float_network(tmp_path: Path) -> None:
    path = quantized(tmp_path)
    found = inspect(path)
    assert found.default == "c2_quantized" and not found.missing and not found.problems
    assert [c.tensor.name for c in found.layers][-1] == "c2_quantized"
    for layer in ("auto", "c2_quantized", "c2_quantized:decoded", "0"):
        plan = instrument(path, layer)[1]
        assert (plan.layer.name, plan.layer.dtype) == ("c2_quantized:decoded", "float32")
    classes = [[c, c] for c in range(5)]
    exact = maps(tmp_path / "float.onnx", classes)
    codes = maps(path, classes)
    assert np.corrcoef(exact.ravel(), codes.ravel())[0, 1] > 0.99


def test_outputs_stay_as_they_are_to_the_last_code(tmp_path: Path) -> None:
    path = quantized(tmp_path)
    for layer in ("auto", "-1"):
        data, plan = instrument(path, layer, gradients=True)
        session = runtime(data)
        names = [o.name for o in onnx.load(path).graph.output]
        expected = runtime(path).run(names, {"image": IMAGES})
        found = session.run([*names, ACTIVATIONS, GRADIENTS], {"image": IMAGES})
        for a, b in zip(found, expected, strict=False):
            np.testing.assert_array_equal(a, b)
        activations, gradients = found[-2:]
        assert gradients.shape[1:] == activations.shape and np.abs(gradients).max() > 1e-3


def test_a_score_beyond_the_range_of_its_codes_has_a_gradient(tmp_path: Path) -> None:
    """Where the codes cut scores off, what is meant is before that, as with Softmax."""
    path = quantized(tmp_path)
    model = onnx.load(path)
    scale = next(t for t in model.graph.initializer if t.name == "logits_scale")
    scale.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(0.2), scale.name)
    )
    onnx.save(model, path)
    data, plan = instrument(path)
    [scores] = runtime(data).run([plan.scores], {"image": IMAGES})
    [brighter] = runtime(data).run([plan.scores], {"image": IMAGES * 3})
    assert (scores == scores.max()).sum() > 1 and scores.max() == brighter.max()
    top = scores.argmax(axis=1)
    exact = maps(tmp_path / "float.onnx", [list(top)])
    found = maps(path, [list(top)])
    for n in range(len(IMAGES)):
        assert np.corrcoef(exact[n].ravel(), found[n].ravel())[0, 1] > 0.99


def test_scores_that_leave_the_model_as_codes(tmp_path: Path) -> None:
    path = quantized(tmp_path)
    model = onnx.load(path)
    del model.graph.node[-2:], model.graph.output[:]  # QLinearSoftmax, DequantizeLinear
    used = model.graph.node[-1].output[0]
    model.graph.output.append(helper.make_tensor_value_info(used, TensorProto.UINT8, ["N", 5]))
    other = tmp_path / "codes-out.onnx"
    onnx.save(model, other)
    plan = instrument(other)[1]
    assert plan.score == f"{used}:decoded"
    assert instrument(other, score=plan.score)[1].score == plan.score
    classes = [[c, c] for c in range(5)]
    np.testing.assert_allclose(maps(other, classes), maps(path, classes), atol=1e-6)


def test_a_quantized_softmax_is_passed_on_the_way_to_the_score(save) -> None:
    model = parse(
        """
        <ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        net (uint8[1,3,8,8] image) => (uint8[1,4] probabilities) {
            c = QLinearConv <pads=[1,1,1,1]> (image, s, z, w, s, zw, s1, z)
            p = com.microsoft.QLinearGlobalAveragePool (c, s1, z, s1, z)
            f = Flatten (p)
            m = QLinearMatMul (f, s1, z, head, s, zw, s1, zm)
            probabilities = com.microsoft.QLinearSoftmax <axis=1, opset=13> (m, s1, zm, s, z)
        }
        """,
        {
            "s": np.float32(0.01), "s1": np.float32(0.05), "z": np.uint8(0), "zw": np.int8(0),
            "zm": np.uint8(120), "w": np.random.default_rng(1).integers(-99, 99, (6, 3, 3, 3)).astype("i1"),
            "head": np.random.default_rng(2).integers(-99, 99, (6, 4)).astype("i1"),
        },
    )  # fmt: skip
    path = save(model)
    data, plan = instrument(path)
    assert (plan.score, plan.layer.name) == ("m:decoded", "c:decoded")
    assert "QLinearSoftmax" in plan.score_note
    image = np.random.default_rng(3).integers(0, 255, (1, 3, 8, 8)).astype("u1")
    feeds = {"image": image, **wanted([[2]])}
    signed, probabilities = runtime(data).run([SIGNED, "probabilities"], feeds)
    np.testing.assert_array_equal(probabilities, runtime(path).run(None, {"image": image})[0])
    assert np.abs(signed).max() > 1e-3


def test_sums_without_a_scale_are_no_layer(save) -> None:
    model = parse(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (uint8[1,3,8,8] image) => (float[1,6] scores) {
            c = ConvInteger <pads=[1,1,1,1]> (image, w)
            d = Cast <to=1> (c)
            p = GlobalAveragePool (d)
            scores = Flatten (p)
        }
        """,
        {"w": np.ones((6, 3, 3, 3), "i1")},
    )
    with pytest.raises(LayerError, match="not floating point"):
        instrument(save(model), "c")
    assert instrument(save(model), "d")[1].layer.name == "d"


def test_codes_without_a_scale_are_no_score(save) -> None:
    model = parse(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (uint8[1,4] x) => (uint8[1,4] y) { y = Identity (x) }
        """
    )
    with pytest.raises(ScoreError, match="no floating-point tensor"):
        find_score(load(save(model)).graph)
