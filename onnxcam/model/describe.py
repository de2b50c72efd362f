"""Describe a model and its tensors as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from onnxcam.graph.protos import opset_of
from onnxcam.graph.values import dims
from onnxcam.model.facts import ModelFacts, TensorFacts
from onnxcam.model.read import check_external_data


def tensor_facts(value: ir.Value) -> TensorFacts:
    """Describe one value."""
    shape = dims(value)
    if value.dtype is None:
        dtype = "?"
    elif value.dtype == ir.DataType.STRING:
        dtype = "string"
    else:
        dtype = str(value.dtype.numpy())
    return TensorFacts(value.name or "", dtype, None if shape is None else tuple(shape))


@dataclass(frozen=True)
class Origin:
    """Properties of the file that preparation may change."""

    opset: int
    ir_version: int
    nodes: int
    outer: dict[str, int]


def origin_of(proto: onnx.ModelProto, path: Path) -> Origin:
    """Return the file's own opset, IR version and node count, and its external weight files."""
    outer = check_external_data(path, proto)
    return Origin(opset_of(proto), int(proto.ir_version), len(proto.graph.node), outer)


def model_facts(model: ir.Model, file: str, origin: Origin) -> ModelFacts:
    """Collect the facts of a prepared model read from ``file``."""
    return ModelFacts(
        file=file,
        producer=" ".join(filter(None, (model.producer_name, model.producer_version))),
        ir_version=origin.ir_version,
        opset=origin.opset,
        inputs=tuple(tensor_facts(v) for v in model.graph.inputs),
        outputs=tuple(tensor_facts(v) for v in model.graph.outputs),
        metadata=dict(model.metadata_props),
        weights=tuple(model.graph.initializers),
        nodes=origin.nodes,
    )
