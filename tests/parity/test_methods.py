"""Methods against pytorch-grad-cam and captum, on networks with seeded weights.

At VGG's last convolution the gradient varies over space, so methods that differ there are told
apart: each test asserts that its map is not Grad-CAM's. The layers are rectified, since
pytorch-grad-cam ablates others by a constant of its own.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from .networks import torchvision_models  # noqa: E402

models = torchvision_models()
cams = pytest.importorskip("pytorch_grad_cam", reason="pytorch-grad-cam is not installed")
captum = pytest.importorskip("captum.attr", reason="captum is not installed")

from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # noqa: E402

import onnxcam  # noqa: E402

from .seeded import export  # noqa: E402

SIZE, CLASSES = 64, 10


def vgg() -> tuple[torch.nn.Module, torch.nn.Module]:
    """VGG-16's convolutions and a small dense head; explained where conv5_3 is rectified."""
    features = models.vgg16(weights=None).features
    head = [torch.nn.Flatten(), torch.nn.Linear(2048, 32), torch.nn.ReLU()]
    return torch.nn.Sequential(*features, *head, torch.nn.Linear(32, CLASSES)), features[29]


def squeezenet() -> tuple[torch.nn.Module, torch.nn.Module]:
    """SqueezeNet; explained after the fire module before the last, an inner layer."""
    model = models.squeezenet1_1(weights=None, num_classes=CLASSES)
    return model, model.features[11]


def resnet() -> tuple[torch.nn.Module, torch.nn.Module]:
    """ResNet-18; explained after its third stage, an inner layer."""
    model = models.resnet18(weights=None, num_classes=CLASSES)
    return model, model.layer3


NETWORKS = {"vgg": vgg, "squeezenet": squeezenet, "resnet": resnet}
LAYERS = {
    "vgg": "/29/Relu_output_0",
    "squeezenet": "/features/features.11/Concat_output_0",
    "resnet": "/layer3/layer3.1/relu_1/Relu_output_0",
}

# Another layer of each, by the module and by the file.
EARLIER = {
    "vgg": (lambda m: m[22], "/22/Relu_output_0"),
    "squeezenet": (lambda m: m.features[9], "/features/features.9/Concat_output_0"),
    "resnet": (lambda m: m.layer2, "/layer2/layer2.1/relu_1/Relu_output_0"),
}


class Network:
    """A network, its file, two images."""

    def __init__(self, name: str, folder: Path) -> None:
        torch.manual_seed(4)
        self.name = name
        self.model, self.module = NETWORKS[name]()
        for module in self.model.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                torch.nn.init.kaiming_normal_(module.weight)
                torch.nn.init.uniform_(module.bias, -0.2, 0.2) if module.bias is not None else None
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
                torch.nn.init.uniform_(module.running_var, 0.5, 2)
            if isinstance(module, torch.nn.ReLU):
                module.inplace = False
        self.model.eval()
        self.images = torch.randn(2, 3, SIZE, SIZE)
        with torch.no_grad():  # a class that both images have: SqueezeNet's scores are rectified
            self.target = int(self.model(self.images).min(dim=0).values.argmax())
        self.path, self.layer = folder / f"{name}.onnx", LAYERS[name]
        export(self.model, self.images, self.path)

    def ours(self, method: str, layer: str = "") -> np.ndarray:
        """Return signed maps ``[N, ...]``."""
        layer = layer or self.layer
        explainer = onnxcam.Explainer(self.path, layer=layer, method=method, preprocess="unit")
        found = explainer.explain_batch(self.images.numpy(), self.target)
        return np.stack([e.signed for [e] in found])


@pytest.fixture(scope="module", params=NETWORKS)
def network(request, tmp_path_factory) -> Network:
    return Network(request.param, tmp_path_factory.mktemp("networks"))


def scaled(maps: np.ndarray) -> np.ndarray:
    """What pytorch-grad-cam does to a map before it resizes it."""
    maps = np.maximum(maps, 0)
    maps = maps - maps.min(axis=(1, 2), keepdims=True)
    return maps / (1e-7 + maps.max(axis=(1, 2), keepdims=True))


def their_maps(network: Network, kind: str, count: int = 2) -> np.ndarray:
    """Return maps of the first images at the layer's own resolution, scaled to 0..1."""
    with getattr(cams, kind)(model=network.model, target_layers=[network.module]) as cam:
        found = []
        for image in network.images[:count]:
            cam.get_target_width_height = lambda _: None  # do not resize
            found.append(
                cam(input_tensor=image[None], targets=[ClassifierOutputTarget(network.target)])[0]
            )
    return np.stack(found)


CAMS = {
    "grad-cam": "GradCAM",
    "grad-cam++": "GradCAMPlusPlus",
    "hires-cam": "HiResCAM",
    "layer-cam": "LayerCAM",
    "ablation-cam": "AblationCAM",
}


@pytest.mark.parametrize("method", CAMS)
def test_cams_equal_pytorch_grad_cams(network: Network, method: str) -> None:
    count = 1 if method == "ablation-cam" else 2  # theirs runs the whole network a channel
    ours, theirs = scaled(network.ours(method))[:count], their_maps(network, CAMS[method], count)
    assert ours.shape == theirs.shape and theirs.max() > 0.9
    assert np.abs(ours - theirs).max() <= 1e-3
    if method != "grad-cam":
        assert np.abs(ours - scaled(network.ours("grad-cam"))[:count]).max() > 0.05


@pytest.mark.parametrize("method", ["grad-cam", "layer-cam"])
def test_several_layers_equal_pytorch_grad_cams(network: Network, method: str) -> None:
    module, name = EARLIER[network.name]
    layers = [network.module, module(network.model)]
    with getattr(cams, CAMS[method])(model=network.model, target_layers=layers) as cam:
        wanted = [ClassifierOutputTarget(network.target)] * 2
        theirs = cam(input_tensor=network.images, targets=wanted)
    ours = scaled(network.ours(method, f"mean:{network.layer},{name}"))
    assert ours.shape == theirs.shape == (2, SIZE, SIZE) and theirs.max() > 0.9
    assert np.abs(ours - theirs).max() <= 1e-3


def test_eigen_cam_equals_pytorch_grad_cams_up_to_sign(network: Network) -> None:
    signed, theirs = network.ours("eigen-cam"), their_maps(network, "EigenCAM")
    for ours, one in zip(signed, theirs, strict=True):
        errors = [np.abs(scaled(s * ours[None])[0] - one).max() for s in (1, -1)]
        assert min(errors) <= 1e-3


def close(ours: np.ndarray, theirs: torch.Tensor) -> None:
    expected = theirs.detach().numpy()
    scale = np.abs(expected).max()
    assert ours.shape == expected.shape and scale > 1e-6
    assert np.abs(ours - expected).max() <= 1e-3 * scale


def test_saliency_equals_captums(network: Network) -> None:
    theirs = captum.Saliency(network.model).attribute(
        network.images, target=network.target, abs=False
    )
    close(network.ours("saliency"), theirs)


@pytest.mark.parametrize(
    ("method", "kind"), [("guided-backprop", "GuidedBackprop"), ("deconvnet", "Deconvolution")]
)
def test_rectifiers_equal_captums(network: Network, method: str, kind: str) -> None:
    if isinstance(network.model, models.ResNet):
        pytest.skip("captum takes no module that is used twice")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = getattr(captum, kind)(network.model).attribute(
            network.images, target=network.target
        )
    ours = network.ours(method)
    close(ours, found)
    plain = network.ours("saliency")
    assert np.abs(ours / np.abs(ours).max() - plain / np.abs(plain).max()).max() > 0.05


def test_guided_grad_cam_equals_captums(network: Network) -> None:
    if isinstance(network.model, models.ResNet):
        pytest.skip("captum takes no module that is used twice")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = captum.GuidedGradCam(network.model, network.module).attribute(
            network.images, target=network.target, interpolate_mode="bilinear"
        )
    close(network.ours("guided-grad-cam"), theirs)


def test_integrated_gradients_equal_captums(network: Network) -> None:
    theirs = captum.IntegratedGradients(network.model).attribute(
        network.images, target=network.target, n_steps=12, method="gausslegendre"
    )
    ours, expected = network.ours("integrated-gradients:steps=12"), theirs.numpy()
    errors = np.abs(ours - expected) / np.abs(expected).max()
    # In one of 24 gradients a rectifier at 0 may fall to another side in float32, which reaches as
    # far as its receptive field: most elements are equal to rounding, 99 of 100 to 1e-3.
    assert np.quantile(errors, 0.5) <= 1e-6 and np.quantile(errors, 0.99) <= 1e-3
    assert errors.max() <= 0.01


def test_occlusion_equals_captums(network: Network) -> None:
    theirs = captum.Occlusion(network.model).attribute(
        network.images,
        target=network.target,
        sliding_window_shapes=(3, 20, 20),
        strides=(3, 12, 12),
    )
    ours = network.ours("occlusion:size=20,stride=12")
    close(np.repeat(ours[:, None], 3, axis=1), theirs)
