"""``onnxcam gradient``: what it writes and what it refuses."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from PIL import Image

import onnxcam

from ..conftest import small_cnn
from .test_cli import text_model

ARGUMENTS = ("gradient", "model.onnx", "--of", "logits", "--to", "image", "--to", "r2")


def test_writes_a_model_with_seed_and_gradients(folder, call) -> None:
    code, out, err = call(*ARGUMENTS, "-o", "gradient.onnx")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "wrote     gradient.onnx",
        "input     seed:logits  float [T, N, 5]",
        "output    gradient:image  float [T, N, 3, 16, 16]",
        "output    gradient:r2  float [T, N, 8, 8, 8]",
    ]
    onnx.checker.check_model(str(folder / "gradient.onnx"), full_check=True)


def test_policies_say_what_they_changed(folder, call) -> None:
    code, out, err = call(*ARGUMENTS, "-o", "guided.onnx", "--policy", "guided")
    assert (code, err) == (0, "") and "guided    2 rectifier(s)" in out
    smooth = small_cnn()
    for node in smooth.graph.node:
        if node.op_type == "Relu":
            node.op_type = "Tanh"
    (folder / "model.onnx").write_bytes(smooth.SerializeToString())
    code, out, err = call(*ARGUMENTS, "-o", "guided.onnx", "--policy", "guided")
    assert code == 0 and "'guided' changes nothing" in err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("--of", "logit"), "model.onnx: no tensor 'logit' in the main graph. Nearest: logits"),
        (("--to", "probabilities"), "'logits' does not depend on 'probabilities'"),
        (("-o", "model.onnx"), "model.onnx: is the model's own file. Choose another with -o."),
        (("-o", "."), "is not a file"),
        (("-o", "/dev/null"), "is not a file"),
        (("-o", "n" * 300 + ".onnx"), "cannot be written"),
        (("--engine", "ort"), "onnxcam[ort-training]"),
    ],
)
def test_mistakes_are_one_message(folder, call, changed, message) -> None:
    try:
        from onnxruntime.capi._pybind_state import GradientGraphBuilder  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("this environment has the gradient builder")
    code, out, err = call(*ARGUMENTS, "-o", "gradient.onnx", *changed)
    assert code == 2 and out == "" and message in err
    assert not (folder / "gradient.onnx").exists()


def test_score_and_image_are_the_defaults(folder, call) -> None:
    code, out, err = call("gradient", "model.onnx", "-o", "g.onnx")
    assert (code, err) == (0, "")
    assert out.splitlines()[1:] == [
        "input     seed:logits  float [T, N, 5]",
        "output    gradient:image  float [T, N, 3, 16, 16]",
    ]
    code, out, _ = call("gradient", "model.onnx", "--to", "r2", "-o", "g.onnx")
    assert code == 0 and "seed:logits" in out and "gradient:r2" in out and "image" not in out
    code, out, _ = call("gradient", "model.onnx", "--of", "r2", "-o", "g.onnx")
    assert code == 0 and "seed:r2" in out and "gradient:image" in out
    with (folder / "model.toml").open("a") as card:
        card.write('[model]\nscore = "flat"\n')
    code, out, _ = call("gradient", "model.onnx", "-o", "g.onnx")
    assert code == 0 and "seed:flat" in out


def test_a_model_without_an_image_is_asked_for_a_name(folder, call) -> None:
    (folder / "text.onnx").write_bytes(text_model().SerializeToString())
    code, _, err = call("gradient", "text.onnx", "-o", "g.onnx")
    assert code == 2 and "not found by itself: --to TENSOR;" in err
    code, out, _ = call("inspect", "text.onnx", "--tensors")  # the way out
    assert code == 0 and "scores" in out and "f float32" in out
    code, _, err = call("gradient", "text.onnx", "-o", "g.onnx", "--to", "f")
    assert (code, err) == (0, "")


@pytest.mark.parametrize("form", [(), ("--blocked",), ("--cotangents", "2"), ("--to", "r2")])
def test_a_picture_is_the_gradient_of_the_largest_score(folder, call, form) -> None:
    arguments = ("gradient", "model.onnx", "-o", "g.onnx", "--to", "image", *form)
    code, out, err = call(*arguments, "--picture", "photos/a.png")
    assert (code, err) == (0, "")
    explainer = onnxcam.Explainer("model.onnx", method="saliency")
    best = explainer.explain("photos/a.png")[0].target
    [wanted] = explainer.explain("photos/a.png", f"logits[{best}]")
    [line] = [text for text in out.splitlines() if text.startswith("picture")]
    assert line == (f"picture   g.png  (logits[{best}] = {wanted.score:.4g} on photos/a.png)")
    drawn, right = np.asarray(Image.open("g.png")), np.asarray(wanted.overlay())
    assert drawn.shape == right.shape and np.ptp(right) > 50
    assert np.abs(drawn.astype(int) - right).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "message", "way_out"),
    [
        (("--picture", "random"), "give a photograph, not 'random'", "photos/a.png"),
        (("--to", "r2", "--picture", "photos/a.png"), "add --to 'image'", None),
        (("--picture", "gone.png"), "gone.png: no such file", "photos/a.png"),
    ],
)
def test_no_picture(folder, call, arguments, message, way_out) -> None:
    start = ("gradient", "model.onnx", "-o", "g.onnx", *arguments)
    code, _, err = call(*start)
    assert code == 2 and message in err and not (folder / "g.png").exists()
    after = ("--picture", way_out) if way_out else ("--to", "image")
    assert call(*start, *after)[0] == 0 and (folder / "g.png").exists()


def test_an_image_of_integers_is_taken_behind_its_conversion(folder, call) -> None:
    model = small_cnn()
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    model.graph.node.insert(0, onnx.helper.make_node("Cast", ["image"], ["pixels"], to=1))
    model.graph.node[1].input[0] = "pixels"
    (folder / "bytes.onnx").write_bytes(model.SerializeToString())
    code, out, err = call("gradient", "bytes.onnx", "-o", "g.onnx", "--picture", "photos/a.png")
    assert code == 0 and "gradient:pixels  float [T, N, 3, 16, 16]" in out
    explainer = onnxcam.Explainer("bytes.onnx", method="saliency", preprocess={})
    best = explainer.explain("photos/a.png")[0].target
    [wanted] = explainer.explain("photos/a.png", f"logits[{best}]")
    drawn, right = np.asarray(Image.open("g.png")), np.asarray(wanted.overlay())
    assert np.ptp(right) > 50 and np.abs(drawn.astype(int) - right).max() <= 1
