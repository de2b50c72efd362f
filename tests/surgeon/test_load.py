"""Broken, old, split and unusual files."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxcam.errors import ExternalDataError, ModelError
from onnxcam.graph.protos import opset_of
from onnxcam.model.prepare import load
from onnxcam.model.read import read_model

from ..conftest import runtime, shared, small_cnn
from ..instrumented import SIGNED, instrument
from .light import NAMES, light

IMAGE = np.random.default_rng(2).normal(size=(1, 3, 16, 16)).astype("f")


def test_missing_empty_directory_garbage_truncated(tmp_path) -> None:
    with pytest.raises(ModelError, match=r"gone.onnx: no such file"):
        read_model(tmp_path / "gone.onnx")
    with pytest.raises(ModelError, match="is a directory"):
        read_model(tmp_path)
    empty = tmp_path / "empty.onnx"
    empty.touch()
    with pytest.raises(ModelError, match="the file is empty"):
        read_model(empty)
    garbage = tmp_path / "garbage.onnx"
    garbage.write_text("this is not a model, whatever its name says\n" * 10)
    with pytest.raises(ModelError, match="not an ONNX model, or cut short"):
        read_model(garbage)
    whole = small_cnn().SerializeToString()
    for keep in (10, len(whole) // 2, len(whole) - 7):
        cut = tmp_path / "cut.onnx"
        cut.write_bytes(whole[:keep])
        with pytest.raises(ModelError, match="not an ONNX model, or cut short"):
            read_model(cut)


def test_too_old(save) -> None:
    model = small_cnn()
    model.opset_import[0].version = 6
    with pytest.raises(ModelError, match="opset 6 is older than 7"):
        read_model(save(model))


def external(tmp_path, name: str = "weights.bin") -> onnx.ModelProto:
    """Save the small network with its weights in another file; return it."""
    model = small_cnn()
    onnx.save_model(
        model,
        tmp_path / "model.onnx",
        save_as_external_data=True,
        location=name,
        size_threshold=0,
    )
    return onnx.load(tmp_path / "model.onnx", load_external_data=False)


def test_external_weights_are_used_in_place(tmp_path) -> None:
    external(tmp_path)
    data, plan = instrument(tmp_path / "model.onnx")
    stored = onnx.load_from_string(data)
    assert all(
        t.data_location == TensorProto.EXTERNAL
        for t in stored.graph.initializer
        if t.name.startswith("w")
    )
    from onnxcam.runtime.session import Session

    values = Session(data, tmp_path).run({"image": IMAGE})
    expected = runtime(small_cnn()).run(None, {"image": IMAGE})[0]
    np.testing.assert_allclose(values["probabilities"], expected, atol=2e-5)
    assert plan.layer.name == "r2"


@pytest.mark.parametrize("place", ["../weights.bin", "sub/../../weights.bin", "/etc/passwd"])
def test_external_weights_outside_the_folder(tmp_path, place: str) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    model = external(folder)
    (folder / "weights.bin").rename(tmp_path / "weights.bin")
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = place
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ExternalDataError, match=r"(outside the folder|absolute path)"):
        instrument(folder / "model.onnx")


def test_external_weights_by_symbolic_link_outside(tmp_path) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    external(folder)
    (folder / "weights.bin").rename(tmp_path / "weights.bin")
    (folder / "weights.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(ExternalDataError, match="outside the folder"):
        instrument(folder / "model.onnx")


def test_external_weights_missing_or_short(tmp_path) -> None:
    external(tmp_path)
    weights = tmp_path / "weights.bin"
    data = weights.read_bytes()
    weights.write_bytes(data[:100])
    with pytest.raises(ExternalDataError, match="cut short"):
        instrument(tmp_path / "model.onnx")
    weights.unlink()
    with pytest.raises(ExternalDataError, match=r"'weights.bin', which is missing"):
        instrument(tmp_path / "model.onnx")


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("name", NAMES)
def test_lifting_light_networks_keeps_outputs(name: str, opset: int) -> None:
    import onnx_ir as ir

    before = runtime(light(name))
    lifted = ir.serde.serialize_model(load(light(name), opset))
    after = runtime(lifted)
    source = before.get_inputs()[0]
    image = np.random.default_rng(1).normal(size=source.shape).astype("f")
    one, other = before.run(None, {source.name: image}), after.run(None, {source.name: image})
    for a, b in zip(one, other, strict=True):
        assert np.abs(a - b).max() <= 1e-6 * np.abs(a).max()


@pytest.mark.parametrize(
    "name", ["squeezenet1.1-mxnet-opset7", "mnist-cntk", "squeezenet1.1-caffe", "pplcnetv2-paddle"]
)
def test_lifting_real_models_keeps_outputs(name: str) -> None:
    import onnx_ir as ir

    path = shared("models", f"{name}.onnx")
    before, after = runtime(path), runtime(ir.serde.serialize_model(load(path, 16)))
    source = before.get_inputs()[0]
    shape = [d if isinstance(d, int) else 2 for d in source.shape]
    image = np.random.default_rng(1).normal(size=shape).astype("f")
    a, b = before.run(None, {source.name: image})[0], after.run(None, {source.name: image})[0]
    assert np.abs(a - b).max() <= 1e-6 * np.abs(a).max()


def resizing(op: str, opset: int) -> onnx.ModelProto:
    """A network whose upsampling the converter would silently change."""
    rng = np.random.default_rng(4)
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["maps"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["maps"], ["relu"]),
        helper.make_node(op, ["image", "scales"], ["large"], mode="linear"),
        helper.make_node("MaxPool", ["large"], ["small"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("ReduceMean", ["small"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Add", ["relu", "mean"], ["sum"]),
        helper.make_node("GlobalAveragePool", ["sum"], ["pooled"]),
        helper.make_node("Conv", ["pooled", "head"], ["scores"]),
    ]
    weights = {
        "w": rng.normal(size=(4, 3, 3, 3)).astype("f"),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "head": rng.normal(size=(5, 4, 1, 1)).astype("f"),
    }
    graph = helper.make_graph(
        nodes,
        "resizing",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 5, 1, 1])],
        [numpy_helper.from_array(a, k) for k, a in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=4)


@pytest.mark.parametrize(("op", "opset"), [("Upsample", 9), ("Resize", 10)])
def test_lifting_keeps_asymmetric_upsampling(save, op: str, opset: int) -> None:
    path = save(resizing(op, opset))
    data, _ = instrument(path)
    before = runtime(path).run(None, {"image": IMAGE})[0]
    after = runtime(data).run(["scores"], {"image": IMAGE})[0]
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)


def test_operators_that_change_their_meaning_are_refused(save) -> None:
    model = small_cnn(opset=11)
    model.graph.node.append(helper.make_node("Hardmax", ["logits"], ["hard"], axis=1))
    model.graph.output.append(helper.make_tensor_value_info("hard", TensorProto.FLOAT, ["N", 5]))
    with pytest.raises(ModelError, match=r"Hardmax .* changes its meaning"):
        instrument(save(model))


def test_local_functions_are_inlined(save) -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        net (float[1,3,16,16] image) => (float[1,4] scores)
        <float[8,3,3,3] w, float[8,4] head> {
            maps = Conv <pads=[1,1,1,1]> (image, w)
            relu = local.Swish (maps)
            pooled = GlobalAveragePool (relu)
            flat = Flatten (pooled)
            scores = MatMul (flat, head)
        }
        <domain: "local", opset_import: ["" : 17]>
        Swish (x) => (y) { gate = Sigmoid (x)  y = Mul (x, gate) }
        """
    )
    rng = np.random.default_rng(8)
    for name, shape in (("w", (8, 3, 3, 3)), ("head", (8, 4))):
        array = rng.normal(size=shape).astype("f")
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    del model.graph.value_info[:]
    path = save(model)
    data, plan = instrument(path)
    assert plan.layer.name == "relu"
    after = runtime(data).run(["scores", SIGNED], {"image": IMAGE})
    np.testing.assert_allclose(after[0], runtime(path).run(None, {"image": IMAGE})[0], rtol=1e-5)


def test_weights_that_are_inputs_too(save) -> None:
    model = small_cnn(opset=9)
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    path = save(model)
    data, plan = instrument(path)
    assert [t.name for t in plan.facts.inputs] == ["image"]
    assert (plan.facts.opset, plan.facts.ir_version) == (9, 3)
    after = runtime(data).run(["probabilities"], {"image": IMAGE})[0]
    np.testing.assert_allclose(after, runtime(path).run(None, {"image": IMAGE})[0], rtol=1e-5)


def test_the_opset_is_raised_only_as_far_as_the_rules_need(save) -> None:
    path = save(small_cnn(opset=9))
    assert opset_of(onnx.load_from_string(instrument(path)[0])) == 13
    overlapping = small_cnn(opset=9)
    overlapping.graph.node[2].attribute[0].ints[:] = [3, 3]
    data, _ = instrument(save(overlapping, "overlapping.onnx"), layer="r1")
    assert opset_of(onnx.load_from_string(data)) == 16
    newer = save(small_cnn(opset=17), "newer.onnx")
    assert opset_of(onnx.load_from_string(instrument(newer)[0])) == 17
