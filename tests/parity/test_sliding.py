"""sess against pytorch-grad-cam's, around Grad-CAM and LayerCAM."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from .networks import torchvision_models  # noqa: E402

torchvision_models()  # before others import it
cams = pytest.importorskip("pytorch_grad_cam", reason="pytorch-grad-cam is not installed")

from pytorch_grad_cam.sess import SESS  # noqa: E402
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # noqa: E402

import onnxcam  # noqa: E402

from .seeded import NETWORKS, Network, close, scaled, seeded  # noqa: E402


def theirs(network: Network, **options: object) -> np.ndarray:
    with SESS(model=network.model, target_layers=[network.module], **options) as cam:
        wanted = [ClassifierOutputTarget(network.target)] * len(network.images)
        return cam(network.images, wanted)


@pytest.mark.parametrize("name", NETWORKS)
def test_sess_equals_pytorch_grad_cams(name: str) -> None:
    network = seeded(name)
    ours = scaled(network.ours("sess:scales=6"))
    close(ours, theirs(network, num_scales=6))
    assert np.abs(ours - scaled(network.ours("augmentation-smoothing"))).max() > 0.05
    fewer = scaled(network.ours("sess:scales=4,skip=0.4"))
    close(fewer, theirs(network, num_scales=4, pre_filter_ratio=0.4))
    assert np.abs(ours - fewer).max() > 0.05


def test_sess_around_layer_cam() -> None:
    network = seeded("residual")
    around = scaled(network.ours("sess@layer-cam"))
    close(around, theirs(network, base_method=cams.LayerCAM))


def test_sess_of_a_number_that_is_no_class_weighs_by_the_number() -> None:
    network = seeded("plain")
    explainer = onnxcam.Explainer(
        network.path, layer=network.layer, method="sess:scales=4", preprocess="unit"
    )
    found = explainer.explain_batch(network.images.numpy(), f"output[{network.target}]")
    numbers = scaled(np.stack([e.signed for [e] in found]))
    close(numbers, theirs(network, num_scales=4, use_softmax_scores=False))
