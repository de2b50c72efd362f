"""Models of the standard's node tests: in another type, and with tensors in place of sequences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.shape_inference
from onnx import AttributeProto, TensorProto, helper, numpy_helper

FLOAT, DOUBLE, FLOAT16 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16
BFLOAT16 = TensorProto.BFLOAT16
FLOATS = (FLOAT, DOUBLE, FLOAT16, BFLOAT16)
PLAIN = (*FLOATS[:3], *range(TensorProto.UINT8, TensorProto.BOOL + 1), *(12, 13))
HIGHEST_OPSET, _HIGHEST_IR = 26, 13  # that the runtime loads
_NAME_A_TYPE = ("to", "dtype", "output_dtype")  # attributes


Feeds = dict[str, np.ndarray]


@dataclass
class Example:
    """A model with what its test feeds, all of it tensors that NumPy has a type for."""

    model: onnx.ModelProto
    feeds: Feeds
    by_reference: bool = False  # ONNX Runtime does not run it

    def inputs(self) -> list[str]:
        """Return the floating-point inputs."""
        return [v.name for v in self.model.graph.input if _kind(v) in FLOATS]

    def outputs(self) -> list[str]:
        """Return the floating-point outputs."""
        return [v.name for v in self.model.graph.output if _kind(v) in FLOATS]

    def kinds(self) -> set[int]:
        """Return the floating-point types that the model names anywhere."""
        found: set[int] = set()
        for message in _walk(self.model):
            if isinstance(message, TensorProto):
                found.add(message.data_type)
            elif isinstance(message, onnx.TypeProto.Tensor):
                found.add(message.elem_type)
            elif isinstance(message, AttributeProto) and message.name in _NAME_A_TYPE:
                found.add(message.i)
        return found & {*FLOATS}

    def declared(self) -> bool:
        """Whether the model says all shapes of its outputs."""
        kinds = [v.type.tensor_type for v in self.model.graph.output]
        lengths = [dim for kind in kinds for dim in kind.shape.dim]
        known = all(dim.HasField("dim_value") for dim in lengths)
        return known and all(kind.HasField("shape") for kind in kinds)

    def operators(self) -> set[str]:
        """Return the types of the nodes of the main graph."""
        return {node.op_type for node in self.model.graph.node}

    @property
    def half(self) -> bool:
        """Whether anything is rounded to 16 bits."""
        return bool(self.kinds() & {FLOAT16, BFLOAT16})


def _kind(value: onnx.ValueInfoProto) -> int:
    """Return the element type of a tensor, 0 for anything else."""
    return int(value.type.tensor_type.elem_type)


def example(case: Any) -> Example:
    """Return what a node test runs, at an opset that the runtime loads if there is one."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    graph = model.graph
    given, expected = case.data_sets[0]
    feeds: Feeds = {}
    before: list[onnx.NodeProto] = []
    after: list[onnx.NodeProto] = []
    inputs, outputs = list(graph.input), list(graph.output)
    del graph.input[:], graph.output[:]
    for info, data in zip(inputs, given, strict=True):
        _take_apart_input(info.name, info.type, data, before, graph, feeds)
    for info, data in zip(outputs, expected, strict=True):
        _take_apart_output(info.name, info.type, data, after, graph)
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    return Example(restamped(model, HIGHEST_OPSET) or model, feeds)


def _tensor(name: str, data: Any) -> TensorProto:
    array = data if isinstance(data, TensorProto) else numpy_helper.from_array(np.asarray(data))
    found = TensorProto()
    found.CopyFrom(array)
    found.name = name
    return found


def _take_apart_input(
    name: str,
    kind: onnx.TypeProto,
    data: Any,
    nodes: list[onnx.NodeProto],
    graph: onnx.GraphProto,
    feeds: Feeds,
) -> None:
    """Make an input of tensors that NumPy has a type for.

    Sequences and optional values are built from tensors, bfloat16 is cast from float, and codes
    narrower than a byte are stored.
    """
    if kind.HasField("tensor_type"):
        tensor = _tensor(name, data)
        if tensor.data_type in PLAIN:
            graph.input.append(helper.make_value_info(name, kind))
            feeds[name] = numpy_helper.to_array(tensor)
        elif tensor.data_type == BFLOAT16:
            source = helper.make_tensor_value_info(f"{name}.float", FLOAT, tensor.dims)
            graph.input.append(source)
            nodes.append(helper.make_node("Cast", [source.name], [name], to=BFLOAT16))
            feeds[source.name] = numpy_helper.to_array(tensor).astype(np.float32)
        else:
            graph.initializer.append(tensor)
    elif kind.HasField("optional_type"):
        inner = kind.optional_type.elem_type
        if data is None:
            nodes.append(helper.make_node("Optional", [], [name], type=inner))
        else:
            _take_apart_input(f"{name}.held", inner, data, nodes, graph, feeds)
            nodes.append(helper.make_node("Optional", [f"{name}.held"], [name]))
    else:
        dtype = kind.sequence_type.elem_type.tensor_type.elem_type
        parts = [f"{name}.{index}" for index in range(len(data))]
        for part, array in zip(parts, data, strict=True):
            exact = helper.make_tensor_type_proto(dtype, np.shape(array))
            _take_apart_input(part, exact, array, nodes, graph, feeds)
        if parts:
            nodes.append(helper.make_node("SequenceConstruct", parts, [name]))
        else:
            nodes.append(helper.make_node("SequenceEmpty", [], [name], dtype=dtype))


def _take_apart_output(
    name: str,
    kind: onnx.TypeProto,
    data: Any,
    nodes: list[onnx.NodeProto],
    graph: onnx.GraphProto,
) -> None:
    """The same for an output."""
    if kind.HasField("tensor_type"):
        if kind.tensor_type.elem_type == BFLOAT16:
            widened = helper.make_value_info(f"{name}.float", kind)
            widened.type.tensor_type.elem_type = FLOAT
            graph.output.append(widened)
            nodes.append(helper.make_node("Cast", [name], [widened.name], to=FLOAT))
        else:
            graph.output.append(helper.make_value_info(name, kind))
    elif kind.HasField("optional_type"):
        nodes.append(helper.make_node("OptionalGetElement", [name], [f"{name}.held"]))
        inner = kind.optional_type.elem_type
        _take_apart_output(f"{name}.held", inner, data, nodes, graph)
    else:
        dtype = kind.sequence_type.elem_type.tensor_type.elem_type
        for index, array in enumerate(data):
            part, place = f"{name}.{index}", numpy_helper.from_array(np.array(index))
            nodes.append(helper.make_node("Constant", [], [f"{part}.place"], value=place))
            nodes.append(helper.make_node("SequenceAt", [name, f"{part}.place"], [part]))
            exact = helper.make_tensor_type_proto(dtype, np.shape(array))
            _take_apart_output(part, exact, array, nodes, graph)


def restamped(model: onnx.ModelProto, highest: int) -> onnx.ModelProto | None:
    """Lower the opset to ``highest``; ``None`` where an operator is not in it.

    The newest opsets mostly add types to operators that were there before.
    """
    lowered = onnx.ModelProto()
    lowered.CopyFrom(model)
    lowered.ir_version = min(model.ir_version, _HIGHEST_IR)
    for entry in (*lowered.opset_import, *(o for f in lowered.functions for o in f.opset_import)):
        if entry.domain == "":
            entry.version = min(entry.version, highest)
    try:
        onnx.checker.check_model(lowered, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return None
    return lowered


def stored(found: Example) -> Example:
    """Return the example with its operands of integers and booleans stored in the model."""
    model = onnx.ModelProto()
    model.CopyFrom(found.model)
    kept = [v for v in model.graph.input if _kind(v) in FLOATS]
    others = [v.name for v in model.graph.input if _kind(v) not in FLOATS]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.graph.initializer.extend(_tensor(name, found.feeds[name]) for name in others)
    return Example(model, {k: v for k, v in found.feeds.items() if k not in others})


def symbolic(found: Example) -> Example:
    """Return the example with every length left to the run."""
    model = onnx.ModelProto()
    model.CopyFrom(found.model)
    for value in model.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            dim.dim_param = f"{value.name}_{axis}"
    for value in model.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()
    del model.graph.value_info[:]
    return Example(model, found.feeds)


def retyped(found: Example, sources: Sequence[int], target: int) -> Example:
    """Return the example with ``target`` in place of the floating-point types ``sources``."""
    model = onnx.ModelProto()
    model.CopyFrom(found.model)
    for message in _walk(model):
        if isinstance(message, TensorProto) and message.data_type in sources:
            array = numpy_helper.to_array(message).astype(helper.tensor_dtype_to_np_dtype(target))
            message.CopyFrom(numpy_helper.from_array(array, message.name))
        elif isinstance(message, onnx.TypeProto.Tensor) and message.elem_type in sources:
            message.elem_type = target
        elif isinstance(message, AttributeProto):
            _retype_attribute(message, sources, target)
    dtypes = {helper.tensor_dtype_to_np_dtype(s) for s in sources}
    wanted = helper.tensor_dtype_to_np_dtype(target)
    feeds = {k: v.astype(wanted) if v.dtype in dtypes else v for k, v in found.feeds.items()}
    return Example(model, feeds)


def _retype_attribute(attribute: onnx.AttributeProto, sources: Sequence[int], target: int) -> None:
    if attribute.name in _NAME_A_TYPE and attribute.i in sources:
        attribute.i = target
    elif attribute.name in ("value_float", "value_floats") and FLOAT in sources:
        many = attribute.name == "value_floats"
        array = np.array(list(attribute.floats) if many else attribute.f)
        value = numpy_helper.from_array(array.astype(helper.tensor_dtype_to_np_dtype(target)))
        attribute.CopyFrom(helper.make_attribute("value", value))


def _walk(message: Any) -> Iterator[Any]:
    """Yield a message and all messages in it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        try:
            children = list(value)
        except TypeError:
            children = [value]
        for child in children:
            yield from _walk(child)
