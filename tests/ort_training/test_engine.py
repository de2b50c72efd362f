"""The second engine as its users meet it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxcam
from onnxcam import cache, cli
from onnxcam.errors import EngineError, NoGradientError, TensorError
from onnxcam.gradient.ort.engine import add_gradients_ort
from onnxcam.methods.registry import find_method
from onnxcam.surgeon.request import Request

from ..conftest import parse, runtime, small_cnn
from . import PRESENT, needs_training

RNG = np.random.default_rng(23)
absent = pytest.mark.skipif(PRESENT, reason="the training build is installed")


def small(between: str, opset: int = 13) -> onnx.ModelProto:
    """A network with something between its convolution ``maps`` and its score.

    Heights are known to the run alone.
    """
    return parse(
        f"""
        <ir_version: 8, opset_import: ["" : {opset}]>
        net (float[N,3,H,8] image) => (float[N,4] logits) {{
            maps = Conv <pads=[1,1,1,1]> (image, w)
            {between}
            pooled = GlobalAveragePool (last)
            logits = Flatten (pooled)
        }}
        """,
        {
            "w": RNG.normal(size=(4, 3, 3, 3)).astype("f"),
            "v": RNG.normal(size=(4, 4, 3, 3)).astype("f"),
        },
    )


@pytest.mark.parametrize("name", ["", "ORT"])
def test_engines_are_two(cnn: Path, name: str) -> None:
    with pytest.raises(EngineError, match="choose one of rules, ort"):
        onnxcam.Explainer(cnn, engine=name)


@absent
def test_without_the_training_build(cnn: Path, monkeypatch, capsys) -> None:
    way_out = r"not installed.*pip install 'onnxcam\[ort-training\]'.*engine 'rules'"
    with pytest.raises(EngineError, match=way_out):
        onnxcam.Explainer(cnn, engine="ort")
    with pytest.raises(EngineError, match=way_out):
        add_gradients_ort(onnx.load(cnn), "logits", ["image"])
    photo = str(onnxcam.default_photograph())
    arguments = ["onnxcam", "explain", photo, "-m", str(cnn), "--engine", "ort"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    assert "onnxcam[ort-training]" in capsys.readouterr().err


@needs_training
def test_the_command_line_gives_the_same_pictures(
    cnn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = {}
    for engine in ("rules", "ort", "ort"):  # the third run reads the cache
        out = tmp_path / engine
        photo = str(onnxcam.default_photograph())
        arguments = ["explain", photo, "-m", str(cnn), "-t", "top:2", "-o", str(out), "--arrays"]
        monkeypatch.setattr(sys, "argv", ["onnxcam", *arguments, "--engine", engine])
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert left.value.code in (0, None)
        maps[engine] = [np.load(f)["signed"] for f in sorted(out.glob("*.npz"))]
        assert json.loads((out / "explanations.json").read_text())["failed"] == []
    assert len(maps["rules"]) == 2
    for ours, theirs in zip(maps["rules"], maps["ort"], strict=True):
        assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(ours).max()


@needs_training
def test_the_cache_keeps_engines_apart(cnn: Path) -> None:
    method = find_method("grad-cam")
    for engine in ("rules", "ort"):
        request = Request({"grad-cam": method}, engine=engine)
        for _ in range(2):
            data, _ = cache.instrumented(cnn, request, [method.key()], cached=True)
        assert isinstance(data, Path)
        domains = {n.domain for n in onnx.load(data).graph.node}
        assert ("com.microsoft" in domains) == (engine == "ort")
    assert len(list(cache.cache_folder().iterdir())) == 2


@needs_training
def test_targets_of_each_image(cnn: Path) -> None:
    images = RNG.normal(size=(3, 3, 16, 16)).astype("f")
    wanted = [["top:2"], [4, 0, 1], "dog"]
    ours, theirs = (
        onnxcam.Explainer(cnn, engine=engine).explain_batch(images, per_image=wanted)
        for engine in ("rules", "ort")
    )
    for one, other in zip(ours, theirs, strict=True):
        assert [e.target for e in one] == [e.target for e in other]
        for a, b in zip(one, other, strict=True):
            assert np.abs(a.signed - b.signed).max() <= 1e-5 * np.abs(a.signed).max()


@needs_training
def test_external_weights(tmp_path: Path) -> None:
    model = small("last = Relu (maps)")
    path = tmp_path / "net.onnx"
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    image = RNG.normal(size=(3, 8, 8)).astype("f")
    for cached in (False, True, True):
        [ours], [theirs] = (
            onnxcam.Explainer(
                path, preprocess="unit", layer="maps", engine=engine, cache=cached
            ).explain(image)
            for engine in ("rules", "ort")
        )
        np.testing.assert_allclose(ours.signed, theirs.signed, rtol=1e-4, atol=1e-6)


@needs_training
@pytest.mark.parametrize(
    ("between", "message"),
    [
        ("axis = Constant <value = int64 {1}> () last = CumSum (maps, axis)", "CumSum .*opset 13"),
        ('last = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (maps, v)', "auto_pad depends"),
        (
            "one = Constant <value = int64[1] {-1}> () end = Constant <value = int64[1] {-9}> () "
            "last = Slice (maps, one, end, one, one)",
            "step backwards",
        ),
    ],
)
def test_what_the_builder_cannot_be_given(
    save: Callable[..., Path], between: str, message: str
) -> None:
    """Each refusal names the node and the other engine."""
    path = save(small(between))
    with pytest.raises(EngineError, match=f"model.onnx: .*{message}.*engine 'rules'"):
        onnxcam.Explainer(path, preprocess="unit", layer="maps", engine="ort")


@needs_training
def test_an_opset_that_the_training_build_does_not_know(save: Callable[..., Path]) -> None:
    model = small("last = Relu (maps)", opset=21)
    model.opset_import[0].version = 22
    with pytest.raises(EngineError, match=r"opset 22, .* knows 21 at most.*engine 'rules'"):
        onnxcam.Explainer(save(model), preprocess="unit", layer="maps", engine="ort")


@needs_training
def test_other_floats(save: Callable[..., Path]) -> None:
    model = parse(
        """
        <ir_version: 8, opset_import: ["" : 13]>
        net (double[1,4] x) => (double[1,4] y) { y = Mul (x, x) }
        """
    )
    with pytest.raises(EngineError, match=r"'y' is of type double.*float32.*engine 'rules'"):
        add_gradients_ort(model, "y", ["x"])


@needs_training
def test_gradients_as_a_model() -> None:
    model = small_cnn()
    image = RNG.normal(size=(2, 3, 16, 16)).astype("f")
    made = add_gradients_ort(model, "logits", ["image", "r1", "w3"])
    assert [o.name for o in made.graph.output] == [
        "probabilities", "gradient:image", "gradient:r1", "gradient:w3",
    ]  # fmt: skip
    assert [i.name for i in made.graph.input] == ["image", "seed:logits"]
    seed = RNG.normal(size=(1, 2, 5)).astype("f")
    feeds = {"image": image, "seed:logits": seed}
    expected = runtime(onnxcam.add_gradients(model, "logits", ["image", "r1", "w3"])).run(
        None, feeds
    )
    for ours, theirs in zip(expected, runtime(made).run(None, feeds), strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(ours).max()
    with pytest.raises(TensorError, match="no tensor 'logit' in the main graph. Nearest: logits"):
        add_gradients_ort(model, "logit", ["image"])
    with pytest.raises(NoGradientError, match="does not depend on 'probabilities'"):
        add_gradients_ort(model, "logits", ["probabilities"])


@needs_training
def test_doctor_names_the_engine() -> None:
    from onnxcam.cli.doctor import examine

    found = examine()
    assert found["engines"] == ["rules", "ort"]
    assert found["packages"]["onnxruntime-training-cpu"] and found["advice"] == []


@needs_training
def test_it_has_no_second_derivatives(cnn: Path) -> None:
    with pytest.raises(EngineError, match="engine 'rules' has"):
        onnxcam.Explainer(cnn, engine="ort", method="shapley-cam")
