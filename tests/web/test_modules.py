"""The page's scripts compute what Python computes, number by number."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnxcam.imaging.colour import colour_table
from onnxcam.imaging.preprocess import Geometry, Placement, Preprocess
from onnxcam.kernels import reference
from onnxcam.surgeon.plan import DetectorFacts
from onnxcam.targets.detections import detections
from tests.web.browser import call, plain, received, sent

PREPARE = """
    const { fit, geometry, normalise } = await import("./pixels.js");
    const image = { data: bytes(photo), width, height, channels: 3 };
    const placed = geometry(settings, width, height);
    const numbers = normalise(fit(image, settings, placed), settings, layout, dtype);
    return { numbers: text(numbers), placed };
"""
IMAGENET = {"divide": 255.0, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def picture(height: int, width: int) -> np.ndarray:
    """A smooth picture with edges and noise."""
    rng = np.random.default_rng(height)
    y, x = np.mgrid[:height, :width]
    waves = np.stack(
        [np.sin(x / 7) + np.cos(y / 9), np.sin(x * y / 300), (x // 8 + y // 5) % 2], -1
    )
    return np.clip(128 + 90 * waves + rng.normal(0, 20, waves.shape), 0, 255).astype(np.uint8)


def columns_first(resize: Callable[..., Image.Image]) -> Callable[..., Image.Image]:
    """Fix the order of Pillow's two passes, which since Pillow 13 depends on the sizes.

    Each pass is rounded to 8 bits, so that the order shows in the last digit.
    """

    def ordered(image: Image.Image, size: Any, filter_: Any, box: Any = None) -> Image.Image:
        left, top, right, bottom = box or (0, 0, *image.size)
        across = resize(image, (size[0], image.height), filter_, (left, 0, right, image.height))
        return resize(across, size, filter_, (0, top, size[0], bottom))

    return ordered


@pytest.mark.parametrize(
    ("settings", "size", "layout", "dtype"),
    [
        (Preprocess(**IMAGENET, resize="shorter", shorter=40), (97, 61), "NCHW", "float32"),
        (Preprocess(interpolation="bicubic", resize="shorter"), (61, 180), "NHWC", "float32"),
        (Preprocess(interpolation="lanczos", color="BGR"), (301, 77), "NCHW", "float32"),
        (Preprocess(interpolation="box", resize="letterbox"), (50, 301), "NCHW", "uint8"),
        (Preprocess(interpolation="nearest", shorter=45), (201, 77), "NCHW", "uint8"),
        (Preprocess(resize="letterbox", pad=(1, 2, 3), divide=255.0), (20, 11), "NHWC", "float32"),
        (Preprocess(color="grey", divide=255.0, mean=(0.5,)), (20, 31), "NCHW", "float32"),
        (Preprocess(divide=2.0, mean=(30.0,)), (33, 31), "NHWC", "int8"),
        (Preprocess(resize="shorter"), (4, 900), "NCHW", "uint8"),  # a panorama
        (Preprocess(), (32, 48), "NCHW", "uint8"),  # of the right size already
    ],
    ids=lambda v: (
        "" if not isinstance(v, Preprocess) else f"{v.resize}-{v.interpolation}-{v.color}"
    ),
)
def test_photographs_are_prepared_as_by_pillow(
    modules: Any,
    settings: Preprocess,
    size: tuple[int, int],
    layout: str,
    dtype: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = dataclasses.replace(settings, size=(32, 48))
    photo = picture(*size)
    usual, geometry = settings.apply(photo, layout, dtype)
    monkeypatch.setattr(Image.Image, "resize", columns_first(Image.Image.resize))
    right, _ = settings.apply(photo, layout, dtype)
    found = call(
        modules,
        PREPARE,
        photo=sent(photo),
        height=size[0],
        width=size[1],
        settings=plain(dataclasses.asdict(settings)),
        layout=layout,
        dtype=dtype,
    )
    numbers = received(found["numbers"], "float32").reshape(right.shape)
    np.testing.assert_array_equal(numbers, right.astype("float32"))
    levels = np.abs(numbers - usual) * settings.divide * np.mean(settings.std)
    assert levels.mean() < 0.5 and levels.max() < 5
    assert found["placed"]["rows"] == dataclasses.asdict(geometry.rows)
    assert found["placed"]["columns"] == dataclasses.asdict(geometry.columns)


@pytest.mark.parametrize("resize", ["shorter", "letterbox", "squash"])
def test_photographs_of_any_size_lie_where_python_puts_them(modules: Any, resize: Any) -> None:
    settings = Preprocess(
        resize=resize, size=(224, 200), shorter=256 if resize == "shorter" else None
    )
    rng = np.random.default_rng(6)
    sizes = [(506, 640), (425, 640), (224, 200), (1, 1), *rng.integers(2, 900, (300, 2)).tolist()]
    placements = call(
        modules,
        """
        const { geometry } = await import("./pixels.js");
        return sizes.map(([height, width]) => geometry(settings, width, height));
        """,
        sizes=sizes,
        settings=plain(dataclasses.asdict(settings)),
    )
    for (height, width), found in zip(sizes, placements, strict=True):
        _, right = settings.apply(np.zeros((height, width, 3), np.uint8), "NHWC", "uint8")
        assert found["rows"] == dataclasses.asdict(right.rows)
        assert found["columns"] == dataclasses.asdict(right.columns)


HEAT = """
    const { coloured, onPhotograph, whereabouts } = await import("./paint.js");
    const data = new Float32Array(bytes(map).buffer);
    const heat = onPhotograph({ data, width, height }, placed, photo[1], photo[0]);
    return {
      heat: text(heat.data), colours: text(coloured(heat, bytes(colours)).data),
      where: whereabouts(heat),
    };
"""


@pytest.mark.parametrize("resize", ["shorter", "letterbox", "squash"])
def test_heatmaps_lie_where_python_puts_them(modules: Any, resize: Any) -> None:
    settings = Preprocess(
        resize=resize, shorter=60 if resize != "letterbox" else None, size=(48, 32)
    )
    _, geometry = settings.apply(picture(90, 131), "NCHW", "uint8")
    raw = np.random.default_rng(3).random((7, 5)).astype(np.float32) ** 3
    right = reference.upsample(raw, geometry.view(7, 5), normalise=True)
    placed = {"rows": geometry.rows, "columns": geometry.columns}
    found = call(
        modules,
        HEAT,
        map=sent(raw),
        height=7,
        width=5,
        placed={name: dataclasses.asdict(line) for name, line in placed.items()},
        photo=[90, 131],
        colours=sent(colour_table()),
    )
    heat = received(found["heat"], "float32").reshape(90, 131)
    np.testing.assert_allclose(heat, right, atol=1e-6)
    y, x = np.unravel_index(right.argmax(), right.shape)
    words = (["upper", "middle", "lower"][3 * y // 90], ["left", "centre", "right"][3 * x // 131])
    assert found["where"] in (" ".join(words), "in the centre")
    # Blended by the browser with opacity 0.6 it is what Python paints.
    painted = received(found["colours"], "uint8").reshape(90, 131, 4).astype(float)
    photo = picture(90, 131)
    weight = 0.6 * painted[..., 3:] / 255
    blended = (1 - weight) * photo + weight * painted[..., :3]
    wanted = reference.paint(photo, raw, geometry.view(7, 5), colour_table(), 0.6, 1.0)
    assert np.abs(blended - wanted).max() < 3


READINGS = {
    "yolo": DetectorFacts(corners=True),
    "nms": DetectorFacts(corners=True, overlap=0.3, most=2.0, threshold=0.2),
    "final": DetectorFacts(corners=True, final=True),
    "no boxes": DetectorFacts(offsets=True),
}


@pytest.mark.parametrize("kind", READINGS)
def test_detections_are_those_of_python(modules: Any, kind: str) -> None:
    """From rows of probabilities: a few sure boxes, near copies of them, and noise."""
    rng = np.random.default_rng(2)
    reading = READINGS[kind]
    values = np.concatenate([rng.random((40, 4)) * 25, rng.random((40, 3)) / 10], axis=1)
    values[:, 2:4] += 30
    values[7:9, :4], values[20, :4] = [20, 20, 32, 30], [30, 31, 42, 40]
    values[9, :4] = [-5, 21, 33, 31]  # partly beside the photograph
    values[7, 5], values[8, 5], values[9, 5], values[20, 6] = 0.9, 0.8, 0.3, 0.6
    if reading.final:
        values[:, 4], values[:, 5] = rng.random(40), rng.integers(0, 3, 40)
    geometry = Geometry(Placement(90, 64, 0.6, 5.0), Placement(128, 64, 0.5, 0.0))
    right = detections(values, reading, geometry, None)
    assert len(right) >= 2
    classes = values[:, 5] if reading.final else values[:, 4:].argmax(axis=1)
    found = call(
        modules,
        """
        const { detections } = await import("./detections.js");
        return detections({ boxes: Float64Array.from(boxes), classes, sure }, reading, placed);
        """,
        boxes=(values[:, :4] * (not reading.offsets)).ravel().tolist(),
        classes=classes.astype(int).tolist(),
        sure=(values[:, 4] if reading.final else values[:, 4:].max(axis=1)).tolist(),
        reading=dataclasses.asdict(reading),
        placed={n: dataclasses.asdict(getattr(geometry, n)) for n in ("rows", "columns")},
    )
    assert [(d["class"], d["row"]) for d in found] == [(d.index, d.anchor) for d in right]
    assert [d["score"] for d in found] == [d.probability for d in right]
    assert (right[0].box is None) == reading.offsets
    for mine, one in zip(found, right, strict=True):
        np.testing.assert_allclose(mine.get("box") or (), one.box or (), atol=1e-9)


READ = """
    const { classOf, said } = await import("./page.js");
    const page = { labels: ["tabby", "tiger cat", "crane", "crane"] };
    const said_ = scores.map((s) => said(s, shares));
    return { classes: words.map((w) => classOf(page, w, 4)), said: said_ };
"""


def test_classes_are_named_and_scores_are_said(modules: Any) -> None:
    words = {
        "Tiger cat": 1,
        "3": 3,
        "crane (3)": 3,
        "crane": 2,
        "tig": 1,
        "4": -1,
        "dog": -1,
        "": -1,
    }
    found = call(modules, READ, words=list(words), shares=True, scores=[0.926, 0.0449, 1])
    assert found["classes"] == list(words.values())
    assert found["said"] == ["93 %", "4.5 %", "100 %"]
    assert call(modules, READ, words=[], shares=False, scores=[9.247, -1])["said"] == [
        "9.25",
        "-1.00",
    ]
