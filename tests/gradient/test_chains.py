"""Chains of image operators, with exact ties: every form gives the same gradient."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx.shape_inference
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxcam import OnnxcamError

from .forms import close, gradient


@dataclass
class Net:
    """A chain of image operators, drawn by hypothesis."""

    draw: st.DrawFn
    exact: bool  # all values are multiples of 1/8, so that ties are ties in every form
    size: int  # the least length of an image's sides
    channels: int = 16
    last: str = "x0"
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def op(self, op_type: str, *inputs: str, **attributes: object) -> str:
        out = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [out], **attributes))
        return out

    def stored(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
        return name

    def conv(self, value: str, to: int, kernel: int, stride: int, group: int, pad: int) -> str:
        self.slide(kernel, stride, pad)
        rng = np.random.default_rng(len(self.weights))
        shape = (to, self.channels // group, kernel, kernel)
        scaled = rng.integers(-2, 3, shape) / 2 if self.exact else rng.normal(size=shape) * 0.3
        return self.op(
            "Conv", value, self.stored(scaled), strides=[stride] * 2, pads=[pad] * 4, group=group
        )

    def slide(self, kernel: int, stride: int, pad: int) -> None:
        """Keep to images that windows fit into: ONNX Runtime divides by 0 at empty ones."""
        assume(self.size + 2 * pad >= kernel)
        self.size = (self.size + 2 * pad - kernel) // stride + 1

    def layer(self, kind: str) -> None:
        draw, last = self.draw, self.last
        if kind == "conv":
            to = draw(st.sampled_from([4, 16, 24]))
            kernel, stride = draw(st.integers(1, 3)), draw(st.integers(1, 2))
            self.last = self.conv(last, to, kernel, stride, 1, draw(st.integers(0, kernel - 1)))
            self.channels = to
        elif kind == "depthwise":
            kernel, stride = draw(st.integers(1, 3)), draw(st.integers(1, 2))
            pad = draw(st.integers(0, kernel - 1))
            self.last = self.conv(last, self.channels, kernel, stride, self.channels, pad)
        elif kind == "pool":
            kernel = draw(st.integers(1, 3))
            stride, pad = draw(st.integers(1, kernel)), draw(st.integers(0, kernel - 1))
            self.slide(kernel, stride, pad)
            self.last = self.op(
                "MaxPool",
                last,
                kernel_shape=[kernel] * 2,
                strides=[stride] * 2,
                pads=[pad] * 4,
                ceil_mode=draw(st.integers(0, 1)),
            )
        elif kind == "relu6":
            self.last = self.op("Clip", last, self.stored(np.array(0)), self.stored(np.array(6)))
        elif kind == "clip":
            self.last = self.op("Clip", last, self.stored(np.array(-1)), self.stored(np.array(2)))
        elif kind == "residual":
            self.last = self.op("Add", self.conv(last, self.channels, 1, 1, 1, 0), last)
        elif kind == "concat":
            parts = [self.conv(last, 16, kernel, 1, 1, kernel // 2) for kernel in (1, 3)]
            self.last = self.op("Concat", *(self.op("Relu", p) for p in parts), axis=1)
            self.channels = 32
        elif kind == "silu":
            self.last = self.op("Mul", last, self.op("Sigmoid", last))
        elif kind == "gate":
            size = self.size
            gate = self.conv(self.op("GlobalAveragePool", last), self.channels, 1, 1, 1, 0)
            self.size = size
            self.last = self.op("Mul", last, self.op("Sigmoid", gate))
        else:
            self.last = self.op(kind, last)

    def model(self, batch: int | str, size: tuple[int, int]) -> onnx.ModelProto:
        self.nodes.append(helper.make_node("GlobalAveragePool", [self.last], ["y0"]))
        x = helper.make_tensor_value_info("x0", TensorProto.FLOAT, [batch, 16, *size])
        y = helper.make_tensor_value_info("y0", TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "net", [x], [y], self.weights)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return onnx.shape_inference.infer_shapes(proto, data_prop=True)


EXACT = ["conv", "depthwise", "pool", "Relu", "relu6", "clip", "residual", "concat"]


SMOOTH = ["silu", "gate", "Sigmoid", "Tanh", "HardSwish"]


@pytest.mark.parametrize("kinds", [EXACT, [*EXACT, *SMOOTH]])
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_chains_of_layers(kinds: list[str], data: st.DataObject) -> None:
    exact = kinds is EXACT
    size = data.draw(st.tuples(st.integers(6, 12), st.integers(6, 12)))
    net = Net(data.draw, exact, min(size))
    for kind in data.draw(st.lists(st.sampled_from(kinds), min_size=2, max_size=6)):
        net.layer(kind)
    proto = net.model(data.draw(st.sampled_from(["N", 1, 2])), size)
    batch = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 2
    rng = np.random.default_rng(7)
    x = rng.integers(-3, 4, (batch, 16, *size)) if exact else rng.normal(size=(batch, 16, *size))
    feeds = {"x0": x.astype(np.float32)}
    try:
        expected = gradient(proto, feeds)
    except OnnxcamError:
        assume(False)  # a last window in the padding alone
    policy = data.draw(st.sampled_from(["standard", "guided", "deconvnet"]))
    if policy != "standard":
        expected = gradient(proto, feeds, policy=policy)
    close(gradient(proto, feeds, T=1, policy=policy), expected)
    close(gradient(proto, feeds, blocked=True, policy=policy), expected)
