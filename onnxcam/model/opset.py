"""Lift a model to a later opset with onnx's converter, and correct or refuse its mistakes."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.helper
import onnx.numpy_helper
import onnx.version_converter

from onnxcam.errors import ModelError, first_line
from onnxcam.graph.protos import all_nodes, opset_of
from onnxcam.model.runtime_ops import bring_back, set_aside
from onnxcam.model.skeleton import drop_initializer_inputs, without_weights

BASE_OPSET = 13  # axes of Squeeze and ReduceSum are inputs from here on; every rule builds on it


def lift(proto: onnx.ModelProto, path: Path, opset: int) -> onnx.ModelProto:
    """Return the model with the default domain lifted.

    Raises:
        ModelError: the converter fails, or is known to change what an operator means.
    """
    before = opset_of(proto)
    shrinking = _shrinking(proto, path) if before < 11 else set()
    changed = {"Scan": 9, "Hardmax": 13, "GroupNormalization": 21}
    for node in all_nodes(proto.graph):
        if node.op_type in changed and before < changed[node.op_type] <= opset:
            raise ModelError(
                f"{path}: opset {before} has to be lifted to {opset}, and {node.op_type} "
                f"(node '{node.name}') changes its meaning there. Export at opset {opset} or up."
            )
    if proto.ir_version < 4:  # a lifted Pad fails the checker at IR 3
        proto.ir_version = 4
        drop_initializer_inputs(proto)

    def convert(skeleton: onnx.ModelProto) -> onnx.ModelProto:
        set_aside(skeleton)
        converted = onnx.version_converter.convert_version(skeleton, opset)
        bring_back(converted)
        return converted

    try:
        lifted = without_weights(proto, convert)
    except Exception as error:
        raise ModelError(
            f"{path}: opset {before} cannot be lifted to {opset}, which the gradient rules "
            f"need: {first_line(error)} Export the model at opset {opset} or later."
        ) from error
    if before < 11:
        for node in all_nodes(lifted.graph):
            if node.op_type == "Resize":
                _set_attribute(node, "coordinate_transformation_mode", "asymmetric")
                rounding = "ceil" if node.output[0] in shrinking else "floor"
                _set_attribute(node, "nearest_mode", rounding)
    return lifted


def _shrinking(proto: onnx.ModelProto, path: Path) -> set[str]:
    """Return the outputs of the Resize-10 nodes that shrink by nearest elements.

    In mode nearest, ONNX Runtime rounds up where they shrink and down where they enlarge.
    """
    nodes = list(all_nodes(proto.graph))
    stored = {t.name: t for t in proto.graph.initializer}
    stored |= {n.output[0]: a.t for n in nodes if n.op_type == "Constant" for a in n.attribute}
    found = set()
    for node in nodes:
        modes = [a.s for a in node.attribute if a.name == "mode"]
        if node.op_type != "Resize" or modes not in ([], [b"nearest"]):
            continue
        scales = stored.get(node.input[1])
        factors = None if scales is None else onnx.numpy_helper.to_array(scales)
        if factors is None or ((factors < 1).any() and (factors > 1).any()):
            problem = "are computed" if factors is None else "both shrink and enlarge"
            raise ModelError(
                f"{path}: Resize (node '{node.name}', opset 10) takes nearest elements and its "
                f"scales {problem}; later opsets cannot express its rounding. Export the model "
                "at opset 11 or later."
            )
        if (factors < 1).any():
            found.add(node.output[0])
    return found


def _set_attribute(node: onnx.NodeProto, name: str, value: str) -> None:
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])
