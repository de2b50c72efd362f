"""Models over 2 GB and graphs of thousands of nodes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import onnxcam

from ..conftest import runtime

WIDTH, LAYERS = 8192, 10  # 2.5 GiB of weights

REWRITE = """
import resource, sys
from pathlib import Path
import onnxcam
from onnxcam.model.write import write_model
path = Path(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
made = onnxcam.add_gradients(path, "y9", "x")
write_model(made, path.with_name("gradient.onnx"), path)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_weights_over_2_gb_are_neither_read_nor_copied(tmp_path: Path) -> None:
    size = WIDTH * WIDTH * 4
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(size * LAYERS)  # a sparse file: it takes no room
    weights, nodes, last = [], [], "x"
    for i in range(LAYERS):
        place = {"location": "weights.bin", "offset": str(i * size), "length": str(size)}
        tensor = TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=[WIDTH, WIDTH])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in place.items():
            tensor.external_data.add(key=key, value=value)
        weights.append(tensor)
        nodes.append(helper.make_node("MatMul", [last, f"w{i}"], [f"m{i}"]))
        last = f"y{i}"
        nodes.append(helper.make_node("Relu", [f"m{i}"], [last]))
    ends = [helper.make_tensor_value_info(n, 1, ["N", WIDTH]) for n in ("x", last)]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], weights)
    opset = [helper.make_opsetid("", 17)]
    path = tmp_path / "model.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    )
    command = [sys.executable, "-c", REWRITE, str(path)]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert grown < 300, f"{grown} MiB"
    made = tmp_path / "gradient.onnx"
    assert made.stat().st_size < 20_000
    onnx.checker.check_model(str(made), full_check=True)


def test_five_thousand_nodes() -> None:
    """x <- x + c tanh(x), 1,700 times; the derivative is the product of 1 + c (1 - tanh^2)."""
    nodes, last = [], "x"
    for i in range(1700):
        nodes += [
            helper.make_node("Tanh", [last], [f"t{i}"]),
            helper.make_node("Mul", [f"t{i}", "c"], [f"m{i}"]),
            helper.make_node("Add", [last, f"m{i}"], [f"x{i}"]),
        ]
        last = f"x{i}"
    ends = [helper.make_tensor_value_info(n, 1, ["N", 3]) for n in ("x", last)]
    step = numpy_helper.from_array(np.array(1e-3, "f"), "c")
    graph = helper.make_graph(nodes, "deep", ends[:1], ends[1:], [step])
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    made = onnxcam.add_gradients(model, last, "x")
    x = np.array([[0.3, -0.1, 0.5]])
    feeds = {"x": x.astype("f"), f"seed:{last}": np.ones((1, 1, 3), "f")}
    [found] = runtime(made).run(["gradient:x"], feeds)
    slope = np.ones_like(x)
    for _ in range(1700):
        slope *= 1 + 1e-3 * (1 - np.tanh(x) ** 2)
        x = x + 1e-3 * np.tanh(x)
    np.testing.assert_allclose(found[0], slope, rtol=1e-4)
