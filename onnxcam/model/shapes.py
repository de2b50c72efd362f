"""Infer the shapes and types of all values, as far as possible.

``onnx`` infers them for standard operators, and stops at others. So
:mod:`onnxcam.model.stand_ins` replaces the others first.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

from onnxcam.errors import ModelError
from onnxcam.graph.protos import opset_of
from onnxcam.model.inference import infer
from onnxcam.model.stand_ins import put_stand_ins
from onnxcam.model.types import set_types

Lengths = dict[str, list[int | None]]

# Inference follows a computed Reshape only from this opset on; nothing that shapes depend on
# changes its meaning between 13 and here.
INFERENCE_OPSET = 17


def infer_shapes(model: ir.Model, bare: onnx.ModelProto, path: Path) -> Lengths:
    """Set shape and type of every value of ``model`` that can be inferred.

    Args:
        model: the model to describe.
        bare: the same model without large weights; it is changed.
        path: the model's file, for messages.

    Returns:
        What :func:`known_lengths` returns.

    Raises:
        ModelError: the graph contradicts itself.
    """
    inferred = _inferred(bare, path).graph
    set_types(model.graph, inferred)
    return _lengths(inferred)


def known_lengths(bare: onnx.ModelProto, path: Path) -> Lengths:
    """Return the shapes of the main graph's values; lengths known only at run time are ``None``.

    Args and errors are those of :func:`infer_shapes`.
    """
    return _lengths(_inferred(bare, path).graph)


def _lengths(graph: onnx.GraphProto) -> Lengths:
    found = {}
    for info in (*graph.input, *graph.value_info, *graph.output):
        if info.type.tensor_type.HasField("shape"):
            sizes = info.type.tensor_type.shape.dim
            found[info.name] = [d.dim_value if d.HasField("dim_value") else None for d in sizes]
    return found


def _inferred(skeleton: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    for domain in skeleton.opset_import:
        if domain.domain == "" and 13 <= domain.version < INFERENCE_OPSET:
            domain.version = INFERENCE_OPSET
    put_stand_ins(skeleton.graph, opset_of(skeleton))
    try:
        declared = _set_declared_aside(skeleton.graph)
        if not declared:
            return infer(skeleton)
        bare = onnx.ModelProto()
        bare.CopyFrom(skeleton)
        inferred = infer(bare)
        if _declare_unknown(skeleton.graph, inferred.graph, declared):
            inferred = infer(skeleton)
        return inferred
    except Exception as error:
        raise ModelError(f"{path}: the graph is inconsistent: {str(error).strip()}") from error


def _set_declared_aside(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Remove and return the declared shapes of computed values, if inputs have dynamic lengths.

    Some tools store the shapes of one run and then make only the inputs dynamic. Runtimes do not
    mind, but such a length would be written into the gradient.
    """
    weights = {t.name for t in graph.initializer}
    lengths = [
        d for i in graph.input if i.name not in weights for d in i.type.tensor_type.shape.dim
    ]
    if all(d.HasField("dim_value") for d in lengths):
        return []
    computed = {name for node in graph.node for name in node.output}
    declared, kept = onnx.GraphProto(), onnx.GraphProto()
    for info in graph.value_info:
        (declared if info.name in computed else kept).value_info.append(info)
    del graph.value_info[:]
    graph.value_info.extend(kept.value_info)
    for info in graph.output:
        if info.name in computed and info.type.tensor_type.HasField("shape"):
            declared.value_info.append(info)
            info.type.tensor_type.ClearField("shape")
    return list(declared.value_info)


def _declare_unknown(
    graph: onnx.GraphProto, inferred: onnx.GraphProto, declared: list[onnx.ValueInfoProto]
) -> bool:
    """Restore declared shapes that cannot be inferred; return whether there were any."""
    infos = (*inferred.value_info, *inferred.output)
    known = {i.name for i in infos if i.type.tensor_type.HasField("shape")}
    missing = {d.name: d for d in declared if d.name not in known}
    outputs = {o.name for o in graph.output}
    for info in graph.output:
        if info.name in missing:
            info.CopyFrom(missing[info.name])
    graph.value_info.extend(d for name, d in missing.items() if name not in outputs)
    return bool(missing)
