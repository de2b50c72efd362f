"""A portable model against the Explainer, run from the same tensor."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import onnxcam
from onnxcam.errors import MethodError, OutputError, TargetError


def run(path: Path, **feeds: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


@pytest.fixture(scope="module")
def model() -> Path:
    return onnxcam.default_model()


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)


@pytest.fixture(scope="module")
def exported(model: Path, tmp_path_factory: pytest.TempPathFactory) -> onnxcam.portable.Exported:
    out = tmp_path_factory.mktemp("portable") / "lite.cam.onnx"
    return onnxcam.export(model, out, method=["grad-cam", "layer-cam"])


@pytest.fixture(scope="module")
def explainer(model: Path) -> onnxcam.Explainer:
    return onnxcam.Explainer(model, method=["grad-cam", "layer-cam"], providers="cpu")


def test_predicted_and_given_classes(exported, explainer, images) -> None:
    for target, wanted in ((None, None), ([[281, -1]], [281, "top:1"])):
        fed = {} if target is None else {"target": np.array(target, np.int64)}
        found = run(exported.path, input=images, **fed)
        for n, mine in enumerate(explainer.explain_batch(images, wanted)):
            for i, one in enumerate(mine):
                t = i % found["targets"].shape[1]
                assert one.target == found["targets"][n, t]
                np.testing.assert_allclose(found["scores"][n, t], one.score, rtol=1e-5)
                map_ = found[exported.heatmaps[one.method]]
                assert map_.dtype == np.float32
                np.testing.assert_allclose(map_[n, t], one.heatmap, atol=1e-4)
                assert one.heatmap.max() == 1


def test_the_original_outputs_stay(exported, model, images) -> None:
    before = run(model, input=images)["logits"]
    np.testing.assert_allclose(run(exported.path, input=images)["logits"], before, atol=1e-4)


def test_the_file_is_valid_and_says_what_it_is(exported) -> None:
    made = onnx.load(exported.path)
    onnx.checker.check_model(made, full_check=True)
    said = {e.key: e.value for e in made.metadata_props}
    assert said["onnxcam.version"] == onnxcam.__version__
    assert json.loads(said["onnxcam.heatmaps"]) == {
        "grad-cam": "heatmap",
        "layer-cam": "heatmap:layer-cam",
    }
    assert said["onnxcam.layer"] == exported.plan.layer.name
    domains = {n.domain for n in made.graph.node}
    assert domains == {""}


def test_fixed_targets_have_no_input(model, tmp_path, images) -> None:
    made = onnxcam.export(model, tmp_path / "top.onnx", targets=["top:2", 7], raw=True)
    assert set(made.names) == {"targets", "scores"}
    found = run(made.path, input=images)
    explainer = onnxcam.Explainer(model, providers="cpu")
    for n, mine in enumerate(explainer.explain_batch(images, ["top:2", 7])):
        assert [e.target for e in mine] == found["targets"][n].tolist()
        for t, one in enumerate(mine):
            scale = one.raw.max()
            np.testing.assert_allclose(found["heatmap"][n, t], one.raw, atol=1e-4 * scale)


def test_a_required_target_has_no_default(model, tmp_path, images) -> None:
    made = onnxcam.export(model, tmp_path / "required.onnx", target_required=True)
    assert "target" not in {t.name for t in onnx.load(made.path).graph.initializer}
    found = run(made.path, input=images, target=np.array([[5], [-1]]))
    assert found["targets"][0, 0] == 5
    assert found["targets"][1, 0] == found["logits"][1].argmax()


def test_a_file_is_replaced_on_request_only(model, tmp_path) -> None:
    out = tmp_path / "there.onnx"
    out.write_bytes(b"kept")
    with pytest.raises(OutputError, match="--overwrite"):
        onnxcam.export(model, out)
    assert out.read_bytes() == b"kept"
    onnxcam.export(model, out, overwrite=True)
    assert onnx.load(out).graph.output


def test_what_no_graph_holds_is_refused(model, tmp_path) -> None:
    out = tmp_path / "no.onnx"
    with pytest.raises(MethodError, match=r"'occlusion' drives many runs.*grad-cam, "):
        onnxcam.export(model, out, method="occlusion")
    with pytest.raises(MethodError, match="'eigen-cam' is finished outside the graph"):
        onnxcam.export(model, out, method=["grad-cam", "eigen-cam"])
    with pytest.raises(TargetError, match="fixed or an input"):
        onnxcam.export(model, out, targets=3, target_required=True)
    assert not out.exists()


@pytest.mark.parametrize("required", [False, True])
def test_a_portable_model_is_explained_as_its_original(
    model, explainer, images, tmp_path, required
) -> None:
    first = onnxcam.export(model, tmp_path / "a.onnx", target_required=required).path
    again = onnxcam.Explainer(first, preprocess=explainer.preprocess)
    ours, its = again.explain(images[0])[0], explainer.explain(images[0])[0]
    assert (ours.target, ours.layer) == (its.target, its.layer)
    np.testing.assert_allclose(ours.signed, its.signed, rtol=0, atol=1e-6 * abs(its.signed).max())
    second = onnxcam.export(first, tmp_path / "b.onnx", target_required=required).path
    a, b = (onnx.load(p) for p in (first, second))
    for part in ("input", "output"):
        assert [v.name for v in getattr(a.graph, part)] == [v.name for v in getattr(b.graph, part)]
    assert len(a.graph.node) == len(b.graph.node)
