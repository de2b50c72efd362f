"""Straight-through gradients of quantization, against the line that is rounded to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

import onnxcam
from onnxcam.gradient.add import add_gradient
from onnxcam.graph.builder import Builder
from onnxcam.graph.quantized import LIMITS
from onnxcam.model.shapes import infer_shapes

from ..conftest import shared
from .finite import session

RNG = np.random.default_rng(5)
SHAPE = (2, 3, 4)


def differentiated(
    nodes: list[Any],
    weights: dict[str, np.ndarray],
    x: tuple[np.dtype | type, tuple[Any, ...]],
    seed: type,
    opset: int,
) -> Any:
    """Return a session of ``x`` to ``y`` that takes ``seed`` and gives the gradient ``g``."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(x[0]))
    tensors = [ir.serde.serialize_tensor(ir.tensor(a, name=k)) for k, a in weights.items()]
    graph = helper.make_graph(
        nodes,
        "quantized",
        [helper.make_tensor_value_info("x", kind, x[1])],
        [helper.make_empty_tensor_value_info("y")],
        tensors,
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    version = 8 if opset < 21 else 10 if opset < 23 else 11 if opset < 25 else 12
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=version)
    model = ir.serde.deserialize_model(proto)
    infer_shapes(model, proto, Path("quantized"))
    value, y = model.graph.inputs[0], model.graph.outputs[0]
    floats = ir.TensorType(ir.DataType.from_numpy(np.dtype(seed)))
    seed_value = ir.Value(name="seed", type=floats, shape=ir.Shape(["T", *(y.shape or ())]))
    model.graph.inputs.append(seed_value)
    builder = Builder(model.graph, opset)
    (g,) = add_gradient(builder, y, seed_value, [value])
    g = builder.op("Identity", g)
    g.name, g.type = "g", value.type
    g.shape = ir.Shape(["T", *(value.shape or ())])
    model.graph.outputs.append(g)
    return session(ir.serde.serialize_model(model).SerializeToString())


def kinds(*names: str) -> list[str]:
    return [n for n in names if n in ir.DataType.__members__]


WHOLE = kinds("UINT8", "INT8", "UINT16", "INT16", "UINT4", "INT4")
NARROW = kinds("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ")
WAYS = [
    *({"kind": k, "axis": a} for k in WHOLE for a in (None, 0, 1, -1)),
    *({"kind": k, "between": op} for k in ("UINT8", "INT8") for op in ("Reshape", "Transpose")),
    *({"kind": k, "saturate": s} for k in NARROW for s in (0, 1)),
    {"kind": "FLOAT8E4M3FN", "axis": 1},
    *({"kind": k, "axis": a, "block": b} for k in WHOLE for a, b in ((2, 2), (-1, 3), (1, 2))),
    {"kind": "FLOAT8E4M3FN", "axis": -1, "block": 2},
    *({"kind": k, "axis": a, "domain": "com.microsoft"}
      for k in ("UINT8", "INT16", "INT4") for a in (None, 1)),
    *({"kind": k, "axis": a, "floats": np.float16} for k in ("UINT8", "INT8") for a in (None, 1)),
    {"kind": "FLOAT8E4M3FN", "floats": np.float16},
    {"kind": "INT8", "opset": 26},
    {"kind": "UINT8", "zero": False},
]  # fmt: skip


@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("way", WAYS, ids=lambda w: "-".join(map(str, w.values())))
def test_inside_the_range_one_outside_zero(
    way: dict[str, Any], dynamic: bool, targets: int
) -> None:
    kind, axis, block = ir.DataType[way["kind"]], way.get("axis"), way.get("block", 0)
    between, domain, floats = way.get("between"), way.get("domain", ""), way.get("floats", "f")
    low, high = LIMITS[kind]
    rng = np.random.default_rng(list(str(way).encode()))
    whole = "INT" in kind.name
    if block:
        sizes = tuple(-(-n // block) if i == axis % 3 else n for i, n in enumerate(SHAPE))
    else:
        sizes = () if axis is None else (SHAPE[axis],)
    scale = (rng.uniform(0.01, 0.03, sizes) * 255 / (high - low)).astype(floats)
    zero = np.floor(rng.uniform(low / 2, high / 2, sizes)) if whole else np.zeros(sizes)
    if not way.get("zero", True):
        zero = np.zeros(sizes)
    settings: dict[str, Any] = {} if axis is None else {"axis": axis}
    settings |= {"block_size": block} if block else {}
    saturate = {"saturate": way["saturate"]} if "saturate" in way else {}
    weights = {"s": scale, "z": zero.astype(kind.numpy()), "shape": np.array([4, 6])}
    coding = ["s", "z"] if way.get("zero", True) else ["s"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", *coding], ["q"], domain, **settings, **saturate)
    ]
    nodes[0].domain = domain
    moved = "q"
    if between:
        operands = ["q", "shape"] if between == "Reshape" else ["q"]
        nodes.append(helper.make_node(between, operands, ["m"]))
        moved = "m"
    nodes.append(helper.make_node("DequantizeLinear", [moved, *coding], ["y"], **settings))
    nodes[-1].domain = domain
    shape = ["A", 3, "B"] if dynamic and not between else list(SHAPE)
    byte = kind.name in ("UINT8", "INT8") and not block and floats == "f"
    opset = way.get("opset", 13 if byte or domain else 19 if not block and not whole else 21)
    runtime = differentiated(nodes, weights, (np.dtype(floats), tuple(shape)), floats, opset)

    s, z = scale.astype("f"), zero.astype("f")
    if block:
        s, z = (np.repeat(a, block, axis=axis)[:, : SHAPE[1], : SHAPE[2]] for a in (s, z))
    elif axis is not None:
        column = [-1 if i == axis % 3 else 1 for i in range(3)]
        s, z = s.reshape(column), z.reshape(column)
    extent = high - low
    codes = rng.uniform(low - 0.4 * extent, high + 0.4 * extent, SHAPE)
    edge = np.minimum(np.abs(codes - low), np.abs(codes - high))
    codes = np.where(edge < extent / 200, (low + high) / 2, codes)
    x = ((codes - z) * s).astype(floats)
    half = 0.5 if whole else 0.0
    inside = (codes >= np.where(z == low, low, low - half)) & (codes <= high + half)
    assert inside.any() and not inside.all()
    after = {None: SHAPE, "Reshape": (4, 6), "Transpose": SHAPE[::-1]}[between]
    seed = rng.normal(size=(targets, *after)).astype(floats)
    y, gradient = runtime.run(["y", "g"], {"x": x, "seed": seed})
    assert y.shape == after
    back = seed.transpose(0, 3, 2, 1) if between == "Transpose" else seed
    expected = back.reshape(targets, *SHAPE) * inside
    tolerance = 1e-5 if floats == "f" else 4e-3
    np.testing.assert_allclose(gradient, expected, rtol=tolerance, atol=tolerance)


A = RNG.normal(size=(2, 3, 8)).astype("f")
B8 = RNG.integers(-64, 64, (8, 5)).astype("i1")  # which every x86 processor multiplies right
COLUMNS = RNG.uniform(0.01, 0.02, 5).astype("f")
PRODUCT = {"b": B8, "sb": COLUMNS, "zb": np.full(5, 3, "i1")}
DYNAMIC = {
    "integer product": [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "b", "z", "zb"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["s", "sb"], ["scale"]),
        helper.make_node("Mul", ["floats", "scale"], ["y"]),
    ],
    "integer product, moved and decoded": [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "b", "z", "zb"], ["sums"]),
        helper.make_node("Transpose", ["sums"], ["moved"], perm=[0, 2, 1]),
        helper.make_node("Transpose", ["moved"], ["back"], perm=[0, 2, 1]),
        helper.make_node("Mul", ["s", "sb"], ["scale"]),
        helper.make_node("DequantizeLinear", ["back", "scale"], ["y"], axis=2),
    ],
    "integer product to float": [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulIntegerToFloat", ["q", "b", "s", "sb", "z", "zb"], ["y"]),
    ],
    "product": [helper.make_node("DynamicQuantizeMatMul", ["x", "b", "sb", "zb"], ["y"])],
}
for _nodes in DYNAMIC.values():
    for _node in _nodes:
        if _node.op_type in ("MatMulIntegerToFloat", "DynamicQuantizeMatMul"):
            _node.domain = "com.microsoft"


@pytest.mark.parametrize("shape", [A.shape, ("N", 3, 8)], ids=str)
@pytest.mark.parametrize("name", DYNAMIC)
def test_dynamic_quantization_is_the_product_with_the_decoded_weight(
    name: str, shape: tuple[Any, ...]
) -> None:
    runtime = differentiated(DYNAMIC[name], PRODUCT, (np.float32, shape), np.float32, 13)
    weight = (B8.astype("f") - 3) * COLUMNS
    seed = RNG.normal(size=(3, 2, 3, 5)).astype("f")
    y, gradient = runtime.run(["y", "g"], {"x": A, "seed": seed})
    np.testing.assert_allclose(y, A @ weight, atol=0.02 * np.abs(y).max())
    np.testing.assert_allclose(gradient, seed @ weight.T, rtol=1e-4, atol=1e-5)


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
