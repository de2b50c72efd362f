"""More class activation maps against pytorch-grad-cam, torch-cam and slow re-implementations."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from .networks import torchvision_models  # noqa: E402

torchvision_models()  # before others import it
cams = pytest.importorskip("pytorch_grad_cam", reason="pytorch-grad-cam is not installed")

from pytorch_grad_cam.utils.model_targets import (  # noqa: E402
    ClassifierOutputTarget,
    FinerWeightedTarget,
)

from .seeded import NETWORKS, SIZE, Network, close, differs, scaled, seeded, unfolded  # noqa: E402


@pytest.fixture(params=NETWORKS)
def network(request) -> Network:
    return seeded(request.param)


def theirs(network: Network, kind: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """Return pytorch-grad-cam's maps, scaled to 0..1, by default not resized."""
    with getattr(cams, kind)(model=network.model, target_layers=[network.module]) as cam:
        cam.get_target_width_height = lambda _: size
        wanted = [ClassifierOutputTarget(network.target)] * len(network.images)
        return cam(input_tensor=network.images, targets=wanted)


@pytest.mark.parametrize(
    ("method", "kind"), [("xgrad-cam", "XGradCAM"), ("grad-cam-elementwise", "GradCAMElementWise")]
)
def test_cams_equal_pytorch_grad_cams(network: Network, method: str, kind: str) -> None:
    ours = network.ours(method)
    close(scaled(ours), theirs(network, kind))
    differs(network, ours)


def test_the_papers_ablations_of_grad_cam(network: Network) -> None:
    a, g = network.gradients(network.images)
    for pool, options in ((np.mean, "relu=0"), (np.max, "max=1"), (np.max, "max=1,relu=0")):
        weights = pool(g, axis=(2, 3), keepdims=True)
        expected = (weights * a).sum(axis=1)
        if "relu" in options:
            expected -= expected.min(axis=(1, 2), keepdims=True)
        close(network.ours(f"grad-cam:{options}"), expected)
        if pool is np.max:
            differs(network, expected)


@pytest.mark.parametrize("alpha", [1.0, 0.6])
def test_finer_cam_equals_pytorch_grad_cams(network: Network, alpha: float) -> None:
    def loss(scores: torch.Tensor) -> torch.Tensor:
        away = (scores - scores[:, [network.target]]).abs().detach()
        nearest = away.argsort(dim=1)[:, 1:4]
        pairs = zip(scores, nearest, strict=True)
        return sum(FinerWeightedTarget(network.target, n.tolist(), alpha)(s) for s, n in pairs)

    a, g = network.gradients(network.images, loss)
    expected = (g.mean(axis=(2, 3), keepdims=True) * a).sum(axis=1)
    close(network.ours(f"finer-cam:alpha={alpha}"), expected)
    differs(network, expected)


@pytest.mark.parametrize("name", ["plain", "residual", "branched"])
def test_full_grad_equals_pytorch_grad_cams(name: str) -> None:
    """Theirs takes batch normalizations and convolutions apart, as a file with both does."""
    network = unfolded(name) if name == "residual" else seeded(name)
    expected = theirs(network, "FullGrad", (SIZE, SIZE))
    ours = network.ours("full-grad")
    close(scaled(ours), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_full_grad_is_complete(name: str) -> None:
    """The image's and all biases' contributions add up to the score (Srinivas 2019, eq. 3)."""
    import onnxcam
    from onnxcam.methods.registry import METHODS

    before = dict(METHODS)

    def total(arrays):
        parts = [v.reshape(*v.shape[:2], -1).sum(axis=-1) for v in arrays.values()]
        return sum(parts)[:, :, None, None, None]

    @onnxcam.register("total", "", space="input", finish=total)
    def write(s):
        found = {str(n): bias.contribution for n, bias in enumerate(s.biases())}
        return {"image": s.gradient(s.input) * s.input, **found}

    try:
        for network in (seeded(name), unfolded(name)):
            last = [p for n, p in network.model.named_parameters() if n.endswith("bias")][-1]
            expected = network.scores(network.images.numpy())
            found = network.ours("total").reshape(-1) + float(last.detach()[network.target])
            np.testing.assert_allclose(found, expected, rtol=1e-4)
    finally:
        METHODS.clear()
        METHODS.update(before)


WRAPPED = {"grad-cam": "GradCAM", "xgrad-cam": "XGradCAM", "hires-cam": "HiResCAM"}


def smoothed(network: Network, method: str, size: tuple[int, int] | None, **how: bool):
    with getattr(cams, WRAPPED[method])(model=network.model, target_layers=[network.module]) as cam:
        if size is None:
            cam.get_target_width_height = lambda _: None
        wanted = [ClassifierOutputTarget(network.target)] * len(network.images)
        return cam(input_tensor=network.images, targets=wanted, **how)


@pytest.mark.parametrize("method", ["grad-cam", "xgrad-cam"])
def test_eigen_smoothing_equals_pytorch_grad_cams_up_to_sign(network: Network, method) -> None:
    ours = network.ours(f"eigen-smoothing@{method}")
    for signed, one in zip(ours, smoothed(network, method, None, eigen_smooth=True), strict=True):
        assert min(np.abs(scaled(s * signed[None])[0] - one).max() for s in (1, -1)) <= 1e-3
    differs(network, ours)
    if method == "grad-cam":
        close(network.ours("eigen-smoothing"), ours)


@pytest.mark.parametrize("method", WRAPPED)
def test_augmentation_smoothing_equals_pytorch_grad_cams(network: Network, method: str) -> None:
    ours = network.ours(f"augmentation-smoothing@{method}")
    close(ours, smoothed(network, method, (SIZE, SIZE), aug_smooth=True))


def test_a_product_of_layers_is_refine_cam(network: Network) -> None:
    [earlier] = [m for m in network.features if isinstance(m, torch.nn.ReLU)][:1]
    name = network.named(network.features[: list(network.features).index(earlier) + 1])
    refine = cams.RefineCAM(network.model, [network.module, earlier], base_method=cams.GradCAM)
    wanted = [ClassifierOutputTarget(network.target)] * len(network.images)
    theirs = refine(network.images, wanted)
    ours = scaled(network.ours("grad-cam", f"product:{network.layer},{name}"))
    close(ours, theirs)
    mean = scaled(network.ours("grad-cam", f"mean:{network.layer},{name}"))
    assert np.abs(ours - mean).max() > 0.05
    usual = cams.RefineCAM(network.model, [network.module, earlier])  # of grad-cam++
    refined = scaled(network.ours("refine-cam", [network.layer, name]))
    close(refined, usual(network.images, wanted))
    assert np.abs(refined - ours).max() > 0.05


def test_kpca_cam_equals_pytorch_grad_cams_up_to_sign(network: Network) -> None:
    ours = network.ours("kpca-cam")
    for signed, one in zip(ours, theirs(network, "KPCA_CAM"), strict=True):
        assert min(np.abs(scaled(s * signed[None])[0] - one).max() for s in (1, -1)) <= 1e-3
    differs(network, ours)
    a = network.features(network.images)
    with cams.KPCA_CAM(network.model, [network.module], gamma=0.03) as cam:
        expected = cam.get_cam_image(None, None, None, a.detach().numpy(), None, False)
    for signed, one in zip(network.ours("kpca-cam:gamma=0.03"), expected, strict=True):
        close(np.abs(signed), np.abs(one))
        assert np.corrcoef(signed.ravel(), one.ravel())[0, 1] ** 2 > 0.999
    assert np.abs(scaled(np.abs(expected)) - scaled(np.abs(ours))).max() > 0.01


def test_fem_weighs_masks_by_means_and_pytorch_grad_cam_activations_by_shares(
    network: Network,
) -> None:
    """Theirs is not what xplique gives as the paper's: sum_k mean_k (A_k > mean_k + 2 std_k)."""
    a, _ = network.gradients(network.images)
    paper, other = np.zeros((2, len(a), *a.shape[2:]))
    for n, maps in enumerate(a):
        for one in maps:
            mask = one > one.mean() + 2 * one.std()
            paper[n] += one.mean() * mask
            other[n] += mask.mean() * one
    ours = network.ours("fem")
    close(ours, paper)
    differs(network, ours)
    found = theirs(network, "FEM")
    close(found, scaled(other))
    assert np.abs(found - scaled(paper)).max() > 0.05
