"""Inputs besides the image: they stay inputs of a portable model, or become constants."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from PIL import Image

import onnxcam
from onnxcam.errors import InputArrayError

from ..conftest import DATA, parse
from .test_file import command
from .test_targets import outputs

CASES = DATA.parent / "cases"


@pytest.mark.skipif(not CASES.exists(), reason=f"no cases at {CASES}")
@pytest.mark.parametrize(
    ("case", "name"), [("two-inputs-text", "tokens"), ("two-inputs-vector", "vector")]
)
@pytest.mark.parametrize("batch", [None, 2])
def test_an_input_stays_or_becomes_a_constant(case, name, batch, tmp_path) -> None:
    model = CASES / f"{case}.onnx"
    given = np.load(CASES / f"{case}.npz")
    images, value = given["input.image"][:1], given[f"input.{name}"][:1]
    images = np.concatenate([images, images[:, :, ::-1]])
    options = {"targets": ["top:2"], "batch": batch}
    stays = onnxcam.export(model, tmp_path / "a.onnx", **options)
    fixed = onnxcam.export(model, tmp_path / "b.onnx", inputs={name: value}, **options)
    assert [i.name for i in onnx.load(fixed.path).graph.input] == ["image"]
    onnx.checker.check_model(onnx.load(fixed.path), full_check=True)
    fed = {name: np.repeat(value, 2, 0)}
    found = [outputs(stays.path, image=images, **fed), outputs(fixed.path, image=images)]
    explainer = onnxcam.Explainer(model)
    for n, mine in enumerate(explainer.explain_batch(images, "top:2", inputs={name: value})):
        for t, one in enumerate(mine):
            assert one.heatmap.max() == 1, "a map that says nothing checks nothing"
            for run in found:
                np.testing.assert_allclose(run["heatmap"][n, t], one.heatmap, atol=1e-4)
                np.testing.assert_allclose(run[stays.names["scores"]][n, t], one.score, rtol=1e-4)


def test_texts_of_their_own_number_are_scores_beside_one_image(save) -> None:
    """As CLIP exports are: as many scores as there are texts."""
    model = parse(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,3,16,16] pixels, int64[M,4] ids) => (float[N,M] logits_per_image) {
            c = Conv <pads=[1,1,1,1]> (pixels, w)
            r = Relu (c)
            p = GlobalAveragePool (r)
            image_embeds = Flatten (p)
            e = Gather (table, ids)
            text_embeds = ReduceMean <axes=[1], keepdims=0> (e)
            turned = Transpose <perm=[1,0]> (text_embeds)
            logits_per_image = MatMul (image_embeds, turned)
        }
        """,
        {
            "w": np.random.default_rng(0).normal(size=(6, 3, 3, 3)).astype("f"),
            "table": np.random.default_rng(1).normal(size=(9, 6)).astype("f"),
        },
    )
    path, ids = save(model), np.array([[1, 2, 3, 4], [5, 5, 0, 1], [7, 8, 2, 2]])
    image = np.random.default_rng(2).normal(size=(1, 3, 16, 16)).astype("f")
    out = path.with_name("made.onnx")
    made = onnxcam.export(path, out, inputs={"ids": ids}, targets=["top:1", 2], score="auto")
    found = outputs(made.path, pixels=image)
    explained = onnxcam.Explainer(path).explain(image, ["top:1", 2], inputs={"ids": ids})
    for t, one in enumerate(explained):
        assert found["targets"][0, t] == one.target
        np.testing.assert_allclose(found["scores"][0, t], one.score, rtol=1e-4)
        np.testing.assert_allclose(found["heatmap"][0, t], one.heatmap, atol=1e-4)


@pytest.mark.skipif(not CASES.exists(), reason=f"no cases at {CASES}")
def test_the_command_fixes_inputs_and_compares_with_an_image(tmp_path, monkeypatch, capsys) -> None:
    out = tmp_path / "made.onnx"
    for value, fails in (("zeros", False), ("a text", True)):
        with pytest.raises(SystemExit) as done:
            monkeypatch.chdir(tmp_path)
            command(
                monkeypatch, CASES / "two-inputs-vector.onnx", "-o", out, "--overwrite",
                "--input", f"vector={value}",
            )  # fmt: skip
        assert bool(done.value.code) is fails
    assert "is given a text, 'a text'" in capsys.readouterr().err
    with pytest.raises(InputArrayError, match="none of its inputs. Nearest: vector"):
        onnxcam.export(
            CASES / "two-inputs-vector.onnx", out, inputs={"vektor": 0.0}, overwrite=True
        )
    photo = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(photo)
    with pytest.raises(SystemExit) as done:
        command(
            monkeypatch, CASES / "embedding.onnx", "-o", tmp_path / "e.onnx",
            "--reference", photo, "--preprocess", "unit",
        )  # fmt: skip
    assert not done.value.code
    explainer = onnxcam.Explainer(CASES / "embedding.onnx", preprocess="unit")
    image = np.load(CASES / "embedding.npz")[f"input.{explainer.plan.image.name}"][:1]
    [one] = explainer.explain(image, explainer.similar_to(photo))
    found = outputs(tmp_path / "e.onnx", **{explainer.plan.image.name: image})
    np.testing.assert_allclose(found["heatmap"][0, 0], one.heatmap, atol=1e-4)
