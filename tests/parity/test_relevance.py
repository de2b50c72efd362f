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
    ExcitationBackprop,
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


def stacked(network: Network) -> nn.Sequential:
    """Return a copy of the network with sums that zennit knows."""
    model = copy.deepcopy(network.model).double()
    for module in list(model.modules()):
        if isinstance(getattr(module, "plus", None), Plus):
            module.plus = Stacked()
    return model


def zennits(network: Network, method: str) -> np.ndarray:
    model = stacked(network)
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


def dense_head(network: Network, a: torch.Tensor, sign: int) -> torch.Tensor:
    """Return zennit's marginal probabilities, the last layer's weights times a sign."""
    model = stacked(network)
    [*_, last] = [m for m in model.modules() if isinstance(m, nn.Linear)]
    last.weight.data *= sign
    composite = ExcitationBackprop(
        stabilizer=1e-12, zero_params=["bias"], canonizers=[SequentialMergeBatchNorm()]
    )
    with composite.context(model) as hooked:
        scores = hooked[len(network.features) :](a)
        seed = torch.zeros_like(scores)
        seed[:, network.target] = 1
        return torch.autograd.grad(scores, a, seed)[0]


def convolved_head(network: Network, a: torch.Tensor, sign: int) -> torch.Tensor:
    """Return the same of the network whose scores are means of a convolution's maps.

    Where these are negative, zennit has them take a negative share; the paper knows none.
    """

    def pulled(conv: nn.Conv2d, x: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        x = x.detach().requires_grad_()
        z = nn.functional.conv2d(x, conv.weight.clamp(min=0), padding=conv.padding)
        ratio = torch.where(z > 0, p / z, 0 * p).detach()
        return x * torch.autograd.grad(z, x, ratio)[0]

    fire, last = copy.deepcopy(network.head[:2]).double()
    last.weight.data *= sign
    last.bias.data *= sign
    inner = fire(a)
    z = last(inner)[:, [network.target]].clamp(min=0)
    seed = torch.zeros_like(last(inner))
    seed[:, [network.target]] = z / z.sum(dim=(2, 3), keepdim=True)
    p = pulled(last, inner, seed)
    one, three = p.chunk(2, dim=1)
    return pulled(fire.one[0], a, one) + pulled(fire.three[0], a, three)


@pytest.mark.parametrize("name", NETWORKS)
def test_contrastive_excitation_is_that_less_that_of_negated_weights(name: str) -> None:
    network = seeded(name)
    head = convolved_head if name == "branched" else dense_head
    with torch.no_grad():
        a = copy.deepcopy(network.features).double()(network.images.double())
    a.requires_grad_()
    own, dual = (head(network, a, sign).sum(dim=1).detach().numpy() for sign in (1, -1))
    ours = network.ours("c-mwp")
    close(ours, own - dual)
    plain = network.ours("excitation-bp")
    assert np.abs(ours / np.abs(ours).max() - plain / plain.max()).max() > 0.05
