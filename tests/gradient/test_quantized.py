"""Straight-through gradients of quantization, against the line that is rounded to."""

from __future__ import annotations

import json

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxcam
from onnxcam.gradient import add_gradient
from onnxcam.gradient.builder import Builder

from ..conftest import shared
from .finite import session

RNG = np.random.default_rng(5)
KINDS = {"uint8": (0, 255), "int8": (-128, 127), "uint16": (0, 65535), "int16": (-32768, 32767)}


@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    ("kind", "axis", "between"),
    [(kind, axis, "") for kind in KINDS for axis in (None, 0, 1, -1)]
    + [(kind, None, op) for kind in ("uint8", "int8") for op in ("Reshape", "Transpose")],
)
def test_inside_the_range_one_outside_zero(
    kind: str, axis: int | None, between: str, dynamic: bool, targets: int
) -> None:
    shape = (2, 3, 4)
    size = 1 if axis is None else shape[axis]
    low, high = KINDS[kind]
    scale = RNG.uniform(0.01, 0.03, size).astype("f") * 255 / (high - low)
    zero = RNG.integers(low // 2, high // 2, size).astype(kind)
    if axis is None:
        scale, zero = scale[0], zero[0]
    weights = {"s": np.asarray(scale), "z": np.asarray(zero), "shape": np.array([4, 6])}
    settings = {} if axis is None else {"axis": axis}
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **settings)]
    moved = "q"
    if between and axis is None:
        operands = ["q", "shape"] if between == "Reshape" else ["q"]
        nodes.append(helper.make_node(between, operands, ["m"]))
        moved = "m"
    nodes.append(helper.make_node("DequantizeLinear", [moved, "s", "z"], ["y"], **settings))
    sizes = ["A", 3, "B"] if dynamic and not between else list(shape)
    graph = helper.make_graph(
        nodes,
        "quantized",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a, k) for k, a in weights.items()],
    )
    opset = 21 if "16" in kind else 13
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    from onnx import shape_inference

    found = ir.serde.deserialize_model(shape_inference.infer_shapes(model, data_prop=True))
    x, y = found.graph.inputs[0], found.graph.outputs[0]
    seed_value = ir.Value(name="seed", type=y.type, shape=ir.Shape(["T", *(y.shape or ())]))
    found.graph.inputs.append(seed_value)
    builder = Builder(found.graph, opset)
    (g,) = add_gradient(builder, y, seed_value, [x])
    g = builder.op("Identity", g)
    g.name, g.type = "g", x.type
    g.shape = ir.Shape(["T", *(x.shape or ())])
    found.graph.outputs.append(g)

    span = 255 * 0.03
    image = RNG.uniform(-span, span, shape).astype("f")
    column = [1, 1, 1]
    if axis is not None:
        column[axis] = -1
    s, z = (
        np.reshape(scale, column if axis is not None else ()),
        np.reshape(zero, column if axis is not None else ()),
    )
    codes = np.rint(image / s) + z.astype("f")
    inside = (codes >= low) & (codes <= high)
    assert inside.any() and not inside.all()
    runtime = session(ir.serde.serialize_model(found).SerializeToString())
    result = runtime.run(
        ["y"], {"x": image, "seed": np.zeros((1, *_after(shape, between, axis)), "f")}
    )
    seed = RNG.normal(size=(targets, *result[0].shape)).astype("f")
    [gradient] = runtime.run(["g"], {"x": image, "seed": seed})
    back = seed
    if between == "Transpose" and axis is None:
        back = seed.transpose(0, 3, 2, 1)
    expected = back.reshape(targets, *shape) * inside
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


def _after(shape: tuple[int, ...], between: str, axis: int | None) -> tuple[int, ...]:
    if axis is not None or not between:
        return shape
    return (4, 6) if between == "Reshape" else shape[::-1]


def test_the_quantized_mobilenet_looks_where_the_float_one_does() -> None:
    """On the dog for a dog, on the cat for a cat; 1,001 classes with the background first."""
    items = json.loads(shared("images", "benchmark.json").read_text())
    item = next(i for i in items if i["file"] == "two_objects/both.png")
    explainer = onnxcam.Explainer(shared("models", "mobilenetv2-tflite-qdq-uint8.onnx"))
    assert explainer.labels is not None and explainer.labels[0] == "background"
    photograph = shared("images", "two_objects", "both.png")
    ranked = explainer.explain(photograph, "top:1001")
    for category, classes in (("dog", range(152, 270)), ("cat", range(282, 287))):
        best = next(e for e in ranked if e.target in classes)
        x, y = best.peak
        assert any(
            left <= x <= left + width and top <= y <= top + height
            for left, top, width, height in (
                o["bbox"] for o in item["objects"] if o["category"] == category
            )
        ), f"{category} {best.target} peaks at {x}, {y}"
