"""Both engines give the same maps and the same gradients of whole networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

import onnxcam
from onnxcam.gradient.ort.engine import add_gradients_ort
from onnxcam.gradient.ort.rewrites import rewrite
from onnxcam.model.prepare import Prepared
from onnxcam.surgeon.inspect import inspect
from onnxcam.surgeon.plan import CLASSES

from ..conftest import runtime, wanted
from ..instrumented import ACTIVATIONS, GRADIENTS, instrument
from ..surgeon.light import skip_large
from . import needs_training
from .networks import NETWORKS, write

pytestmark = needs_training
RNG = np.random.default_rng(21)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the light networks are written, once each."""
    return tmp_path_factory.mktemp("networks")


def images(plan, count: int) -> np.ndarray:
    takes = plan.image
    sizes = (takes.height or 224, takes.width or 224)
    space = (takes.channels, *sizes) if takes.layout == "NCHW" else (*sizes, takes.channels)
    return RNG.normal(size=(takes.batch or count, *space)).astype(takes.dtype)


def close(ours: np.ndarray, theirs: np.ndarray, bound: float = 1e-4) -> None:
    assert ours.shape == theirs.shape
    scale = np.abs(ours).max()
    assert scale > 1e-6, "a network whose gradient vanishes proves nothing"
    error = np.abs(ours - theirs).max()
    assert error <= bound * scale, f"{error / scale:.2g} of the largest"


@pytest.mark.parametrize("name", NETWORKS)
def test_maps_of_the_default_layer(name: str, folder: Path) -> None:
    skip_large(name)
    path = write(name, folder)
    card = "cntk-mnist" if name == "mnist-cntk" else "unit"
    ours = onnxcam.Explainer(path, preprocess=card)
    theirs = onnxcam.Explainer(path, preprocess=card, engine="ort")
    assert ours.plan == theirs.plan
    batch = images(ours.plan, 2)
    for targets in (None, "top:3", [5, "top:2", 0]):
        pairs = zip(
            ours.explain_batch(batch, targets), theirs.explain_batch(batch, targets), strict=True
        )
        for one, other in (p for lists in pairs for p in zip(*lists, strict=True)):
            assert (one.target, one.rank) == (other.target, other.rank)
            assert other.score == pytest.approx(one.score, rel=2e-5, abs=2e-5)
            close(one.signed, other.signed)


@pytest.mark.parametrize("name", ["default", "resnet50", "shufflenet", "mnist-cntk"])
def test_gradients_of_the_default_layer(name: str, folder: Path) -> None:
    path = write(name, folder)
    ours, plan = instrument(path, gradients=True)
    theirs, _ = instrument(path, gradients=True, engine="ort")
    feed = {plan.image.name: images(plan, 2)}
    outputs = [ACTIVATIONS, plan.scores, CLASSES, GRADIENTS]
    both, one = runtime(ours), runtime(theirs)
    for row in ([-1], [3]):
        expected, found = (s.run(outputs, {**feed, **wanted([row])}) for s in (both, one))
        np.testing.assert_array_equal(expected[2], found[2])
        for a, b in ((0, 2e-5), (1, 2e-5), (3, 1e-4)):
            close(expected[a], found[a], b)


def plain(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Load a model as it is written: fused, it would be rounded otherwise."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def rewritten(path: Path, of: str, to: str) -> onnx.ModelProto:
    """The model in the operators that the builder gets, which round otherwise."""
    model = Prepared(onnx.load(path), path).model
    rewrite(model, of, [to])
    return ir.serde.serialize_model(model)


@pytest.mark.parametrize("name", [n for n in NETWORKS if n not in ("vgg19", "zfnet512")])
def test_gradients_to_the_input(name: str, folder: Path) -> None:
    """Through the whole network. The forward passes are equal bit by bit: one rectifier decided
    otherwise shows in the third digit.
    """
    skip_large(name)
    path = write(name, folder)
    found = inspect(path)
    assert found.score is not None and found.image is not None
    of, to = found.score.name, found.image.name
    model = rewritten(path, of, to)
    ours = plain(onnxcam.add_gradients(model, of, to))
    theirs = plain(add_gradients_ort(model, of, [to]))
    shape = [d if isinstance(d, int) else 1 for d in found.score.shape or ()]
    feeds = {to: images(found, 1), f"seed:{of}": RNG.normal(size=(1, *shape)).astype("f")}
    [expected], [other] = (s.run([f"gradient:{to}"], feeds) for s in (ours, theirs))
    assert expected.shape == other.shape
    assert np.linalg.norm(expected) > 1e-3
    assert np.linalg.norm(expected - other) <= 1e-4 * np.linalg.norm(expected)
