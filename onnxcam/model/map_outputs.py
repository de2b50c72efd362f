"""Pass over outputs that are maps or sequences of maps, as ZipMap gives them."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.helper

from onnxcam.errors import ModelError

_LABELS = "names"  # where exporters keep labels, see onnxcam.inputs.cards


def drop_map_outputs(proto: onnx.ModelProto, path: Path) -> None:
    """Drop outputs that are maps or sequences of maps, and what computes nothing else.

    ZipMap (``ai.onnx.ml``) turns probabilities into maps from labels to numbers. Where they are
    not an output themselves they take its place, and its labels become the model's.

    Raises:
        ModelError: no tensor is left.
    """
    graph = proto.graph
    dropped = {o.name for o in graph.output if not _is_tensor(o)}
    if not dropped:
        return
    kept = [o for o in graph.output if o.name not in dropped]
    known = {o.name for o in kept}
    for node in graph.node:
        if node.op_type != "ZipMap" or not dropped & set(node.output):
            continue
        labels = next((list(a.strings) for a in node.attribute if a.strings), [])
        if labels and _LABELS not in {p.key for p in proto.metadata_props}:
            text = str([label.decode("utf-8", "replace") for label in labels])
            proto.metadata_props.add(key=_LABELS, value=text)
        if node.input[0] not in known:
            known.add(node.input[0])
            scores = onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, None)
            kept.insert(0, scores)
    if not kept:
        shown = ", ".join(sorted(dropped))
        raise ModelError(f"{path}: no output is a tensor: {shown}.")
    del graph.output[:]
    graph.output.extend(kept)
    drop_unread(graph, dropped)


def _is_tensor(output: onnx.ValueInfoProto) -> bool:
    """Whether a value is a tensor, or a sequence of tensors, which does no harm."""
    kind = output.type
    if kind.WhichOneof("value") == "sequence_type":
        kind = kind.sequence_type.elem_type
    return bool(kind.WhichOneof("value") != "map_type")


def drop_unread(graph: onnx.GraphProto, names: set[str]) -> None:
    """Remove the nodes that only these tensors needed, and what is said of them."""
    kept = {o.name for o in graph.output}
    while True:
        read = kept | {i for n in graph.node for i in n.input}
        unread = [n for n in graph.node if set(n.output) <= names - read and set(n.output)]
        if not unread:
            break
        for node in unread:
            names |= {i for i in node.input if i not in kept}
            graph.node.remove(node)
    for info in [v for v in graph.value_info if v.name in names and not _is_tensor(v)]:
        graph.value_info.remove(info)
