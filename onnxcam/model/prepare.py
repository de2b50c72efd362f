"""Bring any model to the form that analysis and rules work on.

In order: inline model-local functions, lift the opset if the rules need it, fold small
constant expressions, infer shapes. What the model computes does not change.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import onnx.checker
import onnx.helper
import onnx.inliner
import onnx.numpy_helper
import onnx.version_converter
import onnx_ir as ir

from onnxcam.errors import ModelError, OnnxcamError
from onnxcam.model.fold import SMALL_BYTES, all_nodes, fold_constants, nbytes
from onnxcam.model.read import opset_of, read_model
from onnxcam.model.runtime_ops import put_back, set_aside
from onnxcam.model.shapes import infer_shapes, known_lengths

_NAMES_OF_NOTHING = {"none", "?", "-1", "*", "dynamic", "unk", "unknown"}
BASE_OPSET = 13  # axes of Squeeze and ReduceSum are inputs from here on; every rule builds on it


def load(path: str | Path, opset: int | None = None) -> ir.Model:
    """Read ``path`` into the form that the surgeon works on.

    Args:
        path: the model file.
        opset: lift the default domain to at least this opset; ``None`` keeps it.

    Raises:
        ModelError, ExternalDataError: as :func:`onnxcam.model.read.read_model`, and when
            the model cannot be lifted or its graph is inconsistent.
    """
    path = Path(path)
    return prepare(read_model(path), path, opset)


def prepare(
    proto: onnx.ModelProto,
    path: Path,
    opset: int | None = None,
    keep: frozenset[str] = frozenset(),
) -> ir.Model:
    """As :func:`load`, for a model already read; ``path`` places its external data.

    ``keep`` names tensors that are not taken for constants, even where they are.
    """
    try:
        return _prepare(proto, path, opset, keep)
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
    skeleton = _skeleton(proto)[0]
    skeleton.ir_version = max(skeleton.ir_version, 4)  # before, weights had to be inputs as well
    set_aside(skeleton)
    try:
        onnx.checker.check_model(skeleton)
    except Exception as error:
        reason = " ".join(str(error).split())
        # Preparation mends the order; a deprecated operator still means something.
        if "topologically sorted" not in reason and "deprecated" not in reason:
            raise ModelError(f"{path}: not a valid model: {reason}") from error


def _prepare(
    proto: onnx.ModelProto, path: Path, opset: int | None, keep: frozenset[str]
) -> ir.Model:
    _name_default_domain(proto, opset or BASE_OPSET)
    _constants_to_initializers(proto.graph)
    if proto.functions:
        proto = _inline(proto, path)
        _constants_to_initializers(proto.graph)
    if opset is not None and opset_of(proto) < opset:
        proto = _lift(proto, path, opset)
    if proto.ir_version < 4:
        proto.ir_version = 4  # from here on, initializers need not be inputs as well
    _drop_initializer_inputs(proto)
    _forget_names_of_nothing(proto)
    fold_constants(proto, keep=keep)
    while any(n.op_type == "If" for n in all_nodes(proto.graph)):
        if not fold_constants(proto, known_lengths(_skeleton(proto)[0], path), keep):
            break  # the run decides which branch it takes
    model = _described(proto, path)
    while _unknown_rank(model) and _folded_further(proto, path, keep):
        model = _described(proto, path)
    return model


def _described(proto: onnx.ModelProto, path: Path) -> ir.Model:
    """Return the model with the shapes that can be inferred."""
    model = ir.serde.deserialize_model(proto)
    model.graph.sort()  # runtimes accept files that list a node before its inputs
    ir.external_data.set_base_dir(model.graph, str(path.absolute().parent))
    infer_shapes(model, _skeleton(proto)[0], path)
    return model


def _unknown_rank(model: ir.Model) -> bool:
    """Whether inference ended, and lengths could be what it lacks."""
    nodes = list(model.graph)
    ended = any(v.shape is None and v.name for n in nodes for v in n.outputs)
    return ended and any(n.op_type in ("Shape", "Size") for n in nodes)


def _folded_further(proto: onnx.ModelProto, path: Path, keep: frozenset[str]) -> bool:
    """Fold what follows from inferred lengths; return whether there was anything."""
    count = len(proto.graph.node)
    fold_constants(proto, known_lengths(_skeleton(proto)[0], path), keep)
    return len(proto.graph.node) < count


def _forget_names_of_nothing(proto: onnx.ModelProto) -> None:
    """Some tools call every unknown length the same; the standard takes these for equal."""
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param.lower() in _NAMES_OF_NOTHING:
                dim.Clear()


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    """Some exporters store all weights in Constant nodes; as initializers they stay uncopied."""
    large = {
        node.output[0]: a.t
        for node in graph.node
        if node.op_type == "Constant" and not node.domain
        for a in node.attribute
        if a.name == "value" and nbytes(a.t) > SMALL_BYTES
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


def _name_default_domain(proto: onnx.ModelProto, opset: int) -> None:
    """``ai.onnx`` is another spelling of the default domain, which has no name.

    A model that uses other domains only need not import it, but its gradient does.
    """
    for entry in proto.opset_import:
        if entry.domain == "ai.onnx":
            entry.domain = ""
    if not any(entry.domain == "" for entry in proto.opset_import):
        proto.opset_import.append(onnx.helper.make_opsetid("", opset))
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
        if tensor.data_location != onnx.TensorProto.EXTERNAL and nbytes(tensor) <= SMALL_BYTES:
            graph.initializer.append(tensor)
            continue
        weights[tensor.name] = tensor
        if tensor.name not in inputs:
            graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    copy.graph.CopyFrom(graph)
    return copy, weights


def _lift(proto: onnx.ModelProto, path: Path, opset: int) -> onnx.ModelProto:
    """Lift the default domain with onnx's converter, minding what it gets wrong."""
    before = opset_of(proto)
    shrinking = _shrinking(proto, path) if before < 11 else set()
    changed = {"Scan": 9, "Hardmax": 13, "GroupNormalization": 21}
    for node in all_nodes(proto.graph):
        if node.op_type in changed and before < changed[node.op_type] <= opset:
            raise ModelError(
                f"{path}: opset {before} has to be lifted to {opset}, and {node.op_type} "
                f"(node '{node.name}') changes its meaning there. Export at opset {opset} or up."
            )
    if proto.ir_version < 4:  # a lifted Pad fails the checker at IR 3
        proto.ir_version = 4
        _drop_initializer_inputs(proto)

    def convert(skeleton: onnx.ModelProto) -> onnx.ModelProto:
        set_aside(skeleton)
        converted = onnx.version_converter.convert_version(skeleton, opset)
        put_back(converted)
        return converted

    try:
        lifted = without_weights(proto, convert)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ModelError(
            f"{path}: opset {before} cannot be lifted to {opset}, which the gradient rules "
            f"need: {reason} Export the model at opset {opset} or later."
        ) from error
    if before < 11:
        for node in all_nodes(lifted.graph):
            if node.op_type == "Resize":
                _set_attribute(node, "coordinate_transformation_mode", "asymmetric")
                rounding = "ceil" if node.output[0] in shrinking else "floor"
                _set_attribute(node, "nearest_mode", rounding)
    return lifted


def _shrinking(proto: onnx.ModelProto, path: Path) -> set[str]:
    """Return the outputs of the Resize-10 that shrink by nearest elements.

    There the runtime rounds up where it shrinks and down where it enlarges.
    """
    nodes = list(all_nodes(proto.graph))
    stored = {t.name: t for t in proto.graph.initializer}
    stored |= {n.output[0]: a.t for n in nodes if n.op_type == "Constant" for a in n.attribute}
    found = set()
    for node in nodes:
        modes = [a.s for a in node.attribute if a.name == "mode"]
        if node.op_type != "Resize" or modes not in ([], [b"nearest"]):
            continue
        scales = stored.get(node.input[1])
        factors = None if scales is None else onnx.numpy_helper.to_array(scales)
        if factors is None or ((factors < 1).any() and (factors > 1).any()):
            known = "are computed" if factors is None else "both shrink and enlarge"
            raise ModelError(
                f"{path}: Resize (node '{node.name}', opset 10) takes nearest elements and its "
                f"scales {known}; its rounding cannot be said in later opsets. Export the model "
                "at opset 11 or later."
            )
        if (factors < 1).any():
            found.add(node.output[0])
    return found


def _set_attribute(node: onnx.NodeProto, name: str, value: str) -> None:
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])
