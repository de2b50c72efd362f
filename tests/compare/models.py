"""Forms of the small network of tests/conftest.py: names, layouts, sizes, types, broken ones."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..conftest import parse, small_cnn


def weights_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with other names everywhere, as another exporter would give them."""
    made = onnx.ModelProto.FromString(model.SerializeToString())
    names: dict[str, str] = {}

    def other(name: str) -> str:
        return names.setdefault(name, f"/layer.{len(names)}/out") if name else name

    for node in made.graph.node:
        node.input[:] = [other(n) for n in node.input]
        node.output[:] = [other(n) for n in node.output]
    for value in [*made.graph.input, *made.graph.output, *made.graph.initializer]:
        value.name = other(value.name)
    return made


def shuffled(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with the numbers of its weights in another order."""
    rng = np.random.default_rng(2)
    made = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in made.graph.initializer:
        array = numpy_helper.to_array(tensor)
        mixed = rng.permutation(array.ravel()).reshape(array.shape)
        tensor.CopyFrom(numpy_helper.from_array(mixed, tensor.name))
    return made


def channels_last(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with an input [N,16,16,3] that is turned first."""
    made = onnx.ModelProto.FromString(model.SerializeToString())
    made.graph.input[0].CopyFrom(
        helper.make_tensor_value_info("photo", onnx.TensorProto.FLOAT, ["N", 16, 16, 3])
    )
    turn = helper.make_node("Transpose", ["photo"], ["image"], perm=[0, 3, 1, 2])
    made.graph.node.insert(0, turn)
    return made


def integer_ends(model: onnx.ModelProto, scale: float = 0.01, zero: int = 128) -> onnx.ModelProto:
    """Return the model with a uint8 input, ``(q - zero) * scale``."""
    made = onnx.ModelProto.FromString(model.SerializeToString())
    made.graph.input[0].CopyFrom(
        helper.make_tensor_value_info("pixels", onnx.TensorProto.UINT8, ["N", 3, 16, 16])
    )
    made.graph.initializer.extend(
        [
            numpy_helper.from_array(np.float32(scale), "pixels_scale"),
            numpy_helper.from_array(np.uint8(zero), "pixels_zero"),
        ]
    )
    read = helper.make_node(
        "DequantizeLinear", ["pixels", "pixels_scale", "pixels_zero"], ["image"]
    )
    made.graph.node.insert(0, read)
    return made


def larger(model: onnx.ModelProto, size: int = 24) -> onnx.ModelProto:
    """Return the model for images of another size."""
    made = onnx.ModelProto.FromString(model.SerializeToString())
    for axis in (2, 3):
        made.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size
    return made


def without_gradient() -> onnx.ModelProto:
    """Return a network whose scores are computed from the layer by NonZero: no gradient."""
    return parse(
        """
        <ir_version: 7, opset_import: ["" : 13]>
        net (float[N,3,16,16] image) => (float[N,5] probabilities) {
            c1 = Conv <pads=[1,1,1,1]> (image, w1)
            r1 = Relu (c1)
            signs = Sign (r1)
            whole = Cast <to=7> (signs)
            back = Cast <to=1> (whole)
            pooled = GlobalAveragePool (back)
            flat = Flatten (pooled)
            logits = Gemm (flat, w3)
            probabilities = Softmax <axis=1> (logits)
        }
        """,
        {
            "w1": np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype("f"),
            "w3": np.random.default_rng(1).normal(size=(4, 5)).astype("f"),
        },
    )


def clipped(model: onnx.ModelProto, limit: float) -> onnx.ModelProto:
    """Return the model whose second layer is clipped far too low: a wrong scale, in short."""
    made = onnx.ModelProto.FromString(model.SerializeToString())
    nodes = list(made.graph.node)
    place = next(i for i, n in enumerate(nodes) if "r1" in n.output)
    nodes[place].output[0] = "r1_QuantizeLinear_Input"
    limits = [numpy_helper.from_array(np.float32(v), n) for v, n in ((0, "low"), (limit, "high"))]
    made.graph.initializer.extend(limits)
    made.graph.node.insert(
        place + 1, helper.make_node("Clip", ["r1_QuantizeLinear_Input", "low", "high"], ["r1"])
    )
    return made


def cnn() -> onnx.ModelProto:
    return small_cnn()
