"""Input tensors, and the way back to the photograph."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from onnxcam.errors import PreprocessError
from onnxcam.imaging.preprocess import Preprocess
from onnxcam.kernels import reference

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (60, 100, 3)).astype(np.uint8)


def test_normalisation_by_hand() -> None:
    settings = Preprocess(size=(60, 100), divide=255, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    tensor, _ = settings.apply(PHOTO, "NCHW", "float32")
    assert tensor.shape == (1, 3, 60, 100) and tensor.dtype == np.float32
    expected = (PHOTO / 255 - [0.4, 0.5, 0.6]) / [0.2, 0.3, 0.4]
    np.testing.assert_allclose(tensor[0].transpose(1, 2, 0), expected, atol=2e-6)
    last, _ = settings.apply(PHOTO, "NHWC", "float32")
    np.testing.assert_array_equal(last[0], tensor[0].transpose(1, 2, 0))


def test_bgr_grey_and_integers() -> None:
    bgr, _ = Preprocess(color="BGR", size=(60, 100), mean=(1, 2, 3)).apply(PHOTO, "NCHW", "float32")
    np.testing.assert_allclose(bgr[0, 0], PHOTO[..., 2] - 1.0)
    np.testing.assert_allclose(bgr[0, 2], PHOTO[..., 0] - 3.0)
    grey, _ = Preprocess(color="grey", size=(60, 100)).apply(PHOTO, "NCHW", "float32")
    np.testing.assert_array_equal(grey[0, 0], np.asarray(Image.fromarray(PHOTO).convert("L")))
    pixels, _ = Preprocess(size=(60, 100)).apply(PHOTO, "NHWC", "uint8")
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels[0], PHOTO)
    codes, _ = Preprocess(size=(60, 100), mean=(128,)).apply(PHOTO, "NHWC", "int8")
    np.testing.assert_array_equal(codes[0], PHOTO.astype(int) - 128)


@pytest.mark.parametrize("size", [(60, 100), (100, 60), (61, 33), (300, 451)])
@pytest.mark.parametrize("resize", ["squash", "shorter", "letterbox"])
def test_a_spot_comes_back_where_it_was(resize: str, size: tuple[int, int]) -> None:
    """Find a bright spot in the tensor, and map a peak there back to the photograph."""
    height, width = size
    photo = np.zeros((height, width, 3), np.uint8)
    y, x = int(height * 0.4), int(width * 0.55)
    photo[y - 3 : y + 4, x - 3 : x + 4] = 255
    settings = Preprocess(resize=resize, size=(64, 64), pad=(0,))
    tensor, geometry = settings.apply(photo, "NCHW", "float32")
    heat = reference.upsample(tensor[0, 0], geometry.view(64, 64))
    rows, columns = np.nonzero(heat > heat.max() * 0.8)
    assert abs(rows.mean() - y) <= max(1.0, height / 64)
    assert abs(columns.mean() - x) <= max(1.0, width / 64)


def test_visible_part() -> None:
    view = Preprocess(resize="squash", size=(64, 64)).apply(PHOTO, "NCHW", "float32")[1].view(7, 7)
    assert (view.rows.first, view.rows.last) == (0, 60)
    assert (view.columns.first, view.columns.last) == (0, 100)
    crop = Preprocess(resize="shorter", size=(60, 60)).apply(PHOTO, "NCHW", "float32")[1]
    view = crop.view(7, 7)
    assert (view.rows.first, view.rows.last) == (0, 60)
    assert (view.columns.first, view.columns.last) == (20, 80)
    box = Preprocess(resize="letterbox", size=(50, 50)).apply(PHOTO, "NCHW", "float32")[1]
    view = box.view(5, 5)
    assert (view.rows.first, view.rows.last, view.columns.last) == (0, 60, 100)
    assert view.rows.scale == pytest.approx(0.05)  # half a pixel of input each, 10 a map element


def test_shorter_side_crops_the_same_pixels_as_pillow() -> None:
    settings = Preprocess(resize="shorter", shorter=80, size=(64, 64))
    tensor, _ = settings.apply(PHOTO, "NHWC", "float32")
    image = Image.fromarray(PHOTO).resize((133, 80), Image.Resampling.BILINEAR)
    left, top = round((133 - 64) / 2), 8
    expected = np.asarray(image.crop((left, top, left + 64, top + 64)))
    assert np.abs(tensor[0] - expected).max() <= 1 or np.array_equal(
        tensor[0],
        np.asarray(image.crop((left - 1, top, left + 63, top + 64))),
    )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"colour": "RGB"}, r"unknown key 'colour'. Nearest: color"),
        ({"color": "HSV"}, "color = 'HSV' is none of RGB, BGR, grey"),
        ({"resize": "stretch"}, "is none of squash, shorter, letterbox"),
        ({"mean": [1, 2]}, "mean needs 1 or 3 numbers"),
        ({"std": 0}, "must not be 0"),
        ({"size": [0, 5]}, "size must be positive"),
        ({"size": "big"}, "card: "),
    ],
)
def test_wrong_cards(table: dict[str, object], message: str) -> None:
    with pytest.raises(PreprocessError, match=message):
        Preprocess.from_dict(table, "card")
