"""Add the gradient of any tensor with respect to any others to a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import onnx
import onnx_ir as ir

from onnxcam.errors import (
    ContradictionError,
    EngineError,
    ModelError,
    NoGradientError,
    OnnxcamError,
    TensorError,
    naming,
)
from onnxcam.gradient.add import needed_opset, new_walk, walk_back
from onnxcam.gradient.appended import appended, last_node
from onnxcam.gradient.backward import Backward, length_of_t
from onnxcam.gradient.drop_t import drop_t
from onnxcam.gradient.interface import GRADIENT, NEGATIVE, SEED, Engine
from onnxcam.gradient.overrides.base import Override
from onnxcam.gradient.overrides.policies import STANDARD, find_policy
from onnxcam.graph.builder import PREFIX, Builder, shaped
from onnxcam.graph.values import dims, drop_unneeded, free_name, is_float, names, tensors
from onnxcam.model.prepare import Prepared, check_valid
from onnxcam.model.read import check_external_data, read_model

CHANGED = "onnxcam.changed"  # metadata: the nodes whose rule the policy changed, one a line
READ_NEGATIVE = "onnxcam.negative"  # metadata: the nodes of the output NEGATIVE, one a line


def add_gradients(
    model: str | Path | onnx.ModelProto,
    of: str,
    to: str | Sequence[str],
    *,
    policy: str | Override = STANDARD,
    engine: Engine = "rules",
    T: int | None = None,
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
        policy: how the walk back differs from the derivative: ``"guided"``, ``"deconvnet"`` or
            ``"excitation"``, see :mod:`onnxcam.gradient.overrides`, or an override of your own.
            The nodes whose rule it changed are in the metadata entry ``onnxcam.changed``, one a
            line. Excitation backprop takes activations that are not negative: the output
            ``onnxcam:negative`` (bool) says of each node in the metadata entry
            ``onnxcam.negative`` whether it read a negative one in this run.
        engine: the gradient engine: ``"rules"``, onnxcam's own, or ``"ort"``, the gradient
            builder of ONNX Runtime's training build, whose result only that build runs and
            whose ``T`` is 1.
        T: the number of cotangents, where the file is to fix it; without it every run chooses.
            One is less work for the runtime than any number.
        blocked: write for ONNX Runtime on CPU, whose convolutions keep images in blocks of
            channels, see :mod:`onnxcam.gradient.blocked.layout`; ``T`` is 1. The values are the
            same to rounding, other runtimes compute them too, but more slowly and, unless they keep
            to single precision, less exactly.

    Raises:
        ModelError, ExternalDataError: the model cannot be read or is invalid in itself.
        TensorError: a tensor does not exist or is not of floating point.
        NoGradientError: an operator between them has no rule, or there is no path.
        EngineError: there is no such policy or engine, ``T`` contradicts it, or ONNX Runtime's
            builder is not there or cannot differentiate the model.
    """
    overrides = find_policy(policy)
    path = Path("model.onnx") if isinstance(model, onnx.ModelProto) else Path(model)
    wanted = [to] if isinstance(to, str) else list(dict.fromkeys(to))
    _check_settings(engine, T, blocked)
    if engine == "ort":
        return _by_runtime(model, path, of, wanted, overrides)
    with naming(path, TensorError, NoGradientError, ContradictionError):
        try:
            prepared = Prepared(_read(model, path), path, keep=frozenset([of, *wanted]))
            return _add(prepared, of, wanted, overrides, 1 if blocked else T, blocked)
        except OnnxcamError:
            raise
        except Exception as error:  # shapes that contradict each other come to light in the rules
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ModelError(
                f"{path.name}: cannot be differentiated, since its graph contradicts itself "
                f"({reason})."
            ) from error


def _check_settings(engine: str, T: int | None, blocked: bool) -> None:
    if engine not in get_args(Engine):
        raise EngineError(f"engine '{engine}': choose one of {', '.join(get_args(Engine))}.")
    if T is not None and (type(T) is not int or not 1 <= T < 2**31):
        raise EngineError(f"T {T}: give the number of cotangents, a whole one, 1 or more.")
    if T not in (None, 1) and (blocked or engine == "ort"):
        reason = "the blocked layout" if blocked else "engine 'ort'"
        raise EngineError(f"T {T}: {reason} takes one cotangent at a time.")
    if engine == "ort" and blocked:
        raise EngineError("engine 'ort' has no blocked layout; engine 'rules' has.")


def _read(model: str | Path | onnx.ModelProto, path: Path) -> onnx.ModelProto:
    if isinstance(model, onnx.ModelProto):
        proto = onnx.ModelProto()
        proto.CopyFrom(model)
    else:
        proto = read_model(path)
    check_external_data(path, proto)
    check_valid(proto, path)
    return proto


def _by_runtime(
    model: str | Path | onnx.ModelProto,
    path: Path,
    of: str,
    to: list[str],
    overrides: Sequence[Override],
) -> onnx.ModelProto:
    from onnxcam.gradient.ort.engine import add_gradients_ort

    if overrides:
        raise EngineError(f"engine 'ort' has no policy '{overrides[0].name}'; engine 'rules' has.")
    proto = model if isinstance(model, onnx.ModelProto) else read_model(path)
    with naming(path, TensorError, NoGradientError, EngineError):
        return add_gradients_ort(proto, of, to, path=path)


def _add(
    prepared: Prepared,
    of_name: str,
    to_names: Sequence[str],
    overrides: tuple[Override, ...],
    T: int | None,
    blocked: bool,
) -> onnx.ModelProto:
    of, to = _tensors(prepared.model.graph, of_name, to_names)
    model = prepared.lifted(needed_opset(prepared.model.graph, of, to, overrides))
    of, to = _tensors(model.graph, of_name, to_names)
    builder = Builder(model.graph, model.opset_imports[""])
    layers = overrides
    if blocked:
        from onnxcam.gradient.blocked.rules import Blocked

        layers = (Blocked(), *overrides)
    walk = new_walk(builder, layers, fixed_t=T)
    taken = set(names(model.graph))
    values = [*model.graph.inputs, *model.graph.outputs]
    symbols = {d for v in values for d in dims(v) or [] if isinstance(d, str)}
    length = free_name("T", symbols) if T is None else T
    seed = _described(ir.Value(name=free_name(SEED + of_name, taken)), of, length)
    model.graph.inputs.append(seed)
    last = last_node(model.graph)
    found = walk_back(walk, of, _checked(builder, seed, of), to)
    for value, g in zip(to, found, strict=True):
        output = _described(builder.op("Identity", g), value, length)
        output.name = free_name(f"{GRADIENT}{value.name}", taken)
        model.graph.outputs.append(output)
    _add_findings(model, walk, taken)
    drop_unneeded(model.graph, PREFIX)
    if blocked:
        from onnxcam.gradient.blocked.write import write_blocked

        write_blocked(builder, last)
    elif T == 1:
        drop_t(builder, appended(model.graph, last))
        drop_unneeded(model.graph, PREFIX)
    if overrides:
        model.metadata_props[CHANGED] = "\n".join(dict.fromkeys(walk.changed))
    return ir.serde.serialize_model(model)


def _add_findings(model: ir.Model, walk: Backward, taken: set[str]) -> None:
    """Add what only the run can tell of nodes as an output, their names as metadata."""
    if not walk.findings:
        return
    builder = walk.builder
    flags = [builder.op("Reshape", v, builder.ints(1)) for v in walk.findings.values()]
    output = builder.op("Concat", *flags, axis=0)
    output.name = free_name(NEGATIVE, taken)
    output.shape, output.type = ir.Shape([len(flags)]), ir.TensorType(ir.DataType.BOOL)
    model.graph.outputs.append(output)
    model.metadata_props[READ_NEGATIVE] = "\n".join(walk.findings)


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
    target = op("Concat", length_of_t(builder, seed), op("Add", shape, off), axis=0)
    checked = shaped(op("Reshape", seed, target), seed)
    node = checked.producer()
    assert node is not None
    node.name = builder.name(f"check_seed_shape:{of.name}")
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


def _described(value: ir.Value, like: ir.Value, length: str | int) -> ir.Value:
    """Give ``value`` the type of ``like`` and its shape with ``length`` of T in front."""
    value.type = like.type
    sizes = dims(like)
    value.shape = None if sizes is None else ir.Shape([length, *sizes])
    return value
