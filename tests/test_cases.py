"""Small models made after public reports, each with the value that is right."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import onnxcam
from onnxcam import cli
from onnxcam.errors import ScoreError

from .conftest import DATA, parse, runtime, shared

CASES = DATA.parent / "cases"
pytestmark = pytest.mark.skipif(
    not (CASES / "cases.json").exists(), reason=f"no cases at {CASES} (set ONNXCAM_TEST_DATA)"
)
PHOTO = CASES / "photo.png"

# Where the target is a class: explained as they are.
CLASSES = [
    "sigmoid-1",
    "sigmoid-1-squeezed",
    "regression-1",
    "boxes-first",
    "features-first",
    "two-heads",
    "ending-transposed",
    "ending-handwritten",
    "ending-stable",
    "ending-percent",
    "ending-log-softmax",
    "ending-tanh",
    "ending-hardsigmoid",
    "ending-scaled-clipped",
    "channels-last-convnext-dynamo",
    "channels-last-convnext-script",
    "channels-last-swin-script",
    "tokens-vit",
    "tokens-mean",
    "tokens-swin",
    "two-inputs-vector",
    "two-inputs-text",
    "channels-13",
    "zipmap",
    "zipmap-only",
    "all-negative",
    "grey",
]
# Where it is an element of a tensor: the case, its wants, and how they are asked for.
ELEMENTS = [
    ("detector-ssd", ("fine", "coarse"), "scores[29,2]"),
    ("detector-ssd", ("fine", "coarse"), "/Transpose_1_output_0[29,2]"),
    ("detector-yolo5", ("fine", "coarse"), "output[29,6]"),
    ("detector-yolo8", ("fine", "coarse"), "output0[6,29]"),
    ("nms", ("logit",), "scores[0]"),
    ("nms", ("score",), "scores[0]:sum"),
    ("nms-one", ("logit",), "scores[0]"),
    ("nms-one", ("score",), "scores[0]:sum"),
    ("crnn", ("step-6",), "logits[6,0,3]"),
    ("crnn", ("step-6",), "step:6=3"),
]
REFUSED = ("embedding", "crnn", "segmentation")


def case(name: str) -> dict[str, Any]:
    entries = json.loads((CASES / "cases.json").read_text("utf-8"))
    found: dict[str, Any] = next(e for e in entries if e["name"] == name)
    return found


def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(CASES / case(name)["arrays"]) as stored:
        return dict(stored)


def rewritten(
    name: str, folder: Path, *, neutral: bool, turned: bool
) -> tuple[Path, dict[str, str]]:
    """A case's model with other names, or its outputs in reverse order; and the names."""
    model = onnx.load(CASES / case(name)["model"])
    graph, names = model.graph, dict[str, str]()
    if turned:
        outputs = list(graph.output)[::-1]
        del graph.output[:]
        graph.output.extend(outputs)

    def other(name: str) -> str:
        return names.setdefault(name, f"t{len(names)}") if name and neutral else name

    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        value.name = other(value.name)
    for node in graph.node:
        node.input[:] = [other(n) for n in node.input]
        node.output[:] = [other(n) for n in node.output]
    path = folder / case(name)["model"]
    onnx.save(model, path)
    return path, names


@pytest.mark.parametrize("variant", ["as it is", "neutral names", "outputs in reverse"])
@pytest.mark.parametrize("name", CLASSES)
def test_the_map_of_a_class(name: str, variant: str, tmp_path: Path) -> None:
    path, names = rewritten(
        name, tmp_path, neutral=variant == "neutral names", turned=variant == "outputs in reverse"
    )
    stored = arrays(name)
    image, *others = case(name)["inputs"]
    for want in case(name)["wants"]:
        target = want["target"]
        score, layer = target.get("score", "auto"), want["layer"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            explainer = onnxcam.Explainer(
                path, layer=names.get(layer, layer), score=names.get(score, score)
            )
        right = stored[f"{want['name']}.signed"]
        batch = stored[f"input.{image}"]
        for n in range(len(batch)):
            fed = {names.get(o, o): stored[f"input.{o}"][n : n + 1] for o in others}
            found = explainer.explain(batch[n : n + 1], target["index"], inputs=fed)[0]
            np.testing.assert_allclose(
                found.signed, right[n], atol=1e-4 * np.abs(right).max(), rtol=0
            )
            assert found.score == pytest.approx(stored[f"{want['name']}.number"][n], rel=1e-4)


@pytest.mark.parametrize(("name", "wants", "target"), ELEMENTS)
def test_the_map_of_an_element(name: str, wants: tuple[str, ...], target: str) -> None:
    stored = arrays(name)
    for want in case(name)["wants"]:
        if want["name"] not in wants:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            explainer = onnxcam.Explainer(CASES / case(name)["model"], layer=want["layer"])
        [image] = case(name)["inputs"]
        found = explainer.explain(stored[f"input.{image}"][:1], target)[0]
        right = stored[f"{want['name']}.signed"][0]
        np.testing.assert_allclose(found.signed, right, atol=1e-4 * np.abs(right).max(), rtol=0)
        assert found.score == pytest.approx(stored[f"{want['name']}.number"][0], rel=1e-4)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("name", REFUSED)
def test_what_holds_no_classes_is_refused_with_a_way_out(
    name: str, turned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """The option that the message names is tried on that very file."""
    path, _ = rewritten(name, tmp_path, neutral=False, turned=turned)
    call = ["onnxcam", "explain", str(PHOTO), "-m", str(path), "-o", str(tmp_path / "out")]
    message = refused(call, monkeypatch, capsys)
    assert "looks like class scores" in message and not (tmp_path / "out").exists()
    option = re.search(r"-t '[^']+'", message)
    assert option is not None, message
    monkeypatch.setattr(sys, "argv", [*call, *shlex.split(option[0])])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(SystemExit) as left:
            cli.main()
    assert left.value.code in (0, None), capsys.readouterr().err
    assert len(list((tmp_path / "out").iterdir())) == 2  # the overlay and the records


def refused(call: list[str], monkeypatch: pytest.MonkeyPatch, capsys) -> str:
    monkeypatch.setattr(sys, "argv", call)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(SystemExit) as left:
            cli.main()
    assert left.value.code == 2
    message: str = capsys.readouterr().err
    return message


def test_of_two_plausible_outputs_neither_is_taken(tmp_path: Path) -> None:
    """Two linear heads without names that tell: refused, and both options explain."""
    path, names = rewritten("boxes-first", tmp_path, neutral=True, turned=False)
    model = onnx.load(path)
    softmax = next(n for n in model.graph.node if n.op_type == "Softmax")
    softmax.op_type = "Identity"
    del softmax.attribute[:]
    onnx.save(model, path)
    with pytest.raises(ScoreError, match="outputs may be the class scores") as refusal:
        onnxcam.Explainer(path).explain(arrays("boxes-first")["input.image"][:1])
    options = re.findall(r"--score '([^']+)'", str(refusal.value))
    assert set(options) == {names["boxes"], names["scores"]}
    for name in options:
        explainer = onnxcam.Explainer(path, score=name)
        assert (
            np.abs(explainer.explain(arrays("boxes-first")["input.image"][:1])[0].signed).max() > 0
        )


def test_other_heads_are_named() -> None:
    with pytest.warns(UserWarning, match="'gender' is explained. For the others: --score 'age'"):
        onnxcam.Explainer(CASES / "two-heads.onnx")


@pytest.mark.parametrize("name", ["ending-tanh", "ending-handwritten", "ending-percent"])
def test_a_saturated_score_is_not_painted(name: str) -> None:
    """The output itself, whose gradient is nothing or noise."""
    methods = ["grad-cam", "saliency", "guided-backprop"]
    explainer = onnxcam.Explainer(CASES / f"{name}.onnx", preprocess="unit", method=methods)
    for found in explainer.explain(PHOTO, "scores[1]:sum"):
        assert found.note in ("zero", "noise") and found.peak is None
        assert found.heatmap.max() == 0
        record = found.to_dict()
        assert record["peak"] is None and record["note"]
        np.testing.assert_array_equal(np.asarray(found.overlay()), found.photo)
    for found in explainer.explain(PHOTO, 1):
        assert found.note == ""


def test_the_picture_carries_the_note() -> None:
    explainer = onnxcam.Explainer(CASES / "all-negative.onnx", preprocess="unit")
    found = explainer.explain(onnxcam.default_photograph())[0]
    picture = np.asarray(found.overlay().convert("L"), np.int64)
    below, above = picture[-6:], picture[-60:-30]
    assert np.median(below) == 0 and np.median(above) > 30
    assert (picture[-20:] > 200).any()


def test_evidence_against_alone_is_said_and_shown_in_blue() -> None:
    found = onnxcam.Explainer(CASES / "all-negative.onnx", preprocess="unit").explain(PHOTO)[0]
    assert found.note == "negative" and found.peak is None and found.heatmap.max() == 0
    picture = np.asarray(found.overlay(), np.int64)
    assert (picture[..., 2] > picture[..., 0]).mean() > 0.9


@pytest.mark.parametrize("name", ["labels-bom.txt", "labels-keras.json"])
def test_labels_of_other_tools(name: str) -> None:
    explainer = onnxcam.Explainer(CASES / "grey.onnx", labels=CASES / name)
    assert explainer.labels == ("cat", "dog")
    found = explainer.explain(arrays("grey")["input.image"], "cat")[0]
    assert (found.target, found.label) == (0, "cat")


def test_the_labels_of_a_zipmap() -> None:
    assert onnxcam.Explainer(CASES / "zipmap-only.onnx", preprocess="unit").labels == (
        "cat",
        "dog",
        "crab",
    )


def test_a_name_that_is_no_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    named = os.fsencode(folder) + b"/caf\xe9.png"
    try:
        shutil.copyfile(PHOTO, named)
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    call = ["onnxcam", "explain", str(folder), "-m", str(CASES / "boxes-first.onnx")]
    monkeypatch.setattr(sys, "argv", [*call, "--preprocess", "unit", "-o", str(out)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code in (0, None)
    records = json.loads((out / "explanations.json").read_text("utf-8"))
    assert [e["image"].rpartition("/")[2] for e in records["images"]] == ["caf?.png"]
    assert len(list(out.glob("*.jpg"))) == 1


def test_a_recurrent_state_begins_with_zeros() -> None:
    path = shared("models", "pong-policy-a3c.onnx")
    explainer = onnxcam.Explainer(path, preprocess={"color": "grey", "divide": 255})
    frame = np.random.default_rng(2).random((1, 1, 80, 80), np.float32)
    with pytest.warns(UserWarning, match="state h_in is not given; zeros are taken"):
        [begun] = explainer.explain(frame)
    [given] = explainer.explain(frame, inputs={"h_in": np.zeros((1, 256), np.float32)})
    np.testing.assert_array_equal(begun.signed, given.signed)
    [other] = explainer.explain(frame, inputs={"h_in": np.float32(0.5)})
    assert np.abs(other.signed - given.signed).max() > 1e-4


def test_the_region_of_a_real_saliency_model() -> None:
    """A transformer without classes: what it takes for salient of a dog and a cat is explained."""
    path = shared("models", "vit-s-saliency-w8.onnx")
    preprocess = {"divide": 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    explainer = onnxcam.Explainer(path, preprocess=preprocess)
    [found] = explainer.explain(shared("images", "two_objects", "both.png"), "region:0")
    assert found.note == "" and found.peak is not None
    x, y = found.peak[0] / found.view.size[1], found.peak[1] / found.view.size[0]
    assert 0.35 < x < 0.6 and 0.05 < y < 0.45  # the dog's head


PICTURES = {
    "bits-12.png": (0, 4095),
    "bits-12-said.png": None,
    "float-4095.tif": (0, 4095),
    "float-hounsfield.tif": (-1000, 3095),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_of_more_than_8_bits(name: str) -> None:
    """With their range said the map is right to what 8 bits leave of it; a guess is said."""
    right = arrays("grey")["class-0.signed"][0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explainer = onnxcam.Explainer(CASES / "grey.onnx", pixel_range=PICTURES[name])
        found = explainer.explain(CASES / name, 0)[0]
    np.testing.assert_allclose(found.signed, right, rtol=0, atol=2.5e-2 * np.abs(right).max())
    if PICTURES[name] is not None:
        with pytest.warns(UserWarning, match=r"guessed that 0 is black .* --range LOW:HIGH"):
            onnxcam.Explainer(CASES / "grey.onnx").explain(CASES / name, 0)


def test_models_and_images_in_memory() -> None:
    file = CASES / "boxes-first.onnx"
    expected = onnxcam.Explainer(file, preprocess="unit").explain(PHOTO, 3)[0].signed
    for model in (file.read_bytes(), onnx.load(file)):
        explainer = onnxcam.Explainer(model, preprocess="unit")
        with PHOTO.open("rb") as opened:
            for image in (PHOTO.read_bytes(), opened):
                np.testing.assert_array_equal(explainer.explain(image, 3)[0].signed, expected)
    with pytest.raises(onnxcam.OnnxcamError, match="int is no model"):
        onnxcam.Explainer(3)  # type: ignore[arg-type]


def test_a_file_in_the_runtimes_own_format(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(CASES / "boxes-first.onnx", options)
    with pytest.raises(onnxcam.OnnxcamError, match=r"own format \(.ort\)"):
        onnxcam.Explainer(tmp_path / "model.ort")


@pytest.mark.parametrize("batch", [-1, 0])
def test_batches_declared_oddly(batch: int, tmp_path: Path) -> None:
    model = onnx.load(CASES / "boxes-first.onnx")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    onnx.save(model, tmp_path / "odd.onnx")
    expected = onnxcam.Explainer(CASES / "boxes-first.onnx", preprocess="unit").explain(PHOTO)
    found = onnxcam.Explainer(tmp_path / "odd.onnx", preprocess="unit").explain(PHOTO)
    np.testing.assert_allclose(found[0].signed, expected[0].signed, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", ["stft-script", "stft-dynamo", "stft-fixed"])
def test_the_gradient_to_a_waveform(name: str) -> None:
    """Through STFT, of a signal of any length and without its last axis, as PyTorch exports it."""
    stored, want = arrays(name), case(name)["wants"][0]
    assert want["expects"] == "gradient"
    model = onnxcam.add_gradients(onnx.load(CASES / f"{name}.onnx"), "logits", "wave")
    session = runtime(model)
    seed = stored[f"{want['name']}.seed"].astype(np.float32)
    feeds = {"wave": stored["input.wave"], "seed:logits": seed[None]}
    [found] = session.run(["gradient:wave"], feeds)
    right = stored[f"{want['name']}.gradient"]
    np.testing.assert_allclose(found[0], right, rtol=0, atol=1e-4 * np.abs(right).max())


def test_a_square_root_at_zero_gives_no_nan() -> None:
    """The slope is infinite there; 0 is taken, so that a 0 after it stays 0."""
    model = parse(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        roots (float[1,4] x) => (float[1,4] y) {
            root = Sqrt (x)
            power = Pow (x, half)
            mask = Sign (x)
            sum = Add (root, power)
            y = Mul (sum, mask)
        }
        """,
        {"half": np.float32(0.5)},
    )
    session = runtime(onnxcam.add_gradients(model, "y", "x"))
    x = np.array([[0, 0, 4, 1]], np.float32)
    feeds = {"x": x, "seed:y": np.ones((1, 1, 4), np.float32)}
    [found] = session.run(["gradient:x"], feeds)
    np.testing.assert_allclose(found[0], [[0, 0, 0.5, 1]], rtol=1e-6)
