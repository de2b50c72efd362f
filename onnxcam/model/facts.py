"""A model and its tensors as plain data.

Nothing here needs ``onnx``: stored facts are read back without it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

Dim = int | str | None


@dataclass(frozen=True)
class TensorFacts:
    """Name, dtype (NumPy's name, or ``"?"``) and shape of a tensor.

    A dimension is an int, a symbol's name or ``None``; ``shape`` is ``None`` if the rank is
    unknown.
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
