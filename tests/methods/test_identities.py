"""What must hold of every method, whatever the network: batches, targets, sums, products."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import onnxcam
from onnxcam.errors import EngineError, LayerError, MethodError, TargetError
from onnxcam.kernels import reference
from onnxcam.methods.others import leading
from onnxcam.methods.registry import METHODS as KNOWN
from onnxcam.methods.registry import methods

from .networks import ATTENTION, BOXES, ELEMENTS, IMAGES, INNER, LAYERS, METHODS, explain, network

TARGETS = ["top:2", 3]


@pytest.fixture
def pooled(save) -> Path:
    return save(network("pooled"), "pooled.onnx")


@pytest.fixture
def dense(save) -> Path:
    return save(network("dense"), "dense.onnx")


def close(a: np.ndarray, b: np.ndarray, bound: float = 1e-5) -> None:
    assert a.shape == b.shape
    scale = np.abs(b).max()
    assert scale > 1e-6, "nothing is compared"
    assert np.abs(a - b).max() <= bound * scale


def test_every_method_is_tried_here() -> None:
    assert {m.split(":")[0] for m in METHODS + ATTENTION + BOXES + LAYERS} == set(methods())


@pytest.mark.parametrize("method", METHODS)
def test_batch_equals_singles_and_several_targets_one_by_one(pooled: Path, method: str) -> None:
    explainer = onnxcam.Explainer(pooled, method=method, preprocess="unit")
    together = explainer.explain_batch(IMAGES, TARGETS)
    for image, found in zip(IMAGES, together, strict=True):
        assert [e.rank for e in found[:2]] == [1, 2] and found[2].target == 3
        for one in found:
            assert one.target is not None
            [alone] = explainer.explain(image, one.target)
            assert alone.score == pytest.approx(one.score, rel=1e-5)
            close(alone.signed, one.signed, 2e-5)


@pytest.mark.parametrize("method", INNER)
@pytest.mark.parametrize("batch", ["1", "3"])
def test_a_fixed_batch_gives_the_same(save, method: str, batch: str) -> None:
    expected = explain(save(network("dense")), method, IMAGES[:4], TARGETS, layer="r2")
    fixed = save(network("dense", batch), "fixed.onnx")
    for one, other in zip(
        expected, explain(fixed, method, IMAGES[:4], TARGETS, layer="r2"), strict=True
    ):
        for a, b in zip(one, other, strict=True):
            close(b.signed, a.signed, 2e-5)


@pytest.mark.parametrize("method", ELEMENTS)
def test_an_element_of_the_scores_is_the_class(dense: Path, method: str) -> None:
    """And several elements, of the scores and of an inner tensor, share one run."""
    [classes] = explain(dense, method, IMAGES[:1], [1, 3], layer="r2")
    wanted = ["scores[1]", "r3[2,4,5]", "scores[3]"]
    [elements] = explain(dense, method, IMAGES[:1], wanted, layer="r2")
    assert [e.element for e in elements] == wanted and elements[0].target is None
    for one, other in zip(classes, elements[::2], strict=True):
        assert other.score == pytest.approx(one.score, rel=1e-5)
        close(other.signed, one.signed, 2e-5)


def test_an_element_of_an_inner_tensor_against_central_differences(dense: Path) -> None:
    session = onnxruntime.InferenceSession(exposed(dense, "r3"))
    image = IMAGES[0].astype(np.float64)
    value = session.run(["r3"], {"image": IMAGES[:1]})[0][0]
    index = np.unravel_index(value.argmax(), value.shape)
    name = f"r3[{','.join(map(str, index))}]"
    [[found]] = explain(dense, "saliency", IMAGES[:1], name)
    assert found.score == pytest.approx(value.max(), rel=1e-6) and found.rank is None
    where = np.argwhere(np.abs(found.signed) > 0.3 * np.abs(found.signed).max())[:6]
    for place in map(tuple, where):
        step = np.zeros_like(image)
        step[place] = 1e-3
        up, down = (
            session.run(["r3"], {"image": (image + s * step)[None].astype("f")})[0][(0, *index)]
            for s in (1, -1)
        )
        assert (up - down) / 2e-3 == pytest.approx(found.signed[place], rel=0.02)


def exposed(path: Path, name: str) -> bytes:
    model = onnx.load(path)
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    return model.SerializeToString()


def test_counterfactual_is_grad_cam_of_the_negated_score(pooled: Path, save) -> None:
    negated = onnx.load(pooled)
    for name in ("w4", "b4"):
        [stored] = [t for t in negated.graph.initializer if t.name == name]
        stored.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(stored), name))
    expected = explain(save(negated, "negated.onnx"), "grad-cam", targets=2)
    for [one], [other] in zip(explain(pooled, "counterfactual", targets=2), expected, strict=True):
        close(one.signed, other.signed)


def test_cam_is_grad_cam_times_the_positions_where_the_head_is_pooled_and_linear(
    pooled: Path,
) -> None:
    cam, grad = (explain(pooled, m, targets=[0, 2]) for m in ("cam", "grad-cam"))
    for ones, others in zip(cam, grad, strict=True):
        for one, other in zip(ones, others, strict=True):
            close(one.signed, other.signed * other.signed.size)


@pytest.mark.parametrize("layer", ["auto", "r2"])
def test_cam_is_refused_elsewhere(dense: Path, pooled: Path, layer: str) -> None:
    path = dense if layer == "auto" else pooled
    with pytest.raises(MethodError, match="averaged over space and given to one linear layer"):
        explain(path, "cam", layer=layer)


@pytest.mark.parametrize(
    ("method", "part"), [("guided-grad-cam", "guided-backprop"), ("deconv-grad-cam", "deconvnet")]
)
def test_products_are_products_of_their_parts(dense: Path, method: str, part: str) -> None:
    explainer = onnxcam.Explainer(
        dense, method=[method, part, "grad-cam"], layer="r2", preprocess="unit"
    )
    for image in IMAGES:
        fused, guided, cam = explainer.explain(image, 1)
        resized = reference.upsample(cam.raw, cam.geometry.view(*cam.raw.shape))
        close(fused.signed, guided.signed * resized)
        assert fused.changed == guided.changed and len(guided.changed) > 0


def test_integrated_gradients_are_complete(dense: Path) -> None:
    """Their sum is the score's difference between the image and the baseline (axiom 1)."""
    explainer = onnxcam.Explainer(
        dense, method="integrated-gradients:steps=300,baseline=0.1", preprocess="unit"
    )
    [baseline] = explainer.explain(np.full_like(IMAGES[0], 0.1), 2)
    for image in IMAGES[:3]:
        [found] = explainer.explain(image, 2)
        change = found.score - baseline.score
        assert found.signed.sum(dtype=np.float64) == pytest.approx(change, abs=0.01 * abs(change))


def test_occlusion_is_one_run_a_patch(dense: Path) -> None:
    size, stride, value = 5, 4, 0.3
    session = onnxruntime.InferenceSession(exposed(dense, "scores"))
    [[found]] = explain(
        dense, f"occlusion:size={size},stride={stride},value={value}", IMAGES[:1], 2
    )
    clean = session.run(["scores"], {"image": IMAGES[:1]})[0][0, 2]
    total, count = np.zeros((2, 12, 12))
    for y in (0, 4, 8):
        for x in (0, 4, 8):
            masked = IMAGES[:1].copy()
            masked[:, :, y : y + size, x : x + size] = value
            drop = clean - session.run(["scores"], {"image": masked})[0][0, 2]
            total[y : y + size, x : x + size] += drop
            count[y : y + size, x : x + size] += 1
    close(found.signed, total / count)


@pytest.mark.parametrize("layer", ["r1", "r2", "r3"])
def test_ablation_is_one_run_a_channel(dense: Path, layer: str) -> None:
    """A mask on the layer, wherever it is read, in the model itself; ``r2`` has a skip."""
    model = onnx.load_from_string(exposed(dense, "scores"))
    nodes = list(model.graph.node)
    place = next(i for i, n in enumerate(nodes) if layer in n.output)
    for node in nodes:
        node.input[:] = ["masked" if n == layer else n for n in node.input]
    nodes.insert(place + 1, onnx.helper.make_node("Mul", [layer, "mask"], ["masked"]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.input.append(onnx.helper.make_tensor_value_info("mask", 1, None))
    model.graph.output.append(onnx.helper.make_tensor_value_info(layer, 1, None))
    session = onnxruntime.InferenceSession(model.SerializeToString())

    def run(mask: np.ndarray) -> tuple[np.ndarray, float]:
        a, scores = session.run([layer, "scores"], {"image": IMAGES[:1], "mask": mask})
        return a[0], scores[0, 2]

    a, y = run(np.ones((1, 1, 1, 1), "f"))
    channels = np.eye(len(a), dtype="f")[:, None, :, None, None]
    drops = np.array([(y - run(1 - one)[1]) / y for one in channels])
    [[found]] = explain(dense, "ablation-cam", IMAGES[:1], 2, layer=layer)
    close(found.signed, np.tensordot(drops, a, 1), 1e-4)


@pytest.mark.parametrize("method", ["hires-cam", "layer-cam", "grad-cam++", "eigen-cam", "fem"])
def test_formulas_by_numpy(dense: Path, method: str) -> None:
    """From the whole gradient, which other tests hold against PyTorch."""
    from ..conftest import runtime, wanted
    from ..instrumented import ACTIVATIONS, GRADIENTS, instrument

    session = runtime(instrument(dense, "r2", gradients=True)[0])
    feeds = {"image": IMAGES, **wanted([[1]])}
    activations, gradients = session.run([ACTIVATIONS, GRADIENTS], feeds)
    found = explain(dense, method, targets=1, layer="r2")
    for a, g, [one] in zip(activations, gradients[0], found, strict=True):
        a, g = a.astype(np.float64), g.astype(np.float64)
        if method == "hires-cam":
            expected = (g * a).sum(axis=0)
        elif method == "layer-cam":
            expected = (np.maximum(g, 0) * a).sum(axis=0)
        elif method == "grad-cam++":
            total = a.sum(axis=(1, 2), keepdims=True)
            share = g**2 / (2 * g**2 + total * g**3 + 1e-6)
            expected = np.tensordot((share * np.maximum(g, 0)).sum(axis=(1, 2)), a, 1)
        elif method == "fem":
            masks = [one.mean() * (one > one.mean() + 2 * one.std()) for one in a]
            expected = np.sum(masks, axis=0)
        else:
            flat = a.reshape(len(a), -1)
            centred = flat - flat.mean(axis=1, keepdims=True)
            expected = (np.linalg.svd(centred)[0][:, 0] @ centred).reshape(a.shape[1:])
            expected *= np.sign((expected * centred.mean(axis=0).reshape(a.shape[1:])).sum())
        close(one.signed, expected, 1e-4)


def test_several_methods_are_one_by_one(dense: Path) -> None:
    together = explain(dense, INNER, IMAGES[:2], TARGETS, layer="r2")
    assert [e.method for e in together[0]] == [m for m in INNER for _ in range(3)]
    for i, method in enumerate(INNER):
        alone = explain(dense, method, IMAGES[:2], TARGETS, layer="r2")
        for found, one in zip(together, alone, strict=True):
            for a, b in zip(found[3 * i : 3 * i + 3], one, strict=True):
                close(a.signed, b.signed)


def test_a_network_without_rectifiers_is_warned_of(save) -> None:
    model = network("dense")
    for node in model.graph.node:
        if node.op_type == "Relu":
            node.op_type = "Tanh"
    with pytest.warns(UserWarning, match=r"no rectifier .* so 'guided-backprop' changes nothing"):
        onnxcam.Explainer(save(model), method="guided-backprop", preprocess="unit")


def test_methods_from_outside(dense: Path) -> None:
    """Two of one name with other formulas do not take each other's graph, cache or not."""
    before = dict(methods())
    try:
        found = []
        for factor in (1.0, 3.0):

            @onnxcam.register("times", "made up")
            def times(s, factor=factor):
                return s.weighted(s.pooled() * factor)

            found.append(explain(dense, "times", targets=1, cache=True)[0][0].signed)
        close(found[1], 3 * found[0])
    finally:
        KNOWN.clear()
        KNOWN.update(before)


PIXELS = ["saliency", "guided-backprop", "integrated-gradients:steps=5", "occlusion:size=5"]


@pytest.mark.parametrize("method", PIXELS)
def test_integer_images_are_explained_at_their_first_floating_tensor(save, method: str) -> None:
    """The same network on the numbers that the integers stand for gives the same maps."""
    integers = np.random.default_rng(2).integers(0, 256, (3, 3, 12, 12)).astype(np.uint8)
    scale, zero = np.float32(1 / 64), np.uint8(128)
    model = network("dense")
    for node in model.graph.node:
        node.input[:] = ["x" if name == "image" else name for name in node.input]
    model.graph.node.insert(
        0, onnx.helper.make_node("DequantizeLinear", ["image", "scale", "zero"], ["x"])
    )
    model.graph.initializer.append(numpy_helper.from_array(scale, "scale"))
    model.graph.initializer.append(numpy_helper.from_array(zero, "zero"))
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    numbers = (integers.astype(np.float32) - zero) * scale
    expected = explain(save(network("dense"), "float.onnx"), method, numbers, [1, 2])
    found = explain(save(model, "integer.onnx"), method, integers, [1, 2])
    for ones, others in zip(found, expected, strict=True):
        for one, other in zip(ones, others, strict=True):
            close(one.signed, other.signed, 2e-5)


def test_integers_without_a_floating_tensor_are_refused(save) -> None:
    model = network("dense")
    model.graph.node.insert(0, onnx.helper.make_node("Cast", ["image"], ["y"], to=1))
    model.graph.node.insert(0, onnx.helper.make_node("Cast", ["image"], ["x"], to=1))
    for node in model.graph.node[2:]:
        node.input[:] = ["x" if name == "image" else name for name in node.input]
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    image = np.zeros((1, 3, 12, 12), np.uint8)
    path = save(model)
    for method in ("saliency", "integrated-gradients"):
        with pytest.raises(MethodError, match="not converted to one floating-point tensor"):
            explain(path, method, image)
    assert len(explain(path, "layer-cam", image)) == 1  # the way out


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("grad-cm", r"method 'grad-cm': there is none. Nearest: grad-cam"),
        ("occlusion:sise=3", r"no parameter 'sise'; its parameters: size, stride, value"),
        ("occlusion:size", r"write parameters as name:parameter=number"),
        ("occlusion:size=big", r"write parameters as name:parameter=number"),
        ("occlusion:size=0", r"size = 0 must be"),
        ("occlusion:stride=-2", r"stride = -2 must be"),
        ("integrated-gradients:steps=0", r"steps = 0 must be"),
        ([], "no method given"),
    ],
)
def test_wrong_methods(dense: Path, method, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        explain(dense, method, IMAGES[:1])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("scores[4]", r"target 'scores\[4\]' is out of range: axis 0 counts from 0 to 3"),
        ("scores[-1]", "out of range"),
        ("scores[0,1]", r"has 1 axis, \[4\]; give an index for each"),
        ("score[1]", r"no tensor 'score'. Nearest: scores"),
        ("w4[0]", "no tensor 'w4'"),
    ],
)
def test_wrong_elements(dense: Path, target: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        explain(dense, "grad-cam", IMAGES[:1], target, layer="r2")


def test_an_element_before_the_layer_is_refused(dense: Path) -> None:
    with pytest.raises(LayerError, match=re.escape("r1")):
        explain(dense, "grad-cam", IMAGES[:1], "r1[0,0,0]", layer="r3")


def test_the_second_engine_says_what_it_cannot(dense: Path) -> None:
    with pytest.raises(EngineError, match="engine 'ort'"):
        explain(dense, "saliency", IMAGES[:1], engine="ort")


@pytest.mark.parametrize("ratio", [0.0, 0.05, 0.9, 0.99, 0.999999, 1.0])
@pytest.mark.parametrize("size", [1, 49, 196])
def test_the_leading_vector_is_that_of_all_eigenvectors(size: int, ratio: float) -> None:
    """Also where the second value is as large, when any vector of both is right."""
    rng = np.random.default_rng(size)
    basis = np.linalg.qr(rng.normal(size=(size, size)))[0]
    values = np.sort(rng.uniform(0, ratio, size))
    values[-2:] = [ratio, 1][-size:]
    m = 7 * (basis * values) @ basis.T
    value, vector = leading((m + m.T) / 2)
    assert value == pytest.approx(7, rel=1e-9)
    assert np.linalg.norm(vector) == pytest.approx(1)
    np.testing.assert_allclose(m @ vector, 7 * vector, atol=1e-8)
    if size > 1 and ratio < 0.9999:
        assert abs(vector @ basis[:, -1]) == pytest.approx(1, abs=1e-9)


def test_the_leading_vector_of_nothing_is_of_unit_length() -> None:
    value, vector = leading(np.zeros((3, 3)))
    assert value == 0 and np.linalg.norm(vector) == pytest.approx(1)
