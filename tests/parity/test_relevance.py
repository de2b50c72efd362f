"""Layer-wise relevance propagation against zennit, and its identities."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from .networks import torchvision_models  # noqa: E402

torchvision_models()  # before others import it
pytest.importorskip("zennit", reason="zennit is not installed")

from torch import nn  # noqa: E402
from zennit.canonizers import SequentialMergeBatchNorm  # noqa: E402
from zennit.composites import (  # noqa: E402
    EpsilonAlpha2Beta1,
    EpsilonPlus,
    EpsilonPlusFlat,
    LayerMapComposite,
    layer_map_base,
)
from zennit.layer import Sum  # noqa: E402
from zennit.rules import Epsilon, Gamma, ZPlus  # noqa: E402
from zennit.types import Convolution  # noqa: E402

from .seeded import NETWORKS, Network, Plus, close, seeded, unfolded  # noqa: E402


class Stacked(nn.Module):
    """A residual sum as zennit takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.sum = Sum()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.sum(torch.stack([x, y], dim=-1))


def mapped(conv, dense):
    def made(canonizers):
        rules = [*layer_map_base(1e-12), (Convolution, conv), (nn.Linear, dense)]
        return LayerMapComposite(rules, canonizers=canonizers)

    return made


COMPOSITES = {
    "lrp": lambda c: EpsilonPlusFlat(canonizers=c),
    "lrp:flat=0": lambda c: EpsilonPlus(canonizers=c),
    "lrp-epsilon": mapped(Epsilon(1e-6), Epsilon(1e-6)),
    "lrp-epsilon:epsilon=0.1": mapped(Epsilon(0.1), Epsilon(0.1)),
    "lrp-gamma": mapped(Gamma(0.25), Epsilon(1e-6)),
    "lrp-z-plus": mapped(ZPlus(), ZPlus()),
    "lrp-alpha-beta": lambda c: EpsilonAlpha2Beta1(canonizers=c),
}


def zennits(network: Network, method: str) -> np.ndarray:
    model = copy.deepcopy(network.model).double()
    for module in list(model.modules()):
        if isinstance(getattr(module, "plus", None), Plus):
            module.plus = Stacked()
    composite = COMPOSITES[method]([SequentialMergeBatchNorm()])
    image = network.images.double().requires_grad_()
    with composite.context(model) as hooked:
        scores = hooked(image)
        seed = torch.zeros_like(scores)
        seed[:, network.target] = scores[:, network.target].detach()
        [found] = torch.autograd.grad(scores, image, seed)
    return found.numpy()


@pytest.mark.parametrize("method", COMPOSITES)
@pytest.mark.parametrize("name", [*NETWORKS, "residual, unfolded"])
def test_relevance_equals_zennits(name: str, method: str) -> None:
    network = unfolded("residual") if "," in name else seeded(name)
    ours, expected = network.ours(method), zennits(network, method)
    # A unit of the second image is 6e-6, of which rounding is the hundredth part: with an epsilon
    # as small its share of the relevance is told no better, in its receptive field.
    near = method == "lrp-epsilon" and "residual" in name
    close(ours, expected, 0.01 if near else 1e-3)
    assert np.quantile(np.abs(ours - expected), 0.99) <= 1e-3 * np.abs(expected).max()
    plain = network.ours("input-x-gradient")
    if method != "lrp-epsilon":  # close to the gradient times the image by itself
        assert np.abs(ours / np.abs(ours).max() - plain / np.abs(plain).max()).max() > 0.05


@pytest.mark.parametrize("name", NETWORKS)
def test_relevance_adds_up_to_the_score_where_there_are_no_biases(name: str) -> None:
    network = Network(name, biases=False)
    scores = network.scores(network.images.numpy())
    methods = ["lrp-epsilon:epsilon=1e-9"]
    if name != "branched":  # whose scores are means of units that nothing may speak for
        methods += ["lrp", "lrp:flat=0", "lrp-gamma", "lrp-alpha-beta"]
    for method in methods:
        total = network.ours(method).sum(axis=(1, 2, 3), dtype=np.float64)
        np.testing.assert_allclose(total, scores, rtol=2e-3)
