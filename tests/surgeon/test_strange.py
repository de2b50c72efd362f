"""Models that are legal and unusual, and what a first user tried."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import onnxcam
from onnxcam.errors import ModelError, NoGradientError, PreprocessError
from onnxcam.surgeon.inspect import inspect

from ..conftest import parse, runtime, shared, small_cnn
from ..instrumented import instrument
from .test_instrument import gradient_agrees, map_agrees

RNG = np.random.default_rng(12)


def net(body: str, opset: int = 17, weights: dict[str, np.ndarray] | None = None, **more: str):
    """A network on [1,3,16,16] whose ``body`` leads from ``maps`` [1,8,16,16] to ``last``."""
    text = f"""
        <ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1]>
        net (float[1,3,16,16] image) => ({more.get("outputs", "")}float[1,4] scores) {{
            maps = Conv <pads=[1,1,1,1]> (image, w)
            {body}
            pooled = GlobalAveragePool (last)
            flat = Flatten (pooled)
            scores = MatMul (flat, head)
            {more.get("ending", "")}
        }}
    """
    stored = {
        "w": RNG.normal(size=(8, 3, 3, 3)).astype("f"),
        "w2": (RNG.normal(size=(8, 8, 3, 3)) * 0.2).astype("f"),
        "head": RNG.normal(size=(8, 4)).astype("f"),
        "scale8": RNG.uniform(0.5, 1.5, 8).astype("f"),
        "bias8": RNG.normal(size=8).astype("f"),
        **(weights or {}),
    }
    model = onnx.parser.parse_model(text)
    used = {name for node in model.graph.node for name in node.input}
    for name, array in stored.items():
        if name in used:
            model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


LAYERS = {
    "dropout between convolution and activation": (
        "d = Dropout (maps)  r = Relu (d)  last = Dropout (r)",
        "r",
    ),
    "group normalisation as exported": (
        "g = Reshape (maps, groups)  n = InstanceNormalization (g, s2, b2)"
        "  m = Reshape (n, back)  a = Mul (m, s)  last = Relu (a)",
        "last",
    ),
    "channel shuffle": (
        "r = Relu (maps)  g = Reshape (r, split)  t = Transpose <perm=[0,2,1,3,4]> (g)"
        "  last = Reshape (t, back)",
        "last",
    ),
    "squeeze and excitation": (
        "r = Relu (maps)  p = GlobalAveragePool (r)  g = Sigmoid (p)  last = Mul (r, g)",
        "last",
    ),
    "residual": ("r = Relu (maps)  c = Conv <pads=[1,1,1,1]> (r, w2)  last = Add (c, r)", "last"),
    "hard swish in parts": (
        "a = Add (maps, three)  k = Clip (a, zero, six)  m = Mul (maps, k)  last = Div (m, six)",
        "last",
    ),
    "silu": ("g = Sigmoid (maps)  last = Mul (maps, g)", "last"),
    "pooling and padding after": (
        "r = Relu (maps)  p = MaxPool <kernel_shape=[2,2], strides=[2,2]> (r)"
        "  last = Pad (p, pads)",
        "r",
    ),
    "runtime's own activation": ("last = com.microsoft.Gelu (maps)", "last"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_default_layer(name: str, save) -> None:
    body, expected = LAYERS[name]
    weights = {
        "groups": np.array([1, 2, -1]),
        "back": np.array([1, 8, 16, 16]),
        "split": np.array([1, 2, 4, 16, 16]),
        "s2": np.ones(2, np.float32),
        "b2": np.zeros(2, np.float32),
        "s": RNG.uniform(0.5, 1.5, (8, 1, 1)).astype("f"),
        "three": np.float32(3),
        "zero": np.float32(0),
        "six": np.float32(6),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    }
    found = inspect(save(net(body, weights=weights)))
    assert found.default == expected, [c.tensor.name for c in found.layers]


def test_an_operator_without_inference_does_not_hide_what_follows(save) -> None:
    for body, opset in (
        ("n = GroupNormalization <num_groups=2> (maps, scale8, bias8)"
         "  c = Conv <pads=[1,1,1,1]> (n, w2)  last = Relu (c)", 21),
        ("n = com.microsoft.Gelu (maps)  c = Conv <pads=[1,1,1,1]> (n, w2)  last = Relu (c)", 17),
        ('n = com.microsoft.FusedConv <activation="Relu", pads=[1,1,1,1]> (maps, w2)'
         "  c = Conv <pads=[1,1,1,1]> (n, w2)  last = Relu (c)", 17),
    ):  # fmt: skip
        path = save(net(body, opset))
        full, plan = instrument(path, gradients=True)
        assert plan.layer.name == "last"
        gradient_agrees(full, plan, [-1, 2])
        map_agrees(instrument(path)[0], full, plan)


def test_the_operator_without_a_rule_is_named_not_its_neighbour(save) -> None:
    path = save(net("last = com.microsoft.Strange (maps)", 21))
    with pytest.raises(NoGradientError) as error:
        instrument(path, layer="maps")
    message = str(error.value)
    assert message.startswith("model.onnx: no gradient rule for com.microsoft.Strange (producing")
    assert "which lies between 'maps' and '" in message
    assert message.endswith(
        "Choose a layer after that operator (--layer), or a score before it (--score)."
    )


def test_a_value_before_the_scores_is_not_taken_for_them(save) -> None:
    model = net("last = Relu (maps)", outputs="float[1] value, ", ending="")
    model.graph.node.append(
        helper.make_node("ReduceMean", ["flat"], ["value"], axes=[1], keepdims=0)
    )
    _, plan = instrument(save(model))
    assert plan.score == "scores"


def test_channels_last_layers_are_read_as_maps(save) -> None:
    body = (
        "t = Transpose <perm=[0,2,3,1]> (maps)  r = Relu (t)  last = Transpose <perm=[0,3,1,2]> (r)"
    )
    path = save(net(body))
    image = RNG.normal(size=(1, 3, 16, 16)).astype("f")
    maps = {
        layer: onnxcam.Explainer(path, layer=layer, preprocess="unit").explain(image)[0].signed
        for layer in ("r", "last")
    }
    assert np.abs(maps["r"]).max() > 1e-3
    np.testing.assert_allclose(maps["r"], maps["last"], rtol=1e-5, atol=1e-7)


def test_the_default_domain_by_its_other_name(save) -> None:
    model = small_cnn()
    model.opset_import[0].domain = "ai.onnx"
    for node in model.graph.node:
        node.domain = "ai.onnx"
    path = save(model)
    full, plan = instrument(path, gradients=True)
    gradient_agrees(full, plan, [-1])


def test_broken_graphs_are_errors_of_the_model(save) -> None:
    short = small_cnn()
    short.graph.initializer[0].raw_data = short.graph.initializer[0].raw_data[:40]
    twice = small_cnn()
    twice.graph.node[1].output[0] = "c1"
    for name, model in {"short": short, "twice": twice}.items():
        path = save(model, f"{name}.onnx")
        with pytest.raises(ModelError, match=f"{name}.onnx: "):
            onnxcam.Explainer(path, preprocess="unit")


def test_half_precision(save) -> None:
    model = small_cnn()
    from onnx import TensorProto

    for tensor in model.graph.initializer:
        half = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    path = save(model, "half.onnx")
    image = RNG.normal(size=(3, 16, 16))
    [half] = onnxcam.Explainer(path, preprocess="unit").explain(image.astype(np.float16))
    whole = onnxcam.Explainer(save(small_cnn()), preprocess="unit")
    [single] = whole.explain(image.astype(np.float32))
    assert half.target == single.target
    scale = np.abs(single.signed).max()
    np.testing.assert_allclose(half.signed, single.signed, atol=0.02 * scale)


def test_four_channels_take_ready_arrays(save) -> None:
    model = parse(
        """
        <ir_version: 7, opset_import: ["" : 13]>
        net (float[N,4,16,16] image) => (float[N,3] scores) {
            maps = Conv (image, w)
            relu = Relu (maps)
            pooled = GlobalAveragePool (relu)
            flat = Flatten (pooled)
            scores = MatMul (flat, head)
        }
        """,
        {
            "w": RNG.normal(size=(6, 4, 3, 3)).astype("f"),
            "head": RNG.normal(size=(6, 3)).astype("f"),
        },
    )
    explainer = onnxcam.Explainer(save(model))
    assert len(explainer.explain(np.ones((4, 16, 16), np.float32))) == 1
    with pytest.raises(PreprocessError, match="takes 4 channels, which no photograph has"):
        explainer.explain(onnxcam.default_photograph())


def test_dynamic_height_and_width(save) -> None:
    model = small_cnn()
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"D{axis}"
    path = save(model)
    explainer = onnxcam.Explainer(path, preprocess={"size": [20, 28]})
    free = onnxcam.Explainer(save(small_cnn(), "fixed.onnx"), preprocess="unit")
    image = RNG.normal(size=(3, 16, 16)).astype("f")
    [one], [other] = explainer.explain(image, 2), free.explain(image, 2)
    np.testing.assert_allclose(one.signed, other.signed, atol=1e-6)
    found = explainer.explain_batch(
        [RNG.normal(size=(3, *size)).astype("f") for size in ((16, 16), (20, 32), (16, 16))]
    )
    assert [f[0].signed.shape for f in found] == [(8, 8), (10, 16), (8, 8)]
    [photo] = explainer.explain(onnxcam.default_photograph())
    assert photo.raw.shape == (10, 14) and photo.heatmap.shape == (300, 451)


def test_layer_and_score_of_a_card(save, tmp_path) -> None:
    path = save(small_cnn(), toml='[preprocess]\n[model]\nlayer = -1\nscore = "logits"\n')
    assert onnxcam.Explainer(path).plan.layer.name == "r1"
    assert onnxcam.Explainer(path, layer="c2").plan.layer.name == "c2"
    path.with_suffix(".toml").write_text("[model]\nlayr = 3\n")
    with pytest.raises(PreprocessError, match="takes layer and score"):
        onnxcam.Explainer(path)


@pytest.mark.parametrize(
    "card",
    [
        "preprocess = 3",
        "model = 'x'",
        "[labels]\nnames = 5",
        "[labels]\nfile = 'gone.txt'",
        "[preprocess]\ndivide = 'a'",
        "[preprocess]\nshorter = 'x'",
        "[preprocess]\nshorter = -5",
        "[preprocess]\npad = 300",
        "[preprocess]\ninterpolation = [1]",
        "[preprocess]\nmean = [nan]",
        "[oops]",
        "not toml",
    ],
)
def test_wrong_cards_are_errors_of_the_card(save, card: str) -> None:
    path = save(small_cnn(), toml=card)
    with pytest.raises(onnxcam.OnnxcamError, match="model.toml"):
        onnxcam.Explainer(path)


def test_known_family_cards_do_not_claim_other_models(save) -> None:
    """Common names of inputs and outputs are not enough to be recognised by."""
    model = parse(
        """
        <ir_version: 7, opset_import: ["" : 13]>
        net (float[N,3,224,224] input) => (float[N,1000] logits) {
            maps = Conv <strides=[8,8]> (input, w)
            relu = Relu (maps)
            pooled = GlobalAveragePool (relu)
            flat = Flatten (pooled)
            logits = MatMul (flat, head)
        }
        """,
        {
            "w": RNG.normal(size=(4, 3, 3, 3)).astype("f"),
            "head": RNG.normal(size=(4, 1000)).astype("f"),
        },
    )
    with pytest.warns(UserWarning, match="guessed"):
        assert onnxcam.Explainer(save(model)).preprocess_from == "guess"


def test_average_pool_whose_last_window_is_padding(save) -> None:
    body = (
        "r = Relu (maps)  p = AveragePool <kernel_shape=[2,2], strides=[2,2], pads=[1,1,1,1], "
        "ceil_mode=1> (r)  last = Relu (p)"
    )
    model = net(body)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 15
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 15
    path = save(model)
    try:
        full, plan = instrument(path, layer="r", gradients=True)
    except NoGradientError as error:
        assert "lies in the padding alone" in str(error)
    else:
        gradient_agrees(full, plan, [-1])


def test_a_real_model_without_classes_says_why() -> None:
    with pytest.warns(UserWarning, match="guessed that its images are RGB"):
        explainer = onnxcam.Explainer(shared("models", "vit-s-saliency-w8.onnx"))
    with pytest.raises(onnxcam.OnnxcamError, match="no output looks like class scores"):
        explainer.explain(onnxcam.default_photograph())


def test_a_mask_is_not_the_default_layer(save) -> None:
    """Attention pooling: the logits of the mask come last, the features are what is weighted."""
    body = (
        "r = Relu (maps)  a = Conv (r, mask)  rows = Reshape (a, s1)  m = Softmax <axis=2> (rows)"
        "  f = Reshape (r, s2)  weighted = Mul (f, m)  last = Reshape (weighted, s3)"
    )
    weights = {
        "mask": RNG.normal(size=(1, 8, 1, 1)).astype("f"),
        "s1": np.array([0, 1, 256]),
        "s2": np.array([0, 8, 256]),
        "s3": np.array([0, 8, 16, 16]),
    }
    assert instrument(save(net(body, weights=weights)))[1].layer.name == "r"


def test_runtime_is_what_judges_the_outputs(save) -> None:
    path = save(net("last = Relu (maps)"))
    image = RNG.normal(size=(1, 3, 16, 16)).astype("f")
    [before] = runtime(path).run(None, {"image": image})
    [after] = runtime(instrument(path)[0]).run(["scores"], {"image": image})
    np.testing.assert_allclose(before, after, rtol=1e-6)
