"""The Python API."""

from __future__ import annotations

import dataclasses
import json
import threading

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

import onnxcam
from onnxcam.errors import (
    ImageError,
    InputArrayError,
    LabelsError,
    NotFiniteError,
    OutputError,
    PreprocessError,
    RuntimeMissingError,
    TargetError,
    WeightsError,
)
from onnxcam.imaging.colour import colour_table
from onnxcam.imaging.drawn import grey
from onnxcam.kernels import kernels

from .conftest import runtime, shared, small_cnn

RNG = np.random.default_rng(9)


def images(count: int) -> np.ndarray:
    return RNG.normal(size=(count, 3, 16, 16)).astype("f")


def by_hand(path, image: np.ndarray, target: int) -> np.ndarray:
    """Grad-CAM of the small network, where gradients are rows of its last weights."""
    model = onnx.load(path)
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info("r2"))
    activations = runtime(model).run(["r2"], {"image": image[None]})[0][0].astype(float)
    places = activations.shape[1] * activations.shape[2]
    return np.tensordot(weights["w3"][target] / places, activations, 1)


def test_the_map_is_the_paper_s(cnn) -> None:
    explainer = onnxcam.Explainer(cnn)
    image = images(1)[0]
    for explanation in explainer.explain(image, [0, 1, 4]):
        expected = by_hand(cnn, image, explanation.target)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(explanation.signed, expected, atol=1e-5 * scale)
        np.testing.assert_allclose(explanation.raw, np.maximum(expected, 0), atol=1e-5 * scale)


def test_targets(cnn) -> None:
    explainer = onnxcam.Explainer(cnn)
    image = images(1)[0]
    order = [e.target for e in explainer.explain(image, "top:5")]
    scores = [e.score for e in explainer.explain(image, "top:5")]
    assert sorted(order) == [0, 1, 2, 3, 4] and scores == sorted(scores, reverse=True)
    [best] = explainer.explain(image)
    assert (best.target, best.rank, best.score) == (order[0], 1, scores[0])
    found = explainer.explain(image, ["DOG", 1, "top:2", "0", np.int64(2)])
    assert [e.target for e in found] == [3, 1, *order[:2], 0, 2]
    assert found[0].label == "dog" and found[0].rank == order.index(3) + 1


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (5, "target 5 is out of range: classes count from 0 to 4"),
        (-1, "target -1 is out of range"),
        ("17", "target 17 is out of range"),
        ("bees", r"no such label. Nearest: bee"),
        ("cat", r"ambiguous: 2 \(cat\), 4 \(cat\)"),
        ("top:0", "write top:5"),
        ("top:x", "write top:5"),
        ("top:6", "only 5 classes"),
        ([], "the list is empty"),
        (1.5, "neither an index nor a label"),
        ([None], "neither an index nor a label"),
    ],
)
def test_wrong_targets(cnn, target, message) -> None:
    explainer = onnxcam.Explainer(cnn)
    with pytest.raises(TargetError, match=message):
        explainer.explain(images(1)[0], target)


def test_batch_equals_singles(cnn) -> None:
    explainer = onnxcam.Explainer(cnn)
    batch = images(11)
    together = explainer.explain_batch(batch, ["top:2", 3])
    for image, found in zip(batch, together, strict=True):
        for one, other in zip(explainer.explain(image, ["top:2", 3]), found, strict=True):
            assert one.target == other.target
            np.testing.assert_allclose(
                one.signed, other.signed, atol=1e-6 * np.abs(one.signed).max()
            )


@pytest.mark.parametrize("batch", [1, 3])
def test_fixed_batch(save, batch: int) -> None:
    model = small_cnn()
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    fixed = onnxcam.Explainer(save(model, "fixed.onnx"), preprocess="unit")
    free = onnxcam.Explainer(save(small_cnn()), preprocess="unit")
    array = images(5)
    for one, other in zip(fixed.explain_batch(array), free.explain_batch(array), strict=True):
        assert one[0].target == other[0].target
        np.testing.assert_allclose(one[0].signed, other[0].signed, atol=1e-6)


def test_targets_per_image(cnn) -> None:
    explainer = onnxcam.Explainer(cnn)
    batch = images(3)
    found = explainer.explain_batch(list(batch), per_image=[0, "top:2", [1, "dog", 2]])
    assert [len(f) for f in found] == [1, 2, 3]
    assert [e.target for e in found[2]] == [1, 3, 2]
    np.testing.assert_allclose(
        found[2][1].signed, explainer.explain(batch[2], 3)[0].signed, atol=1e-6
    )
    with pytest.raises(TargetError, match="2 entries for 3 images"):
        explainer.explain_batch(batch, per_image=[0, 1])
    with pytest.raises(TargetError, match="not both"):
        explainer.explain_batch(batch, 1, per_image=[0, 1, 2])
    assert explainer.explain_batch([]) == []


def test_threads_share_an_explainer(cnn) -> None:
    explainer = onnxcam.Explainer(cnn)
    batch = images(8)
    expected = [explainer.explain(image, "top:3") for image in batch]
    found: dict[int, list[onnxcam.Explanation]] = {}

    def work(index: int) -> None:
        for _ in range(5):
            found[index] = explainer.explain(batch[index], "top:3")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, one in enumerate(expected):
        for a, b in zip(one, found[index], strict=True):
            np.testing.assert_array_equal(a.signed, b.signed)


def test_photographs(cnn, tmp_path) -> None:
    pixels = RNG.integers(0, 256, (30, 50, 3)).astype(np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    explainer = onnxcam.Explainer(cnn)
    [explanation] = explainer.explain(path)
    assert explanation.heatmap.shape == (30, 50) and explanation.heatmap.dtype == np.float32
    assert explanation.heatmap.max() == 1 and explanation.heatmap.min() >= 0
    assert explanation.visible.all() and explanation.visible.shape == (30, 50)
    assert explanation.overlay().size == (50, 30)
    x, y = explanation.peak
    assert explanation.heatmap[y, x] == 1
    [same] = explainer.explain(Image.open(path))
    np.testing.assert_array_equal(same.signed, explanation.signed)
    assert same.source is None and explanation.source == str(path)
    with pytest.raises(ImageError):
        explainer.explain(tmp_path / "gone.png")


def test_ready_arrays(cnn) -> None:
    explainer = onnxcam.Explainer(cnn)
    image = images(1)
    [a], [b] = explainer.explain(image), explainer.explain(image[0])
    np.testing.assert_array_equal(a.signed, b.signed)
    assert a.heatmap.shape == (16, 16) and a.photo is None
    painted = kernels().paint(grey(image[0]), a.raw, a.view, colour_table(), 0.6, 0.5)
    np.testing.assert_array_equal(np.asarray(a.overlay()), painted)
    with pytest.raises(InputArrayError, match=r"'image' takes \[3, 16, 16\]"):
        explainer.explain(image[0, :2])
    with pytest.raises(InputArrayError, match=r"shape \[16, 16\]"):
        explainer.explain(image[0, 0])
    with pytest.raises(InputArrayError, match=r"takes float32. Convert it with .astype"):
        explainer.explain(image.astype(np.float64))
    with pytest.raises(InputArrayError, match="holds 2 images: use explain_batch"):
        explainer.explain(images(2))


def test_records_are_frozen_and_saved(cnn, tmp_path) -> None:
    pixels = RNG.integers(0, 256, (30, 50, 3)).astype(np.uint8)
    [explanation] = onnxcam.Explainer(cnn).explain(Image.fromarray(pixels))
    with pytest.raises(dataclasses.FrozenInstanceError):
        explanation.score = 1.0  # type: ignore[misc]
    for name in ("a.png", "a.jpg", "a.webp"):
        assert Image.open(explanation.save(tmp_path / name)).size == (50, 30)
    with np.load(explanation.save(tmp_path / "a.npz")) as arrays:
        assert set(arrays) == {"raw", "signed", "heatmap", "visible"}
        np.testing.assert_array_equal(arrays["signed"], explanation.signed)
    record = json.loads(explanation.save(tmp_path / "a.json").read_text())
    assert record["method"] == "grad-cam" and record["layer"] == "r2"
    assert record["raw"]["max"] == pytest.approx(float(explanation.raw.max()))
    with pytest.raises(OutputError, match="unknown suffix '.tga'"):
        explanation.save(tmp_path / "a.tga")
    assert sorted(p.name for p in tmp_path.glob("a.*")) == [
        "a.jpg",
        "a.json",
        "a.npz",
        "a.png",
        "a.webp",
    ]


def test_a_map_of_zeros_stays_zero(save) -> None:
    model = small_cnn()
    for tensor in model.graph.initializer:
        if tensor.name == "w3":
            weights = -np.abs(numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(weights, "w3"))
    explainer = onnxcam.Explainer(save(model), preprocess="unit")
    [explanation] = explainer.explain(Image.new("RGB", (20, 20), "red"))
    assert explanation.signed.max() <= 0 and explanation.signed.min() < 0
    assert not explanation.heatmap.any() and not explanation.raw.any()


def test_nan_weights_are_named(save) -> None:
    model = small_cnn()
    weights = np.array(numpy_helper.to_array(model.graph.initializer[2]))
    weights[0, 0, 0, 0] = np.nan
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(weights, "w2"))
    explainer = onnxcam.Explainer(save(model), preprocess="unit")
    with pytest.raises(WeightsError, match=r"not finite.* The weights 'w2' hold NaN"):
        explainer.explain(images(1)[0])


def test_nan_input_is_not_blamed_on_the_weights(cnn) -> None:
    image = images(1)[0]
    image[0, 3, 3] = np.nan
    with pytest.raises(NotFiniteError, match="The weights are finite, so this input"):
        onnxcam.Explainer(cnn).explain(image)


def test_preprocessing_is_found_in_order(save, tmp_path, recwarn) -> None:
    path = save(small_cnn())
    with pytest.warns(
        UserWarning, match="guessed that its images are RGB with ImageNet's mean.*--preprocess"
    ):
        guessed = onnxcam.Explainer(path)
    assert guessed.preprocess_from == "guess"
    model = small_cnn()
    onnx.helper.set_model_props(
        model,
        {
            "Image.BitmapPixelFormat": "Bgr8",
            "Image.NominalPixelRange": "Normalized_0_1",
            "names": "{0: 'a', 1: 'b', 2: 'c', 3: 'd', 4: 'e'}",
        },
    )
    path = save(model, "meta.onnx")
    described = onnxcam.Explainer(path)
    assert described.preprocess_from == "metadata of meta.onnx"
    assert (described.preprocess.color, described.preprocess.divide) == ("BGR", 255.0)
    assert described.labels == ("a", "b", "c", "d", "e")
    path.with_suffix(".toml").write_text("[preprocess]\ndivide = 2\n")
    assert onnxcam.Explainer(path).preprocess.divide == 2
    card = tmp_path / "other.toml"
    card.write_text("[preprocess]\ndivide = 3\n")
    assert onnxcam.Explainer(path, preprocess=card).preprocess.divide == 3
    assert onnxcam.Explainer(path, preprocess={"divide": 4}).preprocess.divide == 4
    assert onnxcam.Explainer(path, preprocess="unit").preprocess.divide == 255
    with pytest.raises(PreprocessError, match=r"neither a known card nor a file.*torchvision"):
        onnxcam.Explainer(path, preprocess="torchvison")
    with pytest.raises(PreprocessError, match="gives images of 224x224, but .* takes 16x16"):
        onnxcam.Explainer(path, preprocess="torchvision")


def test_a_card_named_model_toml_counts_when_the_model_is_alone(save, tmp_path) -> None:
    path = save(small_cnn(), "net.onnx")
    (tmp_path / "model.toml").write_text("[preprocess]\ndivide = 5\n")
    assert onnxcam.Explainer(path).preprocess.divide == 5
    save(small_cnn(), "other.onnx")
    with pytest.warns(UserWarning, match="guessed"):
        onnxcam.Explainer(path)


def test_labels(cnn, tmp_path) -> None:
    lines = tmp_path / "labels.txt"
    lines.write_text("v\nw\nx\ny\nz\n")
    assert onnxcam.Explainer(cnn, labels=lines).labels == ("v", "w", "x", "y", "z")
    stored = tmp_path / "labels.json"
    stored.write_text('{"0": ["n01", "v"], "1": "w", "2": "x", "4": "z", "3": "y"}')
    assert onnxcam.Explainer(cnn, labels=stored).labels == ("v", "w", "x", "y", "z")
    stored.write_text('{"1": "v", "2": "w", "3": "x", "4": "y", "5": "z"}')  # from 0, or a gap?
    with pytest.raises(LabelsError, match="the indices are not 0 to 4"):
        onnxcam.Explainer(cnn, labels=stored)
    with pytest.raises(LabelsError, match="3 labels for a model of 5 classes"):
        onnxcam.Explainer(cnn, labels=["a", "b", "c"])
    with pytest.raises(LabelsError, match="no such file"):
        onnxcam.Explainer(cnn, labels=tmp_path / "gone.txt")


def test_models_with_more_inputs() -> None:
    explainer = onnxcam.Explainer(shared("models", "easy-vqa-keras.onnx"), preprocess="unit")
    image = np.random.default_rng(0).random((64, 64, 3), np.float32)
    question = np.zeros((1, 27), np.float32)
    question[0, [3, 5]] = 1
    [found] = explainer.explain(image, inputs={"input_2": question})
    [same] = explainer.explain(image, inputs={"input_2": question[0]})  # the batch axis left out
    np.testing.assert_array_equal(found.signed, same.signed)
    [other] = explainer.explain(image, found.target, inputs={"input_2": 1 - question})
    assert np.abs(other.signed - found.signed).max() > 1e-3 * np.abs(found.signed).max()
    batch = explainer.explain_batch([image] * 3, inputs={"input_2": question})
    for [one] in batch:
        np.testing.assert_allclose(one.signed, found.signed, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"besides the image 'input_1' it takes input_2 float32\[.*27\]. Give them: --input"),
        ({"input_3": 0}, r"input 'input_3' is none of its inputs. Nearest: input_2"),
        ({"input_1": 0}, r"input 'input_1' is the image"),
        ({"input_2": np.zeros((1, 26), "f")}, r"input 'input_2' of shape \[1, 26\]: it takes"),
        ({"input_2": np.zeros(27)}, r"of dtype float64: it takes float32. Convert it with .astype"),
    ],
)
def test_wrong_inputs(inputs, message) -> None:
    explainer = onnxcam.Explainer(shared("models", "easy-vqa-keras.onnx"), preprocess="unit")
    with pytest.raises(InputArrayError, match=message):
        explainer.explain(np.zeros((64, 64, 3), "f"), inputs=inputs)


def test_providers(cnn) -> None:
    assert onnxcam.Explainer(cnn, providers="cpu").providers == ["CPUExecutionProvider"]
    with pytest.raises(RuntimeMissingError, match="provider 'NoSuchProvider' is not in this"):
        onnxcam.Explainer(cnn, providers="NoSuchProvider")


def test_uint8_nhwc_and_grey_models(save) -> None:
    from .conftest import parse

    for shape, perm, channels, dtype in (
        ("N,16,16,3", [0, 3, 1, 2], 3, "uint8"),
        ("N,16,16,1", [0, 3, 1, 2], 1, "float"),
        ("N,1,16,16", [0, 1, 2, 3], 1, "float"),
    ):
        model = parse(
            f"""
            <ir_version: 7, opset_import: ["" : 13]>
            net ({dtype}[{shape}] image) => (float[N,4] scores) {{
                f = Cast <to=1> (image)
                t = Transpose <perm={perm}> (f)
                maps = Conv (t, w)
                relu = Relu (maps)
                pooled = GlobalAveragePool (relu)
                flat = Flatten (pooled)
                scores = MatMul (flat, head)
            }}
            """,
            {
                "w": RNG.normal(size=(6, channels, 3, 3)).astype("f"),
                "head": np.abs(RNG.normal(size=(6, 4))).astype("f"),
            },
        )
        with pytest.warns(UserWarning, match="guessed"):
            explainer = onnxcam.Explainer(save(model, f"m{channels}{dtype}.onnx"))
        photo = RNG.integers(0, 256, (24, 40, 3)).astype(np.uint8)
        [explanation] = explainer.explain(Image.fromarray(photo))
        assert explanation.raw.max() > 0 and explanation.heatmap.shape == (24, 40)
