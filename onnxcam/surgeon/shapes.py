"""Shapes and types of every value, as far as they can be known.

``onnx`` infers them for standard operators. Of others (runtime operators that an optimiser
wrote, standard ones that it has no inference for) it knows nothing, and then of nothing after
them. For inference alone, those are read as standard operators of the same shape.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.helper
import onnx.shape_inference
import onnx_ir as ir

from onnxcam.errors import ModelError

# operator -> (the standard operator of the same shape, which operands it keeps)
_FIRST = ("Identity", (0,))
_STAND_INS: dict[str, tuple[str, tuple[int, ...]]] = {
    "GroupNormalization": _FIRST,
    "Gelu": _FIRST,
    "FastGelu": _FIRST,
    "QuickGelu": _FIRST,
    "BiasGelu": _FIRST,
    "SimplifiedLayerNormalization": _FIRST,
    "SkipLayerNormalization": _FIRST,
    "QLinearLeakyRelu": _FIRST,
    "QLinearSigmoid": _FIRST,
    "QLinearSoftmax": _FIRST,
    "QLinearAdd": ("Add", (0, 3)),
    "QLinearMul": ("Mul", (0, 3)),
    "FusedConv": ("Conv", (0, 1, 2)),
    "FusedGemm": ("Gemm", (0, 1, 2)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
    "QLinearAveragePool": ("AveragePool", (0,)),
}
_INFERRED_BY_ONNX = {("", "Gelu")}
_DROPPED = {"activation", "activation_params", "activation_alpha", "activation_beta"}
_DROPPED |= {"activation_gamma", "channels_last"}


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
    _put_stand_ins(skeleton.graph)
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton, strict_mode=False, data_prop=True)
    except Exception as error:
        raise ModelError(f"{path}: the graph is inconsistent: {str(error).strip()}") from error
    infos = {v.name: v for v in inferred.graph.value_info}
    infos |= {v.name: v for v in inferred.graph.output}
    for node in model.graph:
        for value in node.outputs:
            info = infos.get(value.name or "")
            if info is None or not info.type.HasField("tensor_type"):
                continue
            tensor = info.type.tensor_type
            if tensor.elem_type:
                value.type = ir.TensorType(ir.DataType(tensor.elem_type))
            if tensor.HasField("shape"):
                value.shape = ir.Shape([_dim(d) for d in tensor.shape.dim])


def _put_stand_ins(graph: onnx.GraphProto) -> None:
    """Replace what ``onnx`` does not know."""
    for node in graph.node:
        stand_in = _STAND_INS.get(node.op_type)
        if stand_in is None or node.domain not in ("", "com.microsoft"):
            continue
        if (node.domain, node.op_type) in _INFERRED_BY_ONNX:
            continue
        if any(a.name == "channels_last" and a.i for a in node.attribute):
            continue
        kept = [node.input[i] for i in stand_in[1] if i < len(node.input)]
        outputs, attributes = (
            node.output[:1],
            [a for a in node.attribute if stand_in[0] != "Identity" and a.name not in _DROPPED],
        )
        node.CopyFrom(onnx.helper.make_node(stand_in[0], kept, outputs, name=node.name))
        node.attribute.extend(attributes)


def _dim(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return str(dim.dim_param) or None
