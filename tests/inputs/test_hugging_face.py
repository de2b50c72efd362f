"""``config.json`` and ``preprocessor_config.json`` of Hugging Face beside a model."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import onnxcam
from onnxcam.errors import LabelsError, PreprocessError
from onnxcam.inputs.hugging_face import preprocess

from ..conftest import small_cnn

NAMES = ["ant", "bee", "cat", "dog", "eel"]
PHOTO = Image.fromarray(np.random.default_rng(3).integers(0, 256, (90, 130, 3)).astype(np.uint8))
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]


def _squash(photo: Image.Image, height: int, width: int, filter_: Any) -> Image.Image:
    return photo.resize((width, height), filter_)


def _shorter(photo: Image.Image, edge: int, filter_: Any) -> Image.Image:
    short = min(photo.size)
    width, height = (edge if n == short else int(n * edge / short) for n in photo.size)
    return photo.resize((width, height), filter_)


def _crop(photo: Image.Image, height: int, width: int) -> Image.Image:
    left, top = (photo.width - width) // 2, (photo.height - height) // 2
    return photo.crop((left, top, left + width, top + height))


BILINEAR, BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
CASES: dict[str, tuple[dict[str, Any], Image.Image]] = {
    "vit": (
        {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 48}, "resample": 2},
        _squash(PHOTO, 32, 48, BILINEAR),
    ),
    "old vit": (
        {"feature_extractor_type": "ViTFeatureExtractor", "size": 32, "resample": 2},
        _squash(PHOTO, 32, 32, BILINEAR),
    ),
    "clip": (
        {"feature_extractor_type": "CLIPFeatureExtractor", "size": 32, "crop_size": 32, "do_center_crop": True},
        _crop(_shorter(PHOTO, 32, BICUBIC), 32, 32),
    ),
    "mobilenet": (
        {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True, "resample": 2},
        _crop(_shorter(PHOTO, 40, BILINEAR), 32, 32),
    ),
    "deit": (
        {"image_processor_type": "DeiTImageProcessor", "size": {"height": 40, "width": 40}, "crop_size": 32, "resample": 3},
        _crop(_squash(PHOTO, 40, 40, BICUBIC), 32, 32),
    ),
    "beit, which says that it does not crop": (
        {"size": {"height": 32, "width": 32}, "crop_size": 16, "do_center_crop": False, "resample": 3},
        _squash(PHOTO, 32, 32, BICUBIC),
    ),
    "convnext": (
        {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 56}, "crop_pct": 0.875, "resample": 3},
        _crop(_shorter(PHOTO, 64, BICUBIC), 56, 56),
    ),
    "resnet": (
        {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 56, "resample": 3},
        _crop(_shorter(PHOTO, 64, BICUBIC), 56, 56),
    ),
    "large convnext": (
        {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}, "crop_pct": 0.95, "resample": 3},
        _squash(PHOTO, 384, 384, BICUBIC),
    ),
    "poolformer": (
        {"feature_extractor_type": "PoolFormerFeatureExtractor", "size": 36, "crop_size": 32, "crop_pct": 0.9, "resample": 3, "do_center_crop": True},
        _crop(_shorter(PHOTO, 40, BICUBIC), 32, 32),
    ),
    "levit": (
        {"image_processor_type": "LevitImageProcessor", "size": {"shortest_edge": 56}, "crop_size": 56, "resample": 3, "do_center_crop": True},
        _crop(_shorter(PHOTO, 64, BICUBIC), 56, 56),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_images_are_prepared_as_there(tmp_path: Path, name: str) -> None:
    """Against Pillow and NumPy, step by step."""
    settings, resized = CASES[name]
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps({**settings, "image_mean": MEAN, "image_std": STD}))
    made = preprocess(file)
    assert made is not None and made.size == (resized.height, resized.width)
    tensor, geometry = made.apply(np.asarray(PHOTO), "NCHW", "float32")
    right = (np.asarray(resized) * (1 / 255) - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(tensor[0].transpose(1, 2, 0), right, atol=1e-5)
    middle = geometry.columns.photo / 2 * geometry.columns.scale + geometry.columns.offset
    assert middle == pytest.approx(resized.width / 2, abs=0.51)


@pytest.mark.parametrize(
    ("settings", "right"),
    [
        ({"do_normalize": False}, lambda p: p / 255),
        ({"do_rescale": False}, lambda p: (p - np.array(MEAN)) / np.array(STD)),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False}, lambda p: p / 127.5 - 1),
        ({"rescale_factor": 0.00784313725490196}, lambda p: (p / 127.5 - np.array(MEAN)) / np.array(STD)),
        ({"do_flip_channel_order": True, "do_normalize": False}, lambda p: p[..., ::-1] / 255),
    ],
)  # fmt: skip
def test_numbers(tmp_path: Path, settings: dict[str, Any], right: Any) -> None:
    file = tmp_path / "preprocessor_config.json"
    size = {"height": 90, "width": 130}
    file.write_text(json.dumps({"size": size, "image_mean": MEAN, "image_std": STD, **settings}))
    tensor, _ = preprocess(file).apply(np.asarray(PHOTO), "NHWC", "float32")
    np.testing.assert_allclose(
        tensor[0], right(np.asarray(PHOTO).astype(float)), rtol=1e-4, atol=1e-4
    )


def _repository(folder: Path, where: str, **config: Any) -> Path:
    path = folder / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(small_cnn().SerializeToString())
    (folder / "config.json").write_text(json.dumps(config))
    settings = {"size": {"height": 16, "width": 16}, "image_mean": MEAN, "image_std": STD}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return path


@pytest.mark.parametrize("where", ["model.onnx", "onnx/model.onnx"])
def test_beside_the_model_or_above_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    path = _repository(tmp_path, where, id2label={str(i): n for i, n in enumerate(NAMES)})
    monkeypatch.chdir(path.parent)
    for model in (path, Path(path.name)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # nothing is guessed
            explainer = onnxcam.Explainer(model)
        assert explainer.labels == tuple(NAMES)
        assert explainer.preprocess.mean == tuple(MEAN) and explainer.preprocess.divide == 255
        assert explainer.preprocess_from.endswith("preprocessor_config.json")
        assert explainer.explain(PHOTO, "dog")[0].target == 3


def test_in_order_of_their_numbers(tmp_path: Path) -> None:
    path = _repository(
        tmp_path, "m.onnx", id2label={"4": "e", "3": "d", "2": "c", "1": "b", "0": "a"}
    )
    assert onnxcam.Explainer(path).labels == tuple("abcde")


def test_stand_ins_are_no_labels(tmp_path: Path) -> None:
    path = _repository(tmp_path, "m.onnx", id2label={str(i): f"LABEL_{i}" for i in range(5)})
    assert onnxcam.Explainer(path).labels is None


@pytest.mark.parametrize(
    ("id2label", "message"),
    [
        ({"0": "a", "1": "b"}, "has 2 labels, and 'logits' has 5 classes"),
        ({"0": "a", "2": "b", "3": "c", "4": "d", "5": "e"}, "the indices are not 0 to 4"),
        ({"x": "a"}, "the keys are no indices"),
        (3, "cannot be read"),
    ],
)
def test_labels_that_do_not_fit(tmp_path: Path, id2label: Any, message: str) -> None:
    path = _repository(tmp_path, "m.onnx", id2label=id2label)
    with pytest.raises(LabelsError, match=message) as caught:
        onnxcam.Explainer(path)
    assert "config.json" in str(caught.value)
    assert onnxcam.Explainer(path, labels=NAMES).labels == tuple(NAMES)  # the way out


def test_a_list_that_lies_there_by_chance_is_a_warning(tmp_path: Path) -> None:
    path = _repository(tmp_path, "m.onnx", id2label={"0": "a", "1": "b"})
    (tmp_path / "other.onnx").write_bytes(path.read_bytes())
    with pytest.warns(UserWarning, match="has 2 labels, and 'logits' has 5 classes"):
        assert onnxcam.Explainer(path).labels is None


def test_files_of_other_tools(tmp_path: Path) -> None:
    path = _repository(tmp_path, "m.onnx")
    for text in ("[]", "{", '{"name": 3}'):
        (tmp_path / "config.json").write_text(text)
        (tmp_path / "preprocessor_config.json").write_text(text)
        with pytest.warns(UserWarning, match="guessed"):
            assert onnxcam.Explainer(path).labels is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": {"shortest_edge": 16, "longest_edge": 30}}, "is not followed"),
        ({"size": {"shortest_edge": 16}}, "keep their proportions"),
        ({"size": 16, "do_pad": True}, "'do_pad' is not followed"),
        ({"size": 16, "do_resize": False}, "'do_resize' is false"),
        ({"size": 16, "resample": 5}, "'resample' 5 is none of"),
        ({"size": [1, 2, 3]}, "cannot be read"),
        ({"size": 32}, "gives images of 32x32, but the input 'image' takes 16x16"),
        ({}, "it names no 'size'"),
    ],
)
def test_what_is_not_followed(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    path = _repository(tmp_path, "m.onnx")
    data = {"image_mean": MEAN, "image_std": STD, **settings}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(data))
    with pytest.raises(PreprocessError, match=message):
        onnxcam.Explainer(path)
    onnxcam.Explainer(path, preprocess="unit")  # the way out
