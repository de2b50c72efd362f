"""Bring any model to the form that analysis and rules work on.

In order: inline model-local functions, lift the opset if the rules need it, fold small
constant expressions, infer shapes. What the model computes does not change.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.checker
import onnx.helper
import onnx.inliner
import onnx.numpy_helper
import onnx.version_converter
import onnx_ir as ir

from onnxcam.errors import ModelError, OnnxcamError
from onnxcam.surgeon.load import opset_of, read_model
from onnxcam.surgeon.shapes import infer_shapes

BASE_OPSET = 13  # axes of Squeeze and ReduceSum are inputs from here on; every rule builds on it
_SMALL_BYTES = 4096  # larger weights are kept out of onnx's C++ passes, which copy what they get
_NOT_FOLDED = {
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Bernoulli",
}


def load(path: str | Path, opset: int | None = None) -> ir.Model:
    """Read ``path`` into the form that the surgeon works on.

    Args:
        path: the model file.
        opset: lift the default domain to at least this opset; ``None`` keeps it.

    Raises:
        ModelError, ExternalDataError: as :func:`onnxcam.surgeon.load.read_model`, and when
            the model cannot be lifted or its graph is inconsistent.
    """
    path = Path(path)
    return prepare(read_model(path), path, opset)


def prepare(proto: onnx.ModelProto, path: Path, opset: int | None = None) -> ir.Model:
    """As :func:`load`, for a model already read; ``path`` places its external data."""
    try:
        return _prepare(proto, path, opset)
    except OnnxcamError:
        raise
    except Exception as error:  # onnx and onnx_ir raise many kinds on a broken graph
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ModelError(f"{path}: the graph is inconsistent: {reason}") from error


def check_valid(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse a model that breaks the standard.

    Raises:
        ModelError: with what onnx's checker says.
    """
    try:
        onnx.checker.check_model(_skeleton(proto)[0])
    except Exception as error:
        reason = " ".join(str(error).split())
        if "topologically sorted" not in reason:  # which preparation mends
            raise ModelError(f"{path}: not a valid model: {reason}") from error


def _prepare(proto: onnx.ModelProto, path: Path, opset: int | None) -> ir.Model:
    _name_default_domain(proto)
    _constants_to_initializers(proto.graph)
    if proto.functions:
        proto = _inline(proto, path)
        _constants_to_initializers(proto.graph)
    if opset is not None and opset_of(proto) < opset:
        proto = _lift(proto, path, opset)
    if proto.ir_version < 4:
        proto.ir_version = 4  # from here on, initializers need not be inputs as well
    _drop_initializer_inputs(proto)
    fold_constants(proto)
    model = ir.serde.deserialize_model(proto)
    model.graph.sort()  # runtimes accept files that list a node before its inputs
    ir.external_data.set_base_dir(model.graph, str(path.absolute().parent))
    infer_shapes(model, _skeleton(proto)[0], path)
    return model


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    """Some exporters store all weights in Constant nodes; as initializers they stay uncopied."""
    large = {
        node.output[0]: a.t
        for node in graph.node
        if node.op_type == "Constant" and not node.domain
        for a in node.attribute
        if a.name == "value" and _nbytes(a.t) > _SMALL_BYTES
    }
    outputs = {o.name for o in graph.output}
    names = [name for name in large if name not in outputs]
    if not names:
        return
    for name in names:
        graph.initializer.append(large[name])
        graph.initializer[-1].name = name
    _remove_producers(graph, set(names))


def _remove_producers(graph: onnx.GraphProto, names: set[str]) -> None:
    """Remove the nodes that compute ``names``."""
    for index in reversed(range(len(graph.node))):
        if names.intersection(graph.node[index].output):
            del graph.node[index]


def _name_default_domain(proto: onnx.ModelProto) -> None:
    """``ai.onnx`` is another spelling of the default domain, which has no name."""
    for entry in proto.opset_import:
        if entry.domain == "ai.onnx":
            entry.domain = ""
    graphs = [proto.graph, *proto.functions]
    while graphs:
        for node in graphs.pop().node:
            if node.domain == "ai.onnx":
                node.domain = ""
            for attribute in node.attribute:
                graphs += [attribute.g] if attribute.HasField("g") else list(attribute.graphs)


def _inline(proto: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    try:
        return without_weights(proto, onnx.inliner.inline_local_functions)
    except Exception as error:
        raise ModelError(f"{path}: its local functions cannot be inlined: {error}") from error


def _drop_initializer_inputs(proto: onnx.ModelProto) -> None:
    """IR 3 lists every weight among the inputs too; the runtime folds only what is no input."""
    weights = {t.name for t in proto.graph.initializer}
    kept = [i for i in proto.graph.input if i.name not in weights]
    if len(kept) != len(proto.graph.input):
        del proto.graph.input[:]
        proto.graph.input.extend(kept)


def without_weights(
    proto: onnx.ModelProto, act: Callable[[onnx.ModelProto], onnx.ModelProto]
) -> onnx.ModelProto:
    """Apply ``act`` to the model with its large weights as plain inputs, then put them back."""
    skeleton, weights = _skeleton(proto)
    result = act(skeleton)
    kept = [i for i in result.graph.input if i.name not in weights]
    del result.graph.input[:]
    result.graph.input.extend(kept)
    result.graph.initializer.extend(weights.values())
    return result


def _skeleton(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, onnx.TensorProto]]:
    """Return a copy whose large initializers are inputs, and those initializers by name."""
    copy, graph = onnx.ModelProto(), onnx.GraphProto()
    for field, value in proto.ListFields():
        if field.name == "graph":
            continue
        try:
            getattr(copy, field.name).extend(value)  # a repeated field
        except AttributeError:
            setattr(copy, field.name, value)
    source = proto.graph
    graph.name = source.name or "graph"
    graph.node.extend(source.node)
    graph.input.extend(source.input)
    graph.output.extend(source.output)
    graph.value_info.extend(source.value_info)
    graph.sparse_initializer.extend(source.sparse_initializer)
    inputs = {i.name for i in source.input}
    weights: dict[str, onnx.TensorProto] = {}
    for tensor in source.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL and _nbytes(tensor) <= _SMALL_BYTES:
            graph.initializer.append(tensor)
            continue
        weights[tensor.name] = tensor
        if tensor.name not in inputs:
            graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    copy.graph.CopyFrom(graph)
    return copy, weights


def _nbytes(tensor: onnx.TensorProto) -> int:
    return int(np.prod(tensor.dims, dtype=np.int64)) * 8


def _lift(proto: onnx.ModelProto, path: Path, opset: int) -> onnx.ModelProto:
    """Lift the default domain with onnx's converter, minding what it gets wrong."""
    before = opset_of(proto)
    asymmetric = before < 11 and any(n.op_type in ("Upsample", "Resize") for n in proto.graph.node)
    changed = {"Hardmax": 13, "GroupNormalization": 21}
    for node in proto.graph.node:
        if node.op_type in changed and before < changed[node.op_type] <= opset:
            raise ModelError(
                f"{path}: opset {before} has to be lifted to {opset}, and {node.op_type} "
                f"(node '{node.name}') changes its meaning there. Export at opset {opset} or up."
            )
    if proto.ir_version < 4:  # a lifted Pad fails the checker at IR 3
        proto.ir_version = 4
        _drop_initializer_inputs(proto)

    def convert(skeleton: onnx.ModelProto) -> onnx.ModelProto:
        return onnx.version_converter.convert_version(skeleton, opset)

    try:
        lifted = without_weights(proto, convert)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ModelError(
            f"{path}: opset {before} cannot be lifted to {opset}, which the gradient rules "
            f"need: {reason} Export the model at opset {opset} or later."
        ) from error
    if asymmetric:
        for node in lifted.graph.node:
            if node.op_type == "Resize":
                _set_attribute(node, "coordinate_transformation_mode", "asymmetric")
                _set_attribute(node, "nearest_mode", "floor")
    return lifted


def _set_attribute(node: onnx.NodeProto, name: str, value: str) -> None:
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])


def fold_constants(proto: onnx.ModelProto) -> None:
    """Replace small nodes with constant inputs by initializers, in place.

    Exporters write shapes and pads as long chains of Constant, Concat, Slice and Cast; folded,
    they are known to shape inference and to the rules.
    """
    graph = proto.graph
    known: dict[str, np.ndarray] = {}
    for tensor in graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL and _nbytes(tensor) <= _SMALL_BYTES:
            known[tensor.name] = onnx.numpy_helper.to_array(tensor)
    outputs = {o.name for o in graph.output}
    folded: dict[str, np.ndarray] = {}
    opset = opset_of(proto)
    for node in graph.node:
        values = None if outputs.intersection(node.output) else _fold(node, known, opset)
        if values is not None:
            known |= values
            folded |= values
    _remove_producers(graph, set(folded))
    used = {name for node in graph.node for name in _names_read(node)}
    graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in folded.items() if name in used
    )


def _names_read(node: onnx.NodeProto) -> set[str]:
    """Names that a node reads, those captured by its inner graphs included."""
    names = set(node.input)
    for attribute in node.attribute:
        inner = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
        for graph in inner:
            names |= {o.name for o in graph.output}
            for child in graph.node:
                names |= _names_read(child)
    return names


def _fold(
    node: onnx.NodeProto, known: dict[str, np.ndarray], opset: int
) -> dict[str, np.ndarray] | None:
    if node.domain or node.op_type in _NOT_FOLDED:
        return None
    if any(a.HasField("g") or a.graphs for a in node.attribute):
        return None
    if not all(name in known for name in node.input if name):
        return None
    if node.op_type == "Constant":
        tensor = next((a.t for a in node.attribute if a.name == "value"), None)
        if tensor is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
            return _evaluate(node, known, opset) if tensor is None else None
        if tensor.data_type == onnx.TensorProto.STRING or _nbytes(tensor) > _SMALL_BYTES:
            return None
        return {node.output[0]: onnx.numpy_helper.to_array(tensor)}
    if node.op_type == "ConstantOfShape" and np.prod(known[node.input[0]]) * 8 > _SMALL_BYTES:
        return None
    if not node.input:
        return None
    return _evaluate(node, known, opset)


def _evaluate(
    node: onnx.NodeProto, known: dict[str, np.ndarray], opset: int
) -> dict[str, np.ndarray] | None:
    from onnx.reference import ReferenceEvaluator

    inputs = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(known[name].dtype), known[name].shape
        )
        for name in dict.fromkeys(n for n in node.input if n)
    ]
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = onnx.helper.make_graph([node], "fold", inputs, outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    try:
        values = ReferenceEvaluator(model).run(None, {i.name: known[i.name] for i in inputs})
    except Exception:  # whatever the evaluator does not know stays a node
        return None
    arrays = [np.asarray(v) for v in values]
    if any(a.nbytes > _SMALL_BYTES or a.dtype.kind not in "iufb" for a in arrays):
        return None
    return {o.name: a for o, a in zip(outputs, arrays, strict=True)}
