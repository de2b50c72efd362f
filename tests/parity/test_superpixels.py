"""feature-ablation and shapley against captum, on the same superpixels and the same orders."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from .networks import torchvision_models  # noqa: E402

torchvision_models()  # before others import it
captum = pytest.importorskip("captum.attr", reason="captum is not installed")

from onnxcam.methods.superpixels import drawn_orders, superpixels  # noqa: E402

from .seeded import NETWORKS, close, seeded  # noqa: E402


@pytest.mark.parametrize("name", NETWORKS)
def test_superpixels_get_captums_values(name: str) -> None:
    network, value = seeded(name), 0.2
    ablated = network.ours(f"feature-ablation:segments=9,value={value}")
    shared = network.ours(f"shapley:samples=7,segments=9,value={value},seed=3")
    for n, image in enumerate(network.images):
        labels = superpixels("shapley", image.numpy(), 9, 0.5)
        orders = drawn_orders(7, labels.max() + 1, 3)
        given = {
            "inputs": image[None],
            "baselines": value,
            "target": network.target,
            "feature_mask": torch.from_numpy(labels)[None, None],
        }
        expected = captum.FeatureAblation(network.model).attribute(**given)
        close(ablated[n], expected[0, 0].numpy())
        sampling = captum.ShapleyValueSampling(network.model)
        sampling.permutation_generator = lambda features, samples, found=orders: found.tolist()
        expected = sampling.attribute(**given, n_samples=7)
        close(shared[n], expected[0, 0].numpy())
        assert np.abs(shared[n] - ablated[n]).max() > 0.05 * np.abs(ablated[n]).max()
