"""How long it takes to instrument a model, after imports."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import exports
import numpy as np
import onnx
from measure import table
from onnx import TensorProto, helper, numpy_helper

from tests.instrumented import instrument


def long_network(nodes: int, path: Path) -> Path:
    """A residual network of small convolutions with about ``nodes`` nodes."""
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.normal(size=(8, 3, 3, 3)).astype("f"), "w")]
    graph = [helper.make_node("Conv", ["x", "w"], ["a0"], pads=[1, 1, 1, 1])]
    for i in range(nodes // 3):
        name = f"w{i}"
        weights.append(numpy_helper.from_array(rng.normal(size=(8, 8, 1, 1)).astype("f"), name))
        graph += [
            helper.make_node("Conv", [f"a{i}", name], [f"c{i}"]),
            helper.make_node("Relu", [f"c{i}"], [f"r{i}"]),
            helper.make_node("Add", [f"r{i}", f"a{i}"], [f"a{i + 1}"]),
        ]
    graph += [
        helper.make_node("GlobalAveragePool", [f"a{nodes // 3}"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "head"], ["y"]),
    ]
    weights.append(numpy_helper.from_array(rng.normal(size=(8, 10)).astype("f"), "head"))
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 32, 32])
    scores = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])
    made = helper.make_graph(graph, "long", [image], [scores], weights)
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=7), path)
    return path


def median(path: Path, layer: str = "auto") -> float:
    times = []
    for _ in range(7):
        start = time.perf_counter()
        instrument(path, layer)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def run() -> str:
    """Return the table."""
    with tempfile.TemporaryDirectory() as folder:
        long = long_network(1500, Path(folder) / "long.onnx")
        rows = [
            ["ResNet-50", f"{median(exports.export('resnet50')):.3f}", "0.3"],
            ["1,500 nodes, default layer", f"{median(long):.3f}", "2"],
            ["1,500 nodes, first layer", f"{median(long, 'a0'):.3f}", "2"],
        ]
    return table(["model", "seconds", "aim"], rows)


if __name__ == "__main__":
    print(run())
