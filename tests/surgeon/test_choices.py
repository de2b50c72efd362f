"""The score and the default layer of every family at hand."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

from onnxcam import default_model
from onnxcam.errors import LayerError, NoImageInputError, ScoreError
from onnxcam.model.prepare import load
from onnxcam.surgeon.find.image import find_image_input
from onnxcam.surgeon.inspect import inspect

from ..conftest import parse, shared, small_cnn
from ..instrumented import instrument
from .light import light

# family: (score, default layer, its shape)
LIGHT = {
    "bvlc_alexnet": ("r24", "r13", (1, 256, 12, 12)),
    "densenet121": ("fc6_1", "r907", (1, 1024, 7, 7)),
    "inception_v1": ("r143", "r137", (1, 1024, 6, 6)),
    "inception_v2": ("r507", "r504", (1, 1024, 7, 7)),
    "resnet50": ("r174", "r171", (1, 2048, 7, 7)),
    "shufflenet": ("r201", "r198", (1, 544, 7, 7)),
    "squeezenet": ("r65", "r60", (1, 512, 13, 13)),
    "vgg19": ("r46", "r35", (1, 512, 14, 14)),
    "zfnet512": ("r20", "r13", (1, 512, 12, 12)),
}
REAL = {
    "efficientnet-lite0-torch": ("logits", "/_swish_1/Clip_output_0", 1280),
    "mobilenetv2-torch-dynamo": ("output", "hardtanh_34", 1280),
    "squeezenet1.1-mxnet-opset7": ("squeezenet0_pool3_fwd", "squeezenet0_concat7", 512),
    "squeezenet1.1-caffe": ("pool10", "fire9/concat", 512),
    "resnet50-keras-w8": ("resnet50/fc1000/BiasAdd:0", "resnet50/activation_48/Relu:0", 2048),
    "pplcnetv2-paddle": ("p2o.Add.43", "p2o.Add.41", 1024),
    "mnist-cntk": ("Plus214_Output_0", "ReLU114_Output_0", 16),
    "easy-vqa-keras": ("model_1/dense_6/BiasAdd:0", "model_1/conv2d_3/BiasAdd:0", 32),
    "pong-policy-a3c": ("action_logits", "/Elu_3_output_0", 32),
}


@pytest.mark.parametrize("name", LIGHT)
def test_light_networks(name: str) -> None:
    found = inspect(light(name))
    score, layer, shape = LIGHT[name]
    assert found.score is not None
    assert (found.score.name, found.default) == (score, layer)
    default = next(c for c in found.layers if c.place == 0)
    assert default.tensor.shape == shape
    assert not found.problems
    assert not found.missing


@pytest.mark.parametrize("name", REAL)
def test_real_models(name: str) -> None:
    found = inspect(shared("models", f"{name}.onnx"))
    score, layer, channels = REAL[name]
    assert found.score is not None
    assert (found.score.name, found.default) == (score, layer)
    default = next(c for c in found.layers if c.place == 0)
    assert default.tensor.shape is not None and default.tensor.shape[1] == channels


def test_embedded_model() -> None:
    found = inspect(default_model())
    assert found.default == "head.relu6"
    assert found.image is not None and found.image.layout == "NCHW"
    assert [c.stride for c in found.layers if c.place == 0] == [(32, 32)]
    assert not found.missing


def test_quantized_score_is_the_float_before_the_output() -> None:
    found = inspect(shared("models", "mobilenetv2-tflite-qdq-uint8.onnx"))
    assert found.score is not None and found.score.dtype == "float32"
    assert found.score.shape == (1, 1001, 1, 1)
    assert any(p.startswith("Softmax") for p in found.passed)


def test_dense_output_is_not_taken_for_class_scores() -> None:
    found = inspect(shared("models", "vit-s-saliency-w8.onnx"))
    assert found.score is None
    assert "no output looks like class scores" in found.problems[0]


def test_class_maps_are_not_the_default_layer() -> None:
    """SqueezeNet's last convolution has one map per class: the maps before it are explained."""
    found = inspect(light("squeezenet"))
    after = [c.tensor.name for c in found.layers if c.place > 0]
    assert after == ["r64"]


def test_places_count_back_from_the_default(save) -> None:
    path = save(small_cnn())
    assert instrument(path)[1].layer.name == "r2"
    assert instrument(path, layer=-1)[1].layer.name == "r1"
    assert instrument(path, layer="-1")[1].layer.name == "r1"
    assert instrument(path, layer="c2")[1].layer.name == "c2"
    with pytest.raises(LayerError, match=r"layer -2: .* from -1 to 0"):
        instrument(path, layer=-2)


def test_a_node_names_its_output(save) -> None:
    model = small_cnn()
    model.graph.node[3].name = "second_conv"
    assert instrument(save(model), layer="second_conv")[1].layer.name == "c2"


def test_score_before_softmax_and_as_requested(save) -> None:
    path = save(small_cnn())
    _, plan = instrument(path)
    assert plan.score == "logits"
    assert plan.score_note == "before Softmax of the output 'probabilities'"
    _, plan = instrument(path, score="probabilities")
    assert plan.score == "logits"  # of the output that was asked for
    _, plan = instrument(path, score="logits")
    assert (plan.score, plan.score_note) == ("logits", "as requested")


def test_an_inner_tensor_is_taken_as_it_is(save) -> None:
    model = small_cnn()
    model.graph.node.append(helper.make_node("Mul", ["probabilities", "hundred"], ["percent"]))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(100), "hundred"))
    model.graph.output[0].name = "percent"
    path = save(model)
    assert instrument(path)[1].score == "logits"
    _, plan = instrument(path, score="probabilities")
    assert plan.score == "probabilities"
    assert "lies after Softmax" in plan.warnings[0]
    assert "--score 'logits' takes the tensor before it" in plan.warnings[0]


def test_wrong_layers_and_scores_are_refused_with_the_nearest(save) -> None:
    path = save(small_cnn())
    with pytest.raises(LayerError, match=r"no such tensor or node. Nearest: pooled"):
        instrument(path, layer="poled")
    with pytest.raises(LayerError, match="without spatial axes"):
        instrument(path, layer="flat")
    with pytest.raises(LayerError, match="does not lie before the score"):
        instrument(path, layer="probabilities")
    with pytest.raises(ScoreError, match=r"no such tensor. Nearest: logits"):
        instrument(path, score="logit")
    with pytest.raises(ScoreError, match="must be"):
        instrument(path, score="r1")


def test_a_text_model_is_refused(save) -> None:
    model = parse(
        """
        <ir_version: 7, opset_import: ["" : 13]>
        text (int64[N,16] tokens) => (float[N,2] scores) {
            f = Cast <to=1> (tokens)
            scores = MatMul (f, w)
        }
        """,
        {"w": np.ones((16, 2), np.float32)},
    )
    with pytest.raises(NoImageInputError, match=r"no input takes an image. Inputs: tokens int64"):
        instrument(save(model))


def test_a_network_without_maps_is_refused(save) -> None:
    model = parse(
        """
        <ir_version: 7, opset_import: ["" : 13]>
        mlp (float[N,1,8,8] image) => (float[N,3] scores) {
            flat = Flatten (image)
            scores = MatMul (flat, w)
        }
        """,
        {"w": np.ones((64, 3), np.float32)},
    )
    with pytest.raises(LayerError, match="no spatial layer before the score"):
        instrument(save(model))


def test_attention_after_the_last_maps_is_not_explained_unasked(save) -> None:
    rng = np.random.default_rng(0)
    model = parse(
        """
        <ir_version: 7, opset_import: ["" : 13]>
        vit (float[1,3,8,8] image) => (float[1,4] scores) {
            patches = Conv <strides=[2,2]> (image, w)
            rows = Reshape (patches, shape)
            tokens = Transpose <perm=[0,2,1]> (rows)
            keys = Transpose <perm=[0,2,1]> (tokens)
            products = MatMul (tokens, keys)
            attention = Softmax <axis=-1> (products)
            mixed = MatMul (attention, tokens)
            pooled = ReduceMean <axes=[1], keepdims=0> (mixed)
            scores = MatMul (pooled, head)
        }
        """,
        {
            "w": rng.normal(size=(6, 3, 2, 2)).astype("f"),
            "shape": np.array([1, 6, 16]),
            "head": rng.normal(size=(6, 4)).astype("f"),
        },
    )
    path = save(model)
    with pytest.raises(LayerError, match="attention mixes all positions"):
        instrument(path)
    assert instrument(path, layer="patches")[1].layer.name == "patches"


@pytest.mark.parametrize(
    ("shape", "layout"),
    [("N,3,16,16", "NCHW"), ("N,16,16,3", "NHWC"), ("1,1,H,W", "NCHW"), ("B,H,W,3", "NHWC")],
)
def test_image_layouts(save, shape: str, layout: str) -> None:
    model = parse(
        f"""
        <ir_version: 7, opset_import: ["" : 13]>
        g (float[{shape}] image) => (float[{shape}] y) {{ y = Relu (image) }}
        """
    )
    path = save(model)
    assert find_image_input(load(path).graph, "g").layout == layout
