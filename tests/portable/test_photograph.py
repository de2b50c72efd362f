"""A portable model that takes the photograph itself."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from PIL import Image

import onnxcam
from onnxcam.errors import MethodError, PreprocessError

from ..conftest import runtime, small_cnn

NORMAL = {"divide": 255, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25], "size": [16, 16]}
CARDS = {
    "squash": {"resize": "squash"},
    "squash-crop": {"resize": "squash", "shorter": 20, "interpolation": "box"},
    "squash-pad": {"resize": "squash", "shorter": 12},
    "shorter": {"resize": "shorter", "shorter": 20, "interpolation": "bicubic"},
    "lanczos": {"resize": "shorter", "interpolation": "lanczos", "color": "BGR"},
    "letterbox": {"resize": "letterbox", "pad": [1, 200, 30]},
    "nearest": {"resize": "shorter", "interpolation": "nearest"},
}


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.asarray(Image.open(onnxcam.default_photograph()).convert("RGB"))


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("size", [(60, 91), (97, 40), (9, 12)])
def test_like_the_explainer(card, size, photo, save) -> None:
    model, recipe = save(small_cnn()), {**NORMAL, **CARDS[card]}
    out = model.with_name("made.onnx")
    made = onnxcam.export(model, out, preprocess=recipe, with_preprocessing=True, overlay=True)
    proto = onnx.load(out)
    onnx.checker.check_model(proto, full_check=True)
    assert [i.name for i in proto.graph.input] == ["target", "photo"]
    kind = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, None)
    proto.graph.output.append(kind)
    seen = np.ascontiguousarray(photo[: size[0], 100 : 100 + size[1]])
    session = runtime(proto)
    names = [o.name for o in session.get_outputs()]
    found = dict(zip(names, session.run(None, {"photo": seen}), strict=True))
    explainer = onnxcam.Explainer(model, preprocess=recipe)
    prepared, _ = explainer.preprocess.apply(seen, "NCHW", "float32")
    levels = np.abs(found["image"] - prepared) * np.array(NORMAL["std"])[:, None, None] * 255
    # Pillow 13 resizes rows or columns first, whichever is less work, and rounds between. A pixel
    # on the edge of what is nearest, or of a box, is of either side.
    assert (levels > 1.01).mean() < (0.2 if card in ("nearest", "squash-crop") else 1e-9)
    assert levels.mean() < 1
    if card == "nearest" and size == (9, 12):  # so many pixels lie half-way that the map moves
        return
    one = explainer.explain(seen)[0]
    assert found["targets"][0, 0] == one.target
    assert found["heatmap"].shape == (1, 1, *size)
    np.testing.assert_allclose(found["heatmap"][0, 0], one.heatmap, atol=5e-2)
    assert np.corrcoef(found["heatmap"].ravel(), one.heatmap.ravel())[0, 1] > 0.999
    painted, picture = found["overlay"][0].astype(int), np.asarray(one.overlay()).astype(int)
    assert made.overlays == {"grad-cam": "overlay"} and painted.shape == picture.shape
    assert np.abs(painted - picture).mean() < 1


def test_what_cannot_be_painted_is_refused(save) -> None:
    model = save(small_cnn(), toml="[preprocess]\ndivide = 255\n")
    with pytest.raises(PreprocessError, match="needs --with-preprocessing"):
        onnxcam.export(model, model.with_name("no.onnx"), overlay=True)
    with pytest.raises(MethodError, match="--method grad-cam"):
        onnxcam.export(
            model,
            model.with_name("no.onnx"),
            method="saliency",
            with_preprocessing=True,
            overlay=True,
        )
    fixed = save(small_cnn(dynamic=False), "fixed.onnx", toml="[preprocess]\ndivide = 255\n")
    onnxcam.export(fixed, model.with_name("one.onnx"), with_preprocessing=True)
