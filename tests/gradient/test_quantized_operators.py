"""Operators on codes, against central differences of what they compute before rounding.

The oracle takes real-valued codes, computes in float64 and saturates, but does not round. That
it means the same as the operator is seen where the codes are whole: rounded, it gives ONNX
Runtime's own result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxcam.gradient.add import add_gradient
from onnxcam.graph.builder import Builder
from onnxcam.model.shapes import infer_shapes

from .cases.contrib_attention import attention
from .finite import central, session
from .finite import standard as _standard

RNG = np.random.default_rng(17)
MICROSOFT = "com.microsoft"
STEP = 1e-2
standard = partial(_standard, opset=13)


@dataclass
class Coded:
    """One node: operands, of which those in ``wrt`` are fed, and its forward on real codes."""

    op: str
    inputs: list[Any]
    forward: Callable[..., np.ndarray]
    attributes: dict[str, Any] = field(default_factory=dict)
    wrt: tuple[int, ...] = (0,)
    domain: str = MICROSOFT
    opset: int = 13
    dynamic: tuple[int, ...] = (0,)
    output: int = TensorProto.UINT8
    slack: float = 1.0  # how far the runtime may be from the oracle

    def __str__(self) -> str:
        shape = "x".join(map(str, np.shape(self.inputs[self.wrt[0]])))
        settings = ",".join(f"{k}={v}" for k, v in self.attributes.items())
        return f"{self.op}-{shape}-{settings}-{len(self.wrt)}".replace(" ", "")


def number(q: np.ndarray, scale: Any, zero: Any, axis: int | None = None) -> np.ndarray:
    """Return what codes stand for."""
    scale, zero = np.asarray(scale, np.float64), np.asarray(0 if zero is None else zero, np.float64)
    if axis is not None and scale.size > 1:
        column = [-1 if i == axis % np.ndim(q) else 1 for i in range(np.ndim(q))]
        scale = scale.reshape(column)
        zero = zero.reshape(column) if zero.size > 1 else zero
    return (np.asarray(q, np.float64) - zero) * scale


def saturated(y: np.ndarray, scale: Any, zero: Any, kind: str = "uint8") -> np.ndarray:
    """Encode without rounding."""
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    shift = 0 if zero is None else float(np.asarray(zero))
    least = low if shift == low else low - 0.5  # codes that begin at 0 stand for a ReLU
    return np.clip(y / float(np.asarray(scale)) + shift, least, high + 0.5)


def codes(*shape: int, kind: str = "uint8") -> np.ndarray:
    """Return random ones; of int8 the half around 0, which every x86 processor multiplies right."""
    low, high = (-64, 63) if kind == "int8" else (np.iinfo(kind).min, np.iinfo(kind).max)
    return RNG.integers(low, high + 1, shape).astype(kind)


F = np.float32
CASES: list[Coded] = []


def coded(op: str, inputs: list[Any], forward: Callable[..., np.ndarray], **options: Any) -> None:
    known = ("wrt", "domain", "opset", "dynamic", "output", "slack")
    settings = {k: options.pop(k) for k in known if k in options}
    CASES.append(Coded(op, inputs, forward, options, **settings))


# --- convolutions
def qlinear_conv(x, sx, zx, w, sw, zw, sy, zy, bias=None, channels_last=0, **settings):
    a, b = number(x, sx, zx), number(w, sw, zw, 0)
    if channels_last:
        a = np.moveaxis(a, -1, 1)
    shift = (
        None if bias is None else bias * float(sx) * np.asarray(sw, np.float64) * np.ones(len(w))
    )
    y = standard("Conv", a, b, shift, **settings)
    y = np.moveaxis(y, 1, -1) if channels_last else y
    return saturated(y, sy, zy, str(np.asarray(zy).dtype))


X8, W8 = codes(2, 4, 6, 5), codes(6, 4, 3, 3, kind="int8")
BIAS = RNG.integers(-3000, 3000, 6).astype(np.int32)
SCALES = RNG.uniform(0.005, 0.02, 6).astype(F)
for settings in ({"pads": [1, 1, 1, 1]}, {"strides": [2, 2]}):
    coded(
        "QLinearConv",
        [X8, F(0.02), np.uint8(110), W8, F(0.01), np.int8(3), F(0.06), np.uint8(120), BIAS],
        qlinear_conv, domain="", **settings,
    )  # fmt: skip
coded(
    "QLinearConv",
    [X8, F(0.02), np.uint8(110), W8, SCALES, np.zeros(6, np.int8), F(0.06), np.uint8(0), None],
    qlinear_conv, domain="", opset=21, kernel_shape=[3, 3],
)  # fmt: skip
coded(
    "QLinearConv",
    [codes(2, 4, 5, 5, kind="int8"), F(0.02), np.int8(5), codes(4, 1, 3, 3, kind="int8"), F(0.01),
     np.int8(0), F(0.02), np.int8(-7)],
    qlinear_conv, domain="", group=4, pads=[1, 1, 1, 1], output=TensorProto.INT8,
)  # fmt: skip
coded(
    "QLinearConv",
    [codes(2, 6, 5, 4), F(0.02), np.uint8(110), W8, SCALES, np.zeros(6, np.int8), F(0.06),
     np.uint8(120), BIAS],
    qlinear_conv, channels_last=1, kernel_shape=[3, 3], pads=[1, 1, 1, 1],
)  # fmt: skip


def conv_integer(x, w, zx=0, zw=0, **settings):
    return standard("Conv", number(x, 1, zx), number(w, 1, zw, 0), **settings)


for zeros in ([], [np.uint8(110)], [np.uint8(110), np.int8(3)]):
    coded("ConvInteger", [X8, W8, *zeros], conv_integer, domain="", output=TensorProto.INT32,
          pads=[1, 1, 0, 0])  # fmt: skip


# --- matrix products
def matmul_integer(a, b, za=0, zb=0):
    za = np.reshape(za, (-1, 1)) if np.ndim(za) == 1 else za
    return (a.astype(float) - np.asarray(za, float)) @ (b.astype(float) - np.asarray(zb, float))


A8, B8 = codes(2, 3, 4), codes(4, 5, kind="int8")
coded("MatMulInteger", [A8, B8], matmul_integer, domain="", output=TensorProto.INT32)
coded("MatMulInteger", [A8, B8, np.uint8(90), codes(5, kind="int8")], matmul_integer, domain="",
      output=TensorProto.INT32)  # fmt: skip
coded("MatMulInteger", [A8[0], codes(4, 5), np.uint8(3), np.uint8(120)], matmul_integer, domain="",
      output=TensorProto.INT32, wrt=(0, 1), dynamic=())  # fmt: skip


def qlinear_matmul(a, sa, za, b, sb, zb, sy, zy):
    y = number(a, sa, za) @ number(b, sb, zb, -1)
    return saturated(y, sy, zy, str(np.asarray(zy).dtype))


coded("QLinearMatMul",
      [A8, F(0.02), np.uint8(110), B8, F(0.03), np.int8(2), F(0.06), np.uint8(120)],
      qlinear_matmul, domain="")  # fmt: skip
coded("QLinearMatMul",
      [A8, F([0.02]), np.array([110], np.uint8), B8, SCALES[:5], np.zeros(5, np.int8), F(0.02),
       np.uint8(120)],
      qlinear_matmul, domain="", opset=21)  # fmt: skip


def qgemm(a, sa, za, b, sb, zb, c=None, sy=None, zy=None, transA=0, transB=0, alpha=1.0):
    left, right = number(a, sa, za), number(b, sb, zb, 0 if transB else 1)
    y = (left.T if transA else left) @ (right.T if transB else right)
    if c is not None:
        y = y + c * float(sa) * np.asarray(sb, np.float64)
    y = y * alpha
    return y if sy is None else saturated(y, sy, zy)


Q2 = codes(3, 4)
coded("QGemm", [Q2, F(0.02), np.uint8(110), codes(5, 4, kind="int8"), SCALES[:5],
                np.zeros(5, np.int8), BIAS[:5], F(0.02), np.uint8(100)], qgemm, transB=1)  # fmt: skip
coded("QGemm", [Q2, F(0.02), np.uint8(110), codes(3, 5, kind="int8"), F(0.03), np.int8(1),
                BIAS[None, :5]], qgemm, transA=1, alpha=0.5, output=TensorProto.FLOAT,
      slack=1e-3)  # fmt: skip


def matmul_integer_to_float(a, b, sa, sb, za=0, zb=0, bias=0.0):
    return number(a, sa, za) @ number(b, sb, zb, -1) + bias


coded("MatMulIntegerToFloat", [A8, B8, F(0.02), F(0.03)], matmul_integer_to_float,
      output=TensorProto.FLOAT, slack=1e-3)  # fmt: skip
coded("MatMulIntegerToFloat",
      [A8, B8, F(0.02), SCALES[:5], np.uint8(90), codes(5, kind="int8"), RNG.normal(size=5).astype(F)],
      matmul_integer_to_float, output=TensorProto.FLOAT, slack=1e-3)  # fmt: skip


# --- one operator each
def unary(compute: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    def forward(x, sx, zx, sy, zy, **settings):
        kind = str(np.asarray(zy if zy is not None else np.uint8(0)).dtype)
        return saturated(compute(number(x, sx, zx), **settings), sy, zy, kind)

    return forward


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def leaky_relu(x, alpha=0.01):
    return np.where(x > 0, x, alpha * x)


def softmax(x, axis=-1, opset=13):
    shape = x.shape
    if opset < 13:
        x, axis = x.reshape(int(np.prod(shape[:axis])), -1), 1
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return (e / e.sum(axis=axis, keepdims=True)).reshape(shape)


def average_pool(x, channels_last=0, **settings):
    x = np.moveaxis(x, -1, 1) if channels_last else x
    y = standard("AveragePool", x, **settings)
    return np.moveaxis(y, 1, -1) if channels_last else y


def global_average_pool(x, channels_last=0):
    return x.mean(axis=(1, 2) if channels_last else (2, 3), keepdims=True)


ENCODINGS = [F(0.03), np.uint8(110)]
coded("QLinearSigmoid", [X8, *ENCODINGS, F(1 / 256), np.uint8(0)], unary(sigmoid))
coded("QLinearSigmoid", [codes(3, 4, kind="int8"), F(0.03), np.int8(4), F(1 / 256), np.int8(-128)],
      unary(sigmoid), output=TensorProto.INT8)  # fmt: skip
coded("QLinearLeakyRelu", [X8, F(0.03), np.uint8(111), F(0.02), np.uint8(30)], unary(leaky_relu),
      alpha=0.3, slack=1.01)  # fmt: skip
for shape, axis, version in (((2, 4, 6, 5), 1, 13), ((2, 3, 4), 1, 12), ((2, 3, 4), 2, 12)):
    coded("QLinearSoftmax", [codes(*shape), *ENCODINGS, F(1 / 100), np.uint8(3)], unary(softmax),
          axis=axis)  # fmt: skip
    CASES[-1].attributes["opset"] = version
coded("QLinearAveragePool", [X8, *ENCODINGS, F(0.02), np.uint8(100)], unary(average_pool),
      kernel_shape=[2, 3], strides=[2, 1])  # fmt: skip
coded("QLinearAveragePool", [X8, *ENCODINGS, F(0.02), np.uint8(100)], unary(average_pool),
      kernel_shape=[3, 3], pads=[1, 1, 1, 1])  # fmt: skip
coded("QLinearAveragePool", [codes(2, 6, 5, 4), *ENCODINGS, F(0.02), np.uint8(100)],
      unary(average_pool), kernel_shape=[2, 2], channels_last=1)  # fmt: skip
coded("QLinearGlobalAveragePool", [X8, *ENCODINGS, F(0.004), np.uint8(100)],
      unary(global_average_pool), dynamic=(0, 2))  # fmt: skip
coded("QLinearGlobalAveragePool", [codes(2, 6, 5, 4), *ENCODINGS, F(0.004), np.uint8(100)],
      unary(global_average_pool), channels_last=1)  # fmt: skip


def binary(compute: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    def forward(a, sa, za, b, sb, zb, sy, zy):
        return saturated(compute(number(a, sa, za), number(b, sb, zb)), sy, zy)

    return forward


for op, compute, scale in (("QLinearAdd", np.add, 0.0413), ("QLinearMul", np.multiply, 0.0517)):
    tail = [F(scale), np.uint8(100)]
    coded(op, [X8, *ENCODINGS, codes(2, 4, 6, 5), F(0.02), np.uint8(120), *tail], binary(compute),
          wrt=(0, 3))  # fmt: skip
    coded(op, [X8, *ENCODINGS, codes(4, 1, 1), F(0.02), np.uint8(0), *tail], binary(compute), wrt=(0, 3),
          dynamic=())  # fmt: skip
    coded(op, [codes(1, 5), *ENCODINGS, codes(3, 5), F(0.02), np.uint8(3), *tail], binary(compute),
          wrt=(0, 3), dynamic=())  # fmt: skip


def where(condition, a, sa, za, b, sb, zb, sy, zy):
    return saturated(np.where(condition, number(a, sa, za), number(b, sb, zb)), sy, zy)


coded("QLinearWhere",
      [RNG.integers(0, 2, (2, 3, 4)).astype(bool), codes(2, 3, 4), *ENCODINGS, codes(3, 1), F(0.02),
       np.uint8(120), F(0.02), np.uint8(100)], where, wrt=(1, 4), dynamic=())  # fmt: skip


def concat(sy, zy, *parts, axis):
    numbers = [number(*parts[i : i + 3]) for i in range(0, len(parts), 3)]
    return saturated(np.concatenate(numbers, axis=axis), sy, zy)


coded("QLinearConcat",
      [F(0.02), np.uint8(100), codes(2, 3, 4), *ENCODINGS, codes(2, 2, 4), F(0.01), np.uint8(3)],
      concat, wrt=(2, 5), axis=1)  # fmt: skip


def nhwc_max_pool(x, **settings):
    return np.moveaxis(standard("MaxPool", np.moveaxis(x.astype(float), -1, 1), **settings), 1, -1)


def different(*shape: int) -> np.ndarray:
    """Codes that are all different, for what picks the largest."""
    return RNG.permutation(int(np.prod(shape))).reshape(shape).astype(np.uint8)


coded("NhwcMaxPool", [different(1, 5, 4, 6)], nhwc_max_pool, kernel_shape=[2, 2], strides=[2, 2])
coded("NhwcMaxPool", [different(2, 6, 5, 3)], nhwc_max_pool, kernel_shape=[3, 3],
      pads=[1, 1, 1, 1], opset=16)  # fmt: skip


def quantized_attention(x, w, bias, sx, sw, mask, zx, zw, past=None, **settings):
    return attention(number(x, sx, zx), number(w, sw, zw), bias, mask, **settings)


WEIGHTS = [codes(6, 12, kind="int8"), RNG.normal(size=12).astype(F), F(0.01), F(0.005)]
for mask in (None, np.array([[1, 1, 1, 0], [1, 1, 1, 1]], np.int32)):
    coded("QAttention", [codes(2, 4, 6), *WEIGHTS, mask, np.uint8(120), np.int8(3)],
          quantized_attention, num_heads=2, output=TensorProto.FLOAT, slack=0.02)  # fmt: skip


NOT_RUN = {"QLinearReduceMean"}  # the runtime has a schema of it and no kernel


def reduce_mean(x, sx, zx, sy, zy, axes, keepdims):
    return saturated(number(x, sx, zx).mean(axis=tuple(axes), keepdims=bool(keepdims)), sy, zy)


for keep in (0, 1):
    for opset in (13, 18):
        coded("QLinearReduceMean", [X8, *ENCODINGS, F(0.01), np.uint8(100)], reduce_mean,
              axes=[2, -1], keepdims=keep, opset=opset)  # fmt: skip


def build(case: Coded, dynamic: bool) -> ir.Model:
    inputs, weights, names = [], [], []
    for index, array in enumerate(case.inputs):
        names.append("" if array is None else f"x{index}")
        if array is None:
            continue
        array = np.asarray(array)
        if index in case.wrt:
            axes = case.dynamic if dynamic else ()
            shape = [f"d{index}_{a}" if a in axes else n for a, n in enumerate(array.shape)]
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            inputs.append(helper.make_tensor_value_info(f"x{index}", kind, shape))
        else:
            weights.append(numpy_helper.from_array(array, f"x{index}"))
    node = helper.make_node(case.op, names, ["y"], domain=case.domain, **case.attributes)
    output = helper.make_tensor_value_info("y", case.output, None)
    graph = helper.make_graph([node], case.op, inputs, [output], weights)
    opsets = [helper.make_opsetid("", case.opset), helper.make_opsetid(MICROSOFT, 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    model = ir.serde.deserialize_model(proto)
    infer_shapes(model, proto, Path("case"))
    return model


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_codes_pass_the_gradient_of_the_line(case: Coded, targets: int, dynamic: bool) -> None:
    rng = np.random.default_rng(7)
    model = build(case, dynamic)
    graph = model.graph
    feeds = {f"x{i}": np.asarray(case.inputs[i]) for i in case.wrt}

    def forward(values: dict[str, np.ndarray]) -> np.ndarray:
        operands = [values.get(f"x{i}", a) for i, a in enumerate(case.inputs)]
        return case.forward(*operands, **case.attributes)

    exact = forward(feeds)
    of = graph.outputs[0]
    assert of.shape is not None and len(of.shape) == exact.ndim
    assert of.dtype == ir.DataType(case.output)
    seed_value = ir.Value(name="seed", type=ir.TensorType(ir.DataType.FLOAT))
    seed_value.shape = ir.Shape(["T", *of.shape])
    graph.inputs.append(seed_value)
    wrt = [v for v in graph.inputs if v.name in feeds]
    builder = Builder(graph, case.opset)
    for value, g in zip(wrt, add_gradient(builder, of, seed_value, wrt), strict=True):
        output = builder.op("Identity", g)
        output.name, output.type = f"g_{value.name}", ir.TensorType(ir.DataType.FLOAT)
        output.shape = ir.Shape(["T", *(value.shape or ())])
        graph.outputs.append(output)
    if case.op in NOT_RUN:
        graph.outputs.remove(of)
        graph.remove(of.producer(), safe=False)
    proto = ir.serde.serialize_model(model)
    onnx.checker.check_model(proto)
    runtime = session(proto.SerializeToString())
    seed = rng.normal(size=(targets, *exact.shape)).astype(F)
    found = runtime.run(None, {**feeds, "seed": seed})
    if case.op not in NOT_RUN:
        np.testing.assert_allclose(found.pop(0), exact, atol=case.slack)
    reached = 0.0
    for index, gradient in zip(case.wrt, found, strict=True):
        name, x = f"x{index}", feeds[f"x{index}"].astype(float)
        assert gradient.shape == (targets, *x.shape)
        reached = max(reached, np.abs(gradient).max())
        for probe in np.eye(x.size)[rng.permutation(x.size)[:30]]:
            direction = probe.reshape(x.shape)
            slope = central(
                lambda h, n=name, v=direction: forward({**feeds, n: feeds[n] + h * v}), STEP
            )
            numeric = seed.reshape(targets, -1) @ slope.ravel()
            analytic = gradient.reshape(targets, -1) @ probe
            scale = max(np.abs(gradient).max(), 1e-3)
            np.testing.assert_allclose(analytic, numeric, atol=3e-4 * scale, err_msg=str(case))
    assert reached > 1e-6
