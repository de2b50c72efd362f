"""Model files, changed: their bytes, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from random import Random

import onnx
from onnx import AttributeProto, TensorProto

from .files import BYTES

SIZES = (0, -1, 1, 2, 3, 5, 7, 1000, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63))
FLOATS = (0.0, -1.0, 1e30, float("inf"), float("nan"))
TYPES = (0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 14, 16, 17, 99)

Change = Callable[[onnx.ModelProto, Random], object]


def delete_node(model: onnx.ModelProto, rng: Random) -> None:
    del model.graph.node[rng.randrange(len(model.graph.node))]


def swap_nodes(model: onnx.ModelProto, rng: Random) -> None:
    one, other = rng.choice(model.graph.node), rng.choice(model.graph.node)
    kept = onnx.NodeProto.FromString(one.SerializeToString())
    one.CopyFrom(other)
    other.CopyFrom(kept)


def repeat_node(model: onnx.ModelProto, rng: Random) -> None:
    model.graph.node.append(rng.choice(model.graph.node))


def other_operator(model: onnx.ModelProto, rng: Random) -> None:
    operators = ["Tanh", "Softmax", "Conv", "Gemm", "NonMaxSuppression", "If", "Loop", "Strange"]
    rng.choice(model.graph.node).op_type = rng.choice([*operators, "", "Constant", "Identity"])


def other_domain(model: onnx.ModelProto, rng: Random) -> None:
    rng.choice(model.graph.node).domain = rng.choice(["com.microsoft", "ai.onnx.ml", "x.y"])


def loop_back(model: onnx.ModelProto, rng: Random) -> None:
    node = _with(model.graph.node, "input", rng)
    node.input[rng.randrange(len(node.input))] = rng.choice(model.graph.node).output[0]


def lost_name(model: onnx.ModelProto, rng: Random) -> None:
    node = _with(model.graph.node, "input", rng)
    node.input[rng.randrange(len(node.input))] = rng.choice(["nowhere", "", "a'b $HOME", "é"])


def renamed_output(model: onnx.ModelProto, rng: Random) -> None:
    node = rng.choice(model.graph.node)
    node.output[0] = rng.choice(["nowhere", "", "a'b $HOME", "é"])


def repeated_output(model: onnx.ModelProto, rng: Random) -> None:
    rng.choice(model.graph.node).output[0] = rng.choice(model.graph.node).output[0]


def fewer_inputs(model: onnx.ModelProto, rng: Random) -> None:
    del _with(model.graph.node, "input", rng).input[-1]


def more_inputs(model: onnx.ModelProto, rng: Random) -> None:
    node = _with(model.graph.node, "input", rng)
    node.input.append(node.input[0])


def more_outputs(model: onnx.ModelProto, rng: Random) -> None:
    rng.choice(model.graph.node).output.append("more")


def undefined_attribute(model: onnx.ModelProto, rng: Random) -> None:
    """As old exporters wrote them: a name and no type, on an operator that knows it or not."""
    node = rng.choice(model.graph.node)
    known = list(onnx.defs.get_schema(node.op_type).attributes) if not node.domain else []
    node.attribute.add(name=rng.choice([*known, "undefined", "consumed_inputs"]))


def untyped_attribute(model: onnx.ModelProto, rng: Random) -> None:
    """A value whose type is not said, as files of IR version 1 have them."""
    _attribute(model, rng).type = AttributeProto.UNDEFINED


def wrong_attribute_type(model: onnx.ModelProto, rng: Random) -> None:
    _attribute(model, rng).type = rng.randrange(1, 15)


def unknown_attribute(model: onnx.ModelProto, rng: Random) -> None:
    value = rng.choice([3, 2.5, "text", [1, 2]])
    rng.choice(model.graph.node).attribute.append(onnx.helper.make_attribute("strange", value))


def repeated_attribute(model: onnx.ModelProto, rng: Random) -> None:
    node = _with(model.graph.node, "attribute", rng)
    node.attribute.append(node.attribute[0])


def no_attribute(model: onnx.ModelProto, rng: Random) -> None:
    node = _with(model.graph.node, "attribute", rng)
    del node.attribute[rng.randrange(len(node.attribute))]


def other_attribute(model: onnx.ModelProto, rng: Random) -> None:
    attribute = _attribute(model, rng)
    if attribute.ints:
        if rng.random() < 0.3:
            del attribute.ints[-1]
        else:
            attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(SIZES)
    elif attribute.type == AttributeProto.INT:
        attribute.i = rng.choice(SIZES)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = rng.choice(FLOATS)
    elif attribute.type == AttributeProto.STRING:
        attribute.s = rng.choice([b"", b"strange", b"\xff\xfe"])
    else:
        attribute.name = "strange"


def other_type(model: onnx.ModelProto, rng: Random) -> None:
    info = rng.choice([*model.graph.input, *model.graph.output, *model.graph.value_info])
    info.type.tensor_type.elem_type = rng.choice(TYPES)


def no_type(model: onnx.ModelProto, rng: Random) -> None:
    rng.choice([*model.graph.input, *model.graph.output]).ClearField("type")


def sequence_type(model: onnx.ModelProto, rng: Random) -> None:
    info = rng.choice([*model.graph.input, *model.graph.output])
    info.type.sequence_type.elem_type.tensor_type.elem_type = 1


def other_size(model: onnx.ModelProto, rng: Random) -> None:
    infos = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    info = rng.choice([i for i in infos if i.type.tensor_type.shape.dim])
    rng.choice(info.type.tensor_type.shape.dim).dim_value = rng.choice(SIZES)


def other_rank(model: onnx.ModelProto, rng: Random) -> None:
    infos = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    shape = rng.choice([i for i in infos if i.type.tensor_type.shape.dim]).type.tensor_type.shape
    if rng.random() < 0.5:
        del shape.dim[0]
    else:
        shape.dim.add().dim_value = rng.choice(SIZES)


def other_weight_type(model: onnx.ModelProto, rng: Random) -> None:
    rng.choice(model.graph.initializer).data_type = rng.choice(TYPES)


def other_weight_size(model: onnx.ModelProto, rng: Random) -> None:
    tensor = _with(model.graph.initializer, "dims", rng)
    tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(SIZES)


def transposed_weight(model: onnx.ModelProto, rng: Random) -> None:
    tensor = _with(model.graph.initializer, "dims", rng)
    tensor.dims[:] = reversed(tensor.dims)


def no_weight_bytes(model: onnx.ModelProto, rng: Random) -> None:
    tensor = rng.choice(model.graph.initializer)
    tensor.ClearField("raw_data")


def outer_weight(model: onnx.ModelProto, rng: Random) -> None:
    tensor = rng.choice(model.graph.initializer)
    tensor.data_location = TensorProto.EXTERNAL
    place = rng.choice(["", "lost.bin", "/etc/passwd", "../x", "model.onnx", ".", "a\0b"])
    tensor.external_data.add(key="location", value=place)
    tensor.external_data.add(key="offset", value=rng.choice(["0", "-1", "x", "9" * 30]))


def removed_weight(model: onnx.ModelProto, rng: Random) -> None:
    del model.graph.initializer[rng.randrange(len(model.graph.initializer))]


def repeated_weight(model: onnx.ModelProto, rng: Random) -> None:
    model.graph.initializer.append(rng.choice(model.graph.initializer))


def renamed_weight(model: onnx.ModelProto, rng: Random) -> None:
    names = [model.graph.input[0].name, model.graph.node[0].output[0], ""]
    rng.choice(model.graph.initializer).name = rng.choice(names)


def infinite_weight(model: onnx.ModelProto, rng: Random) -> None:
    tensor = rng.choice([t for t in model.graph.initializer if len(t.raw_data) >= 4])
    tensor.raw_data = rng.choice([b"\0\0\xc0\x7f", b"\0\0\x80\x7f"]) + tensor.raw_data[4:]


def removed_input(model: onnx.ModelProto, rng: Random) -> None:
    del model.graph.input[rng.randrange(len(model.graph.input))]


def repeated_input(model: onnx.ModelProto, rng: Random) -> None:
    model.graph.input.append(model.graph.input[0])


def removed_output(model: onnx.ModelProto, rng: Random) -> None:
    del model.graph.output[rng.randrange(len(model.graph.output))]


def repeated_end(model: onnx.ModelProto, rng: Random) -> None:
    model.graph.output.append(model.graph.output[0])


def lost_end(model: onnx.ModelProto, rng: Random) -> None:
    rng.choice(model.graph.output).name = rng.choice(["nowhere", ""])


def inner_end(model: onnx.ModelProto, rng: Random) -> None:
    rng.choice(model.graph.output).name = rng.choice(model.graph.node).output[0]


def other_opset(model: onnx.ModelProto, rng: Random) -> None:
    versions = (-1, 0, 1, 6, 7, 9, 12, 18, 21, 99, 1 << 62)
    rng.choice(model.opset_import).version = rng.choice(versions)


def repeated_opset(model: onnx.ModelProto, rng: Random) -> None:
    model.opset_import.add(version=rng.choice([7, 13, 20]))


def no_opset(model: onnx.ModelProto, rng: Random) -> None:
    del model.opset_import[:]


def other_version(model: onnx.ModelProto, rng: Random) -> None:
    model.ir_version = rng.choice([-1, 0, 1, 3, 5, 99, 1 << 62])


def strange_metadata(model: onnx.ModelProto, rng: Random) -> None:
    key = rng.choice(["names", "labels", "onnxcam.card", "Image.BitmapPixelFormat"])
    values = ["{", "{1: 'a'}", "[1, 2", "Rgb8", "\0", "[preprocess]\nsize = -1", "{'a': {}}", "{}"]
    model.metadata_props.add(key=key, value=rng.choice(values))


def function(model: onnx.ModelProto, rng: Random) -> None:
    """A local function takes an operator's place, and calls itself or nothing."""
    node = rng.choice(model.graph.node)
    made = onnx.helper.make_function(
        "local",
        node.op_type,
        list(dict.fromkeys(node.input)),
        list(node.output),
        [node] if rng.random() < 0.5 else [],
        list(model.opset_import),
    )
    model.functions.append(made)
    node.domain = "local"
    if made.node:
        made.node[0].domain = rng.choice(["", "local"])
    if rng.random() < 0.8:
        model.opset_import.add(domain="local", version=1)


CHANGES: tuple[Change, ...] = (
    *(delete_node, swap_nodes, repeat_node, other_operator, other_domain, loop_back, lost_name),
    *(renamed_output, repeated_output, fewer_inputs, more_inputs, more_outputs),
    *(undefined_attribute, untyped_attribute, wrong_attribute_type, unknown_attribute),
    *(repeated_attribute, no_attribute, other_attribute, other_attribute, other_type, no_type),
    *(sequence_type, other_size, other_size, other_rank, other_weight_type, other_weight_size),
    *(other_weight_size, transposed_weight, no_weight_bytes, outer_weight, removed_weight),
    *(repeated_weight, renamed_weight, infinite_weight, removed_input, repeated_input),
    *(removed_output, repeated_end, lost_end, inner_end, other_opset, repeated_opset, no_opset),
    *(other_version, strange_metadata, function),
)


def mutations(
    models: Mapping[str, bytes], count: int, seed: int
) -> Iterator[tuple[str, str, bytes]]:
    """Yield what was done, a file's name, and its content; a third are changes of bytes."""
    rng = Random(seed)
    names = list(models)
    for number in range(count):
        name = names[number % len(names)]
        if number % 3 == 0:
            change = rng.choice(BYTES)
            yield f"{change.__name__} in {name}", name, change(models[name], rng)
            continue
        while True:
            model = onnx.ModelProto.FromString(models[name])
            alter = rng.choice(CHANGES)
            try:
                alter(model, rng)
            except (IndexError, onnx.defs.SchemaError):
                continue  # nothing there that could be changed so
            yield f"{alter.__name__} in {name}", name, model.SerializeToString()
            break


def _with(items: object, field: str, rng: Random) -> object:
    return rng.choice([item for item in items if len(getattr(item, field))])


def _attribute(model: onnx.ModelProto, rng: Random) -> AttributeProto:
    return rng.choice([a for n in model.graph.node for a in n.attribute])
