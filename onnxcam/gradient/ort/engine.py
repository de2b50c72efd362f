"""The second engine: ONNX Runtime's own gradient builder.

It gives what :func:`onnxcam.gradient.add.add_gradient` gives, for one cotangent a run: the leading
axis ``T`` of seed and gradients has length 1. It writes operators of the domain ``com.microsoft``
(``ConvGrad``, ``ReluGrad``...) that only a training build of ONNX Runtime runs (extra
``ort-training``), in float32 on the CPU. So it is an independent check of onnxcam's rules rather
than something to ship.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from onnxcam.errors import EngineError, NoGradientError
from onnxcam.gradient.interface import GRADIENT, SEED
from onnxcam.gradient.ort import rewrites
from onnxcam.gradient.ort.rewrites import WAY_OUT
from onnxcam.gradient.walker import path_nodes
from onnxcam.graph.builder import Builder
from onnxcam.graph.values import dims, names, tensors
from onnxcam.model.prepare import Prepared, check_valid
from onnxcam.model.read import check_external_data
from onnxcam.model.skeleton import without_weights

_LOSS = "onnxcam:loss"
_NEWEST_OPSET = 21  # of the last training build


@dataclass(frozen=True)
class Built:
    """A model with gradients in its graph.

    Attributes:
        model: the model, rewritten; tensors keep their names.
        seed: its last input, the cotangent ``[1, *S]`` of the differentiated tensor.
        gradients: for each tensor asked for, of shape ``P``, its cotangent ``[1, *P]``.
    """

    model: ir.Model
    seed: ir.Value
    gradients: list[ir.Value]


def builder_class() -> Any:
    """Return ONNX Runtime's ``GradientGraphBuilder``.

    Raises:
        EngineError: the installed ONNX Runtime is no training build, or there is none.
    """
    try:
        from onnxruntime.capi._pybind_state import GradientGraphBuilder
    except ImportError as error:
        raise EngineError(
            "ONNX Runtime's gradient builder is not installed; it comes with its training build. "
            "In an environment of its own (Python 3.11 or 3.12): pip install "
            f"'onnxcam[ort-training]'. Or else: {WAY_OUT}"
        ) from error
    return GradientGraphBuilder


def add_gradients_ort(
    model: onnx.ModelProto, of: str, to: Sequence[str], *, path: Path = Path("model.onnx")
) -> onnx.ModelProto:
    """Return ``model`` with gradients built by ONNX Runtime.

    As :func:`onnxcam.add_gradients`: one more input ``seed:OF`` and for each tensor of ``to`` one
    more output ``gradient:TO``; but their leading axis ``T`` has length 1.

    Args:
        model: the model; it is not changed.
        of: the differentiated tensor, float32.
        to: the tensors to differentiate with respect to.
        path: the model's file; external weights are read from its folder.

    Raises:
        ModelError, ExternalDataError: the model is invalid or its weights are missing.
        TensorError: a tensor does not exist.
        NoGradientError: there is no path between the tensors.
        EngineError: there is no training build, or it cannot differentiate the model.
    """
    builder_class()
    check_external_data(path, model)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    check_valid(copy, path)
    wanted = list(dict.fromkeys(to))
    built = build(Prepared(copy, path, keep=frozenset([of, *to])), of, wanted)
    builder = Builder(built.model.graph, built.model.opset_imports[""])
    for name, g in zip(wanted, built.gradients, strict=True):
        output = builder.op("Identity", g)
        output.name, output.shape, output.type = GRADIENT + name, g.shape, g.type
        built.model.graph.outputs.append(output)
    return ir.serde.serialize_model(built.model)


def build(prepared: Prepared, of: str, to: Sequence[str]) -> Built:
    """Differentiate a model.

    Args:
        prepared: the model.
        of: name of the differentiated tensor.
        to: names of the tensors to differentiate with respect to.

    Raises:
        TensorError, NoGradientError, EngineError: as :func:`add_gradients_ort`.
    """
    make = builder_class()
    model = prepared.model
    _check(model, of, to)
    model = prepared.lifted(rewrites.needed_opset(model, of, to))
    if model.opset_imports[""] > _NEWEST_OPSET:
        raise EngineError(
            f"the model is of opset {model.opset_imports['']}, and ONNX Runtime's training build "
            f"knows {_NEWEST_OPSET} at most. {WAY_OUT}"
        )
    rewrites.rewrite(model, of, to)
    described = tensors(model.graph, of, *to)
    seed_name = _append_loss(model, described[0])
    outputs = [o.name or "" for o in model.graph.outputs]
    proto = without_weights(
        ir.serde.serialize_model(model), lambda skeleton: _differentiated(make, skeleton, to)
    )
    result = ir.serde.deserialize_model(proto)
    _set_base_dir(result, model)
    graph = result.graph
    graph.sort()
    found = names(graph)
    graph.outputs[:] = [found[name] for name in outputs if name != _LOSS]
    loss = found[_LOSS].producer()
    assert loss is not None
    graph.remove(loss, safe=True)
    for value, twin in zip(described, tensors(graph, of, *to), strict=True):
        twin.shape, twin.type = value.shape, value.type
    builder = Builder(graph, result.opset_imports[""])
    gradients = []
    for name, value in zip(to, described[1:], strict=True):
        g = builder.op("Unsqueeze", found[f"{name}_grad"], builder.ints(0))
        sizes = dims(value)
        g.shape, g.type = None if sizes is None else ir.Shape([1, *sizes]), value.type
        gradients.append(g)
    return Built(result, found[seed_name], gradients)


def _check(model: ir.Model, of: str, to: Sequence[str]) -> None:
    end, *starts = tensors(model.graph, of, *to)
    taken = {*model.graph.initializers, *names(model.graph)}
    for value in (end, *starts):
        name, kind = value.name, value.dtype
        if kind != ir.DataType.FLOAT:
            raise EngineError(
                f"tensor '{name}' is of type {kind.name.lower() if kind else 'unknown'}, and ONNX "
                f"Runtime's gradient operators compute in float32. {WAY_OUT}"
            )
        if f"{name}_grad" in taken:
            raise EngineError(
                f"tensor '{name}_grad' has the name that ONNX Runtime gives to the gradient of "
                f"'{name}'. Rename it, or: {WAY_OUT}"
            )
    for value in starts:
        if value is not end and not path_nodes(list(model.graph), [end], [value]):
            raise NoGradientError(
                f"'{of}' does not depend on '{value.name}' in a differentiable way, so there is no "
                "gradient between them."
            )


def _append_loss(model: ir.Model, of: ir.Value) -> str:
    """Append the scalar loss ``sum(of * seed)`` for the builder; return the seed's name."""
    builder = Builder(model.graph, model.opset_imports[""])
    sizes = dims(of)
    seed = ir.Value(name=SEED + (of.name or ""), type=of.type)
    seed.shape = None if sizes is None else ir.Shape([1, *sizes])
    model.graph.inputs.append(seed)
    plain = builder.op("Squeeze", seed, builder.ints(0))
    loss = builder.op("ReduceSum", builder.op("Mul", of, plain), keepdims=0)
    loss.name, loss.shape, loss.type = _LOSS, ir.Shape([]), of.type
    model.graph.outputs.append(loss)
    return seed.name or ""


def _differentiated(make: Any, skeleton: onnx.ModelProto, to: Sequence[str]) -> onnx.ModelProto:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        builder = make(skeleton.SerializeToString(), {_LOSS}, set(to), _LOSS, options)
        builder.build()
        return onnx.ModelProto.FromString(builder.get_model())
    except Exception as error:
        raise EngineError(
            f"ONNX Runtime's gradient builder failed: {_reason(error)}. {WAY_OUT}"
        ) from error


def _reason(error: Exception) -> str:
    """Return an error's message without the names of C++ files and functions."""
    text = " ".join(str(error).split())
    said = re.search(r"( was false\.|FAIL :|\) const(?= [A-Z])) *(.+)$", text)
    return (said.group(2) if said else text).rstrip(" .")


def _set_base_dir(result: ir.Model, source: ir.Model) -> None:
    """Let ``result`` read external weights from where ``source`` reads them."""
    for value in source.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            ir.external_data.set_base_dir(result.graph, value.const_value.base_dir)
            return
