"""Add the gradient of any tensor with respect to any others to a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import onnx
import onnx_ir as ir

from onnxcam.errors import (
    EngineError,
    ModelError,
    NoGradientError,
    OnnxcamError,
    TensorError,
)
from onnxcam.gradient import add_gradient, needed_opset
from onnxcam.gradient.appended import appended, last_node
from onnxcam.gradient.blocked.drop_t import leave_out_rows
from onnxcam.gradient.blocked.layout import keep_blocked
from onnxcam.gradient.policy import POLICIES
from onnxcam.graph.builder import PREFIX, Builder, Policy, shaped
from onnxcam.graph.values import dims, drop_unneeded, free_name, is_float, names, tensors
from onnxcam.model.prepare import BASE_OPSET, check_valid, prepare
from onnxcam.model.read import check_external_data, read_model
from onnxcam.surgeon.plan import GRADIENT, SEED, Engine

RECTIFIERS = "onnxcam.rectifiers"  # metadata: the nodes that the policy changed, one a line


def add_gradients(
    model: str | Path | onnx.ModelProto,
    of: str,
    to: str | Sequence[str],
    *,
    policy: Policy = "standard",
    engine: Engine = "rules",
    rows: int | None = None,
    blocked: bool = False,
) -> onnx.ModelProto:
    """Return ``model`` with the gradient of one tensor with respect to others.

    The result has the inputs and outputs of ``model`` (of weights that are inputs as well, IR 3's
    way, the weights alone), one more input ``seed:OF``, cotangents
    ``[T, *shape of OF]``, and for each tensor of ``to`` one more output ``gradient:TO``,
    ``[T, *shape of TO]``: row ``t`` is the product of cotangent ``t`` with the Jacobian. One
    cotangent is one row of the Jacobian; several come in one run. Both are of the tensors'
    own type. It uses standard operators only, besides those of the model itself.

    Applied again to its own result it gives second derivatives; a name that is taken gets
    ``.2`` appended.

    Args:
        model: a file, or a model in memory, whose external weights must be beside the working
            directory's files. External weights stay where they are: the result refers to the
            same files.
        of: the differentiated tensor; any floating-point tensor of the main graph.
        to: the tensors to differentiate with respect to: inputs, weights or inner tensors.
        policy: what rectifiers do to cotangents, see :mod:`onnxcam.gradient.policy`. The names
            of those that were changed are in the metadata entry ``onnxcam.rectifiers``.
        engine: who differentiates: ``"rules"``, onnxcam itself, or ``"ort"``, the gradient
            builder of ONNX Runtime's training build, whose result only that build runs and
            whose ``T`` is 1.
        rows: ``T``, the number of cotangents, where the file is to say it; without it every run
            chooses. One is less work for the runtime than any number.
        blocked: write for ONNX Runtime on CPU, whose convolutions keep images in blocks of
            channels, see :mod:`onnxcam.gradient.blocked.layout`; ``T`` is 1. The values are the
            same to rounding, other runtimes compute them too, but more slowly and, unless they keep
            to single precision, less exactly.

    Raises:
        ModelError, ExternalDataError: the model cannot be read or is invalid in itself.
        TensorError: a tensor does not exist or is not of floating point.
        NoGradientError: an operator between them has no rule, or there is no path.
        EngineError: there is no such policy or engine, the number of rows contradicts it, or
            ONNX Runtime's builder is not there or cannot differentiate the model.
    """
    if policy not in POLICIES:
        raise EngineError(f"policy '{policy}': choose one of {', '.join(POLICIES)}.")
    path = Path("model.onnx") if isinstance(model, onnx.ModelProto) else Path(model)
    wanted = [to] if isinstance(to, str) else list(dict.fromkeys(to))
    if rows is not None and (type(rows) is not int or not 1 <= rows < 2**31):
        raise EngineError(f"rows {rows}: give the number of cotangents, a whole one, 1 or more.")
    if rows not in (None, 1) and (blocked or engine == "ort"):
        reason = "the blocked layout" if blocked else "engine 'ort'"
        raise EngineError(f"rows {rows}: {reason} takes one cotangent at a time.")
    if engine == "ort":
        if blocked:
            raise EngineError("engine 'ort' has no blocked layout; engine 'rules' has.")
        return _by_runtime(model, path, of, wanted, policy)
    if engine != "rules":
        raise EngineError(f"engine '{engine}': choose one of {', '.join(get_args(Engine))}.")

    def prepared(opset: int) -> ir.Model:
        if isinstance(model, onnx.ModelProto):
            proto = onnx.ModelProto()
            proto.CopyFrom(model)
        else:
            proto = read_model(path)
        check_external_data(path, proto)
        check_valid(proto, path)
        return prepare(proto, path, opset, frozenset([of, *wanted]))

    try:
        return _add(prepared, of, wanted, policy, 1 if blocked else rows, blocked)
    except (TensorError, NoGradientError) as error:
        raise type(error)(f"{path.name}: {error}") from error
    except OnnxcamError:
        raise
    except Exception as error:  # shapes that contradict each other come to light in the rules
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelError(
            f"{path.name}: cannot be differentiated, since its graph contradicts itself ({reason})."
        ) from error


def _by_runtime(
    model: str | Path | onnx.ModelProto, path: Path, of: str, to: list[str], policy: Policy
) -> onnx.ModelProto:
    from onnxcam.gradient.ort.engine import add_gradients_ort

    if policy != "standard":
        raise EngineError(f"engine 'ort' has no policy '{policy}'; engine 'rules' has.")
    proto = model if isinstance(model, onnx.ModelProto) else read_model(path)
    try:
        return add_gradients_ort(proto, of, to, path=path)
    except (TensorError, NoGradientError, EngineError) as error:
        raise type(error)(f"{path.name}: {error}") from error


def _add(
    prepared: Callable[[int], ir.Model],
    of_name: str,
    to_names: Sequence[str],
    policy: Policy,
    rows: int | None,
    blocked: bool,
) -> onnx.ModelProto:
    model = prepared(BASE_OPSET)
    of, to = _tensors(model.graph, of_name, to_names)
    needed = needed_opset(model.graph, of, to)
    if needed > model.opset_imports[""]:
        model = prepared(needed)
        of, to = _tensors(model.graph, of_name, to_names)
    builder = Builder(model.graph, model.opset_imports[""])
    builder.policy = policy
    builder.single = rows == 1
    builder.blocked = blocked
    taken = set(names(model.graph))
    values = [*model.graph.inputs, *model.graph.outputs]
    symbols = {d for v in values for d in dims(v) or [] if isinstance(d, str)}
    count = free_name("T", symbols) if rows is None else rows
    seed = _described(ir.Value(name=free_name(SEED + of_name, taken)), of, count)
    model.graph.inputs.append(seed)
    last = last_node(model.graph)
    found = add_gradient(builder, of, _checked(builder, seed, of), to)
    for value, g in zip(to, found, strict=True):
        output = _described(builder.op("Identity", g), value, count)
        output.name = free_name(f"{GRADIENT}{value.name}", taken)
        model.graph.outputs.append(output)
    drop_unneeded(model.graph, PREFIX)
    if builder.single:
        leave_out_rows(builder, appended(model.graph, last))
        drop_unneeded(model.graph, PREFIX)
    if builder.blocked:
        keep_blocked(builder, appended(model.graph, last))
        drop_unneeded(model.graph, PREFIX)
    if policy != "standard":
        model.metadata_props[RECTIFIERS] = "\n".join(dict.fromkeys(builder.rectifiers))
    return ir.serde.serialize_model(model)


def _checked(builder: Builder, seed: ir.Value, of: ir.Value) -> ir.Value:
    """Have the runtime refuse cotangents of other lengths than ``of``, which it would broadcast.

    Where lengths are known it does so by itself.
    """
    sizes = dims(of)
    if sizes is not None and all(isinstance(d, int) for d in sizes):
        return seed
    ints, op = builder.ints, builder.op
    shape, given = op("Shape", of), op("Shape", seed)
    given = op("Slice", given, ints(1), ints(2**62))
    # Where a length differs, one that is greater than both is asked for, which Reshape refuses.
    off = op("Mul", op("Abs", op("Sub", given, shape)), ints(2))
    checked = op(
        "Reshape", seed, op("Concat", builder.leading(seed), op("Add", shape, off), axis=0)
    )
    node = shaped(checked, seed).producer()
    assert node is not None
    node.name = builder.name(f"does the seed have the shape of its tensor? {of.name}")
    return checked


def _tensors(
    graph: ir.Graph, of_name: str, to_names: Sequence[str]
) -> tuple[ir.Value, list[ir.Value]]:
    if not to_names:
        raise TensorError("no tensor is given to differentiate with respect to (--to).")
    of, *to = tensors(graph, of_name, *to_names)
    for value in (of, *to):
        if not isinstance(value.type, ir.TensorType | None):
            raise TensorError(
                f"'{value.name}' is a sequence or optional; only tensors have gradients."
            )
        if not is_float(value):
            kind = value.dtype
            raise TensorError(
                f"tensor '{value.name}' is of type {kind.name.lower() if kind else 'unknown'}; "
                "only floating-point tensors have gradients."
            )
    return of, to


def _described(value: ir.Value, like: ir.Value, count: str | int) -> ir.Value:
    """Give ``value`` the type of ``like`` and its shape with ``count`` in front."""
    value.type = like.type
    sizes = dims(like)
    value.shape = None if sizes is None else ir.Shape([count, *sizes])
    return value
