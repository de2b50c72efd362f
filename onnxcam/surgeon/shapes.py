"""Shapes and types of every value, as far as they can be known.

``onnx`` infers them for standard operators. Of others it knows nothing, and then of nothing
after them: :mod:`onnxcam.surgeon.stand_ins` replaces those first.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

from onnxcam.errors import ModelError
from onnxcam.surgeon.inference import infer
from onnxcam.surgeon.load import opset_of
from onnxcam.surgeon.stand_ins import put_stand_ins
from onnxcam.surgeon.types import set_types


def infer_shapes(model: ir.Model, skeleton: onnx.ModelProto, path: Path) -> None:
    """Set shape and type of every value of ``model`` that can be inferred.

    Args:
        model: the model to describe.
        skeleton: the same without large weights; it is changed.
        path: the model's file, for messages.

    Raises:
        ModelError: the graph contradicts itself.
    """
    set_types(model.graph, _inferred(skeleton, path).graph)


def known_lengths(skeleton: onnx.ModelProto, path: Path) -> dict[str, list[int | None]]:
    """Return the shapes of the main graph's values, ``None`` for lengths that the run brings.

    Args and errors are those of :func:`infer_shapes`.
    """
    graph = _inferred(skeleton, path).graph
    found = {}
    for info in (*graph.input, *graph.value_info, *graph.output):
        if info.type.tensor_type.HasField("shape"):
            sizes = info.type.tensor_type.shape.dim
            found[info.name] = [d.dim_value if d.HasField("dim_value") else None for d in sizes]
    return found


def _inferred(skeleton: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    for domain in skeleton.opset_import:
        # Inference follows a computed Reshape only from opset 14 on; nothing that shapes
        # depend on changes its meaning between 13 and 17.
        if domain.domain == "" and 13 <= domain.version < 17:
            domain.version = 17
    put_stand_ins(skeleton.graph, opset_of(skeleton))
    try:
        return infer(skeleton)
    except Exception as error:
        raise ModelError(f"{path}: the graph is inconsistent: {str(error).strip()}") from error
