"""What a file must hold before anything is made of it; libraries differ in what they make of less.

1. Names are text.
2. A node reads what something gives: an input, a weight, a node, or a graph around its own; and no
   tensor is given twice.
3. An attribute is given once, and its type is that of its value. Files of IR version 1 have no
   types (caffe2, CNTK before 2018): there it is set.
4. Weights have as many bytes as their shape needs.
"""

from __future__ import annotations

import math
import shlex
from collections import Counter
from pathlib import Path

import onnx
import onnx_ir as ir

from onnxcam.errors import ModelError
from onnxcam.graph.protos import all_nodes, stored_tensors, subgraphs

_AGAIN = "Is the file damaged? Download or export it again."
_VALUES = {
    "f": "FLOAT",
    "i": "INT",
    "s": "STRING",
    "t": "TENSOR",
    "g": "GRAPH",
    "tp": "TYPE_PROTO",
    "sparse_tensor": "SPARSE_TENSOR",
    "floats": "FLOATS",
    "ints": "INTS",
    "strings": "STRINGS",
    "tensors": "TENSORS",
    "graphs": "GRAPHS",
    "type_protos": "TYPE_PROTOS",
    "sparse_tensors": "SPARSE_TENSORS",
}
_REMOVE = (
    "import onnx; m = onnx.load({source!r}); [n.attribute.remove(a) for n in m.graph.node for a in "
    "list(n.attribute) if not a.type and a.name == {name!r}]; onnx.save(m, {target!r})"
)


def make_sound(model: onnx.ModelProto, path: Path) -> None:
    """Set the types of attributes that have none, and refuse what is left unsaid.

    Raises:
        ModelError: names, attributes or weights are not as the module says; ``path`` names the
            file.
    """
    for node in (n for part in (model.graph, *model.functions) for n in all_nodes(part)):
        names = [node.name, node.op_type, node.domain, *node.input, *node.output]
        for name in (*names, *(a.name for a in node.attribute)):
            if not isinstance(name, str):  # what protobuf gives for other bytes
                raise ModelError(f"{path}: the name {name!r} is no UTF-8. {_AGAIN}")
        for attribute in node.attribute:
            _set_type(node, attribute, path)
        for name in _repeated([a.name for a in node.attribute]):
            raise ModelError(
                f"{path}: {_node(node)}: its attribute '{name}' is given more than once. {_AGAIN}"
            )
    _check_names(model.graph, frozenset(), path)
    for tensor in stored_tensors(model.graph):
        _check_bytes(tensor, path)


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """Return the bytes that a stored tensor needs by its shape and type, 0 where it has strings."""
    if tensor.data_type == onnx.TensorProto.STRING:
        return 0
    return math.ceil(int(math.prod(tensor.dims)) * ir.DataType(tensor.data_type).itemsize)


def _set_type(node: onnx.NodeProto, attribute: onnx.AttributeProto, path: Path) -> None:
    values = [f.name for f, _ in attribute.ListFields() if f.name in _VALUES]
    kinds = [_VALUES[name] for name in values]
    where = f"{path}: {_node(node)}: its attribute '{attribute.name}'"
    if attribute.type == onnx.AttributeProto.UNDEFINED:
        if len(values) != 1:
            fixed = path.with_name(f"{path.stem}-fixed.onnx")
            program = _REMOVE.format(source=str(path), name=attribute.name, target=str(fixed))
            raise ModelError(
                f"{where} has neither type nor value, so its meaning is not known. If its default "
                f"is meant, remove it: python -c {shlex.quote(program)}"
            )
        attribute.type = onnx.AttributeProto.AttributeType.Value(kinds[0])
        return
    said = onnx.AttributeProto.AttributeType.Name(attribute.type)
    if kinds and kinds != [said]:
        raise ModelError(f"{where} is of type {said} and holds {', '.join(kinds)}. {_AGAIN}")


def _check_names(graph: onnx.GraphProto, outer: frozenset[str], path: Path) -> None:
    """Refuse names of tensors that nothing gives, or that are given twice."""
    weights = {t.name: t for t in graph.initializer}
    for tensor in graph.initializer:  # runtimes differ in which of two they take
        if tensor is not weights[tensor.name] and tensor != weights[tensor.name]:
            raise ModelError(f"{path}: the weights '{tensor.name}' are given twice. {_AGAIN}")
    weights |= {t.values.name: t.values for t in graph.sparse_initializer}
    inputs = [i.name for i in graph.input]
    computed = [name for node in graph.node for name in node.output if name]
    for name in _repeated([*(n for n in inputs if n not in weights), *weights, *computed]):
        raise ModelError(f"{path}: the tensor '{name}' is given twice. {_AGAIN}")
    known = outer | set(weights) | set(inputs) | set(computed)
    for node in graph.node:
        for name in node.input:
            if name and name not in known:
                raise ModelError(
                    f"{path}: {_node(node)} reads '{name}', which is no input, no weight and no "
                    f"result of a node. {_AGAIN}"
                )
        for inner in subgraphs(node):
            _check_names(inner, known, path)
    for output in graph.output:
        if output.name not in known:
            raise ModelError(f"{path}: nothing gives the output '{output.name}'. {_AGAIN}")


def _repeated(names: list[str]) -> list[str]:
    if len(set(names)) == len(names):
        return []
    return [name for name, count in Counter(names).items() if count > 1]


def _check_bytes(tensor: onnx.TensorProto, path: Path) -> None:
    where = f"{path}: the weights '{tensor.name}' of shape {list(tensor.dims)}"
    if any(d < 0 for d in tensor.dims):
        raise ModelError(f"{where}: a length is negative. {_AGAIN}")
    try:
        kind = ir.DataType(tensor.data_type)
    except ValueError:
        kind = ir.DataType.UNDEFINED
    if kind == ir.DataType.UNDEFINED:
        raise ModelError(f"{where} are of an unknown type, {tensor.data_type}. {_AGAIN}")
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return  # see check_external_data
    count = math.prod(tensor.dims)
    if tensor.HasField("raw_data"):
        need, have, unit = tensor_bytes(tensor), len(tensor.raw_data), "bytes"
    else:
        lists = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")
        have = sum(len(getattr(tensor, name)) for name in (*lists, "string_data"))
        strings = kind == ir.DataType.STRING
        share = 1 if strings else min(kind.itemsize, 1)  # several small ones in one byte
        pair = kind in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128)
        need, unit = math.ceil(count * share) * (2 if pair else 1), "numbers"
    if have != need:
        raise ModelError(f"{where} ({kind.name}) need {need:,} {unit} and have {have:,}. {_AGAIN}")


def _node(node: onnx.NodeProto) -> str:
    return f"node '{node.name or ', '.join(node.output)}' ({node.op_type})"
