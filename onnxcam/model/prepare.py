"""Bring any model to the form that analysis and rules work on.

1. drop outputs that are maps;
2. inline model-local functions;
3. lift the opset, if that is needed;
4. fold small constant expressions;
5. infer shapes, and fold once more what they determine.

What the model computes does not change.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx.checker
import onnx.helper
import onnx.inliner
import onnx.shape_inference
import onnx_ir as ir

from onnxcam.errors import ModelError, OnnxcamError, first_line
from onnxcam.graph.protos import all_nodes, opset_of
from onnxcam.model.earlier import pass_over_earlier
from onnxcam.model.fold import fold_constants
from onnxcam.model.map_outputs import drop_map_outputs
from onnxcam.model.opset import BASE_OPSET, lift
from onnxcam.model.read import read_model
from onnxcam.model.runtime_ops import set_aside
from onnxcam.model.shapes import infer_shapes, known_lengths
from onnxcam.model.skeleton import (
    SMALL_BYTES,
    drop_initializer_inputs,
    nbytes,
    skeleton,
    without_weights,
)
from onnxcam.model.sound import make_sound
from onnxcam.model.types import take_types

_UNKNOWN_NAMES = {"none", "?", "-1", "*", "dynamic", "unk", "unknown"}


class Prepared:
    """A model in the form that analysis and rules work on.

    Attributes:
        model: the model; after changing it, do not call :meth:`lifted`.
        path: its file, named in messages; external data is read from its folder.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        path: Path,
        opset: int | None = BASE_OPSET,
        keep: frozenset[str] = frozenset(),
    ) -> None:
        """Prepare a model that has been read.

        Args:
            proto: the model; it is changed.
            path: its file.
            opset: lift the default domain to at least this opset; ``None`` keeps it.
            keep: tensors that are not folded, even if they are constant.

        Raises:
            ModelError: the model cannot be lifted, or its graph is inconsistent.
        """
        self.path = path
        try:
            make_sound(proto, path)
            self._proto, self.model = _prepare(proto, path, opset, keep)
        except (OnnxcamError, MemoryError):
            raise
        except Exception as error:  # onnx and onnx_ir raise many kinds on a broken graph
            raise ModelError(f"{path}: the graph is inconsistent: {first_line(error)}") from error

    def lifted(self, opset: int) -> ir.Model:
        """Return the model at this opset or a later one; tensors keep their names.

        Raises:
            ModelError: it cannot be lifted.
        """
        if opset <= self.model.opset_imports[""]:
            return self.model
        proto = lift(self._proto, self.path, opset)
        model = _deserialized(proto, self.path)
        if not take_types(model.graph, self.model.graph):
            infer_shapes(model, skeleton(proto)[0], self.path)
        return model


def load(path: str | Path, opset: int | None = None) -> ir.Model:
    """Read ``path`` into the form that analysis and rules work on.

    Args:
        path: the model file.
        opset: lift the default domain to at least this opset; ``None`` keeps it.

    Raises:
        ModelError, ExternalDataError: as :func:`onnxcam.model.read.read_model`, and when
            the model cannot be lifted or its graph is inconsistent.
    """
    path = Path(path)
    return Prepared(read_model(path), path, opset).model


def check_valid(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse a model that breaks the standard; types of attributes are set where there are none.

    Raises:
        ModelError: with the reason.
    """
    make_sound(proto, path)
    bare = skeleton(proto)[0]
    bare.ir_version = max(bare.ir_version, 4)  # before IR 4, weights had to be inputs as well
    set_aside(bare)
    try:
        onnx.checker.check_model(bare)
    except Exception as error:
        reason = " ".join(str(error).split())
        # Preparation sorts the nodes, and deprecated operators keep their meaning.
        if "topologically sorted" not in reason and "deprecated" not in reason:
            raise ModelError(f"{path}: not a valid model: {reason}") from error


@contextmanager
def sound(path: Path) -> Iterator[None]:
    """Where work on a file fails in a way that was not foreseen, ask whether the file is valid.

    Raises:
        ModelError: it breaks the standard. Otherwise the error is what it was.
    """
    try:
        yield
    except (OnnxcamError, MemoryError):
        raise
    except Exception:
        proto = read_model(path)
        check_valid(proto, path)
        bare = skeleton(proto)[0]
        try:
            onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True)
        except Exception as error:
            raise ModelError(f"{path}: not a valid model: {first_line(error)}") from error
        raise


def _prepare(
    proto: onnx.ModelProto, path: Path, opset: int | None, keep: frozenset[str]
) -> tuple[onnx.ModelProto, ir.Model]:
    _name_default_domain(proto, opset or BASE_OPSET)
    pass_over_earlier(proto)
    drop_map_outputs(proto, path)
    _constants_to_initializers(proto.graph)
    if proto.functions:
        proto = _inline(proto, path)
        _constants_to_initializers(proto.graph)
    if opset is not None and opset_of(proto) < opset:
        proto = lift(proto, path, opset)
    if proto.ir_version < 4:
        proto.ir_version = 4  # from IR 4 on, initializers need not be inputs as well
    drop_initializer_inputs(proto)
    _forget_unknown_names(proto)
    fold_constants(proto, keep=keep)
    while any(n.op_type == "If" for n in all_nodes(proto.graph)):
        if not fold_constants(proto, known_lengths(skeleton(proto)[0], path), keep):
            break  # the branches are chosen at run time
    while True:
        model = _deserialized(proto, path)
        lengths = infer_shapes(model, skeleton(proto)[0], path)
        count = len(proto.graph.node)
        if _unknown_rank(model):  # fold what follows from inferred lengths
            fold_constants(proto, lengths, keep)
        if len(proto.graph.node) == count:
            return proto, model


def _deserialized(proto: onnx.ModelProto, path: Path) -> ir.Model:
    model = ir.serde.deserialize_model(proto)
    model.graph.sort()  # runtimes accept files that list a node before its inputs
    ir.external_data.set_base_dir(model.graph, str(path.absolute().parent))
    return model


def _unknown_rank(model: ir.Model) -> bool:
    """Whether inference stopped short, perhaps for want of lengths that can be folded."""
    nodes = list(model.graph)
    stopped = any(v.shape is None and v.name for n in nodes for v in n.outputs)
    return stopped and any(n.op_type in ("Shape", "Size") for n in nodes)


def _forget_unknown_names(proto: onnx.ModelProto) -> None:
    """Clear names that tools give to every unknown length; by the standard they would be equal.

    Older exporters of Paddle write -1, or 0 for the batch.
    """
    ends = [*proto.graph.input, *proto.graph.output]
    for value in (*ends, *proto.graph.value_info):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            length = dim.dim_value if dim.HasField("dim_value") else 1
            unknown = length < 0 or (length == 0 and axis == 0 and value in ends)
            if unknown or dim.dim_param.lower() in _UNKNOWN_NAMES:
                dim.Clear()


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    """Turn large Constant nodes, which some exporters write, into initializers: no copies."""
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
    """Write the default domain as ``""``, not ``ai.onnx``, and import it.

    A model of other domains alone need not import it, but its gradient does.
    """
    for entry in proto.opset_import:
        if entry.domain == "ai.onnx":
            entry.domain = ""
    if not any(entry.domain == "" for entry in proto.opset_import):
        proto.opset_import.append(onnx.helper.make_opsetid("", opset))
    for graph in (proto.graph, *proto.functions):
        for node in all_nodes(graph):
            if node.domain == "ai.onnx":
                node.domain = ""


def _inline(proto: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    try:
        return without_weights(proto, onnx.inliner.inline_local_functions)
    except Exception as error:
        raise ModelError(f"{path}: its local functions cannot be inlined: {error}") from error
