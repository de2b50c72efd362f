"""Operators of ONNX Runtime in the standard's own domain.

Its optimizer writes ``LayerNormalization`` at opsets that do not have it yet, and
``SimplifiedLayerNormalization``, which the standard never had. ``onnx``'s checker and converter
refuse them, so they are moved to the runtime's domain while these run.
"""

from __future__ import annotations

import onnx
import onnx.helper

from onnxcam.graph.protos import all_nodes, opset_of

_DOMAIN = "com.microsoft"
_STANDARD_FROM = {"LayerNormalization": 17, "SimplifiedLayerNormalization": None}


def set_aside(proto: onnx.ModelProto) -> None:
    """Move these operators out of the default domain, in place."""
    opset = opset_of(proto)
    moved = 0
    for node in all_nodes(proto.graph):
        since = _STANDARD_FROM.get(node.op_type, 0)
        if node.domain == "" and (since is None or opset < since):
            node.domain = _DOMAIN
            moved += 1
    if moved and all(o.domain != _DOMAIN for o in proto.opset_import):
        proto.opset_import.append(onnx.helper.make_opsetid(_DOMAIN, 1))


def bring_back(proto: onnx.ModelProto) -> None:
    """Move them back into the default domain, in place."""
    for node in all_nodes(proto.graph):
        if node.domain == _DOMAIN and node.op_type in _STANDARD_FROM:
            node.domain = ""
