"""DeepLIFT's rescale rule against captum, and its completeness."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from .networks import torchvision_models  # noqa: E402

torchvision_models()  # before others import it
captum = pytest.importorskip("captum.attr", reason="captum is not installed")

import onnxcam  # noqa: E402
from onnxcam.gradient.overrides.deep_lift import DeepLift  # noqa: E402
from onnxcam.methods.registry import METHODS  # noqa: E402
from onnxcam.surgeon.reference import beside  # noqa: E402

from .seeded import CLASSES, NETWORKS, SIZE, Fire, Network, Residual, close, seeded  # noqa: E402
from .vits import transformer  # noqa: E402


@pytest.fixture(params=NETWORKS)
def network(request) -> Network:
    return seeded(request.param)


REFERENCE = np.random.default_rng(9).normal(size=(1, 3, SIZE, SIZE)).astype("f")


@pytest.fixture
def random_reference() -> Iterator[str]:
    """The method with an image as reference.

    One grey gives equal maxima in every pool, of which rounding then picks one.
    """

    @onnxcam.register("deep-lift-from-image", "", space="input")
    def method(s):
        everything = {o for n in s.b.graph for o in n.outputs}
        found = beside(s.b, s.input.value, everything, REFERENCE)
        multipliers = s.gradient(s.input, DeepLift(found.__getitem__))
        return multipliers * (s.input - s.term(s.b.constant(REFERENCE)))

    yield "deep-lift-from-image"
    METHODS.pop("deep-lift-from-image")


def slow(module, x: torch.Tensor, x0: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """Return the multipliers of what a module reads, given those of what it gives."""
    if isinstance(module, torch.nn.Sequential):
        reads = [(x, x0)]
        for one in module:
            reads.append((one(reads[-1][0]), one(reads[-1][1])))
        for one, (before, reference) in zip(reversed(module), reversed(reads[:-1]), strict=True):
            m = slow(one, before, reference, m)
        return m
    if isinstance(module, Fire):
        one, three = m.chunk(2, dim=1)
        return slow(module.one, x, x0, one) + slow(module.three, x, x0, three)
    if isinstance(module, Residual):
        summed, other = x + module.body(x), x0 + module.body(x0)
        m = slow(module.relu, summed, other, m)
        return m + slow(module.body, x, x0, m)
    y, y0, away = module(x), module(x0), x - x0
    same = away.abs() < 1e-9
    if isinstance(module, torch.nn.ReLU):
        return torch.where(same, m * (x > 0), m * (y - y0) / torch.where(same, 1, away))
    if isinstance(module, torch.nn.MaxPool2d):
        larger = torch.maximum(y, y0)
        shares = torch.zeros_like(x).flatten(2)
        for given, part in ((x, larger - y0), (x0, y - larger)):
            options = (module.kernel_size, module.stride, module.padding)
            _, at = torch.nn.functional.max_pool2d(given, *options, return_indices=True)
            shares.scatter_add_(2, at.flatten(2), (m * part).flatten(2))
        return torch.where(same, 0, shares.reshape(x.shape) / torch.where(same, 1, away))
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(module(leaf), leaf, m)[0]


def captums(network: Network, reference: np.ndarray) -> np.ndarray:
    model = copy.deepcopy(network.model).double()
    given = torch.from_numpy(reference).double().expand(len(network.images), 3, SIZE, SIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lift = captum.DeepLift(model)
        found = lift.attribute(network.images.double(), given.contiguous(), network.target)
    return found.detach().numpy()


def test_deep_lift_is_the_rescale_rule(network: Network, random_reference: str) -> None:
    """captum's multipliers add up to the difference from the reference but behind max-pools."""
    model, images = copy.deepcopy(network.model).double(), network.images.double()
    given = torch.from_numpy(REFERENCE).double().expand(images.shape)
    with torch.no_grad():
        scores, others = (model(v)[:, network.target] for v in (images, given))
    seed = torch.zeros(len(images), CLASSES, dtype=torch.float64)
    seed[:, network.target] = 1
    expected = slow(model, images, given, seed) * (images - given)
    ours = network.ours(random_reference)
    close(ours, expected.detach().numpy())
    np.testing.assert_allclose(ours.sum(axis=(1, 2, 3)), scores - others, rtol=1e-3)
    plain = network.ours("input-x-gradient")
    assert np.abs(ours / np.abs(ours).max() - plain / np.abs(plain).max()).max() > 0.05
    theirs = captums(network, REFERENCE)
    if network.name == "residual":
        close(ours, theirs)
    else:
        assert np.abs(theirs.sum(axis=(1, 2, 3)) - (scores - others).numpy()).max() > 0.1


@pytest.mark.parametrize("baseline", [0.0, 0.4])
def test_a_grey_reference_equals_captums_where_nothing_is_pooled(baseline: float) -> None:
    network = seeded("residual")
    grey = np.full_like(REFERENCE, baseline)
    close(network.ours(f"deep-lift:baseline={baseline}"), captums(network, grey))


def test_contributions_add_up_to_the_difference_from_the_reference(network: Network) -> None:
    images = network.images.numpy()
    change = network.scores(images) - network.scores(np.full_like(images, 0.4))
    total = network.ours("deep-lift:baseline=0.4").sum(axis=(1, 2, 3), dtype=np.float64)
    np.testing.assert_allclose(total, change, rtol=1e-3)


def test_products_of_two_computed_tensors_are_refused() -> None:
    from onnxcam.errors import NoGradientError

    with pytest.raises(NoGradientError, match="product of two computed tensors"):
        transformer("gated").ours("deep-lift")
