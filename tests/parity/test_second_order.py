"""Second derivatives: shapley-cam against pytorch-grad-cam and differences of gradients."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from .networks import torchvision_models  # noqa: E402

torchvision_models()  # before others import it
cams = pytest.importorskip("pytorch_grad_cam", reason="pytorch-grad-cam is not installed")

from pytorch_grad_cam.utils.model_targets import (  # noqa: E402
    ClassifierOutputReST,
    ClassifierOutputSoftmaxTarget,
    ClassifierOutputTarget,
)

import onnxcam  # noqa: E402

from .seeded import CURVED, NETWORKS, Network, close, differs, scaled, seeded  # noqa: E402


def theirs(network: Network, target: object) -> np.ndarray:
    """Return pytorch-grad-cam's maps, scaled to 0..1, not resized.

    Its end detaches gradients in place, which PyTorch refuses of views: the hooks are removed here.
    """
    cam = cams.ShapleyCAM(network.model, target_layers=[network.module])
    cam.get_target_width_height = lambda _: None
    try:
        return cam(network.images, [target] * len(network.images))
    finally:
        for handle in cam.activations_and_grads.handles:
            handle.remove()
        cam.activations_and_grads.gradients = []


@pytest.mark.parametrize("name", CURVED)
def test_shapley_cam_equals_pytorch_grad_cams(name: str) -> None:
    network = seeded(name)
    ours = network.ours("shapley-cam")
    close(scaled(ours), theirs(network, ClassifierOutputTarget(network.target)))
    differs(network, ours)


@pytest.mark.parametrize("name", [*CURVED, *NETWORKS])
def test_of_the_papers_own_score(name: str) -> None:
    network = seeded(name)
    ours = network.ours("shapley-cam:rest=1")
    close(scaled(ours), theirs(network, ClassifierOutputReST(network.target)))
    if name != "plain":  # whose explained class has a probability of 0.99: little is left to bend
        differs(network, ours)


@pytest.mark.parametrize("name", NETWORKS)
def test_behind_rectifiers_and_linear_layers_it_is_grad_cam(name: str) -> None:
    network = seeded(name)
    ours = network.ours("shapley-cam")
    close(ours, network.ours("grad-cam"), 1e-6)
    close(scaled(ours), theirs(network, ClassifierOutputTarget(network.target)))


@pytest.mark.parametrize("name", [*CURVED, "residual"])
def test_the_hessian_product_is_a_difference_of_gradients(name: str) -> None:
    """``H A`` in float64, of ``y + log softmax(y)``, for two targets in one run."""
    network = seeded(name)
    head = network.head.double()
    try:
        a = network.features(network.images).detach().double()
        targets = [network.target, (network.target + 1) % 7]
        expected = []
        for target in targets:

            def slope(x: torch.Tensor, target: int = target) -> torch.Tensor:
                x = x.clone().requires_grad_()
                y = head(x)
                number = y[:, target] + torch.log_softmax(y, dim=1)[:, target]
                return torch.autograd.grad(number.sum(), x)[0]

            bent = (slope(a * (1 + 1e-6)) - slope(a * (1 - 1e-6))) / 2e-6
            weights = (slope(a) - bent / 2).mean(dim=(2, 3), keepdim=True)
            expected.append((weights * a).sum(dim=1).numpy())
    finally:
        network.head.float()
    explainer = onnxcam.Explainer(
        network.path, layer=network.layer, method="shapley-cam:rest=1", preprocess="unit"
    )
    found = explainer.explain_batch(network.images.numpy(), targets)
    for n, maps in enumerate(expected):
        close(np.stack([one[n].signed for one in found]), maps)


def test_a_score_after_softmax(tmp_path) -> None:
    network = seeded("branched")
    model = onnx.load(network.path)
    softmax = onnx.helper.make_node("Softmax", ["output"], ["shares"], axis=1)
    model.graph.node.extend([softmax, onnx.helper.make_node("Identity", ["shares"], ["last"])])
    model.graph.output[0].name = "last"
    onnx.save(model, tmp_path / "shares.onnx")
    with pytest.warns(UserWarning, match="lies after Softmax"):
        explainer = onnxcam.Explainer(
            tmp_path / "shares.onnx", score="shares", layer=network.layer, method="shapley-cam",
            preprocess="unit",
        )  # fmt: skip
    found = explainer.explain_batch(network.images.numpy(), network.target)
    ours = np.stack([one.signed for [one] in found])
    close(scaled(ours), theirs(network, ClassifierOutputSoftmaxTarget(network.target)))
    differs(network, ours)
