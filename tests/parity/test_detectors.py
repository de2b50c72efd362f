"""Maps of detections against PyTorch's own gradients, on the heads of well-known detectors."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import onnx  # noqa: E402

import onnxcam  # noqa: E402
from onnxcam.targets.detections import Detection  # noqa: E402

from .. import listing  # noqa: E402
from . import detectors  # noqa: E402

NETWORKS = {
    "anchorless": (detectors.Anchorless, ["output0"]),
    "best": (detectors.Best, ["output0"]),
    "anchored": (detectors.Anchored, ["output0"]),
    "queries": (detectors.Queries, ["logits", "pred_boxes"]),
}


def number(name: str, outputs, found: Detection):
    """The explained number of PyTorch's outputs of one image."""

    def logit(p):
        return torch.log(p) - torch.log1p(-p)

    a, c = found.anchor, found.index
    if name == "anchorless":
        return logit(outputs[0, 4 + c, a])
    if name == "best":
        assert int(outputs[0, a, 5]) == c
        return logit(outputs[0, a, 4])
    if name == "anchored":
        return torch.log(outputs[0, a, 4]) + torch.log(outputs[0, a, 5 + c])
    return outputs[0][0, a, c]


def probability(name: str, outputs, found: Detection) -> float:
    if name == "queries":
        return float(outputs[0][0, found.anchor].softmax(-1)[found.index])
    value = number(name, outputs, found)
    return float(torch.exp(value) if name == "anchored" else torch.sigmoid(value))


@pytest.mark.parametrize("name", NETWORKS)
def test_maps_are_those_of_pytorch(name: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    made, outputs = NETWORKS[name]
    network = made().eval()
    image = torch.rand(1, 3, 128, 160)
    path = tmp_path / "detector.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (image,),
            path,
            dynamo=False,
            input_names=["images"],
            output_names=outputs,
            dynamic_axes={n: {0: "N"} for n in ("images", *outputs)},
        )
        labels = list("abcdef") if name == "queries" else None
        explainer = onnxcam.Explainer(path, method=["grad-cam", "layer-cam"], labels=labels)
        found = explainer.explain(image.numpy()[0])
    assert len(found) in (2, 4, 6)
    network = network.double()
    scales = []
    for one in found:
        maps: list = []
        handle = network.features.register_forward_hook(lambda m, i, o, maps=maps: maps.extend(o))
        result = network(image.double())
        handle.remove()
        detection = one.detected.one
        assert detection.probability == pytest.approx(
            probability(name, result, detection), rel=1e-4
        )
        value = number(name, result, detection)
        assert one.score == pytest.approx(float(value), rel=1e-3, abs=1e-4)
        if name == "queries":  # explained at what the decoder reads, as tokens
            layer = maps[2]
        else:  # the map of the last scale that the box depends on
            layer = next(m for m in maps if tuple(m.shape[2:]) == one.signed.shape)
        scales.append(tuple(layer.shape[2:]))
        if one.signed.shape != tuple(layer.shape[2:]):
            pytest.fail(f"{one.layer} has shape {one.signed.shape}")
        [gradient] = torch.autograd.grad(value, layer)
        a, g = layer[0].detach().numpy(), gradient[0].numpy()
        weights = g.mean((1, 2), keepdims=True) if one.method == "grad-cam" else np.maximum(g, 0)
        right = (weights * a).sum(axis=0)
        np.testing.assert_allclose(one.signed, right, atol=1e-3 * np.abs(right).max())
    assert scales


ANCHORS = 16 * 20 + 8 * 10 + 4 * 5


@pytest.mark.parametrize("kind", ["paddle", "tensorflow"])
def test_maps_behind_a_suppression_are_those_of_pytorch(kind: str, tmp_path: Path) -> None:
    """Lists of the best boxes as exporters write them behind a network."""
    torch.manual_seed(3)
    if kind == "paddle":
        network, names = detectors.Scaled().eval(), ["image", "scale_factor"]
        given = (torch.rand(1, 3, 128, 160), torch.ones(1, 2))
    else:
        network, names = detectors.ChannelsLast().eval(), ["input_tensor"]
        given = (torch.randint(0, 256, (1, 128, 160, 3), dtype=torch.uint8),)
    path, ends = tmp_path / "detector.onnx", ["boxes", "scores"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            given,
            path,
            dynamo=False,
            opset_version=11,
            input_names=names,
            output_names=ends,
        )
        model = onnx.load(path)
        if kind == "paddle":
            listing.paddle_rows(model, *ends, ANCHORS)
        else:
            listing.tensorflow_lists(model, *ends, 5, apart=True)
        explainer = onnxcam.Explainer(model, method=["grad-cam", "layer-cam"])
        found = explainer.explain(given[0].numpy()[0])
    assert len(found) == 6
    network = network.double()
    x = (given[0].double() if kind == "paddle" else given[0], *(g.double() for g in given[1:]))
    first = 0 if kind == "paddle" else 1
    for one in found:
        maps: list = []
        handle = network.features.register_forward_hook(lambda m, i, o, maps=maps: maps.extend(o))
        boxes, shares = network(*x)
        handle.remove()
        detection = one.detected.one
        mine = (shares if kind == "paddle" else shares.transpose(1, 2))[0, detection.index - first]
        anchor = int((mine - detection.probability).abs().argmin())
        assert detection.probability == pytest.approx(float(mine[anchor].detach()), rel=1e-5)
        box = boxes[0, anchor].detach().numpy()
        if kind != "paddle":
            box = box[[1, 0, 3, 2]] * [160, 128, 160, 128]
        np.testing.assert_allclose(detection.box, np.clip(box, 0, [160, 128] * 2), atol=1e-3)
        value = torch.logit(mine[anchor])
        assert one.score == pytest.approx(float(value.detach()), rel=1e-3)
        layer = next(m for m in maps if tuple(m.shape[2:]) == one.signed.shape)
        [gradient] = torch.autograd.grad(value, layer)
        a, g = layer[0].detach().numpy(), gradient[0].numpy()
        weights = g.mean((1, 2), keepdims=True) if one.method == "grad-cam" else np.maximum(g, 0)
        right = (weights * a).sum(axis=0)
        np.testing.assert_allclose(one.signed, right, atol=1e-3 * np.abs(right).max())
