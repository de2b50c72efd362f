"""What the other rooms need to know of a model, as plain data that can be stored."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnxcam.surgeon.graph import dims

Dim = int | str | None


@dataclass(frozen=True)
class TensorFacts:
    """Name, dtype (NumPy's name, or ``"?"``) and shape of a tensor.

    A dimension is an int, a symbol's name or ``None``; ``shape`` is ``None`` when not even the
    rank is known.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...] | None

    def __str__(self) -> str:
        shape = "?" if self.shape is None else ", ".join(str(d or "?") for d in self.shape)
        return f"{self.name} {self.dtype}[{shape}]"


@dataclass(frozen=True)
class ModelFacts:
    """The model as its file describes it."""

    file: str
    producer: str
    ir_version: int
    opset: int
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    metadata: dict[str, str]
    weights: tuple[str, ...]
    nodes: int

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as JSON-ready data."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> ModelFacts:
        """Rebuild facts from :meth:`to_dict`'s data."""

        def tensor(item: dict[str, Any]) -> TensorFacts:
            shape = item["shape"]
            return TensorFacts(item["name"], item["dtype"], None if shape is None else tuple(shape))

        return ModelFacts(
            **{
                **data,
                "inputs": tuple(tensor(t) for t in data["inputs"]),
                "outputs": tuple(tensor(t) for t in data["outputs"]),
                "weights": tuple(data["weights"]),
            }
        )


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
