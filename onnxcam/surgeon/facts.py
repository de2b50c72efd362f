"""Describe a model and its tensors as plain data."""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.surgeon.graph import dims
from onnxcam.surgeon.plan import ModelFacts, TensorFacts


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


def model_facts(model: ir.Model, file: str) -> ModelFacts:
    """Collect the facts of a prepared model read from ``file``."""
    return ModelFacts(
        file=file,
        producer=" ".join(filter(None, (model.producer_name, model.producer_version))),
        ir_version=model.ir_version,
        opset=model.opset_imports.get("", 1),
        inputs=tuple(tensor_facts(v) for v in model.graph.inputs),
        outputs=tuple(tensor_facts(v) for v in model.graph.outputs),
        metadata=dict(model.metadata_props),
        weights=tuple(model.graph.initializers),
        nodes=len(model.graph),
    )
