"""Check a rule against central differences of the same node in float64.

The forward oracle is onnx's reference evaluator, believed only where it agrees with ONNX
Runtime on the same case; where it does not, the operator must be linear, and differences of
ONNX Runtime's own results over a large step are exact up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxcam.gradient.add import add_gradient
from onnxcam.graph.builder import Builder
from onnxcam.model.shapes import infer_shapes

STEP = 3e-3
CHECKED_ELEMENTS = 40
DIRECTIONS = 4


@dataclass
class Case:
    """One node with its operands.

    ``inputs`` are arrays or ``None``; floating-point ones in ``wrt`` are differentiated, the
    others are stored constants, except that those in ``fed`` are inputs of the run. ``dynamic``
    are the axes whose length the second variant leaves to the run; ``None`` where the rule
    needs to know them all.
    """

    op: str
    inputs: list[Any]
    attributes: dict[str, Any] = field(default_factory=dict)
    wrt: Sequence[int] = (0,)
    opset: int = 17
    outputs: int = 1  # several are joined, last first, along the node's axis
    dynamic: Sequence[int] | None = (0, 2, 3, 4)
    linear: bool = False
    domain: str = ""
    obvious: Callable[..., np.ndarray] | None = None  # a slow forward of its own, in float64
    fed: Sequence[int] = ()
    unread: int = 0  # outputs after the first that nothing reads

    @property
    def given(self) -> dict[str, np.ndarray]:
        """What every run is given besides the differentiated operands."""
        return {f"x{i}": np.asarray(self.inputs[i]) for i in self.fed}

    def __str__(self) -> str:
        shape = "x".join(map(str, np.shape(self.inputs[0]))) or "scalar"
        settings = ",".join(f"{k}={v}" for k, v in self.attributes.items())
        return f"{self.op}-{self.opset}-{shape}-{settings}".replace(" ", "")


def build(case: Case, dtype: type, dynamic: bool) -> onnx.ModelProto:
    """Return the one-node model; outputs of unknown shape are left to inference."""
    inputs, weights, operands = [], [], []
    for index, array in enumerate(case.inputs):
        if array is None:
            operands.append("")
            continue
        name = f"x{index}"
        operands.append(name)
        array = np.asarray(array)
        if array.dtype.kind == "f":
            array = array.astype(dtype)
        if index in case.wrt or index in case.fed:
            axes = case.dynamic or () if dynamic else ()
            shape = [f"{name}_d{a}" if a in axes else n for a, n in enumerate(array.shape)]
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            inputs.append(helper.make_tensor_value_info(name, kind, shape))
        else:
            weights.append(numpy_helper.from_array(array, name))
    names = ["y0"] if case.outputs == 1 else [f"part{i}" for i in range(case.outputs)]
    names += [f"unread{i}" for i in range(case.unread)]
    nodes = [helper.make_node(case.op, operands, names, domain=case.domain, **case.attributes)]
    if case.outputs > 1:
        axis = case.attributes.get("axis", 0)
        nodes.append(helper.make_node("Concat", names[: case.outputs][::-1], ["y0"], axis=axis))
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    outputs = [helper.make_tensor_value_info("y0", kind, None)]
    graph = helper.make_graph(nodes, case.op, inputs, outputs, weights)
    opsets = [helper.make_opsetid("", case.opset)]
    if case.domain:
        opsets.append(helper.make_opsetid(case.domain, 1))
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    if not onnx.defs.has(case.op, case.domain):  # the runtime's own: onnx infers nothing
        found = ir.serde.deserialize_model(model)
        infer_shapes(found, model, Path("case"))
        return ir.serde.serialize_model(found)
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def differentiate(model: onnx.ModelProto, case: Case, rank: int) -> bytes:
    """Append the input ``seed0`` and the outputs ``gradient_*`` to the model.

    ``rank`` is that of the output, for operators that onnx has no shape inference for.
    """
    found = ir.serde.deserialize_model(model)
    graph = found.graph
    builder = Builder(graph, case.opset)
    wrt = [v for v in graph.inputs if v.name in {f"x{i}" for i in case.wrt}]
    of, seed = graph.outputs[0], ir.Value(name="seed0", type=graph.outputs[0].type)
    if of.shape is None:
        of.shape = ir.Shape([f"y{axis}" for axis in range(rank)])
    seed.shape = ir.Shape(["T", *of.shape])
    graph.inputs.append(seed)
    for value, g in zip(wrt, add_gradient(builder, of, seed, wrt), strict=True):
        output = builder.op("Identity", g)
        output.name, output.type = f"gradient_{value.name}", value.type
        output.shape = ir.Shape(["T", *(value.shape or ())])
        graph.outputs.append(output)
    proto = ir.serde.serialize_model(found)
    known = onnx.defs.has(case.op, case.domain)
    if case.domain or (known and not onnx.defs.get_schema(case.op, case.opset).deprecated):
        onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString()


def session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def oracle(case: Case) -> tuple[Callable[[dict[str, np.ndarray]], np.ndarray], float, float]:
    """Return the forward function, the step and the tolerance to compare with."""
    feeds = {f"x{i}": np.asarray(case.inputs[i], np.float64) for i in case.wrt}
    runtime = session(build(case, np.float32, False).SerializeToString())

    def run32(values: dict[str, np.ndarray]) -> np.ndarray:
        floats = {k: np.asarray(v, np.float32) for k, v in values.items()}
        return runtime.run(["y0"], {**case.given, **floats})[0]

    actual = run32(feeds)
    if case.obvious is not None:
        obvious = case.obvious
        fixed = [None if a is None else np.asarray(a) for a in case.inputs]

        def slow(values: dict[str, np.ndarray]) -> np.ndarray:
            operands = [values.get(f"x{i}", a) for i, a in enumerate(fixed)]
            return obvious(*operands, **case.attributes)

        np.testing.assert_allclose(slow(feeds), actual, rtol=1e-4, atol=1e-5)
        return slow, STEP, 2e-4
    try:
        reference = ReferenceEvaluator(build(case, np.float64, False))
        expected = reference.run(["y0"], {**case.given, **feeds})[0]
        agrees = expected.shape == actual.shape and np.allclose(
            expected, actual, rtol=1e-4, atol=1e-4 * max(np.abs(expected).max(initial=0), 1e-3)
        )
    except Exception:
        agrees = False
    if agrees:

        def run64(values: dict[str, np.ndarray]) -> np.ndarray:
            return np.asarray(reference.run(["y0"], {**case.given, **values})[0], np.float64)

        return run64, STEP, 2e-4
    assert case.linear, f"{case}: the reference evaluator disagrees with ONNX Runtime"
    return lambda v: run32(v).astype(np.float64), 1.0, 2e-4


def standard(op: str, *operands: Any, opset: int = 17, **attributes: Any) -> np.ndarray:
    """Run a standard operator in float64."""
    names = ["" if a is None else f"x{i}" for i, a in enumerate(operands)]
    feeds = {n: np.asarray(a) for n, a in zip(names, operands, strict=True) if a is not None}
    feeds = {n: a.astype(float) if a.dtype.kind == "f" else a for n, a in feeds.items()}
    node = helper.make_node(op, names, ["y"], **attributes)
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in feeds.items()
    ]
    output = helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)
    graph = helper.make_graph([node], op, inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    return np.asarray(ReferenceEvaluator(model).run(None, feeds)[0], np.float64)


def central(f: Callable[[float], np.ndarray], step: float) -> np.ndarray:
    """Fourth-order central difference at 0; the evaluator's Erf is only good to 1e-7."""
    near, far = f(step) - f(-step), f(2 * step) - f(-2 * step)
    return (8 * near - far) / (12 * step)


def check(case: Case, targets: int, dynamic: bool) -> None:
    """Compare every cotangent with central differences."""
    rng = np.random.default_rng(7)
    forward, step, tolerance = oracle(case)
    feeds = {f"x{i}": np.asarray(case.inputs[i], np.float64) for i in case.wrt}
    y = forward(feeds)
    seed = rng.normal(size=(targets, *y.shape))
    model = differentiate(build(case, np.float32, dynamic), case, y.ndim)
    names = [f"gradient_x{i}" for i in case.wrt]
    inputs = {k: v.astype(np.float32) for k, v in feeds.items()}
    found = session(model).run(names, {**inputs, **case.given, "seed0": seed.astype(np.float32)})
    for index, gradient in zip(case.wrt, found, strict=True):
        name = f"x{index}"
        x = feeds[name]
        assert gradient.shape == (targets, *x.shape), (gradient.shape, x.shape)
        probes = list(np.eye(x.size)[rng.permutation(x.size)[:CHECKED_ELEMENTS]])
        probes += [rng.normal(size=x.size) for _ in range(DIRECTIONS)]
        for probe in probes:
            v = probe.reshape(x.shape)

            def along(h: float, name: str = name, v: np.ndarray = v) -> np.ndarray:
                return forward({**feeds, name: feeds[name] + h * v})

            slope = central(along, step).ravel()
            numeric = seed.reshape(targets, -1) @ slope
            analytic = gradient.reshape(targets, -1).astype(np.float64) @ probe
            scale = max(np.abs(gradient).max() * np.linalg.norm(probe), 1e-3)
            assert np.abs(numeric - analytic).max() <= tolerance * scale, (
                f"{case} d/d{name}: numeric {numeric}, analytic {analytic}"
            )
