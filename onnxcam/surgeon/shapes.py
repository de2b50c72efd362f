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
    for domain in skeleton.opset_import:
        # Inference follows a computed Reshape only from opset 14 on; nothing that shapes
        # depend on changes its meaning between 13 and 17.
        if domain.domain == "" and 13 <= domain.version < 17:
            domain.version = 17
    put_stand_ins(skeleton.graph, opset_of(skeleton))
    try:
        inferred = infer(skeleton)
    except Exception as error:
        raise ModelError(f"{path}: the graph is inconsistent: {str(error).strip()}") from error
    set_types(model.graph, inferred.graph)
