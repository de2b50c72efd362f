"""The instrumented graph: outputs kept, targets, gradients."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from onnxcam.errors import NoGradientError
from onnxcam.kernels import kernels_for
from onnxcam.surgeon.plan import CLASSES, Plan

from ..conftest import parse, runtime, shared, small_cnn, wanted
from ..instrumented import ACTIVATIONS, GRADIENTS, SIGNED, instrument
from .light import NAMES, seeded, skip_large

RNG = np.random.default_rng(6)
REAL = [
    "efficientnet-lite0-torch",
    "mobilenetv2-torch-dynamo",
    "squeezenet1.1-mxnet-opset7",
    "squeezenet1.1-caffe",
    "resnet50-keras-w8",
    "pplcnetv2-paddle",
    "mnist-cntk",
]


def outputs_kept(path, data: bytes) -> None:
    """Original outputs equal the original model's to 2e-5 of the largest."""
    before, after = runtime(path), runtime(data)
    source = before.get_inputs()[0]
    shape = [d if isinstance(d, int) else 2 for d in source.shape]
    image = RNG.normal(size=shape).astype("f")
    names = [o.name for o in before.get_outputs()]
    for a, b in zip(
        before.run(names, {source.name: image}), after.run(names, {source.name: image}), strict=True
    ):
        assert np.abs(a - b).max() <= 2e-5 * np.abs(a).max()


def nudged(data: bytes, layer: str) -> bytes:
    """Add an input ``nudge`` to the layer wherever it is read."""
    model = onnx.load_from_string(data)
    nodes = list(model.graph.node)
    for node in nodes:
        node.input[:] = ["nudged" if name == layer else name for name in node.input]
    place = next(i for i, node in enumerate(nodes) if layer in node.output) + 1
    nodes.insert(place, helper.make_node("Add", [layer, "nudge"], ["nudged"]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    nudge = helper.make_tensor_value_info("nudge", onnx.TensorProto.FLOAT, None)
    model.graph.input.append(nudge)
    return model.SerializeToString()


def gradient_agrees(data: bytes, plan: Plan, targets: list[int]) -> None:
    """The gradient predicts what a change of the layer does to the score."""
    layer = plan.layer.name
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # and no fusions that round to integers
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(nudged(data, layer), options)
    inputs = {i.name: i.shape for i in session.get_inputs()}
    shape = [d if isinstance(d, int) else 1 for d in inputs[plan.image.name]]
    feed = {plan.image.name: RNG.normal(size=shape).astype("f")}
    [activations] = runtime(data).run([ACTIVATIONS], feed)
    feed |= wanted([[t] for t in targets])
    feed["nudge"] = np.zeros_like(activations)
    gradients, classes = session.run([GRADIENTS, CLASSES], feed)
    scale = np.abs(gradients).max()
    assert scale > 1e-6, "a network whose gradient vanishes proves nothing"
    for _ in range(3):
        step = RNG.normal(size=activations.shape).astype("f") * np.abs(activations).mean() * 3e-3
        step *= activations != 0  # rectified zeros are kinks of a MaxPool behind them
        [up] = session.run([plan.scores], {**feed, "nudge": step})
        [down] = session.run([plan.scores], {**feed, "nudge": -step})
        for t, c in enumerate(classes[:, 0]):
            numeric = (up[0, c] - down[0, c]) / 2
            analytic = float((gradients[t] * step).sum())
            norm = np.linalg.norm(gradients[t]) * np.linalg.norm(step)
            noise = 3e-6 * np.abs(up).max()
            assert abs(numeric - analytic) <= 0.02 * norm + noise, (numeric, analytic, norm)


def map_agrees(data: bytes, full: bytes, plan: Plan) -> None:
    """The map that the graph gives is the kernels' combination of full gradients."""
    first, second = runtime(data), runtime(full)
    shape = next(i.shape for i in first.get_inputs() if i.name == plan.image.name)
    shape = [d if isinstance(d, int) else 2 for d in shape]
    image = RNG.normal(size=shape).astype("f")
    feed = {plan.image.name: image, **wanted([[-1], [3], [-2]])}
    [maps] = first.run([SIGNED], feed)
    activations, gradients = second.run([ACTIVATIONS, GRADIENTS], feed)
    gradients = gradients.swapaxes(0, 1)
    expected = kernels_for(activations).combine(activations, gradients)
    weights = np.abs(gradients.mean(axis=tuple(range(3, gradients.ndim))))
    scale = np.einsum("ntk,nk...->nt...", weights, np.abs(activations)).max()
    assert maps.shape == expected.shape
    assert np.abs(maps - expected).max() <= 1e-5 * scale


def instrumented_well(path) -> None:
    data, plan = instrument(path)
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    outputs_kept(path, data)
    full, _ = instrument(path, gradients=True)
    outputs_kept(path, full)
    gradient_agrees(full, plan, [-1, -2, 3])
    map_agrees(data, full, plan)


@pytest.mark.parametrize("name", NAMES)
def test_light_networks_with_weights_that_make_a_difference(name: str, save) -> None:
    skip_large(name)
    path = save(seeded(name))
    instrumented_well(path)


@pytest.mark.parametrize("name", REAL)
def test_real_models(name: str) -> None:
    path = shared("models", f"{name}.onnx")
    instrumented_well(path)


@pytest.mark.parametrize("name", ["inception_v1", "shufflenet", "densenet121"])
def test_gradient_to_an_early_layer(name: str, save) -> None:
    path = save(seeded(name))
    full, plan = instrument(path, layer=-2, gradients=True)
    gradient_agrees(full, plan, [-1, 3])
    map_agrees(instrument(path, layer=-2)[0], full, plan)


def test_ranks_and_indices(save) -> None:
    path = save(small_cnn())
    data, plan = instrument(path)
    session = runtime(data)
    image = RNG.normal(size=(3, 3, 16, 16)).astype("f")
    scores, classes = session.run([plan.scores, CLASSES], {"image": image})
    np.testing.assert_array_equal(classes, scores.argmax(axis=1)[None])
    order = np.argsort(-scores, axis=1)
    codes = np.array([[-2], [4], [-5]])
    _, classes = session.run([plan.scores, CLASSES], {"image": image, **wanted(codes)})
    np.testing.assert_array_equal(classes, [order[:, 1], [4, 4, 4], order[:, 4]])
    each = np.array([[0, -1, 2]])
    _, classes = session.run([plan.scores, CLASSES], {"image": image, **wanted(each)})
    np.testing.assert_array_equal(classes, [[0, order[1, 0], 2]])


def test_several_targets_equal_single_runs(save) -> None:
    session = runtime(instrument(save(small_cnn()), layer="r1", gradients=True)[0])
    image = RNG.normal(size=(2, 3, 16, 16)).astype("f")
    together = session.run([GRADIENTS], {"image": image, **wanted([[0], [3], [-1]])})[0]
    for t, code in enumerate((0, 3, -1)):
        alone = session.run([GRADIENTS], {"image": image, **wanted([[code]])})[0]
        np.testing.assert_allclose(together[t], alone[0], atol=1e-6 * np.abs(alone).max())


def test_an_operator_without_a_rule_is_named_only_on_the_path(save) -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17, "com.example" : 1]>
        net (float[1,3,16,16] image) => (float[1,4] scores) <float[1,3,16,16] odd> {
            early = Conv <pads=[1,1,1,1]> (image, w0)
            odd = com.example.Odd (early)
            maps0 = Add (early, odd)
            maps = Conv <pads=[1,1,1,1]> (maps0, w)
            relu = Relu (maps)
            pooled = GlobalAveragePool (relu)
            flat = Flatten (pooled)
            scores = MatMul (flat, head)
        }
        """
    weights = {
        "w0": RNG.normal(size=(3, 3, 3, 3)).astype("f"),
        "w": RNG.normal(size=(8, 3, 3, 3)).astype("f"),
        "head": RNG.normal(size=(8, 4)).astype("f"),
    }
    model = parse(text, weights)
    model.graph.node[1].name = "the_odd_one"
    path = save(model)
    instrument(path)
    with pytest.raises(
        NoGradientError, match=r"com\.example\.Odd \(node 'the_odd_one', opset 17\)"
    ):
        instrument(path, layer="early")


def test_a_score_that_does_not_depend_on_the_layer_is_an_error(save) -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[1,3,16,16] image) => (float[1,4] scores) {
            maps = Conv <pads=[1,1,1,1]> (image, w)
            hard = Greater (maps, zero)
            ones = Cast <to=1> (hard)
            pooled = GlobalAveragePool (ones)
            flat = Flatten (pooled)
            scores = MatMul (flat, head)
        }
        """
    weights = {
        "w": RNG.normal(size=(8, 3, 3, 3)).astype("f"),
        "zero": np.array(0, np.float32),
        "head": RNG.normal(size=(8, 4)).astype("f"),
    }
    with pytest.raises(NoGradientError, match="does not depend on 'maps' in a differentiable way"):
        instrument(save(parse(text, weights)), layer="maps")


def test_unnamed_nodes_and_odd_score_shapes(save) -> None:
    for ending, shape in (
        ("scores = Conv (pooled, head)", "1,4,1,1"),
        ("s4 = Conv (pooled, head)  scores = Transpose <perm=[0,2,3,1]> (s4)", "1,1,1,4"),
    ):
        model = parse(
            f"""
            <ir_version: 7, opset_import: ["" : 13]>
            net (float[1,3,8,8] image) => (float[{shape}] scores) {{
                maps = Conv (image, w)
                relu = Relu (maps)
                pooled = GlobalAveragePool (relu)
                {ending}
            }}
            """,
            {
                "w": RNG.normal(size=(6, 3, 3, 3)).astype("f"),
                "head": RNG.normal(size=(4, 6, 1, 1)).astype("f"),
            },
        )
        path = save(model)
        full, plan = instrument(path, gradients=True)
        gradient_agrees(full, plan, [-1, 2])
        map_agrees(instrument(path)[0], full, plan)


def test_plans_survive_storage(save) -> None:
    import json

    _, plan = instrument(save(small_cnn()))
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_weights_in_constant_nodes(save) -> None:
    model = small_cnn()
    nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in model.graph.initializer]
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])
    del model.graph.initializer[:]
    path = save(model)
    data, plan = instrument(path)
    outputs_kept(path, data)
    gradient_agrees(instrument(path, gradients=True)[0], plan, [-1])
