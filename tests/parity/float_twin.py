"""The float network that a quantized one was made from, as far as its codes still tell.

Stored codes are decoded, and every encoding between is dropped. Where an encoding begins at
zero, the quantizer has absorbed a ReLU6 in it, which is written out again.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def float_twin(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` without quantization."""
    return _Twin(model).build()


class _Twin:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.made: dict[str, np.ndarray] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.same: dict[str, str] = {}  # tensors that are the same without quantization

    def build(self) -> onnx.ModelProto:
        inputs = {i.name for i in self.model.graph.input}
        for node in self.model.graph.node:
            node.input[:] = [self.same.get(name, name) for name in node.input]
            if node.op_type == "QuantizeLinear":
                self.same[node.output[0]] = node.input[0]
            elif node.op_type == "DequantizeLinear" and node.input[0] in inputs:
                self.nodes.append(node)  # the image itself
            elif node.op_type == "DequantizeLinear":
                self.same[node.output[0]] = self.number(node, 0)
            elif node.op_type.startswith("QLinear"):
                WRITERS[node.op_type](self, node)
            else:
                self.nodes.append(node)
        return self.finished()

    def number(self, node: onnx.NodeProto, index: int, axis: int = 1) -> str:
        """Return the operand at ``index`` decoded, when it is stored; else as it is."""
        name, scale, zero = (*node.input, "")[index : index + 3]
        if node.op_type == "DequantizeLinear":
            name, scale, zero = (*node.input, "")[:3]
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        if name not in self.stored:
            return name
        codes = self.stored[name].astype(float)
        column = [-1 if i == axis % max(codes.ndim, 1) else 1 for i in range(codes.ndim)]

        def along(array: np.ndarray) -> np.ndarray:
            return array.reshape(column) if array.size > 1 else array.reshape(())

        shift = along(self.stored[zero].astype(float)) if zero else 0.0
        return self.keep((codes - shift) * along(self.stored[scale]), f"{node.output[0]}.{index}")

    def keep(self, array: np.ndarray, name: str) -> str:
        self.made[name] = np.asarray(array, np.float32)
        return name

    def rectified(self, node: onnx.NodeProto, value: str, index: int) -> None:
        """Write ``value`` as the node's output, through the ReLU6 that its encoding stands for."""
        out = node.output[0]
        if self.stored[node.input[index + 1]] == 0:
            bounds = [self.keep(np.array(bound), f"{out}.{bound}") for bound in (0, 6)]
            self.nodes.append(helper.make_node("Clip", [value, *bounds], [out]))
        else:
            self.nodes.append(helper.make_node("Identity", [value], [out]))

    def conv(self, node: onnx.NodeProto) -> None:
        out, names = node.output[0], node.input
        operands = [names[0], self.number(node, 3, axis=0)]
        if len(names) > 8:
            scale = self.stored[names[1]] * self.stored[names[4]].ravel()
            operands.append(self.keep(self.stored[names[8]] * scale, f"{out}.bias"))
        conv = helper.make_node("Conv", operands, [f"{out}.conv"])
        conv.attribute.extend(node.attribute)
        self.nodes.append(conv)
        self.rectified(node, f"{out}.conv", 6)

    def finished(self) -> onnx.ModelProto:
        model, graph = self.model, self.model.graph
        for output in graph.output:
            if output.name in self.same:
                source = self.same[output.name]
                self.nodes.append(helper.make_node("Identity", [source], [output.name]))
                output.type.tensor_type.elem_type = TensorProto.FLOAT
        del graph.node[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        used = {name for node in graph.node for name in node.input}
        kept = [t for t in graph.initializer if t.name in used]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        graph.initializer.extend(numpy_helper.from_array(a, k) for k, a in self.made.items())
        onnx.checker.check_model(model)
        return model


def _plain(op_type: str, *places: int) -> Callable[[_Twin, onnx.NodeProto], None]:
    def write(twin: _Twin, node: onnx.NodeProto) -> None:
        operands = [twin.number(node, i) for i in places]
        twin.nodes.append(helper.make_node(op_type, operands, [node.output[0]]))

    return write


WRITERS: dict[str, Callable[[_Twin, onnx.NodeProto], None]] = {
    "QLinearConv": _Twin.conv,
    "QLinearAdd": _plain("Add", 0, 3),
    "QLinearMatMul": _plain("MatMul", 0, 3),
    "QLinearGlobalAveragePool": _plain("GlobalAveragePool", 0),
}
