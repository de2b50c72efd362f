"""Methods of many runs against captum, pytorch-grad-cam and slow re-implementations.

Random ones take the same draws.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from .networks import torchvision_models  # noqa: E402

torchvision_models()  # before others import it
cams = pytest.importorskip("pytorch_grad_cam", reason="pytorch-grad-cam is not installed")
captum = pytest.importorskip("captum.attr", reason="captum is not installed")
torchcam = pytest.importorskip("torchcam.methods", reason="torch-cam is not installed")

from captum.attr._core.gradient_shap import InputBaselineXGradient  # noqa: E402
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # noqa: E402
from torch.nn.functional import interpolate  # noqa: E402

from .seeded import NETWORKS, SIZE, Network, close, differs, scaled, seeded  # noqa: E402


@pytest.fixture(params=NETWORKS)
def network(request) -> Network:
    return seeded(request.param)


def theirs(network: Network, kind: str) -> np.ndarray:
    """Return pytorch-grad-cam's maps, scaled to 0..1 and not resized."""
    with getattr(cams, kind)(model=network.model, target_layers=[network.module]) as cam:
        cam.get_target_width_height = lambda _: None
        wanted = [ClassifierOutputTarget(network.target)] * len(network.images)
        return cam(input_tensor=network.images, targets=wanted)


def test_score_cam_is_pytorch_grad_cams_with_half_pixel_centres(
    network: Network, monkeypatch
) -> None:
    """Theirs enlarges masks with the corners of maps on the corners of images."""
    before = theirs(network, "ScoreCAM")

    class HalfPixel(torch.nn.Module):
        def __init__(self, size: tuple[int, int]) -> None:
            super().__init__()
            self.size = size

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return interpolate(x, self.size, mode="bilinear", align_corners=False)

    monkeypatch.setattr(torch.nn, "UpsamplingBilinear2d", HalfPixel)
    ours = network.ours("score-cam")
    close(scaled(ours), theirs(network, "ScoreCAM"))
    differs(network, ours)
    assert np.abs(scaled(ours) - before).max() < 0.5  # alike, but not the same


SMOOTHED = {"samples": 3, "noise": 0.7, "seed": 5}


def torch_cams(network: Network, kind: str, **options: float) -> np.ndarray:
    """Return torch-cam's maps of one image after the other.

    Its masks are scaled to 0..1 before they are enlarged, which between pixels loses the ends; here
    once more afterwards, as Score-CAM's eq. 5 says.
    """

    class Ordered(getattr(torchcam, kind)):
        def _upsample(self, activation: torch.Tensor) -> torch.Tensor:
            return self._normalize(super()._upsample(activation), 2)

    found = []
    with Ordered(network.model, network.module, **options) as cam:
        for image in network.images:
            with torch.no_grad():
                network.model(image[None])
            found.append(cam(network.target)[0][0].numpy())
    return np.stack(found)


def test_ss_cam_equals_torch_cams_on_the_same_draws(network: Network, monkeypatch) -> None:
    space = network.images.shape[2:]

    class Draws:
        """Stands for the normal distribution: the draws of each channel, one after another."""

        def __init__(self, mean: float, std: float) -> None:
            self.std, self.channels = std, []

        def sample(self, size: torch.Size) -> torch.Tensor:
            assert size[0] == 1 and size[2:] == space
            if len(self.channels) != size[1] or self.left == 0:
                self.channels = [np.random.default_rng([5, k]) for k in range(size[1])]
                self.left = SMOOTHED["samples"]
            self.left -= 1
            drawn = [rng.standard_normal(space, np.float32) for rng in self.channels]
            return torch.from_numpy(np.stack(drawn))[None] * self.std

    monkeypatch.setattr(torch.distributions.normal, "Normal", Draws)
    expected = torch_cams(network, "SSCAM", num_samples=3, std=0.7)
    ours = network.ours("ss-cam:" + ",".join(f"{k}={v}" for k, v in SMOOTHED.items()))
    close(scaled(ours), expected)
    differs(network, ours)
    assert np.abs(scaled(network.ours("ss-cam:samples=3,noise=0.7")) - expected).max() > 1e-3


def test_is_cam_is_a_mean_up_to_the_mask_and_torch_cams_goes_beyond(network: Network) -> None:
    """Shares as in the authors' code; torch-cam adds them up: 1/n, 3/n, ..., (n + 1) / 2."""

    def integrated(shares: np.ndarray) -> np.ndarray:
        maps = []
        for image in network.images:
            with torch.no_grad():
                a = network.features(image[None])
                masks = interpolate(a, image.shape[1:], mode="bilinear", align_corners=False)[0]
                masks = masks - masks.amin(dim=(1, 2), keepdim=True)
                masks = masks / (masks.amax(dim=(1, 2), keepdim=True) + 1e-8)
                scores = [network.scores((s * masks[:, None] * image).numpy()) for s in shares]
            y = np.mean(scores, axis=0)
            weights = np.exp(y - y.max()) / np.exp(y - y.max()).sum()
            maps.append(np.tensordot(weights, a[0].numpy(), 1))
        return np.stack(maps)

    shares = np.arange(1, 6, dtype="f") / 5
    ours = network.ours("is-cam:steps=5")
    close(ours, integrated(shares))
    differs(network, ours)
    theirs = torch_cams(network, "ISCAM", num_samples=5)
    close(theirs, scaled(integrated(np.cumsum(shares))))
    assert np.abs(theirs - scaled(ours)).max() > 1e-3


def test_recipro_cam_is_one_run_a_place(network: Network) -> None:
    with torch.no_grad():
        a = network.features(network.images)
        rows, columns = a.shape[2:]
        for option in ("gaussian=1", "gaussian=0"):
            expected = np.zeros((len(a), rows, columns))
            for y, x in itertools.product(range(rows), range(columns)):
                mask = torch.zeros(rows + 2, columns + 2)
                if option == "gaussian=1":
                    mask[y : y + 3, x : x + 3] = torch.outer(*[torch.tensor([1, 2, 1]) / 4] * 2)
                else:
                    mask[y + 1, x + 1] = 1
                scores = network.head(a * mask[1:-1, 1:-1])
                expected[:, y, x] = scores[:, network.target].numpy()
            expected -= expected.min(axis=(1, 2), keepdims=True)
            close(network.ours(f"recipro-cam:{option}"), expected)
            differs(network, expected)


def test_eigen_grad_cam_equals_pytorch_grad_cams_up_to_sign(network: Network) -> None:
    ours = network.ours("eigen-grad-cam")
    for signed, one in zip(ours, theirs(network, "EigenGradCAM"), strict=True):
        assert min(np.abs(scaled(s * signed[None])[0] - one).max() for s in (1, -1)) <= 1e-3
    differs(network, ours)


def drawn(network: Network, samples: int, noise: float) -> np.ndarray:
    """Return noisy copies ``[N, samples, C, H, W]``."""
    found = []
    for image in network.images.numpy():
        normal = np.random.default_rng(3).standard_normal((samples, *image.shape))
        found.append(image + noise * (image.max() - image.min()) * normal)
    return np.stack(found).astype("f")


def test_smooth_grad_cam_plus_plus_has_averaged_powers(network: Network) -> None:
    """torch-cam rectifies the gradient of the last sample alone, and weighs its cube by ``A``."""
    samples = drawn(network, 9, 0.1)
    ours = network.ours("smooth-grad-cam++:samples=9,seed=3")
    a, _ = network.gradients(network.images)
    for n in range(len(a)):
        gs = network.gradients(torch.from_numpy(samples[n]))[1]
        d1, d2, d3 = (np.mean(gs**p, axis=0) for p in (1, 2, 3))
        alpha = d2 / (2 * d2 + a[n].sum(axis=(1, 2), keepdims=True) * d3 + 1e-6)
        weights = (alpha * np.maximum(d1, 0)).sum(axis=(1, 2))
        close(ours[n], np.tensordot(weights, a[n], 1))
    differs(network, ours)


def input_gradients(network: Network, images: np.ndarray) -> np.ndarray:
    x = torch.from_numpy(images).requires_grad_()
    [g] = torch.autograd.grad(network.model(x)[:, network.target].sum(), x)
    return g.double().numpy()


def test_input_x_gradient_equals_captums(network: Network) -> None:
    expected = captum.InputXGradient(network.model).attribute(network.images, network.target)
    close(network.ours("input-x-gradient"), expected.detach().numpy())


def test_smooth_grad_and_its_kin_equal_captums_on_the_same_draws(network, monkeypatch) -> None:
    samples, count = drawn(network, 9, 0.15), 9
    kinds = {"smooth-grad": "smoothgrad", "smooth-grad-squared": "smoothgrad_sq"}
    kinds["var-grad"] = "vargrad"
    tunnel = captum.NoiseTunnel(captum.Saliency(network.model))
    monkeypatch.setattr(
        torch, "normal", lambda mean, std: torch.from_numpy(samples).flatten(0, 1) - _repeated
    )
    _repeated = network.images.repeat_interleave(count, 0)
    for ours, kind in kinds.items():
        expected = tunnel.attribute(
            network.images, nt_type=kind, nt_samples=count, target=network.target, abs=False
        )
        close(network.ours(f"{ours}:samples={count},seed=3"), expected.numpy())


def test_gradient_shap_equals_captums_on_the_same_draws(network: Network, monkeypatch) -> None:
    samples, baseline = drawn(network, 9, 0.1), 0.2
    shares = np.random.default_rng([3, 1]).uniform(size=9)
    monkeypatch.setattr(np.random, "uniform", lambda low, high, size: shares)
    ours = network.ours(f"gradient-shap:samples=9,seed=3,baseline={baseline}")
    for one, copies in zip(ours, samples, strict=True):
        given = torch.from_numpy(copies)
        expected = InputBaselineXGradient(network.model).attribute(
            given, torch.full_like(given, baseline), network.target
        )
        close(one, expected.mean(dim=0).detach().numpy())


def test_rise_is_a_sum_of_masks(network: Network) -> None:
    """As in the authors' code, less the mean score, which is the same everywhere."""
    count, cells, keep = 40, 5, 0.4
    rng = np.random.default_rng(3)
    grids = rng.uniform(size=(count, cells, cells)) < keep
    cell = -(-SIZE // cells)
    shifts = rng.integers(0, [cell, cell], (count, 2))
    large = interpolate(
        torch.from_numpy(grids[:, None].astype("f")), (cells + 1) * cell, mode="bilinear"
    )[:, 0].numpy()
    masks = np.stack(
        [m[y : y + SIZE, x : x + SIZE] for m, (y, x) in zip(large, shifts, strict=True)]
    )
    ours = network.ours(f"rise:masks={count},cells={cells},keep={keep},seed=3")
    for one, image in zip(ours, network.images.numpy(), strict=True):
        y = network.scores(image * masks[:, None])
        theirs = np.tensordot(y, masks, 1) / count / keep
        close(one, theirs - y.mean() * masks.mean(axis=0) / keep)
