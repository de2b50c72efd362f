"""Rewrite a model with the operators that ONNX Runtime's gradient builder can be trusted with.

The builder (1.19.2, the last release) has no gradient for many operators of inference. For some
it builds one that cannot run or is silently wrong: it ignores ``auto_pad``, forgets unused outputs
of ``Split``, takes every ``Gelu`` for the exact one. It is given only operators whose gradients
agreed with finite differences. Others are expanded: as in
:mod:`onnxcam.gradient.ort.equivalents`, as in :mod:`onnxcam.gradient.rules`, or by the standard's
function body. What remains is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from onnxcam.errors import EngineError, NoGradientError
from onnxcam.gradient.add import new_walk
from onnxcam.gradient.appended import appended, infer_appended, last_node
from onnxcam.gradient.call import Call
from onnxcam.gradient.kinds import Expansion
from onnxcam.gradient.ort.equivalents import EQUIVALENTS
from onnxcam.gradient.registry import find_rule
from onnxcam.gradient.walker import path_nodes
from onnxcam.graph.builder import Builder
from onnxcam.graph.values import constant, describe, dims, tensors
from onnxcam.model.opset import BASE_OPSET

WAY_OUT = "Take onnxcam's own rules, which need no training build: engine 'rules', the default."

_NAMES = (
    "Abs Add AveragePool Cast Clip Concat Conv Cos Div Erf Exp Expand Flatten Gather Gelu Gemm "
    "GlobalAveragePool Identity LeakyRelu Log LogSoftmax MatMul Max MaxPool Min Mul Neg Pad Pow "
    "Reciprocal ReduceMean ReduceSum Relu Reshape Sigmoid Sin Slice Softmax Sqrt Squeeze Sub Tanh "
    "TopK Transpose Unsqueeze Where"
)
TRUSTED = set(_NAMES.split())


def rewrite(model: ir.Model, of: str, to: Sequence[str]) -> None:
    """Replace what the builder cannot differentiate between ``to`` and ``of``, in place.

    Tensors keep their names.

    Raises:
        EngineError: an operator can neither be left to the builder nor replaced.
    """
    graph = model.graph
    builder = Builder(graph, model.opset_imports[""])
    while pending := _untrusted(builder, of, to):
        for call in pending:
            _replace(call)
        graph.sort()


def needed_opset(model: ir.Model, of: str, to: Sequence[str]) -> int:
    """Return the opset that the replacements need."""
    pending = _untrusted(Builder(model.graph, model.opset_imports[""]), of, to)
    found = ((_replacement(call.node), call.node) for call in pending)
    return max((r.needed(node) for r, node in found if r is not None), default=BASE_OPSET)


def _untrusted(builder: Builder, of: str, to: Sequence[str]) -> list[Call]:
    graph = builder.graph
    end, *starts = tensors(graph, of, *to)
    path = path_nodes(list(graph), [end], starts)
    walk = new_walk(builder)
    calls = [Call(node, walk) for node in path]
    return [call for call in calls if _distrust(call) is not None]


def _distrust(call: Call) -> str | None:
    """Return why the builder is not to be trusted with a node."""
    node = call.node
    if node.domain or node.op_type not in TRUSTED:
        return "it has no right gradient for this operator"
    if _reduces_nothing(node):
        return "runtimes disagree on what it does with no axes"
    limit = _LIMITS.get(node.op_type)
    try:
        return None if limit is None else limit(call)
    except NoGradientError:
        return "the rank of its operand is unknown"


def _replacement(node: ir.Node) -> Expansion | None:
    """Return the expansion of a node into other operators, if there is one."""
    if _reduces_nothing(node):
        return None
    if not node.domain and node.op_type in EQUIVALENTS:
        return EQUIVALENTS[node.op_type]
    found = find_rule(node)
    return found if isinstance(found, Expansion) else None


def _replace(call: Call) -> None:
    """Replace a node by its expansion; the outputs keep their names."""
    node, graph = call.node, call.builder.graph
    replacement = _replacement(node)
    if replacement is None:
        raise EngineError(
            f"ONNX Runtime's gradient builder cannot take {describe(node, call.builder.opset)}:"
            f" {_distrust(call)}. {WAY_OUT}"
        )
    last = last_node(graph)
    try:
        outputs = replacement.expand(Call(node, call.walk, replacement.refuses))
    except NoGradientError as error:
        raise EngineError(
            f"ONNX Runtime's gradient builder needs this rewritten with other operators: {error} "
            f"{WAY_OUT}"
        ) from error
    infer_appended(call.builder, appended(graph, last))
    for old, new in zip(node.outputs, (*outputs, *[None] * len(node.outputs)), strict=False):
        _stand_in(call, old, new)
    graph.remove(node, safe=True)


def _stand_in(call: Call, old: ir.Value, new: ir.Value | None) -> None:
    """Let readers of ``old`` read ``new``, which takes its name."""
    outputs = call.builder.graph.outputs
    if not old.uses() and old not in outputs:
        return
    if new is None:
        raise EngineError(
            f"{describe(call.node, call.builder.opset)}: its output '{old.name}' cannot be "
            f"rewritten with other operators, as ONNX Runtime's gradient builder needs. {WAY_OUT}"
        )
    value = call.op("Identity", new)
    value.type, value.shape = (
        old.type or new.type,
        old.shape if old.shape is not None else new.shape,
    )
    for use in tuple(old.uses()):
        use.node.replace_input_with(use.idx, value)
    for index, output in enumerate(outputs):
        if output is old:
            outputs[index] = value
    old.name, value.name = call.builder.name("replaced"), old.name


def _reduces_nothing(node: ir.Node) -> bool:
    return bool(node.attributes.get_int("noop_with_empty_axes", 0))


def _no_auto_pad(call: Call) -> str | None:
    auto = call.attribute("auto_pad", "NOTSET")
    return None if auto in ("", "NOTSET", "VALID") else "it ignores auto_pad"


def _planar(call: Call) -> str | None:
    if call.rank(call.x(0)) > 4:
        return "it mistakes windows of three axes and more"
    if any(d != 1 for d in call.attribute("dilations", [1])):
        return "it ignores the dilations of AveragePool"
    return _no_auto_pad(call)


def _unbroadcast(call: Call) -> str | None:
    full = dims(call.y)
    varying = [v for v in call.node.inputs[1:] if v is not None and constant(v) is None]
    return None if all(dims(v) == full for v in varying) else "it forgets that Where broadcasts"


def _matrices(call: Call) -> str | None:
    vectors = any(call.rank(v) < 2 for v in call.node.inputs if v is not None)
    return "it mistakes products with a vector" if vectors else None


def _constant_exponent(call: Call) -> str | None:
    return "its exponent is computed" if constant(call.operand(1)) is None else None


def _forward(call: Call) -> str | None:
    steps = constant(call.operand(4))
    if call.operand(4) is None or (steps is not None and (steps > 0).all()):
        return None
    return "it cannot step backwards"


def _constant_pads(call: Call) -> str | None:
    plain = call.attribute("mode", "constant") == "constant" and call.operand(3) is None
    return None if plain else "it pads with constants on all axes only"


_LIMITS: dict[str, Callable[[Call], str | None]] = {
    "Conv": _no_auto_pad,
    "AveragePool": _planar,
    "Where": _unbroadcast,
    "MatMul": _matrices,
    "Pow": _constant_exponent,
    "LeakyRelu": lambda call: (
        "it takes the output's sign for the input's" if call.attribute("alpha", 0.01) < 0 else None
    ),
    "MaxPool": lambda call: (
        "it mistakes column-major indices" if call.attribute("storage_order", 0) else None
    ),
    "Slice": _forward,
    "Pad": _constant_pads,
    "Gemm": lambda call: "it mistakes transA" if call.attribute("transA", 0) else None,
    "Gelu": lambda call: (
        None if call.attribute("approximate", "none") == "none" else "it ignores approximate"
    ),
}
