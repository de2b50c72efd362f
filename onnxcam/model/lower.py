"""Bring a finished model to the lowest opset and IR version that say the same.

Runtimes on devices are older than exporters: onnxruntime 1.17 loads opset 20 and IR version 9.

An operator's version is lowered where the older definition takes the node as it is: the same
attributes with the same defaults, as many operands, the same types. What later versions only added
types to is lowered by that; what changed its meaning under the same form is listed here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx.checker
import onnx.defs
import onnx.helper
import onnx.shape_inference

from onnxcam.errors import ModelError
from onnxcam.graph.protos import all_nodes, opset_of, stored_tensors
from onnxcam.model.opset import BASE_OPSET
from onnxcam.model.runtime_ops import set_aside
from onnxcam.model.skeleton import skeleton

# Operators whose meaning changed, and the opset below which they are not lowered.
_CHANGED = {"RoiAlign": 16, "LpPool": 18, "GridSample": 20, "DFT": 20, "GroupNormalization": 21}
# Values of attributes that came later than the attribute.
_LATER = {
    ("Pad", "mode", b"wrap"): 19,
    ("ScatterND", "reduction", b"max"): 18,
    ("ScatterND", "reduction", b"min"): 18,
    ("ScatterElements", "reduction", b"max"): 18,
    ("ScatterElements", "reduction", b"min"): 18,
    ("Resize", "coordinate_transformation_mode", b"half_pixel_symmetric"): 19,
    ("AveragePool", "ceil_mode", 1): 19,  # how its windows count padding was corrected
}
_TYPES = {  # IR versions that brought types
    **dict.fromkeys(("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"), 9),
    **dict.fromkeys(("UINT4", "INT4"), 10),
    **dict.fromkeys(("FLOAT4E2M1",), 11),
}
_LEAST_IR = 4  # below, every stored weight is an input


def lower(proto: onnx.ModelProto, path: Path, most: int | None = None) -> None:
    """Lower opset and IR version as far as the model means the same, in place.

    Args:
        proto: the model.
        path: its file, for messages.
        most: refuse a result above this opset.

    Raises:
        ModelError: so it is; the operator that stands in the way is named.
    """
    now = opset_of(proto)
    found = now
    while found > BASE_OPSET and _stopping(proto, now, found - 1) is None:
        found -= 1
    while found < now and not _is_valid(proto, found):
        found += 1
    if most is not None and found > most:
        node = _stopping(proto, now, found - 1)
        what = "its types" if node is None else f"{node.op_type} (node '{node.name}')"
        raise ModelError(
            f"{path}: is of opset {now} and cannot be lowered below {found}, since {what} would "
            f"mean something else or is not there. Export the model itself at opset {most}."
        )
    _set_opset(proto, found)
    for node in all_nodes(proto.graph):
        if not node.domain:
            _drop_defaults(node, now, found)
    _lower_ir(proto)


def _stopping(proto: onnx.ModelProto, now: int, then: int) -> onnx.NodeProto | None:
    """Return a node of the default domain that an older opset does not take as it is."""
    nodes = (n for n in all_nodes(proto.graph) if not n.domain)
    return next((n for n in nodes if not _is_same(n, now, then)), None)


def _is_same(node: onnx.NodeProto, now: int, then: int) -> bool:
    if then < _CHANGED.get(node.op_type, 0):
        return False
    try:
        new = onnx.defs.get_schema(node.op_type, now)
        old = onnx.defs.get_schema(node.op_type, then)
    except onnx.defs.SchemaError:
        return False
    if new.since_version == old.since_version:
        return True
    given = {a.name: a for a in node.attribute}
    for name, attribute in given.items():
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, (bytes, int)) and then < _LATER.get((node.op_type, name, value), 0):
            return False
        if name not in old.attributes and not _is_default(attribute, new):
            return False
    for name, attribute in old.attributes.items():
        if name not in given and _default(new, name) != _default(old, name):
            return False
        if name not in given and attribute.required:
            return False
    if not old.min_input <= len(node.input) <= old.max_input:
        return False
    return bool(len(node.output) <= old.max_output)


def _default(schema: onnx.defs.OpSchema, name: str) -> object:
    if name not in schema.attributes:
        return None
    stored = schema.attributes[name].default_value
    return onnx.helper.get_attribute_value(stored) if stored.name else None


def _is_default(attribute: onnx.AttributeProto, schema: onnx.defs.OpSchema) -> bool:
    value = onnx.helper.get_attribute_value(attribute)
    return attribute.name in schema.attributes and value == _default(schema, attribute.name)


def _drop_defaults(node: onnx.NodeProto, now: int, then: int) -> None:
    """Remove attributes that the older definition does not have."""
    known = onnx.defs.get_schema(node.op_type, then).attributes
    kept = [a for a in node.attribute if a.name in known]
    if len(kept) < len(node.attribute):
        del node.attribute[:]
        node.attribute.extend(kept)


def _is_valid(proto: onnx.ModelProto, opset: int) -> bool:
    """Whether the model holds at an opset, types included."""
    bare = skeleton(proto)[0]
    now = opset_of(bare)
    _set_opset(bare, opset)
    set_aside(bare)
    for node in all_nodes(bare.graph):
        if not node.domain:
            _drop_defaults(node, now, opset)
    try:
        onnx.checker.check_model(bare)
        onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True)
    except Exception:
        return False
    return True


def _set_opset(proto: onnx.ModelProto, opset: int) -> None:
    for entry in proto.opset_import:
        if entry.domain == "":
            entry.version = opset


def _lower_ir(proto: onnx.ModelProto) -> None:
    opsets = [e for e in proto.opset_import if e.domain in ("", "ai.onnx.ml")]
    least = onnx.helper.find_min_ir_version_for(opsets, ignore_unknown=True)
    names = {onnx.TensorProto.DataType.Name(kind) for kind in _kinds(proto)}
    least = max(_LEAST_IR, least, *(_TYPES.get(name, 0) for name in names), 0)
    proto.ir_version = least
    if proto.ir_version < 10:  # what tells of nodes came with IR version 10
        for node in all_nodes(proto.graph):
            del node.metadata_props[:]
        for value in [*proto.graph.input, *proto.graph.output, *proto.graph.value_info]:
            del value.metadata_props[:]
        for tensor in proto.graph.initializer:
            del tensor.metadata_props[:]
        del proto.graph.metadata_props[:]


def _kinds(proto: onnx.ModelProto) -> Iterator[int]:
    """Yield the types of stored tensors, of inputs, outputs and what is known of values."""
    yield from (t.data_type for t in stored_tensors(proto.graph))
    graph = proto.graph
    for value in [*graph.input, *graph.output, *graph.value_info]:
        yield value.type.tensor_type.elem_type
    for node in all_nodes(graph):
        yield from (a.i for a in node.attribute if node.op_type == "Cast" and a.name == "to")
