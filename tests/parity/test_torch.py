"""Activations, gradients and maps against PyTorch autograd and pytorch-grad-cam.

Both exporters, batches of 1 and 3, every image with its own targets.
"""

from __future__ import annotations

import copy
import os
import warnings
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from .networks import SPLITS, Split, build, torchvision_models  # noqa: E402

torchvision_models()  # before whatever else imports it
pytest.importorskip("pytorch_grad_cam", reason="pytorch-grad-cam is not installed")

import cv2  # noqa: E402
from pytorch_grad_cam import GradCAM  # noqa: E402
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # noqa: E402

import onnxcam  # noqa: E402
from onnxcam.surgeon.plan import CLASSES  # noqa: E402

from ..conftest import runtime, wanted  # noqa: E402
from ..instrumented import ACTIVATIONS, GRADIENTS, instrument  # noqa: E402

# The second exporter takes 15 to 75 s a network; the gate tries it on one of each kind.
BY_DYNAMO = ("resnet50", "mobilenet_v2", "efficientnet_b0", "squeezenet1_1", "convnext_tiny")
TARGETS_PER_IMAGE = np.array([[7, 300, 999], [-1, -1, -1], [0, 511, 2]])  # [T, N]


@pytest.fixture(scope="module")
def networks() -> dict[str, tuple[Split, int]]:
    return {}


def export(model: Split, size: int, exporter: str, path: Path) -> Path:
    image = torch.randn(2, 3, size, size)
    names = {"input_names": ["input"], "output_names": ["output"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == "torchscript":
            axes = {"input": {0: "N"}, "output": {0: "N"}}
            torch.onnx.export(
                model, (image,), str(path), dynamo=False, opset_version=17, dynamic_axes=axes,
                **names,
            )  # fmt: skip
        else:
            torch.onnx.export(
                model, (image,), str(path), dynamo=True, dynamic_shapes=({0: "N"},),
                external_data=False, verbose=False, **names,
            )  # fmt: skip
    return path


def autograd(
    model: Split, images: torch.Tensor, found: np.ndarray, classes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return activations ``[N,K,H,W]`` and gradients ``[T,N,K,H,W]``, computed in float64.

    In float32 PyTorch itself is 7e-5 of the maximum away from them on ResNet-50 (measured). The
    gradients are those at the activations that were found: with others, which of two nearly equal
    ones is the maximum of a MaxPool would be decided by how a processor rounds.
    """
    model, images = copy.deepcopy(model).double(), images.double()
    activations = model.features(images).detach()
    start = torch.from_numpy(found).double().requires_grad_()
    scores = model.head(start)
    gradients = []
    for row in classes:
        total = scores[torch.arange(len(images)), torch.from_numpy(row)].sum()
        gradients.append(torch.autograd.grad(total, start, retain_graph=True)[0].numpy())
    return activations.numpy(), np.stack(gradients)


def their_heatmap(model: Split, images: torch.Tensor, row: np.ndarray) -> np.ndarray:
    with GradCAM(model=model, target_layers=[model.features]) as cam:
        wanted = [ClassifierOutputTarget(int(c)) for c in row]  # one an image: fewer give zeros
        return cam(input_tensor=images, targets=wanted)


def their_steps(raw: np.ndarray, size: int) -> np.ndarray:
    """What pytorch-grad-cam does to a rectified map, applied to ours."""

    def scaled(maps: np.ndarray, shape: tuple[int, int] | None) -> np.ndarray:
        result = []
        for image in maps:
            image = image - image.min()
            image = image / (1e-7 + image.max())
            result.append(cv2.resize(image, shape) if shape else image)
        return np.float32(result)

    return scaled(scaled(raw, (size, size)), None)


def close(ours: np.ndarray, theirs: np.ndarray, bound: float = 1e-4) -> None:
    assert ours.shape == theirs.shape
    scale = np.abs(theirs).max()
    assert scale > 1e-3, f"a network whose values vanish proves nothing: {scale}"
    error = np.abs(ours - theirs).max()
    assert error <= bound * scale, f"{error} of {scale}"


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("name", SPLITS)
def test_parity(name: str, exporter: str, tmp_path: Path, networks) -> None:
    everything = "ONNXCAM_TEST_ALL" in os.environ
    if (name == "vgg16" or (exporter == "dynamo" and name not in BY_DYNAMO)) and not everything:
        pytest.skip("one of each kind of network, no large one (set ONNXCAM_TEST_ALL)")
    if name not in networks:
        networks[name] = build(name)
    model, size = networks[name]
    path = export(model, size, exporter, tmp_path / f"{name}.onnx")
    full, plan = instrument(path, gradients=True)
    session = runtime(full)
    explainer = onnxcam.Explainer(path, preprocess={"size": [size, size], "divide": 255})
    torch.manual_seed(8)
    triple = torch.randn(3, 3, size, size)
    compared = 0
    for images in (triple[:1], triple):
        count = len(images)
        codes = TARGETS_PER_IMAGE[:, :count]
        activations, gradients, classes = session.run(
            [ACTIVATIONS, GRADIENTS, CLASSES], {"input": images.numpy(), **wanted(codes)}
        )
        expected_a, expected_g = autograd(model, images, activations, classes)
        with torch.no_grad():
            order = model(images).argsort(1, descending=True).numpy()
        np.testing.assert_array_equal(classes[1], order[:, 0])
        close(activations, expected_a)
        # Gradients divided by the number of places may be small; their shape is what counts.
        scale = np.abs(expected_g).max()
        assert scale > 1e-6
        assert np.abs(gradients - expected_g).max() <= 1e-4 * scale
        weights = expected_g.mean(axis=(3, 4), dtype=np.float64)
        signed = np.einsum("tnk,nkhw->nthw", weights, expected_a.astype(np.float64))
        per_image = [[int(c) for c in classes[:, n]] for n in range(count)]
        found = explainer.explain_batch(images.numpy(), per_image=per_image)
        ours = np.stack([[e.signed for e in one] for one in found])
        close(ours, signed)
        for t, row in enumerate(classes):
            theirs = their_heatmap(model, images, row)
            steps = their_steps(np.maximum(ours[:, t], 0), size)
            flat = np.maximum(signed[:, t], 0).max(axis=(1, 2)) <= 1e-3 * np.abs(signed).max()
            compared += int((~flat).sum())  # a map without positive parts says nothing
            assert np.abs(steps - theirs)[~flat].max(initial=0) <= 1e-3
    assert compared >= 3


def test_top_five_in_one_run_equals_five_runs(tmp_path: Path, networks) -> None:
    model, size = networks.setdefault("resnet50", build("resnet50"))
    path = export(model, size, "torchscript", tmp_path / "net.onnx")
    explainer = onnxcam.Explainer(path, preprocess={"size": [size, size], "divide": 255})
    image = torch.randn(3, size, size).numpy()
    together = explainer.explain(image, "top:5")
    for one in together:
        [alone] = explainer.explain(image, one.target)
        assert np.abs(alone.signed - one.signed).max() <= 1e-6 * np.abs(one.signed).max()
