"""What a file must hold: names, attributes, weights."""

from __future__ import annotations

import logging
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

import onnxcam
from onnxcam.errors import ExternalDataError, ModelError
from onnxcam.model.describe import origin_of
from onnxcam.model.prepare import load

from ..conftest import parse, runtime, small_cnn

IMAGE = np.random.default_rng(2).normal(size=(1, 3, 16, 16)).astype("f")
Save = Callable[..., Path]


def _node(model: onnx.ModelProto, operator: str) -> onnx.NodeProto:
    return next(n for n in model.graph.node if n.op_type == operator)


def test_files_of_ir_version_1_have_no_types_of_attributes(save: Save) -> None:
    """The type is that of the value: the same map as with types."""
    model = small_cnn()
    for node in model.graph.node:
        for attribute in node.attribute:
            attribute.type = AttributeProto.UNDEFINED
    with pytest.raises(Exception, match="type field and data field mismatch"):
        runtime(model)  # which takes no such file
    [typed] = onnxcam.Explainer(small_cnn(), preprocess="unit").explain(IMAGE)
    [untyped] = onnxcam.Explainer(save(model), preprocess="unit").explain(IMAGE)
    assert np.abs(typed.signed).max() > 1e-3
    np.testing.assert_array_equal(typed.signed, untyped.signed)
    made = onnxcam.add_gradients(model, "logits", "r2")
    assert all(a.type for n in made.graph.node for a in n.attribute)


def test_an_attribute_without_type_and_value(save: Save) -> None:
    """Refused; what the message says is done, and then the model is taken."""
    model = small_cnn()
    _node(model, "Conv").attribute.add(name="auto_pad")
    path = save(model, "it's.onnx")
    with pytest.raises(ModelError) as caught:
        onnxcam.Explainer(path)
    assert "node 'c1' (Conv): its attribute 'auto_pad' has neither type nor value" in str(
        caught.value
    )
    [_, program] = shlex.split(str(caught.value).split("remove it: python ")[1])
    subprocess.run([sys.executable, "-c", program], check=True)
    found = onnxcam.Explainer(path.with_name("it's-fixed.onnx"), preprocess="unit").explain(IMAGE)
    wanted = onnxcam.Explainer(small_cnn(), preprocess="unit").explain(IMAGE)
    np.testing.assert_array_equal(found[0].signed, wanted[0].signed)


def _two_values(model: onnx.ModelProto) -> None:
    attribute = _node(model, "Softmax").attribute[0]
    attribute.f = 2.0


def _other_type(model: onnx.ModelProto) -> None:
    _node(model, "Gemm").attribute[0].type = AttributeProto.INTS


def _repeated_attribute(model: onnx.ModelProto) -> None:
    node = _node(model, "Softmax")
    node.attribute.append(node.attribute[0])


def _lost_tensor(model: onnx.ModelProto) -> None:
    _node(model, "Flatten").input[0] = "lost"


def _lost_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "lost"


def _given_twice(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Relu", ["c1"], ["r2"]))


def _weights_twice(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.ones(5, "f"), "b3"))


def _negative(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = -1


def _vast(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = 1 << 62


def _short(model: onnx.ModelProto) -> None:
    model.graph.initializer[1].raw_data = bytes(12)


def _few_numbers(model: onnx.ModelProto) -> None:
    model.graph.initializer[1].ClearField("raw_data")
    model.graph.initializer[1].float_data.extend([1.0, 2.0])


def _unknown_type(model: onnx.ModelProto) -> None:
    model.graph.initializer[1].data_type = 99


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_two_values, "its attribute 'axis' is of type INT and holds FLOAT, INT"),
        (_other_type, "(Gemm): its attribute 'transB' is of type INTS and holds INT"),
        (_repeated_attribute, "(Softmax): its attribute 'axis' is given more than once"),
        (_lost_tensor, "node 'flat' (Flatten) reads 'lost', which is no input, no weight"),
        (_lost_output, "nothing gives the output 'lost'"),
        (_given_twice, "the tensor 'r2' is given twice"),
        (_weights_twice, "the weights 'b3' are given twice"),
        (_negative, "the weights 'w1' of shape [-1, 3, 3, 3]: a length is negative"),
        (_vast, "the weights 'w1' of shape [4611686018427387904, 3, 3, 3] (FLOAT) need "),
        (_short, "the weights 'b1' of shape [4] (FLOAT) need 16 bytes and have 12"),
        (_few_numbers, "the weights 'b1' of shape [4] (FLOAT) need 4 numbers and have 2"),
        (_unknown_type, "the weights 'b1' of shape [4] are of an unknown type, 99"),
    ],
)
def test_refused(
    save: Save,
    change: Callable[[onnx.ModelProto], None],
    message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    model = small_cnn()
    change(model)
    path = save(model)
    for act in (lambda: load(path), lambda: onnxcam.Explainer(path)):
        with pytest.raises(ModelError) as caught:
            act()
        assert message in str(caught.value) and str(path) in str(caught.value)
    assert capfd.readouterr().err == ""


def test_bytes_that_are_no_text(save: Save) -> None:
    data = small_cnn().SerializeToString()
    with pytest.raises(ModelError, match=r"the name b'\\xffogits' is no UTF-8"):
        load(save(data.replace(b"logits", b"\xffogits")))


def test_a_nul_in_the_name_of_a_weight_file(save: Save) -> None:
    model = small_cnn()
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="a\0b")
    with pytest.raises(ExternalDataError, match=r"name no file but 'a\\x00b'"):
        origin_of(model, save(model))


@pytest.mark.parametrize("name", ["UINT4", "INT4", "FLOAT16", "BFLOAT16", "BOOL", "STRING"])
@pytest.mark.parametrize("raw", [True, False])
def test_sizes_of_every_kind_of_number(save: Save, name: str, raw: bool) -> None:
    """Seven numbers, packed as onnx packs them, are taken."""
    if name == "STRING" and raw:
        pytest.skip("strings have no raw form")
    kind = TensorProto.DataType.Value(name)
    values: list[object] = [b"a"] * 7 if name == "STRING" else [1] * 7
    made = helper.make_tensor("stored", kind, [7], values)
    if raw:
        made = numpy_helper.from_array(numpy_helper.to_array(made), "stored")
        assert made.HasField("raw_data")
    model = small_cnn(opset=21)
    model.ir_version = 10
    model.graph.initializer.append(made)
    assert "r2" in {v.name for n in load(save(model)).graph for v in n.outputs}


def test_what_onnx_ir_logs_is_for_programs_that_set_up_logging(
    save: Save, caplog: pytest.LogCaptureFixture
) -> None:
    import onnx_ir as ir

    model = small_cnn()
    _lost_tensor(model)
    with caplog.at_level(logging.WARNING):
        ir.serde.deserialize_model(model)
    assert "cannot be found in any scope" in caplog.text


def test_names_of_subgraphs(save: Save) -> None:
    """A branch reads tensors of the graph around it, those that come later in the list too."""
    model = parse(
        """
        <ir_version: 8, opset_import: ["" : 16]>
        net (float[1,3,4,4] image, bool yes) => (float[1,3,4,4] y) {
            late = Abs (image)
            y = If (yes) <
                then_branch = a () => (float[1,3,4,4] p) { p = Relu (late) },
                else_branch = b () => (float[1,3,4,4] q) { q = Neg (late) }
            >
        }
        """
    )
    first, second = model.graph.node
    swapped = [onnx.NodeProto.FromString(n.SerializeToString()) for n in (second, first)]
    del model.graph.node[:]
    model.graph.node.extend(swapped)
    load(save(model))
    model.graph.node[0].attribute[0].g.node[0].input[0] = "nowhere"
    with pytest.raises(ModelError, match=r"node 'p' \(Relu\) reads 'nowhere'"):
        load(save(model))


def test_operands_that_do_not_fit_together(save: Save) -> None:
    """A bias of four axes, which Gemm does not take: neither the checker nor inference minds."""
    model = small_cnn()
    _node(model, "Gemm").input[2] = "pooled"
    with pytest.raises(ModelError, match=r"^model.onnx: Gemm .* its graph contradicts itself"):
        onnxcam.Explainer(save(model), layer="r1")
